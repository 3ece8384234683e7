"""Convolution as a matrix product whose left side is gathered on the way: forward, and backward-input at stride 1.

    y[pixel, k] = sum over steps of panel[pixel, step] * packed[step, k]

A thread copies the windows of a block of output pixels, edges as zeros, into a panel in its second-level cache and
multiplies it with the packed weights on the register tile, whose sums stay in registers over all taps and channels.
Copying costs one load and one store where the product spends K multiply-adds, and lets the one tile serve every stride,
padding, dilation and group; pixels are counted through rows and images, so only the last block is ragged. Bias is one
more step. This is the lowering of Chellapilla et al. (2006) done a panel at a time, as in Chetlur et al. (2014),
arXiv:1410.0759. Letters: `walk.py`; packed weights: `weights.py`.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.convolution.walk import odd_pitch, pack_windows
from numbanet.backends.cpu.out_of_line import out_of_line
from numbanet.backends.cpu.simd import L, load, store_partial, tile, tile_partial, tile_shapes

MR = min(12, tile_shapes()[0][0])     # pixels of a tile: 13 and 14 spill a register, and are a quarter slower


@worker
def _wide_strip(panel, base, pitch, packed, b, y, c, y_row, count, steps):
    """2L filters of all whole tiles of pixels."""
    for p in range(0, count - MR + 1, MR):
        tile(MR, 2, panel, base + p * pitch, pitch, 1, packed, b, 2 * L, y, c + p * y_row, y_row, steps, 0)


@worker
def _wide_strip_partial(panel, base, pitch, packed, b, y, c, y_row, count, steps, lanes):
    """L + lanes filters."""
    for p in range(0, count - MR + 1, MR):
        tile_partial(MR, 2, panel, base + p * pitch, pitch, 1, packed, b, 2 * L, y, c + p * y_row, y_row, steps, 0,
                     lanes)


@worker
def _narrow_strip(panel, base, pitch, packed, b, y, c, y_row, count, steps, lanes):
    """At most L filters."""
    for p in range(0, count - MR + 1, MR):
        tile_partial(MR, 1, panel, base + p * pitch, pitch, 1, packed, b, L, y, c + p * y_row, y_row, steps, 0, lanes)


@worker
def _ragged_tile(panel, base, pitch, packed, b, b_step, scratch, corner, y, c, y_row, rows, steps, lanes):
    """The last pixels, fewer than MR, through a corner of the scratch memory."""
    tile(MR, 2, panel, base, pitch, 1, packed, b, b_step, scratch, corner, 2 * L, steps, 0)
    for i in range(rows):
        store_partial(y, c + i * y_row, load(scratch, corner + i * 2 * L), min(lanes, L))
        if lanes > L:
            store_partial(y, c + i * y_row + L, load(scratch, corner + i * 2 * L + L), lanes - L)


@worker
def multiply_panel(panel, base, pitch, corner, packed, b, y, c, y_row, count, steps, filters):
    """y[c + p * y_row + k] = panel row p times packed column k, for `count` rows and `filters` columns."""
    out_of_line()
    ragged = count % MR
    for k in range(0, filters, 2 * L):
        left = filters - k
        if left >= 2 * L:
            _wide_strip(panel, base, pitch, packed, b, y, c + k, y_row, count, steps)
        elif left > L:
            _wide_strip_partial(panel, base, pitch, packed, b, y, c + k, y_row, count, steps, left - L)
        else:
            _narrow_strip(panel, base, pitch, packed, b, y, c + k, y_row, count, steps, left)
        if ragged:
            p = count - ragged
            _ragged_tile(panel, base + p * pitch, pitch, packed, b, L if left <= L else 2 * L, panel, corner,
                         y, c + p * y_row + k, y_row, ragged, steps, min(left, 2 * L))
        b += 2 * L * steps


@worker
def _gather_blocks(slot, x, packed, y, scratch, walk, block, with_bias):
    """The share of one slot."""
    out_of_line()
    Cg, Kg, G = walk[0], walk[1], walk[2]
    slots, pixels = scratch.shape[0], y.shape[0]
    blocks = (pixels + block - 1) // block
    steps = walk[5] * walk[6] * Cg + with_bias
    pitch = odd_pitch(steps)
    group_size = steps * ((Kg + L - 1) // L) * L
    y_row = y.strides[0] // 4
    base = slot * scratch.shape[1]
    corner = base + block * pitch + L
    for job in range(slot * blocks // slots, (slot + 1) * blocks // slots):
        first = job * block
        count = min(block, pixels - first)
        for g in range(G):
            pack_windows(x, walk, first, count, g * Cg, Cg, scratch, base, pitch)
            multiply_panel(scratch, base, pitch, corner, packed, g * group_size,
                           y, first * y_row + g * Kg, y_row, count, steps, Kg)


@kernel("void(const T[:,:,:,:], const T[::1], T[:,:], T[:,::1], const i8[::1], i8, i8)", parallel=True)
def conv2d_forward_gather(x, packed, y, scratch, walk, block, with_bias):
    """x (N, H, W, C), y (pixels, K), scratch (slots, floats); each slot takes an equal share of the blocks."""
    for slot in prange(scratch.shape[0]):
        _gather_blocks(np.int64(slot), x, packed, y, scratch, walk, block, with_bias)
