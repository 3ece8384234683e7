"""Blocks of PTX as Python functions over NumPy arrays with one element a thread.

A block becomes `block(R, m, S)`: R holds registers, m the threads that run (None: all), S is the machine (`machine.py`), whose methods
touch memory and warps. Registers are unsigned words, float32, float64 or booleans; an instruction sees them as its type says. Numbers that
are the same in all threads stay scalars. Rounding is that of IEEE; approximations (`ex2.approx`, `rcp.approx`) are rounded too, which
hardware misses by an ulp or two.

Source: Parallel Thread Execution ISA, the chapter on instructions.
"""

from __future__ import annotations

import operator
from functools import reduce

import numpy as np

from tests.backends.cuda.executed.source import Instruction, Kernel
from tests.backends.cuda.words import packed, rounded_tf32

DTYPES = {"u8": "u1", "s8": "i1", "b8": "u1", "u16": "u2", "s16": "i2", "b16": "u2", "u32": "u4", "s32": "i4", "b32": "u4", "u64": "u8",
          "s64": "i8", "b64": "u8", "f16": "f2", "f32": "f4", "f64": "f8", "pred": "b1"}
REGISTERS = {kind: dtype if dtype in ("f4", "f8", "b1") else f"u{dtype[1:]}" for kind, dtype in DTYPES.items()}
NUMBERS = {name: np.dtype(name).type for name in set(DTYPES.values())}
SPECIAL = {"%tid.x": "S.tid", "%ntid.x": "S.ntid", "%ctaid.x": "S.ctaid[0]", "%ctaid.y": "S.ctaid[1]", "%ctaid.z": "S.ctaid[2]",
           "%nctaid.x": "S.nctaid[0]", "%nctaid.y": "S.nctaid[1]", "%nctaid.z": "S.nctaid[2]", "%laneid": "S.lane"}
COMPARED = {"eq": "{0} == {1}", "ne": "({0} < {1}) | ({0} > {1})", "lt": "{0} < {1}", "le": "{0} <= {1}", "gt": "{0} > {1}",
            "ge": "{0} >= {1}", "lo": "{0} < {1}", "hi": "{0} > {1}", "ls": "{0} <= {1}", "hs": "{0} >= {1}",
            "equ": "~(({0} < {1}) | ({0} > {1}))", "neu": "{0} != {1}", "ltu": "~({0} >= {1})", "leu": "~({0} > {1})",
            "gtu": "~({0} <= {1})", "geu": "~({0} < {1})", "num": "({0} == {0}) & ({1} == {1})", "nan": "({0} != {0}) | ({1} != {1})"}
ROUNDED = {"rni": "np.rint", "rzi": "np.trunc", "rmi": "np.floor", "rpi": "np.ceil"}
TERMINAL = ("bra", "ret", "exit", "bar", "barrier")


class Unknown(NotImplementedError):
    """An instruction that the machine does not know."""


class Program:
    """A kernel ready to run: `functions` of blocks, and how each ends: (kind, guard, where to), the next block being what follows it."""

    def __init__(self, kernel: Kernel):
        self.kernel, self.name = kernel, kernel.name
        self.places = {name: i for i, name in enumerate(kernel.registers)}
        self.kinds = [REGISTERS[kind] for kind in kernel.registers.values()]
        self.constants, self.operations = [], []
        labels = {block.label: i for i, block in enumerate(kernel.blocks) if block.label}
        self.ends, lines, count = [], [], 0
        for i, block in enumerate(kernel.blocks):
            lines.append(f"def block{i}(R, m, S):")
            end = ("next", None, i + 1)
            for one in block.instructions:
                if one.opcode[0] in TERMINAL:
                    guard = None if one.guard is None else (self.places[one.guard[0]], one.guard[1])
                    end = ("bra", guard, labels[one.operands[0]]) if one.opcode[0] == "bra" else (
                        ("barrier", guard, i + 1) if one.opcode[0] in ("bar", "barrier") else ("end", guard, i + 1))
                else:
                    lines += [f" {line}" for line in Translated(self, one).lines]
                    count += 1
            lines.append(" return")
            self.ends.append(end)
        self.instructions = count
        names = {"np": np, "K": self.constants, **{f"to_{name}": kind for name, kind in NUMBERS.items()}, **FUNCTIONS}
        exec(compile("\n".join(lines), f"<{self.name}>", "exec"), names)
        self.functions = [names[f"block{i}"] for i in range(len(kernel.blocks))]

    def constant(self, value) -> str:
        self.constants.append(value)
        return f"K[{len(self.constants) - 1}]"


