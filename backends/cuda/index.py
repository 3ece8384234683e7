"""Where a thread is, and where an element is: the integers of every kernel.

Kernels run grid-stride loops over logical positions, so any number of threads does the whole work::

    for i in range(thread(), total, threads()): ...
"""

from __future__ import annotations

from numba import cuda

from numbanet.backends.cuda.compile import SIMULATED, device, int32

if SIMULATED:
    def quotient(a, b):
        """a // b of integers that are not negative, in the type of a: Numba's own division widens to int64, which GPUs lack."""
        return a // b

    def narrow(value, other):
        """value in the integer type of other: products are int64, and dividing those is slow."""
        return value
else:
    from numba.cuda.extending import intrinsic

    @intrinsic
    def quotient(typingctx, a, b):
        """a // b of integers that are not negative, in the wider of their types: Numba's own division widens to int64, which GPUs lack."""
        wide = a if a.bitwidth >= b.bitwidth else b

        def codegen(lowering, builder, signature, arguments):
            first, second = [lowering.cast(builder, value, t, wide) for value, t in zip(arguments, signature.args)]
            return builder.udiv(first, second)
        return wide(a, b), codegen

    @intrinsic
    def narrow(typingctx, value, other):
        """value in the integer type of other: products are int64, and dividing those is slow."""
        def codegen(lowering, builder, signature, arguments):
            return lowering.cast(builder, arguments[0], signature.args[0], other)
        return other(value, other), codegen


@device
def thread():
    """The number of this thread in the grid."""
    return int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)


@device
def threads():
    """How many threads the grid has."""
    return int32(cuda.gridDim.x * cuda.blockDim.x)


@device
def offset(i, shape, steps):
    """Elements from the first to the one at logical (row-major) position i of an array with these steps."""
    result = 0
    for axis in range(len(shape) - 1, 0, -1):
        q = quotient(i, shape[axis])
        result += (i - q * shape[axis]) * steps[axis]
        i = q
    return result + i * steps[0]
