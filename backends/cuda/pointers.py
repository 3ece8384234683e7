"""What `x[i]` means in a kernel where memory and values differ: booleans are bytes, float16 and bfloat16 are float32 while computing.

All other dtypes take Numba's plain pointers.
"""

from __future__ import annotations

import operator
from functools import cache

from llvmlite import ir
from numba.cuda import types
from numba.cuda.extending import lower_builtin, models, register_model

_BYTE, _WORD, _INT, _FLOAT, _HALF = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.FloatType(), ir.HalfType()


class Pointer(types.CPointer):
    """A pointer whose elements are `storage` in memory and `dtype` once loaded."""

    def __init__(self, storage: str, dtype):
        self.storage = storage
        super().__init__(dtype)
        self.name = f"{storage}*"

    @property
    def key(self):
        return self.storage, self.dtype


@register_model(Pointer)
class _Model(models.PrimitiveModel):
    def __init__(self, manager, pointer):
        super().__init__(manager, pointer, (_BYTE if pointer.storage == "bool" else _WORD).as_pointer())


@lower_builtin(operator.getitem, Pointer, types.Integer)
def _load(context, builder, signature, arguments):
    pointer, index = arguments
    word, storage = builder.load(builder.gep(pointer, [index])), signature.args[0].storage
    if storage == "bool":
        return builder.icmp_unsigned("!=", word, ir.Constant(_BYTE, 0))
    if storage == "float16":
        return builder.fpext(builder.bitcast(word, _HALF), _FLOAT)
    return builder.bitcast(builder.shl(builder.zext(word, _INT), ir.Constant(_INT, 16)), _FLOAT)


@lower_builtin(operator.setitem, Pointer, types.Integer, types.Any)
def _store(context, builder, signature, arguments):
    pointer, index, value = arguments
    storage = signature.args[0].storage
    if storage == "bool":
        word = builder.zext(value, _BYTE)
    elif storage == "float16":
        word = builder.bitcast(builder.fptrunc(value, _HALF), _WORD)
    else:
        word = _bfloat16(builder, value)
    builder.store(word, builder.gep(pointer, [index]))


def _bfloat16(builder, value):
    """The upper half of a float32, rounded to nearest, ties to even; NaN stays NaN."""
    constant = lambda n: ir.Constant(_INT, n)
    bits = builder.bitcast(value, _INT)
    odd = builder.and_(builder.lshr(bits, constant(16)), constant(1))
    rounded = builder.add(bits, builder.add(odd, constant(0x7FFF)))
    is_nan = builder.fcmp_unordered("uno", value, value)
    return builder.trunc(builder.lshr(builder.select(is_nan, constant(0x7FC00000), rounded), constant(16)), _WORD)


@cache
def pointer_to(name: str):
    """The type of a pointer to elements of a dtype, by its name."""
    if name == "bool":
        return Pointer(name, types.boolean)
    if name in ("float16", "bfloat16"):
        return Pointer(name, types.float32)
    return types.CPointer(getattr(types, name))
