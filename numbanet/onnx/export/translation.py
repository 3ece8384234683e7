"""From a program, whose primitives may write in place and look at one memory through views, to ONNX nodes, whose values never change.

A write gives the value another name. Where its memory is seen by others that are read later, the written part is put back into the
whole, and views are taken again when they are read.
"""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np

from numbanet.backends import PRIMITIVES
from numbanet.errors import UnsupportedOperationError
from numbanet.graph import Value
from numbanet.onnx.export.builder import Builder
from numbanet.onnx.export.program import Call, Program
from numbanet.onnx.export.registry import TRANSLATIONS, Operand
from numbanet.onnx.export.shape import inverse

CHANGED_FIRST = ("slice_put", "index_put")      # primitives whose result is their first operand, changed


def unsupported(program_nodes) -> list[str]:
    """What of a graph has no translation: one line a primitive, with the layers that use it."""
    users: dict[str, list[str]] = {}
    for node in program_nodes:
        if node.primitive not in TRANSLATIONS:
            paths = users.setdefault(node.primitive, [])
            if node.path not in paths:
                paths.append(node.path)
    return [f"{name} (in {', '.join(path or 'the model itself' for path in paths)})" for name, paths in sorted(users.items())]


@contextmanager
def _located(where: str):
    """Errors from inside say where."""
    try:
        yield
    except UnsupportedOperationError as error:
        raise UnsupportedOperationError(f"onnx.save: {where}: {error}") from None


class Translator:
    """Adds the nodes of a program to a :class:`Builder`; afterwards :meth:`outputs` tells what the results are called."""

    def __init__(self, program: Program, builder: Builder, renamed: dict[str, str]):
        self.program, self.builder, self._renamed = program, builder, renamed
        self._names: dict[Value, str | np.ndarray] = {}
        self._views: dict[Value, tuple[Value, Call]] = {}       # view -> what it is a view of, and how
        self._versions: dict[Value, int] = {}                   # of the memory of a value that is no view
        self._seen: dict[Value, int] = {}                       # the version that a view's name is of
        self._last: dict[Value, int] = {v: len(program.calls) for v in program.graph.outputs}
        for position in reversed(range(len(program.calls))):
            for v in program.calls[position].operands():
                self._last.setdefault(v, position)

    def bind(self, value: Value, name: str) -> None:
        """Say what an input is called."""
        self._names[value] = name

    def run(self) -> None:
        """Translate all calls, in order."""
        for position, call in enumerate(self.program.calls):
            self.builder.path = self._renamed.get(call.path, call.path)
            self.builder.wanted = tuple(v is not None and v in self._last for v in call.results)
            with _located(f"{call.path or 'model'} {call.primitive}"):
                self._run(position, call)

    def outputs(self) -> list[str]:
        """What the outputs are called, after :meth:`run`."""
        self.builder.path = ""
        with _located("the outputs"):
            names = [self.name(v) for v in self.program.graph.outputs]
        return [self.builder.initializer("constant", name) if isinstance(name, np.ndarray) else name for name in names]

    def _run(self, position: int, call: Call) -> None:
        made = self._translate(call)
        in_place = call.writes_into or call.primitive in CHANGED_FIRST
        results = (next(call.operands()),) if call.primitive in CHANGED_FIRST else call.results
        for value, name in zip(results, made if isinstance(made, tuple) else (made,)):
            if value is None or name is None:
                continue
            if in_place:
                self._write(value, name, position, call)
                continue
            self._names[value] = name
            if PRIMITIVES[call.primitive].view:
                self._views[value] = next(call.operands()), call
                self._seen[value] = self._version(value)

    def name(self, value: Value) -> str | np.ndarray:
        """What the value is called now; a constant of one element is given itself, and called as the node that reads it."""
        if value in self._views and self._seen[value] != self._version(value):
            source, call = self._views[value]
            self._check_layout_is_known(call)
            self._names[value] = self._translate(call)
            self._seen[value] = self._version(value)
        elif value not in self._names:
            if value not in self.program.arrays:
                raise UnsupportedOperationError("statistics or positions that a primitive returns beside its result are read, and ONNX has "
                                                "no such output")
            self._names[value] = self._constant(value)
        return self._names[value]

    def _constant(self, value: Value) -> str | np.ndarray:
        array, shape = self.program.arrays[value], self.program.shapes[value]
        if value.kind == "state":
            return self.builder.initializer(self._renamed.get(value.name, value.name), array)
        if array.shape != shape:
            return self.builder.node("Expand", array, self.builder.ints(shape))
        return array if array.size == 1 else self.builder.initializer(self.builder.inside("constant"), array)

    def _operand(self, value: Value) -> Operand:
        return Operand(self.name(value), self.program.shapes[value], value.dtype)

    def _translate(self, call: Call):
        arguments = [self._operand(a) if isinstance(a, Value) else [self._operand(v) for v in a] if isinstance(a, list) else a
                     for a in call.arguments]
        return TRANSLATIONS[call.primitive](self.builder, *arguments)

    def _whole(self, value: Value) -> Value:
        while value in self._views:
            value = self._views[value][0]
        return value

    def _version(self, value: Value) -> int:
        return self._versions.get(self._whole(value), 0)

    def _write(self, value: Value, name: str, position: int, call: Call) -> None:
        whole = self._whole(value)
        if whole.kind == "state":
            raise UnsupportedOperationError(f"it changes {whole.name}, and the weights of an ONNX graph are constants; keep parameters and "
                                            "buffers as they are in evaluation mode")
        shared = [v for v in (whole, *(v for v in self._views if self._whole(v) is whole))
                  if v is not value and self._last.get(v, -1) > position]
        if shared:
            self._put_back(value, name)
        self._versions[whole] = self._version(whole) + 1
        self._names[value] = name
        if value in self._views:
            self._seen[value] = self._versions[whole]

    def _put_back(self, value: Value, name: str) -> None:
        """Give what `value` is a view of, up to the whole, the name of itself with the changed part."""
        while value in self._views:
            source, call = self._views[value]
            self._check_layout_is_known(call)
            part = Operand(name, self.program.shapes[value], value.dtype)
            name = self._into(self._operand(source), call, part)
            value = source
        self._names[value] = name

    def _into(self, source: Operand, call: Call, part: Operand) -> str:
        if call.primitive == "transpose":
            return TRANSLATIONS["transpose"](self.builder, part, inverse(call.arguments[1]))
        if call.primitive == "slice_view":
            return TRANSLATIONS["slice_put"](self.builder, source, call.arguments[1], part)
        raise UnsupportedOperationError(f"values are written through {call.primitive}, whose elements share memory; write into a clone()")

    def _check_layout_is_known(self, call: Call) -> None:
        if call.primitive == "reshape":         # which copies or does not, by the strides of its operand
            raise UnsupportedOperationError("a tensor is changed in place while it is also read under another shape; change a clone(), or "
                                            "reshape afterwards")