class Translated:
    """One instruction as lines of Python."""

    def __init__(self, program: Program, one: Instruction):
        self.program, self.one, self.lines = program, one, []
        self.m = "m"
        if one.guard is not None:
            self.lines.append(f"g = guarded(m, {'~' if one.guard[1] else ''}{self._register(one.guard[0])})")
            self.m = "g"
        method = getattr(self, f"_{one.opcode[0]}", None)
        if method is None:
            raise Unknown(one.text)
        method(one.opcode[1:], *one.operands)

    # --- operands ---

    def _register(self, name: str) -> str:
        return f"R[{self.program.places[name]}]"

    def _kind(self, name: str) -> str:
        return self.program.kinds[self.program.places[name]]

    def value(self, operand: str, kind: str) -> str:
        """An operand as a number of a PTX type."""
        dtype = DTYPES[kind]
        if operand in self.program.places:
            have, text = self._kind(operand), self._register(operand)
            if have == dtype:
                return text
            if np.dtype(have).itemsize == np.dtype(dtype).itemsize:
                return f"{text}.view(to_{dtype})"
            if np.dtype(have).itemsize > np.dtype(dtype).itemsize:                  # the lower part
                return f"{text}.astype(to_u{np.dtype(dtype).itemsize}).view(to_{dtype})"
            raise Unknown(f"{self.one.text}: {operand} is narrower than {kind}")
        if operand in SPECIAL:
            return f"{SPECIAL[operand]}.view(to_{dtype})"
        if operand[:2] in ("0f", "0F"):
            number = np.uint32(int(operand[2:], 16)).view(np.float32)
        elif operand[:2] in ("0d", "0D"):
            number = np.uint64(int(operand[2:], 16)).view(np.float64)
        elif operand.lstrip("-")[:1].isdigit():
            if kind == "pred":
                return self.program.constant(np.bool_(int(operand)))
            if dtype[0] == "f":
                bits = np.dtype(dtype).itemsize
                number = NUMBERS[f"u{bits}"](int(operand, 0) % (1 << 8 * bits)).view(NUMBERS[dtype])
            else:
                number = int(operand, 0) % (1 << 8 * np.dtype(dtype).itemsize)
                number = NUMBERS[f"u{np.dtype(dtype).itemsize}"](number).view(NUMBERS[dtype])
        else:
            return f"S.address_of({operand!r}).astype(to_{dtype})"
        return self.program.constant(NUMBERS[dtype](number))

    def put(self, target: str, text: str, kind: str) -> None:
        """Assign a result of a PTX type; a wider register takes an integer extended by its sign."""
        if target == "_":
            return
        have, dtype = self._kind(target), DTYPES[kind]
        if np.dtype(have).itemsize > np.dtype(dtype).itemsize:
            wide = f"{'i' if dtype[0] == 'i' else 'u'}{np.dtype(have).itemsize}"
            text, dtype = f"({text}).astype(to_{wide})", wide
        if have != dtype:
            text = f"({text}).view(to_{have})"
        register = self._register(target)
        self.lines.append(f"{register} = put({register}, {text}, {self.m}, S, '{have}')")

    def _of_two(self, mods, target, template: str, *operands) -> None:
        kind = mods[-1]
        self.put(target, template.format(*[self.value(o, kind) for o in operands]), kind)

    # --- arithmetic ---

    def _add(self, mods, d, a, b):
        if "cc" in mods:
            self._with_carry(mods, d, "add", a, b)
        elif "rz" in mods:
            self._of_two(mods, d, "toward_zero({0}, {1}, None)", a, b)
        else:
            self._of_two(mods, d, "{0} + {1}", a, b)

    def _sub(self, mods, d, a, b):
        if "cc" in mods:
            self._with_carry(mods, d, "sub", a, b)
        else:
            self._of_two(mods, d, "{0} - {1}", a, b)

    def _addc(self, mods, d, a, b):
        self._with_carry(mods, d, "addc", a, b)

    def _subc(self, mods, d, a, b):
        self._with_carry(mods, d, "subc", a, b)

    def _madc(self, mods, d, a, b, c):
        self._with_carry(mods, d, "madc", a, b, c)

    def _with_carry(self, mods, d, what: str, *operands):
        kind = mods[-1]
        half = "hi" if "hi" in mods else "lo"
        values = ", ".join(self.value(o, kind) for o in operands)
        self.lines.append(f"t, S.carry = carrying('{what}', '{half}', {'cc' in mods}, S.carry, {values})")
        self.put(d, "t", kind)

    def _mul(self, mods, d, a, b):
        kind = mods[-1]
        if "wide" in mods:
            wide = f"{kind[0]}{2 * int(kind[1:])}"
            dtype = DTYPES[wide]
            self.put(d, f"{self.value(a, kind)}.astype(to_{dtype}) * {self.value(b, kind)}.astype(to_{dtype})", wide)
        elif "hi" in mods:
            self.put(d, f"high_half({self.value(a, kind)}, {self.value(b, kind)})", kind)
        else:
            self._of_two(mods, d, "{0} * {1}", a, b)

    def _mad(self, mods, d, a, b, c):
        if "cc" in mods:
            self._with_carry(mods, d, "mad", a, b, c)
        elif "lo" in mods:
            self._of_two(mods, d, "{0} * {1} + {2}", a, b, c)
        elif "wide" in mods:
            wide = f"{mods[-1][0]}{2 * int(mods[-1][1:])}"
            first, second = (f"{self.value(o, mods[-1])}.astype(to_{DTYPES[wide]})" for o in (a, b))
            self.put(d, f"{first} * {second} + {self.value(c, wide)}", wide)
        else:
            raise Unknown(self.one.text)

    def _fma(self, mods, d, a, b, c):
        mode = {"rn": "fused", "rz": "toward_zero", "rm": "downwards"}[mods[0]]
        self._of_two(mods, d, f"{mode}({{0}}, {{1}}, {{2}})", a, b, c)

    def _div(self, mods, d, a, b):
        self._of_two(mods, d, "{0} / {1}" if mods[-1][0] == "f" else "divided({0}, {1})", a, b)

    def _rem(self, mods, d, a, b):
        self._of_two(mods, d, "remainder({0}, {1})", a, b)

    def _abs(self, mods, d, a):
        self._of_two(mods, d, "np.abs({0})", a)

    def _neg(self, mods, d, a):
        self._of_two(mods, d, "-{0}", a)

    def _min(self, mods, d, a, b):
        name = "np.minimum" if "NaN" in mods or mods[-1][0] != "f" else "np.fmin"
        self._of_two(mods, d, name + "({0}, {1})", a, b)

    def _max(self, mods, d, a, b):
        name = "np.maximum" if "NaN" in mods or mods[-1][0] != "f" else "np.fmax"
        self._of_two(mods, d, name + "({0}, {1})", a, b)

    def _copysign(self, mods, d, a, b):
        self._of_two(mods, d, "np.copysign({1}, {0})", a, b)

    def _sqrt(self, mods, d, a):
        self._of_two(mods, d, "np.sqrt({0})", a)

    def _rsqrt(self, mods, d, a):
        self._of_two(mods, d, f"to_{DTYPES[mods[-1]]}(1) / np.sqrt({{0}})", a)

    def _rcp(self, mods, d, a):
        self._of_two(mods, d, f"to_{DTYPES[mods[-1]]}(1) / {{0}}", a)

    def _ex2(self, mods, d, a):
        self._of_two(mods, d, "exponential_of_2({0})", a)

    def _lg2(self, mods, d, a):
        self._of_two(mods, d, "np.log2({0}.astype(to_f8)).astype(to_f4)", a)

    # --- bits ---

    def _and(self, mods, d, a, b):
        self._of_two(mods, d, "{0} & {1}", a, b)

    def _or(self, mods, d, a, b):
        self._of_two(mods, d, "{0} | {1}", a, b)

    def _xor(self, mods, d, a, b):
        self._of_two(mods, d, "{0} ^ {1}", a, b)

    def _not(self, mods, d, a):
        self._of_two(mods, d, "~{0}", a)

    def _shl(self, mods, d, a, b):
        self.put(d, f"shifted_left({self.value(a, mods[-1])}, {self.value(b, 'u32')})", mods[-1])

    def _shr(self, mods, d, a, b):
        self.put(d, f"shifted_right({self.value(a, mods[-1])}, {self.value(b, 'u32')})", mods[-1])

    def _bfi(self, mods, d, a, b, position, length):
        kind = mods[-1]
        mask = self.program.constant(NUMBERS[DTYPES[kind]]((1 << int(length)) - 1))
        at = self.program.constant(NUMBERS[DTYPES[kind]](int(position)))
        self.put(d, f"({self.value(b, kind)} & ~({mask} << {at})) | (({self.value(a, kind)} & {mask}) << {at})", kind)

    def _clz(self, mods, d, a):
        self.put(d, f"leading_zeros({self.value(a, mods[-1])})", "u32")

    def _prmt(self, mods, d, a, b, selector):
        if mods != ("b32",):
            raise Unknown(self.one.text)
        self.put(d, f"permuted({self.value(a, 'b32')}, {self.value(b, 'b32')}, {self.value(selector, 'b32')})", "b32")

    # --- comparison, choice, conversion, moves ---

    def _setp(self, mods, d, a, b):
        compared, kind = mods
        text = COMPARED["neu" if compared == "ne" and kind[0] != "f" else compared]
        self.put(d, text.format(self.value(a, kind), self.value(b, kind)), "pred")

    def _selp(self, mods, d, a, b, p):
        kind = mods[-1]
        self.put(d, f"chosen({self._register(p)}, {self.value(a, kind)}, {self.value(b, kind)})", kind)

    def _cvt(self, mods, d, a, b=None):
        to, given = mods[-2:]
        if to == "bf16x2":
            self.put(d, f"packed({self.value(b, 'f32')}, {self.value(a, 'f32')}, 'bf16')", "b32")
        elif to == "f16x2":
            self.put(d, f"packed({self.value(b, 'f32')}, {self.value(a, 'f32')}, 'fp16')", "b32")
        elif to == "bf16":
            a = self.value(a, "f32")
            self.put(d, f"packed({a}, {a}, 'bf16').astype(to_u2)", "b16")
        elif to == "tf32":
            self.put(d, f"rounded_tf32({self.value(a, 'b32')})", "b32")
        elif to[0] == "f" and given[0] == "f":
            text = self.value(a, given)
            rounding = next((ROUNDED[m] for m in mods if m in ROUNDED), "")
            text = f"{rounding}({text})" if rounding else text
            if "sat" in mods:
                text = f"saturated({text})"
            self.put(d, text if to == given else f"({text}).astype(to_{DTYPES[to]})", to)
        elif to[0] == "f":
            self.put(d, f"{self.value(a, given)}.astype(to_{DTYPES[to]})", to)
        elif given[0] == "f":
            rounding = next(ROUNDED[m] for m in mods if m in ROUNDED)
            self.put(d, f"to_integer({rounding}({self.value(a, given)}), to_{DTYPES[to]})", to)
        else:
            self.put(d, f"{self.value(a, given)}.astype(to_{DTYPES[to]})", to)

    def _shfl(self, mods, d, a, b, clamp, members):
        if mods != ("sync", "bfly", "b32") or clamp not in ("31", "0x1f") or members not in ("-1", "0xffffffff"):
            raise Unknown(self.one.text)
        self.put(d, f"S.of_other_lane({self.value(a, 'b32')}, {self.value(b, 'b32')}, {self.m})", "b32")

    def _cvta(self, mods, d, a):
        space = next(m for m in mods if m in ("global", "shared", "local"))
        if space != "global" and "to" not in mods:
            self.put(d, f"S.generic('{space}', {self.value(a, mods[-1])})", mods[-1])
        elif space != "global":
            self.put(d, f"S.specific('{space}', {self.value(a, mods[-1])})", mods[-1])
        else:
            self.put(d, self.value(a, mods[-1]), mods[-1])

    def _mov(self, mods, d, a):
        kind = mods[-1]
        if isinstance(d, tuple):                        # parts of a register
            half = f"b{int(kind[1:]) // 2}"
            self.lines.append(f"t = {self.value(a, 'b' + kind[1:])}")
            for i, part in enumerate(d):
                self.put(part, f"(t >> to_{DTYPES['b' + kind[1:]]}({i * int(half[1:])})).astype(to_{DTYPES[half]})", half)
        elif isinstance(a, tuple):
            half, whole = f"b{int(kind[1:]) // 2}", DTYPES["b" + kind[1:]]
            low, high = (f"{self.value(part, half)}.astype(to_{whole})" for part in a)
            self.put(d, f"{low} | ({high} << to_{whole}({half[1:]}))", "b" + kind[1:])
        else:
            self.put(d, self.value(a, kind), kind)

    # --- memory ---

    def _ld(self, mods, d, place):
        kind, spaces = mods[-1], [m for m in mods if m in ("global", "shared", "local", "param", "const")]
        space = spaces[0] if spaces else "generic"
        targets = d if isinstance(d, tuple) else (d,)
        base, _, offset = place[1:-1].rpartition("+")
        if space == "param":
            names = [name for _, name in self.program.kernel.parameters]
            if base in names:
                self.put(d, f"S.parameters[{names.index(base)}].astype(to_{DTYPES[kind]})", kind)
            else:
                self.put(d, f"S.passed[{base + '+' + offset!r}].view(to_{DTYPES[kind]})", kind)
            return
        self.lines.append(f"t = S.load('{space}', {self._address(base, offset, space)}, to_{DTYPES[kind]}, {len(targets)}, {self.m})")
        for i, target in enumerate(targets):
            self.put(target, f"t[{i}]", kind)

    def _st(self, mods, place, given):
        kind, spaces = mods[-1], [m for m in mods if m in ("global", "shared", "local", "param")]
        space = spaces[0] if spaces else "generic"
        values = ", ".join(self.value(v, kind) for v in (given if isinstance(given, tuple) else (given,)))
        base, _, offset = place[1:-1].rpartition("+")
        if space == "param":
            key = f"{base}+{offset}"
            self.lines.append(f"S.passed[{key!r}] = put(S.passed.get({key!r}), {values}, {self.m}, S, '{DTYPES[kind]}')")
        else:
            self.lines.append(f"S.store('{space}', {self._address(base, offset, space)}, ({values},), to_{DTYPES[kind]}, {self.m})")

    def _address(self, base: str, offset: str, space: str) -> str:
        if base in self.program.places:
            text = f"{self._register(base)}.astype(to_i8)"
        elif base.lstrip("-").isdigit():
            text = self.program.constant(np.int64(int(base)))
        else:
            text = f"S.address_of({base!r}).astype(to_i8)"
        return text if offset == "0" else f"{text} + to_i8({offset})"

    # --- warps and copies ---

    def _ldmatrix(self, mods, d, place):
        if mods[:3] != ("sync", "aligned", "m8n8") or mods[-2:] != ("shared", "b16"):
            raise Unknown(self.one.text)
        base, _, offset = place[1:-1].rpartition("+")
        targets = d if isinstance(d, tuple) else (d,)
        self.lines.append(f"t = S.ldmatrix({self._address(base, offset, 'shared')}, {len(targets)}, {'trans' in mods}, {self.m})")
        for i, target in enumerate(targets):
            self.put(target, f"t[{i}]", "b32")

    def _mma(self, mods, d, a, b, c):
        kind = {("m16n8k8", "tf32"): "tf32", ("m16n8k16", "bf16"): "bf16", ("m16n8k16", "f16"): "fp16"}.get((mods[2], mods[6]))
        if kind is None or mods[:2] != ("sync", "aligned") or mods[3:5] != ("row", "col") or mods[5::3] != ("f32", "f32"):
            raise Unknown(self.one.text)
        words = ", ".join([self.value(o, "b32") for o in (*a, *b)] + [self.value(o, "f32") for o in c])
        self.lines.append(f"t = S.mma('{kind}', ({words}), {self.m})")
        for i, target in enumerate(d):
            self.put(target, f"t[{i}]", "f32")

    def _cp(self, mods, *operands):
        if mods[:2] == ("async", "commit_group"):
            self.lines.append(f"S.commit({self.m})")
        elif mods[:2] == ("async", "wait_group"):
            self.lines.append(f"S.wait({int(operands[0])}, {self.m})")
        elif mods[0] == "async" and mods[1] in ("ca", "cg") and mods[2:] == ("shared", "global"):
            target, source = (self._address(*_split(place), space) for place, space in zip(operands, ("shared", "global")))
            absent = self._register(operands[3]) if len(operands) > 3 else "False"
            self.lines.append(f"S.copy_async({target}, {source}, {int(operands[2])}, {absent}, {self.m})")
        else:
            raise Unknown(self.one.text)


