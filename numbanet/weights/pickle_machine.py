"""An interpreter of the pickle opcodes that a state_dict needs, which can build plain containers and nothing else.

A pickle is a program for a stack machine; Python's own machine calls whatever function a file names. This one knows the functions
that it is given, which only describe tensors (`torch_objects.py`), and stops at all other names and opcodes. Time and memory are
bounded by limits on opcodes, bytes, and the kinds of keys, whose hashes a file could otherwise make collide.

The opcodes are those of protocols 2 to 4 (PEP 307, PEP 3154, and `Lib/pickletools.py`).
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable

from numbanet.errors import CheckpointError

MAX_OPCODES = 500_000           # about 12,000 tensors
MAX_BYTES = 32 << 20
MAX_TEXT = 1 << 20              # bytes of one string
LARGEST_KEY = 1 << 31

# What the interpreter leaves out, by the name under which it is known.
_REFUSED = {b"i": "INST", b"o": "OBJ", b"\x81": "NEWOBJ", b"\x92": "NEWOBJ_EX", b"\x82": "EXT1", b"\x83": "EXT2", b"\x84": "EXT4",
            b"P": "PERSID", b"I": "INT", b"L": "LONG", b"S": "STRING", b"V": "UNICODE", b"F": "FLOAT", b"p": "PUT", b"g": "GET",
            b"d": "DICT", b"l": "LIST", b"0": "POP", b"1": "POP_MARK", b"2": "DUP", b"\x8b": "LONG4", b"T": "BINSTRING"}


class Machine:
    """Runs one pickle after another from a buffer.

    Parameters
    ----------
    data : buffer
    functions : dict
        (module, name) of every name a pickle may mention, and what stands for it: a function, which REDUCE may call, or a value.
    persistent : function
        From the description of a storage (BINPERSID) to an object.
    """

    def __init__(self, data, functions: dict, persistent: Callable | None = None):
        self.data, self.functions, self.persistent = data, functions, persistent
        self.position = 0

    def load(self, position: int | None = None):
        """The object of the pickle at `position`, by default behind the one before."""
        self.position = self.position if position is None else position
        self.end = min(len(self.data), self.position + MAX_BYTES)
        self.stack, self.marks, self.memo, self.protocol = [], [], {}, 2
        for _ in range(MAX_OPCODES):
            code = self.take(1)
            if code == b".":
                return self.pop()
            step = _STEPS.get(code)
            if step is None or step[0] > self.protocol:
                raise self.refused(f"the opcode 0x{code.hex()} ({_REFUSED.get(code, 'unknown')})")
            step[1](self)
        raise CheckpointError(f"a pickle of more than {MAX_OPCODES} opcodes")

    def refused(self, what: str) -> CheckpointError:
        return CheckpointError(f"byte {self.position - 1} of the pickle has {what}, which a state_dict does not need and numbanet does not "
                               "execute; save model.state_dict() and nothing else")

    # Reading
    def take(self, count: int) -> bytes:
        start, self.position = self.position, self.position + count
        if self.position > self.end:
            raise CheckpointError(f"the pickle is truncated, or longer than {MAX_BYTES} bytes")
        return bytes(self.data[start:self.position])

    def unpack(self, layout: str):
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def text(self, length: int) -> str:
        if length > MAX_TEXT:
            raise CheckpointError(f"the pickle has a string of {length} bytes; at most {MAX_TEXT} are read")
        try:
            return self.take(length).decode()
        except UnicodeDecodeError as error:
            raise CheckpointError(f"the pickle has a string that is not UTF-8 ({error.reason})") from error

    def line(self) -> str:
        found = bytes(self.data[self.position:min(self.end, self.position + 256)]).partition(b"\n")
        if not found[1]:
            raise CheckpointError("the pickle has a name without end")
        self.position += len(found[0]) + 1
        return found[0].decode(errors="backslashreplace")

    # The stack
    def push(self, value) -> None:
        self.stack.append(value)

    def pop(self):
        """The top of the stack, never from below the last mark."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise CheckpointError("the pickle takes from an empty stack")
        return self.stack.pop()

    def pop_to_mark(self) -> list:
        if not self.marks:
            raise CheckpointError("the pickle lacks a mark")
        mark = self.marks.pop()
        values = self.stack[mark:]
        del self.stack[mark:]
        return values

    def top(self, kind: type, what: str):
        if len(self.stack) <= (self.marks[-1] if self.marks else 0) or not isinstance(self.stack[-1], kind):
            raise CheckpointError(f"the pickle adds {what} to no {kind.__name__}")
        return self.stack[-1]

    # Opcodes that do more than push one value
    def declare_protocol(self) -> None:
        self.protocol = self.take(1)[0]
        if not 2 <= self.protocol <= 4:
            raise CheckpointError(f"a pickle of protocol {self.protocol}; 2 to 4 are read, and 2 is what torch.save writes")

    def set_items(self, values: list) -> None:
        target = self.top(dict, "entries")
        if len(values) % 2:
            raise CheckpointError("the pickle has a key without value")
        for key, value in zip(values[::2], values[1::2]):
            target[self.key(key)] = value

    @staticmethod
    def key(key):
        if type(key) not in (str, int, bool) or type(key) is int and not -LARGEST_KEY <= key < LARGEST_KEY:
            raise CheckpointError(f"the pickle has a key of type {type(key).__name__}; expected strings or small integers")
        return key

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise CheckpointError("the pickle recalls what it never stored")
        self.push(self.memo[index])

    def put(self, index: int) -> None:
        self.memo[index] = self.top(object, "a name")

    def find(self, module: str, name: str) -> None:
        if (module, name) not in self.functions:
            kind = f"{module}.{name}"
            raise CheckpointError(f"the file holds {kind[:120]}, which is no part of a state_dict: numbanet executes no code of files. "
                                  "Load it with the program that wrote it and save model.state_dict()")
        self.push(self.functions[module, name])

    def find_on_stack(self) -> None:
        name, module = self.pop(), self.pop()
        if type(name) is not str or type(module) is not str:
            raise CheckpointError("the pickle has a global that is not named by strings")
        self.find(module, name)

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not callable(function) or type(arguments) is not tuple:
            raise self.refused("a call of what is no function")
        try:
            self.push(function(*arguments))
        except TypeError as error:
            raise CheckpointError(f"the pickle describes a tensor in another way than PyTorch does ({str(error)[:120]})") from error

    def build(self) -> None:
        """The attributes of a state_dict (its `_metadata`) are of no use here."""
        if type(self.pop()) is not dict or type(self.top(object, "a state")) is not OrderedDict:
            raise self.refused("the state of an object (BUILD)")

    def load_persistent(self) -> None:
        if self.persistent is None:
            raise self.refused("a storage (BINPERSID) where none can be")
        self.push(self.persistent(self.pop()))


