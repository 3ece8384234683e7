"""Threads of a block that work on one row together: sums and maxima over them, through shared memory, in a fixed order.

A kernel that uses them declares ``scratch = cuda.shared.array(THREADS_OF_ROW, REAL)``, gives a row to each block, and is launched with
``**row_launch(rows, count)``. All threads of the block must call them, and all receive the result.
"""

from __future__ import annotations

from numba import cuda

from numbanet.backends.cuda.compile import SIMULATED, PerReal, device, float32, float64
from numbanet.backends.cuda.mathematics import larger

REAL = PerReal(float32, float64)        # the type of what a kernel computes in
THREADS_OF_ROW = 256                    # the most threads of a row
SHORT = 128                             # elements up to which a warp takes the row
MOST_ROWS = 1 << 16                     # blocks of a grid; each goes on to further rows


def row_launch(rows: int, count: int) -> dict:
    """Grid and block for rows of `count` elements, a power of two of threads each: arguments of `launch`."""
    threads = 4 if SIMULATED else 32 if count <= SHORT else THREADS_OF_ROW
    return {"blocks": min(rows, 2 if SIMULATED else MOST_ROWS), "threads": threads}


@device
def block_sum(value, scratch):
    """The sum over the block's threads."""
    t, half = cuda.threadIdx.x, cuda.blockDim.x // 2
    scratch[t] = value
    cuda.syncthreads()
    while half > 0:
        if t < half:
            scratch[t] += scratch[t + half]
        cuda.syncthreads()
        half //= 2
    result = scratch[0]
    cuda.syncthreads()                                  # before anyone writes to it again
    return result


@device
def block_largest(value, scratch):
    """The largest value of the block's threads; NaN where one is."""
    t, half = cuda.threadIdx.x, cuda.blockDim.x // 2
    scratch[t] = value
    cuda.syncthreads()
    while half > 0:
        if t < half:
            scratch[t] = larger(scratch[t], scratch[t + half])
        cuda.syncthreads()
        half //= 2
    result = scratch[0]
    cuda.syncthreads()
    return result