def _split(place: str) -> tuple[str, str]:
    base, _, offset = place[1:-1].rpartition("+")
    return base, offset


# --- what the lines call ----------------------------------------------------------------------------------------------

def put(old, new, m, S, kind):
    """The register after an assignment by the threads that run."""
    if m is None:
        return new
    return np.where(m, new, S.unwritten(kind) if old is None else old)


def guarded(m, condition):
    """The threads that run and meet the condition; None: all."""
    if m is not None:
        return m & condition
    return None if np.ndim(condition) == 0 and condition else condition


def chosen(condition, first, second):
    return np.where(condition, first, second)[()]


def divided(a, b):
    """Integers, rounded toward zero; by 0, which no thread means, 0."""
    b = np.where(b == 0, b.dtype.type(1), b)
    quotient = a // b
    return (quotient + ((quotient < 0) & (quotient * b != a)).astype(quotient.dtype)).astype(b.dtype)[()]


def remainder(a, b):
    return (a - divided(a, b) * b)[()]


def shifted_left(a, by):
    bits = 8 * a.dtype.itemsize
    return np.where(by < bits, a << (by & np.uint32(bits - 1)).astype(a.dtype), a.dtype.type(0))[()]


def shifted_right(a, by):
    bits, by = 8 * a.dtype.itemsize, np.asarray(by)
    if a.dtype.kind == "i":
        return (a >> np.minimum(by, np.uint32(bits - 1)).astype(a.dtype))[()]
    return np.where(by < bits, a >> (by & np.uint32(bits - 1)).astype(a.dtype), a.dtype.type(0))[()]


