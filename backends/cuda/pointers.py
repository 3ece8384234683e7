"""What `x[i]` means in a kernel where memory and values differ: booleans are bytes, float16 and bfloat16 are float32 while computing,
and in a wide launch an element is a piece (`pieces.py`), which is loaded and stored with instructions of 16 bytes.

All other pointers are Numba's plain ones.
"""

from __future__ import annotations

import operator
from functools import cache, reduce

from llvmlite import ir
from numba.cuda import types
from numba.cuda.extending import lower_builtin, models, register_model

from numbanet.backends.cuda.pieces import Piece, lane, packed
from numbanet.backends.cuda.ptx import bfloat16_number, bfloat16_pair, float16_pair

_BYTE, _WORD, _INT, _FLOAT, _HALF = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.FloatType(), ir.HalfType()
_STORED = {"bool": _BYTE, "float16": _WORD, "bfloat16": _WORD, "float32": _FLOAT, "float64": ir.DoubleType()}
_GLOBAL = 1                 # the address space, which Numba's pointers do not tell


def _stored(storage: str):
    """The type of an element in memory."""
    return _STORED.get(storage) or ir.IntType(int(storage.lstrip("uint")))


class Pointer(types.CPointer):
    """A pointer whose elements are `storage` in memory and `dtype` once loaded, or pieces of so many."""

    def __init__(self, storage: str, dtype, width: int = 1):
        self.storage, self.width = storage, width
        super().__init__(dtype if width == 1 else Piece(dtype, width))
        self.name = f"{storage}x{width}*"

    @property
    def key(self):
        return self.storage, self.dtype


@register_model(Pointer)
class _Model(models.PrimitiveModel):
    def __init__(self, manager, pointer):
        super().__init__(manager, pointer, _stored(pointer.storage).as_pointer())


@lower_builtin(operator.getitem, Pointer, types.Integer)
def _load(context, builder, signature, arguments):
    kind = signature.args[0]
    place = builder.gep(arguments[0], [arguments[1]])
    if kind.width == 1:
        return _value(builder, builder.load(place), kind.storage)
    memory, bits = _wide(kind)
    loaded = builder.load(_in_global(builder, place, memory), align=_alignment(kind))
    lanes = []
    for k in range(kind.width):
        word = builder.extract_element(loaded, ir.Constant(_INT, k * bits // 32 if bits < 32 else k))
        if bits < 32:
            word = builder.trunc(builder.lshr(word, ir.Constant(_INT, k * bits % 32)), ir.IntType(bits))
        lanes.append(_value(builder, word, kind.storage))
    return packed(builder, lanes)


@lower_builtin(operator.setitem, Pointer, types.Integer, types.Any)
def _store(context, builder, signature, arguments):
    pointer, index, value = arguments
    kind = signature.args[0]
    place = builder.gep(pointer, [index])
    if kind.width == 1:
        builder.store(_word(builder, value, kind.storage), place)
        return
    memory, bits = _wide(kind)
    lanes = [lane(builder, value, kind.dtype, k) for k in range(kind.width)]
    stored = ir.Constant(memory, ir.Undefined)
    for at, word in enumerate(_words(builder, lanes, kind.storage, bits)):
        stored = builder.insert_element(stored, word, ir.Constant(_INT, at))
    builder.store(stored, _in_global(builder, place, memory), align=_alignment(kind))


def _words(builder, lanes: list, storage: str, bits: int) -> list:
    """The words of a piece that is stored."""
    if storage in ("float16", "bfloat16"):
        pair = float16_pair if storage == "float16" else bfloat16_pair
        return [pair(builder, low, high) for low, high in zip(lanes[::2], lanes[1::2])]
    if bits >= 32:
        return [_word(builder, value, storage) for value in lanes]
    words, shared = [], 32 // bits
    for first in range(0, len(lanes), shared):
        parts = [builder.shl(builder.zext(_word(builder, value, storage), _INT), ir.Constant(_INT, k * bits))
                 for k, value in enumerate(lanes[first:first + shared])]
        words.append(reduce(builder.or_, parts))
    return words


def _wide(kind: Pointer) -> tuple:
    """(the vector that is loaded or stored as a piece, bits of an element). Elements of less than 32 bits share words."""
    element = _stored(kind.storage)
    bits = element.width if isinstance(element, ir.IntType) else 64 if isinstance(element, ir.DoubleType) else 32
    return ir.VectorType(element, kind.width) if bits >= 32 else ir.VectorType(_INT, bits * kind.width // 32), bits


def _alignment(kind: Pointer) -> int:
    return min(16, _wide(kind)[1] // 8 * kind.width)


def _in_global(builder, place, memory):
    return builder.addrspacecast(builder.bitcast(place, memory.as_pointer()), memory.as_pointer(_GLOBAL))


def _value(builder, word, storage: str):
    """The number that is stored as `word`."""
    if storage == "bool":
        return builder.icmp_unsigned("!=", word, ir.Constant(_BYTE, 0))
    if storage == "float16":
        return builder.fpext(builder.bitcast(word, _HALF), _FLOAT)
    if storage == "bfloat16":
        return builder.bitcast(builder.shl(builder.zext(word, _INT), ir.Constant(_INT, 16)), _FLOAT)
    return word


def _word(builder, value, storage: str):
    """What is stored of a number."""
    if storage == "bool":
        return builder.zext(value, _BYTE)
    if storage == "float16":
        return builder.bitcast(builder.fptrunc(value, _HALF), _WORD)
    return bfloat16_number(builder, value) if storage == "bfloat16" else value


@cache
def pointer_to(name: str):
    """The type of a pointer by the name of its elements: that of a dtype, or "float32x4" of pieces."""
    storage, _, width = name.partition("x")
    dtype = types.boolean if storage == "bool" else types.float32 if storage in ("float16", "bfloat16") else getattr(types, storage)
    if width or storage in ("bool", "float16", "bfloat16"):
        return Pointer(storage, dtype, int(width or 1))
    return types.CPointer(dtype)
