"""What integers are in kernels: those of 32 bits stay so.

Numba widens every result to int64, as NumPy's integers are on hosts. A GPU has registers of 32 bits: a product of two widened numbers takes
it four instructions and two registers. `launch.py` gives a kernel int32 only where no index overflows, and int64 otherwise, to the whole
launch; so arithmetic of int32, and of int32 and literals, is int32 here, as in C. Shifts and divisions are so only by literals, which
cannot be wrong ones.
"""

from __future__ import annotations

import contextlib
import operator
from functools import cache

from numba.cuda import types
from numba.cuda.typing.templates import AbstractTemplate, signature

_ARITHMETIC = (operator.add, operator.sub, operator.mul, operator.and_, operator.or_, operator.xor)
_BY_LITERALS = (operator.lshift, operator.rshift, operator.floordiv, operator.mod)
_IN_PLACE = {operator.add: operator.iadd, operator.sub: operator.isub, operator.mul: operator.imul, operator.floordiv: operator.ifloordiv,
             operator.and_: operator.iand, operator.or_: operator.ior, operator.xor: operator.ixor, operator.mod: operator.imod,
             operator.lshift: operator.ilshift, operator.rshift: operator.irshift}
_FUNCTIONS = [*_ARITHMETIC, *_BY_LITERALS, *_IN_PLACE.values()]


def _is_small(kind) -> bool:
    return isinstance(kind, types.IntegerLiteral) and -(1 << 31) <= kind.literal_value < 1 << 31


@cache
def _template(function):
    only_literals = function in _BY_LITERALS or function in [_IN_PLACE[one] for one in _BY_LITERALS]

    class OfInt32(AbstractTemplate):
        key, prefer_literal = function, True

        def generic(self, args, kws):
            first, second = args
            if only_literals:
                fits = first == types.int32 and _is_small(second) and 0 < second.literal_value < 32
            else:
                fits = (first == types.int32 and (second == types.int32 or _is_small(second))
                        or _is_small(first) and second == types.int32)
            return signature(types.int32, types.int32, second if only_literals else types.int32) if fits else None
    return OfInt32


@contextlib.contextmanager
def of_32_bits():
    """Types of kernels that are compiled within; the caller holds the compiler's lock."""
    from numba.cuda.descriptor import cuda_target
    context = cuda_target.typing_context
    context.refresh()
    before = {one: context._lookup_global(one) for one in _FUNCTIONS}
    for one, function in before.items():
        _replace(context, one, type(function)((_template(one), *function.templates)))
    try:
        yield
    finally:
        for one, function in before.items():
            _replace(context, one, function)


def _replace(context, function, kind) -> None:
    context._remove_global(function)
    context._insert_global(function, kind)
