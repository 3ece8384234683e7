"""Threads of a block that work on one row together: sums and maxima over them, through shared memory, in a fixed order.

A kernel that uses them declares ``scratch = cuda.shared.array(THREADS_OF_ROW, REAL)``, gives a row to each block, and is launched with
``**row_launch(rows, count)``. All threads of the block must call them, and all receive the result. In a wide launch (`wide.py`) each lane
of a thread counts as a thread, and there are so many fewer of these: the order is the same. What a thread adds to begins as
``element(out, 0.0)``, so that it has lanes where the thread has nothing to add, or what is added is one number for all.
"""

from __future__ import annotations

from numba import cuda

from numbanet.backends.cuda.compile import SIMULATED, PerReal, device, float32, float64, lanewise
from numbanet.backends.cuda.lanes import lane_numbers, lanes
from numbanet.backends.cuda.mathematics import larger

REAL = PerReal(float32, float64)        # the type of what a kernel computes in
THREADS_OF_ROW = 256                    # the most threads of a row
SHORT = 128                             # elements up to which a warp takes the row
MOST_ROWS = 1 << 16                     # blocks of a grid; each goes on to further rows


def row_launch(rows: int, count: int, width: int = 1) -> dict:
    """Grid and block for rows of `count` elements, a power of two of threads each, `width` elements a piece: arguments of `launch`."""
    threads = 8 if SIMULATED else 32 if count <= SHORT else THREADS_OF_ROW
    return {"blocks": min(rows, 2 if SIMULATED else MOST_ROWS), "threads": threads // width}


@lanewise
def _put(scratch, at, value):
    scratch[at] = value


@device
def block_sum(value, scratch):
    """The sum over the block's threads."""
    t, half = cuda.threadIdx.x, cuda.blockDim.x * lanes(value) // 2
    _put(scratch, t * lanes(value) + lane_numbers(value), value)
    cuda.syncthreads()
    while half > 0:
        for i in range(t, half, cuda.blockDim.x):
            scratch[i] += scratch[i + half]
        cuda.syncthreads()
        half //= 2
    result = scratch[0]
    cuda.syncthreads()                                  # before anyone writes to it again
    return result


@device
def block_largest(value, scratch):
    """The largest value of the block's threads; NaN where one is."""
    t, half = cuda.threadIdx.x, cuda.blockDim.x * lanes(value) // 2
    _put(scratch, t * lanes(value) + lane_numbers(value), value)
    cuda.syncthreads()
    while half > 0:
        for i in range(t, half, cuda.blockDim.x):
            scratch[i] = larger(scratch[i], scratch[i + half])
        cuda.syncthreads()
        half //= 2
    result = scratch[0]
    cuda.syncthreads()
    return result