def high_half(a, b):
    if a.dtype.itemsize == 4:
        wide = np.int64 if a.dtype.kind == "i" else np.uint64
        return ((a.astype(wide) * b.astype(wide)) >> wide(32)).astype(a.dtype)
    if a.dtype.kind == "i":
        raise Unknown("mul.hi.s64")
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    a0, a1, b0, b1 = a & low, a >> half, b & low, b >> half
    middle = a1 * b0 + ((a0 * b0) >> half)
    other = a0 * b1 + (middle & low)
    return a1 * b1 + (middle >> half) + (other >> half)


def carrying(what: str, half: str, keeps: bool, carry, *operands):
    """(result, carry) of 32-bit additions in chains."""
    wide = [o.astype(np.int64) for o in operands]
    given = carry.astype(np.int64) if what.endswith("c") else np.int64(0)
    if what.startswith("mad"):
        product = wide[0].view(np.uint64) * wide[1].view(np.uint64)
        part = (product >> np.uint64(32)) if half == "hi" else product & np.uint64(0xFFFFFFFF)
        total = part.view(np.int64) + wide[2] + given
    else:
        total = wide[0] + wide[1] + given if what.startswith("add") else wide[0] - wide[1] - given
    return total.astype(np.uint32), (total >> np.int64(32)) & np.int64(1) if keeps else carry


