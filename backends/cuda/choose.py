"""Which kernel computes a primitive, from its shapes, dtype and GPU; pure functions, each choice with its reason.

The direct kernels cover every shape, stride and dtype. Tile programs for tensor cores (`tiles/`) are taken where all predicates below hold
and they are switched on: `numbanet.cuda.set_tiles(True)` or NUMBANET_CUDA_TILES=1. They are off by default until a run recorded in
`benchmarks/results/` shows that they are right and faster.
"""

from __future__ import annotations

from math import prod

from numbanet.backends.cuda import convolution_direct, convolution_tiles, matrix, matrix_tiles
from numbanet.backends.cuda.memory import DeviceArray
from numbanet.backends.cuda.tiles import layout
from numbanet.backends.cuda.tiles.choose import is_depthwise, math_of, product_of, use_tiles

LEAST = 8                   # of rows, columns and depth: below, a tile of 64 x 64 is nearly empty, and its copies are of single elements
MOST_BATCHES = 65535        # of products in one launch: blocks of a grid along its second axis
_REACH = 1 << 31            # elements that offsets of tile programs, int32, can span


def convolution(direction: str, geometry, *arrays: DeviceArray):
    """The module whose `forward`, `backward_input` and `backward_weight` compute a convolution; `arrays` are its maps and weights."""
    first = arrays[0]
    if not has_tiles(first.device, first.dtype) or not is_within_reach(*arrays):
        return convolution_direct
    rows, columns, depth, _ = product_of(direction, geometry, first.shape[0])
    if not is_depthwise(geometry) and not fills_tiles(rows, columns, depth):
        return convolution_direct
    return convolution_tiles


def matrix_product(a: DeviceArray, b: DeviceArray, out: DeviceArray):
    """The function that computes products of matrices; see :func:`~numbanet.backends.cuda.matrix.multiply`."""
    if (not has_tiles(out.device, out.dtype) or not is_within_reach(a, b, out) or not fills_tiles(*out.shape[-2:], a.shape[-1])
            or prod(out.shape[:-2]) > MOST_BATCHES):
        return matrix.multiply
    return matrix.multiply if matrix_tiles.batch_steps(a, b, out) is None else matrix_tiles.multiply


def takes_statistics(geometry, batch: int, dtype, device) -> bool:
    """Whether a convolution's blocks take the statistics of its result, which is then not read again for them: by tiles, if not split."""
    rows, columns, depth, _ = product_of("forward", geometry, batch)
    return (has_tiles(device, dtype) and fills_tiles(rows, columns, depth)
            and convolution_tiles.is_whole(geometry, batch, dtype, device))


def has_tiles(device, dtype) -> bool:
    """Whether tile programs are on, the GPU runs them (sm_80 and newer do), and the dtype is one of theirs."""
    return use_tiles() and device.runs_tiles and math_of(dtype) is not None


def fills_tiles(rows: int, columns: int, depth: int) -> bool:
    """Whether a product is large enough for a tile, and small enough for its integers (`layout.py`)."""
    return min(rows, columns, depth) >= LEAST and max(rows, columns, depth) < layout.LIMIT - 256


def is_within_reach(*arrays: DeviceArray) -> bool:
    """Whether offsets within each array fit int32."""
    return all(sum(step * n for step, n in zip(x.steps, x.shape)) < _REACH for x in arrays)
