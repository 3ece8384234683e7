"""Products of matrices in square tiles: a block computes a tile of the result from tiles of its operands in shared memory.

    out[i, m, n] = bias[n] + sum over k of a[i, m, k] * b[i, k, n]          limited to [low, high]

a (..., M, K), b (..., K, N), out (..., M, N) of any steps, i counting the batch. A thread computes one element, and each step along k it
reads one of a and one of b: neighbouring threads neighbours in memory, whichever axis that is. Past the edges tiles hold zeros. The sum
runs along k in order, whatever the GPU.
"""

from __future__ import annotations

from math import prod

from numba import cuda

from numbanet.backends.cuda.block import REAL
from numbanet.backends.cuda.compile import SIMULATED, Sizes, int32, kernel
from numbanet.backends.cuda.index import grid_stride_of_blocks, offset, split
from numbanet.backends.cuda.launch import launch, number
from numbanet.backends.cuda.layout import broadcast_steps, merged_in_order
from numbanet.backends.cuda.limits import NO_LIMITS
from numbanet.backends.cuda.mathematics import larger, smaller
from numbanet.backends.cuda.memory import DeviceArray

TILE = 3 if SIMULATED else 16
PITCH = TILE + 1                    # of a tile's rows: columns then lie in different banks
MOST_BLOCKS = 1 << 16


@kernel
def matrix_product(a, b, bias, out, low, high, tiles, size, grid: Sizes, batch: Sizes, a_batch, b_batch, out_batch, a_steps, b_steps,
                   out_steps, bias_step, has_bias, a_along_rows, b_along_rows):
    """`size` is (M, N, K), `grid` M and N in tiles; `along_rows`: neighbours in memory are rows of the matrix, not columns."""
    of_a = cuda.shared.array((TILE, PITCH), REAL)
    of_b = cuda.shared.array((TILE, PITCH), REAL)
    slow, fast = split(int32(cuda.threadIdx.x), int32(TILE))
    a_m, a_k = (fast, slow) if a_along_rows else (slow, fast)
    b_k, b_n = (fast, slow) if b_along_rows else (slow, fast)
    for tile in grid_stride_of_blocks(tiles):
        band, n = split(tile, grid[1])
        i, m = split(band, grid[0])
        m, n = m * TILE, n * TILE
        a_begin, b_begin = offset(i, batch, a_batch), offset(i, batch, b_batch)
        value = 0.0
        for k in range(0, size[2], TILE):
            inside = m + a_m < size[0] and k + a_k < size[2]
            of_a[a_m, a_k] = a[a_begin + (m + a_m) * a_steps[0] + (k + a_k) * a_steps[1]] if inside else 0.0
            inside = k + b_k < size[2] and n + b_n < size[1]
            of_b[b_k, b_n] = b[b_begin + (k + b_k) * b_steps[0] + (n + b_n) * b_steps[1]] if inside else 0.0
            cuda.syncthreads()
            for e in range(TILE):
                value += of_a[slow, e] * of_b[e, fast]
            cuda.syncthreads()                          # before the tiles are overwritten
        if m + slow < size[0] and n + fast < size[1]:
            if has_bias:
                value += bias[(n + fast) * bias_step]
            at = offset(i, batch, out_batch) + (m + slow) * out_steps[0] + (n + fast) * out_steps[1]
            out[at] = smaller(larger(value, low), high)


def multiply(a: DeviceArray, b: DeviceArray, bias: DeviceArray | None, out: DeviceArray, low: float = NO_LIMITS[0],
             high: float = NO_LIMITS[1]) -> None:
    """out (..., M, N) = a (..., M, K) times b (..., K, N), plus bias (N,) unless that is None, limited to [low, high]."""
    (M, N), K, batch = out.shape[-2:], a.shape[-1], out.shape[:-2]
    places = merged_in_order(batch, *[broadcast_steps(x, (*batch, *x.shape[-2:]))[:-2] for x in (a, b, out)])
    grid = -(-M // TILE), -(-N // TILE)
    tiles = prod(batch) * prod(grid)
    low, high = number(low, out.dtype), number(high, out.dtype)
    launch(matrix_product, out.size, a, b, a if bias is None else bias, out, low, high, tiles, (M, N, K), grid, *places, a.steps[-2:],
           b.steps[-2:], out.steps[-2:], 0 if bias is None else bias.steps[0], int(bias is not None),
           int(a.steps[-2] < a.steps[-1]), int(b.steps[-2] < b.steps[-1]), blocks=min(tiles, MOST_BLOCKS), threads=TILE * TILE)
