"""PTX text as blocks of instructions: what `code.py` translates.

Names are made unique: those of an inner scope have its number behind them, those of a function that is called have the call's before them,
since its body is put in the place of the call. Only what Numba's compiler and `backends/cuda/ptx.py` write is read; anything else raises.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_LABEL = re.compile(r"([\w$]+)\s*:")
_NUMBERED = re.compile(r"(%[A-Za-z]+)\d+$")
_ARRAY = re.compile(r"\.(shared|local|global|const)\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$]+)(?:\[(\d*)\])?(?:\s*=\s*\{([^}]*)\})?$")
_PARAMETER = re.compile(r"\.param\s+(?:\.align\s+\d+\s+)?\.(\w+)\s+([\w$]+)(?:\[\d+\])?")
BYTES = {"8": 1, "16": 2, "32": 4, "64": 8}


@dataclass(frozen=True)
class Instruction:
    """`opcode` is split at its dots; operands are texts, of vectors tuples; `guard` is (predicate, whether it has to be false)."""

    opcode: tuple[str, ...]
    operands: tuple
    guard: tuple[str, bool] | None
    text: str


@dataclass
class Array:
    """Memory that the source declares: bytes, alignment, and what is in it."""

    size: int
    align: int
    content: bytes | None = None


@dataclass
class Block:
    """Instructions without a branch between them; `label` is "" where nobody jumps to it."""

    label: str
    instructions: list[Instruction] = field(default_factory=list)


@dataclass
class Kernel:
    """An entry: parameters in order as (type, name), types of registers by name, arrays by state space and name, blocks in order."""

    name: str
    parameters: list[tuple[str, str]]
    registers: dict[str, str]
    arrays: dict[str, dict[str, Array]]
    blocks: list[Block]


def parse(text: str) -> Kernel:
    """The one entry of a module."""
    text = _COMMENT.sub("", text)
    arrays, functions, entry = {"shared": {}, "local": {}, "global": {}}, {}, None
    at = 0
    while at < len(text):
        found = re.compile(r"\s*(\.version|\.target|\.address_size)[^\n]*\n|\s+").match(text, at)
        if found and found.end() > at:
            at = found.end()
            continue
        header = re.compile(r"(\.visible\s+)?\.(entry|func)\b([^{;]*)([{;])").match(text, at)
        if header is None:
            end = text.index(";", at)
            _declare(text[at:end].strip(), arrays)
            at = end + 1
            continue
        at = header.end()
        if header[4] == ";":                            # says only that there will be one
            continue
        end = _closing(text, at)
        if header[2] == "entry":
            entry = header[3], text[at:end]
        else:
            functions[re.search(r"([\w$]+)\s*\(", re.sub(r"^\s*\([^)]*\)", "", header[3]))[1]] = header[3], text[at:end]
        at = end + 1
    if entry is None:
        raise ValueError("the source has no entry")
    header, body = entry
    reader = _Reader(functions, arrays)
    reader.read(body, "")
    name = re.match(r"\s*([\w$]+)", header)[1]
    return Kernel(name, _PARAMETER.findall(header), reader.registers, arrays, reader.blocks)


def _closing(text: str, at: int) -> int:
    depth = 1
    while depth:
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        at += 1
    return at - 1


def _declare(statement: str, arrays, prefix: str = "") -> None:
    found = _ARRAY.search(statement)
    if found is None:
        raise ValueError(f"declaration: {statement}")
    space, align, kind, name, count, content = found.groups()
    item = BYTES[kind[1:]]
    values = None if content is None else bytes(int(v) for v in content.split(","))
    arrays["global" if space == "const" else space][prefix + name] = Array(item * int(count or (0 if "[" in statement else 1)),
                                                                           int(align or item), values)


class _Reader:
    """Statements of a body, and of what it calls, as blocks."""

    def __init__(self, functions, arrays):
        self.functions, self.arrays, self.registers, self.numbered = functions, arrays, {}, {}
        self.blocks, self.scopes, self.calls = [Block("")], 0, 0

    def read(self, body: str, prefix: str, parameters: dict[str, str] | None = None, after: str = "") -> None:
        """`parameters`: the caller's names of a called function's; `after`: where it returns to."""
        scopes, at = [{}], 0
        while True:
            at = re.compile(r"\s*").match(body, at).end()
            if at == len(body):
                return
            if body[at] in "{}":
                if body[at] == "{":
                    self.scopes += 1
                    scopes.append({"": self.scopes})
                else:
                    scopes.pop()
                at += 1
                continue
            label = _LABEL.match(body, at)
            if label:
                self.blocks.append(Block(prefix + label[1]))
                at = label.end()
                continue
            end = body.index(";", at)
            statement = " ".join(body[at:end].split())
            at = end + 1
            if statement.startswith("."):
                self._directive(statement, prefix, scopes)
            else:
                self._instruction(statement, prefix, scopes, parameters or {}, after)

    def _directive(self, statement: str, prefix: str, scopes) -> None:
        if statement.startswith((".pragma ", ".loc ")):
            return
        if statement.startswith(".param"):              # of a call, in its own scope
            name = _PARAMETER.match(statement)[2]
            scopes[-1][name] = f"{name}'{scopes[-1]['']}"
            return
        if not statement.startswith(".reg"):
            _declare(statement, self.arrays, prefix)
            return
        kind, names = re.match(r"\.reg\s+\.(\w+)\s+(.*)", statement).groups()
        for name in names.split(","):
            name = name.strip()
            many = re.match(r"(%[A-Za-z]+)<\d+>$", name)
            if many:
                self.numbered[prefix + many[1]] = kind
            else:
                unique = f"{prefix}{name}'{scopes[-1]['']}" if len(scopes) > 1 else prefix + name
                scopes[-1][name] = unique
                self.registers[unique] = kind

    def _name(self, name: str, prefix: str, scopes, parameters) -> str:
        for scope in reversed(scopes):
            if name in scope:
                return scope[name]
        found = _NUMBERED.match(name)
        if found and prefix + found[1] in self.numbered:
            self.registers[prefix + name] = self.numbered[prefix + found[1]]
            return prefix + name
        if name in parameters:
            return parameters[name]
        if prefix + name in self.arrays["local"]:
            return prefix + name
        return name

    def _operand(self, text: str, *names):
        text = text.strip()
        if text.startswith("{"):
            return tuple([self._operand(part, *names) for part in text[1:-1].split(",")])
        if text.startswith("["):
            inner, _, offset = text[1:-1].partition("+")
            return f"[{self._name(inner.strip(), *names)}+{int(offset or 0)}]"
        return self._name(text, *names)

    def _instruction(self, statement: str, prefix: str, scopes, parameters, after: str) -> None:
        guard = re.match(r"@(!?)(\S+)\s+", statement)
        rest = statement[guard.end():] if guard else statement
        names = prefix, scopes, parameters
        opcode, _, operands = rest.partition(" ")
        opcode = tuple(opcode.split("."))
        if opcode[0] == "call":
            self._call(operands, scopes)
            return
        parts = re.findall(r"(?:\{[^}]*\}|\[[^\]]*\]|[^,{\[])+", operands)
        made = tuple([self._operand(part, *names) for part in parts if part.strip()])
        if opcode[0] == "bra":
            made = (prefix + parts[0].strip(),)
        elif opcode[0] == "ret" and after:              # of a called function
            opcode, made = ("bra",), (after,)
        given = (self._name(guard[2], *names), guard[1] == "!") if guard else None
        self.blocks[-1].instructions.append(Instruction(opcode, made, given, statement))
        if opcode[0] in ("bra", "ret", "exit", "bar", "barrier"):
            self.blocks.append(Block(""))

    def _call(self, operands: str, scopes) -> None:
        result, name, given = re.match(r"(?:\(\s*([\w$]*)\s*\)\s*,\s*)?([\w$]+)\s*,\s*\(([^)]*)\)", operands).groups()
        header, body = self.functions[name]
        self.calls += 1
        prefix = f"call{self.calls}:"
        declared = [parameter for _, parameter in _PARAMETER.findall(header)]
        passed = ([result] if result else []) + [p.strip() for p in given.split(",") if p.strip()]
        scope = scopes[-1][""]
        self.read(body, prefix, {mine: f"{theirs}'{scope}" for mine, theirs in zip(declared, passed, strict=True)}, f"{prefix}after")
        self.blocks.append(Block(f"{prefix}after"))