def fused(a, b, c):
    """a * b + c: float32 in float64, whose second rounding is off in one case of 2**29; float64 with the product's error."""
    if a.dtype == np.float32:
        return (a.astype(np.float64) * b + c).astype(np.float32)
    product = a * b
    parts = []
    for x in (a, b):
        scaled = x * 134217729.0
        high = scaled - (scaled - x)
        parts.append((high, x - high))
    (a1, a0), (b1, b0) = parts
    error = a0 * b0 - (((product - a1 * b1) - a0 * b1) - a1 * b0)
    total = product + c
    back = total - product
    rest = (product - (total - back)) + (c - back)
    exact = total + (rest + error)
    return np.where(np.isfinite(exact), exact, total)[()]


def _exact(a, b, c):
    return a.astype(np.float64) + b if c is None else a.astype(np.float64) * b + c


def toward_zero(a, b, c):
    exact = _exact(a, b, c)
    near = exact.astype(np.float32)
    return np.where(np.abs(near) > np.abs(exact), np.nextafter(near, np.float32(0)), near)[()]


def downwards(a, b, c):
    exact = _exact(a, b, c)
    near = exact.astype(np.float32)
    return np.where(near > exact, np.nextafter(near, np.float32(-np.inf)), near)[()]


def exponential_of_2(x):
    made = np.exp2(x.astype(np.float64)).astype(np.float32)
    return np.where(made < np.float32(2.0**-126), np.float32(0), made)[()]