def _tuple(count: int) -> Callable:
    def step(machine: Machine) -> None:
        values = [machine.pop() for _ in range(count)]
        machine.push(tuple(reversed(values)))
    return step


def _extend(machine: Machine) -> None:
    values = machine.pop_to_mark()
    machine.top(list, "items").extend(values)


def _long(machine: Machine) -> None:
    machine.push(int.from_bytes(machine.take(machine.take(1)[0]), "little", signed=True))


def _append(machine: Machine) -> None:
    value = machine.pop()
    machine.top(list, "items").append(value)


def _add_to_set(machine: Machine) -> None:
    values = machine.pop_to_mark()
    machine.top(set, "items").update(map(machine.key, values))


def _set_item(machine: Machine) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


def _number(layout: str) -> Callable:
    return lambda machine: machine.push(machine.unpack(layout))


def _text(layout: str) -> Callable:
    return lambda machine: machine.push(machine.text(machine.unpack(layout)))


def _bytes(layout: str) -> Callable:
    return lambda machine: machine.push(machine.take(machine.unpack(layout)))


def _constant(value) -> Callable:
    return lambda machine: machine.push(value)


# The protocol that introduced an opcode, and what it does.
_STEPS: dict[bytes, tuple[int, Callable[[Machine], None]]] = {
    b"\x80": (2, Machine.declare_protocol),
    b"(": (2, lambda machine: machine.marks.append(len(machine.stack))),
    b"N": (2, _constant(None)),
    b"\x88": (2, _constant(True)),
    b"\x89": (2, _constant(False)),
    b"J": (2, _number("<i")),
    b"K": (2, _number("<B")),
    b"M": (2, _number("<H")),
    b"\x8a": (2, _long),
    b"G": (2, _number(">d")),
    b"X": (2, _text("<I")),
    b"U": (2, _text("<B")),                     # Python 2's str
    b"]": (2, lambda machine: machine.push([])),
    b"}": (2, lambda machine: machine.push({})),
    b")": (2, _constant(())),
    b"t": (2, lambda machine: machine.push(tuple(machine.pop_to_mark()))),
    b"\x85": (2, _tuple(1)),
    b"\x86": (2, _tuple(2)),
    b"\x87": (2, _tuple(3)),
    b"a": (2, _append),
    b"e": (2, _extend),
    b"s": (2, _set_item),
    b"u": (2, lambda machine: machine.set_items(machine.pop_to_mark())),
    b"h": (2, lambda machine: machine.get(machine.unpack("<B"))),
    b"j": (2, lambda machine: machine.get(machine.unpack("<I"))),
    b"q": (2, lambda machine: machine.put(machine.unpack("<B"))),
    b"r": (2, lambda machine: machine.put(machine.unpack("<I"))),
    b"c": (2, lambda machine: machine.find(machine.line(), machine.line())),
    b"R": (2, Machine.reduce),
    b"b": (2, Machine.build),
    b"Q": (2, Machine.load_persistent),
    b"B": (3, _bytes("<I")),
    b"C": (3, _bytes("<B")),
    b"\x8c": (4, _text("<B")),
    b"\x8d": (4, _text("<Q")),
    b"\x8f": (4, lambda machine: machine.push(set())),
    b"\x90": (4, _add_to_set),
    b"\x93": (4, Machine.find_on_stack),
    b"\x94": (4, lambda machine: machine.put(len(machine.memo))),
    b"\x95": (4, lambda machine: machine.unpack("<Q")),         # the length of a frame
}
