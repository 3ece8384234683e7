"""Where a thread is, and where an element is: the integers of every kernel.

Kernels run grid-stride loops over logical positions, so any number of threads does the whole work::

    for i in grid_stride(total): ...

A GPU has no instruction that divides: `i // n` takes it about 20. What a kernel divides by it declares `Sizes` (`compile.py`), one or a
tuple of them; a launch with 32-bit indices passes (n, multiplier, shift) for each, and (i * multiplier) >> shift, two instructions, is
i // n of every 0 <= i < 2**31. `quotient`, `split` and `offset` take sizes and plain integers alike; `extent` is the number of either.

Source: T. Granlund, P. Montgomery, "Division by invariant integers using multiplication" (1994), theorem 4.2, for 31 bits.
"""

from __future__ import annotations

from functools import lru_cache

from numba import cuda

from numbanet.backends.cuda.compile import SIMULATED, device, int32

DIVIDENDS = 31                  # bits of what is divided by a size


@lru_cache(maxsize=8192)
def size_words(n: int) -> tuple[int, int, int]:
    """(n, multiplier, shift) of a size; a multiplier takes 32 bits. Nobody divides by 0, whose words are those of 1."""
    bits = max(n - 1, 0).bit_length()
    return n, -(-(1 << DIVIDENDS + bits) // max(n, 1)), DIVIDENDS + bits


if SIMULATED:
    def quotient(a, b):
        """a // b of integers that are not negative; b may be a size."""
        return a // b

    def extent(size):
        """The number that a size stands for."""
        return size

    strided = range

    def narrow(value, other):
        """value in the integer type of other: a literal as it is to begin with, or what became int64."""
        return value
else:
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    from numbanet.backends.cuda import ptx
    from numbanet.backends.cuda.loops import strided

    SIZE = types.UniTuple(int32, 3)

    @intrinsic
    def quotient(typingctx, a, b):
        """a // b of integers that are not negative, in the wider of their types: Numba's own division widens to int64. b may be a size."""
        if b == SIZE:
            def multiplied(lowering, builder, signature, arguments):
                dividend = lowering.cast(builder, arguments[0], signature.args[0], int32)
                multiplier, shift = [builder.extract_value(arguments[1], k) for k in (1, 2)]
                product = ptx.wide_product(builder, dividend, multiplier)
                return builder.trunc(builder.lshr(product, builder.zext(shift, product.type)), dividend.type)
            return int32(a, b), multiplied
        wide = a if a.bitwidth >= b.bitwidth else b

        def codegen(lowering, builder, signature, arguments):
            first, second = [lowering.cast(builder, value, t, wide) for value, t in zip(arguments, signature.args)]
            return builder.udiv(first, second)
        return wide(a, b), codegen

    @intrinsic
    def extent(typingctx, size):
        """The number that a size stands for; an integer itself."""
        if size == SIZE:
            return int32(size), lambda lowering, builder, signature, arguments: builder.extract_value(arguments[0], 0)
        return size(size), lambda lowering, builder, signature, arguments: arguments[0]

    @intrinsic
    def narrow(typingctx, value, other):
        """value in the integer type of other: a literal as it is to begin with, or what became int64."""
        kind = int32 if other == SIZE else other

        def codegen(lowering, builder, signature, arguments):
            return lowering.cast(builder, arguments[0], signature.args[0], kind)
        return kind(value, other), codegen


@device
def thread():
    """The number of this thread in the grid."""
    return int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)


@device
def threads():
    """How many threads the grid has."""
    return int32(cuda.gridDim.x * cuda.blockDim.x)


@device
def grid_stride(total):
    """Those of 0 ... total - 1 that are this thread's."""
    return strided(thread(), total, threads())


@device
def grid_stride_of_blocks(total):
    """Those of 0 ... total - 1 that are this block's."""
    return strided(int32(cuda.blockIdx.x), total, int32(cuda.gridDim.x))


@device
def split(i, size):
    """(i // size, i % size) of integers that are not negative."""
    q = quotient(i, size)
    return q, i - q * extent(size)


@device
def offset(i, shape, steps):
    """Elements from the first to the one at logical (row-major) position i of an array with these steps; shape may be sizes."""
    result = narrow(0, steps[0])
    for k in range(1, len(shape)):
        i, rest = split(i, shape[len(shape) - k])
        result += rest * steps[len(shape) - k]
    return result + i * steps[0]