def saturated(x):
    return np.where(x != x, x.dtype.type(0), np.clip(x, x.dtype.type(0), x.dtype.type(1)))[()]


def to_integer(x, kind):
    """A whole number as an integer: NaN is 0, what is too large the largest."""
    limits, x = np.iinfo(kind), np.asarray(x, np.float64)
    safe = np.where(x != x, 0, np.clip(x, limits.min, limits.max))
    made = np.where(safe >= float(limits.max), kind(limits.max), np.where(safe <= float(limits.min), kind(limits.min), 0))
    inside = (safe > float(limits.min)) & (safe < float(limits.max))
    return np.where(inside, np.where(inside, safe, 0).astype(kind), made).astype(kind)[()]


def leading_zeros(a):
    bits, a = 8 * a.dtype.itemsize, np.asarray(a)
    count, left = np.zeros(a.shape, np.uint32), a.copy()
    for _ in range(bits):
        zero = (left >> a.dtype.type(bits - 1)) == 0
        count = np.where(zero & (count == _), count + np.uint32(1), count)
        left = left << a.dtype.type(1)
    return count[()]


def permuted(a, b, selector):
    both = a.astype(np.uint64) | (b.astype(np.uint64) << np.uint64(32))
    parts = []
    for i in range(4):
        chosen_ = (selector >> np.uint32(4 * i)) & np.uint32(15)
        byte = (both >> ((chosen_ & np.uint32(7)) * np.uint32(8)).astype(np.uint64)).astype(np.uint32) & np.uint32(255)
        byte = np.where(chosen_ & np.uint32(8), np.where(byte & np.uint32(128), np.uint32(255), np.uint32(0)), byte)
        parts.append(byte << np.uint32(8 * i))
    return reduce(operator.or_, parts)[()]


FUNCTIONS = {f.__name__: f for f in (put, guarded, chosen, divided, remainder, shifted_left, shifted_right, high_half, carrying, fused,
                                     toward_zero, downwards, exponential_of_2, saturated, to_integer, leading_zeros, permuted, packed,
                                     rounded_tf32)}
