"""Copies whose memory order is turned: tiles go through shared memory, so that both sides are read and written as they lie.

    out[i, r, c] = x[i, r, c]        neighbours in x differ in r, in out in c

A block takes 32 x 32 elements: a warp reads a row of x, and writes a row of out. Element by element a warp would touch 32 sectors of x for
32 numbers.
"""

from __future__ import annotations

from math import prod

from numba import cuda

from numbanet.backends.cuda.block import REAL
from numbanet.backends.cuda.compile import SIMULATED, Sizes, int32, kernel
from numbanet.backends.cuda.index import grid_stride_of_blocks, offset, split
from numbanet.backends.cuda.launch import launch
from numbanet.backends.cuda.memory import DeviceArray
from numbanet.dtypes import is_floating_point

TILE, ROWS = (4, 2) if SIMULATED else (32, 8)       # of a tile, and of it at once
PITCH = TILE + 1                                    # columns then lie in different banks
SHORTEST = 16                                       # elements of either axis: below, neighbours share sectors anyway
MOST_BLOCKS = 1 << 16


@kernel
def transposed_copy(x, out, tiles, size, grid: Sizes, batch: Sizes, x_batch, out_batch, x_step, out_step):
    """`size` is (rows, columns), `grid` these in tiles; `x_step` leads from one column to the next, `out_step` from one row to the next,
    the others are 1."""
    scratch = cuda.shared.array((TILE, PITCH), REAL)
    slow, fast = split(int32(cuda.threadIdx.x), int32(TILE))
    for tile in grid_stride_of_blocks(tiles):
        band, column = split(tile, grid[1])
        i, row = split(band, grid[0])
        row, column = row * TILE, column * TILE
        x_begin, out_begin = offset(i, batch, x_batch), offset(i, batch, out_batch)
        for part in range(TILE // ROWS):
            k = slow + int32(part * ROWS)
            if row + fast < size[0] and column + k < size[1]:
                scratch[k, fast] = x[x_begin + row + fast + (column + k) * x_step]
        cuda.syncthreads()
        for part in range(TILE // ROWS):
            k = slow + int32(part * ROWS)
            if row + k < size[0] and column + fast < size[1]:
                out[out_begin + (row + k) * out_step + column + fast] = scratch[fast, k]
        cuda.syncthreads()                          # before the tile is overwritten


def is_transposed(places, x: DeviceArray, out: DeviceArray) -> bool:
    """Whether a copy with these places (of out, then of x) is better made so."""
    return is_floating_point(x.dtype) and is_floating_point(out.dtype) and _row_axis(places) is not None


def _row_axis(places) -> int | None:
    """The axis along which x lies, where that is not out's."""
    shape, out_steps, x_steps = places
    if out_steps[-1] != 1 or x_steps[-1] <= 1 or shape[-1] < SHORTEST:
        return None
    return next((a for a, step in enumerate(x_steps) if step == 1 and shape[a] >= SHORTEST), None)


def copy_transposed(x: DeviceArray, out: DeviceArray, places) -> None:
    """out = x, of floating-point dtypes."""
    shape, out_steps, x_steps = places
    axis = _row_axis(places)
    others = [a for a in range(len(shape) - 1) if a != axis]
    batch, out_batch, x_batch = (tuple([values[a] for a in others]) or (default,) for values, default in (
        (shape, 1), (out_steps, 0), (x_steps, 0)))
    rows, columns = shape[axis], shape[-1]
    grid = -(-rows // TILE), -(-columns // TILE)
    tiles = prod(batch) * prod(grid)
    launch(transposed_copy, prod(shape), x, out, tiles, (rows, columns), grid, batch, x_batch, out_batch, x_steps[-1], out_steps[axis],
           blocks=min(tiles, MOST_BLOCKS), threads=TILE * ROWS)
