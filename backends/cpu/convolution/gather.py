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
from numbanet.backends.cpu.convolution.weights import chunk_offset
from numbanet.backends.cpu.out_of_line import out_of_line
from numbanet.backends.cpu.simd import L, load, load_partial, store_partial, tile, tile_partial, tile_shapes

MR = min(12, tile_shapes()[0][0])     # pixels of a tile: 13 and 14 spill a register, and are a quarter slower


@worker
def _wide_strip(panel, base, pitch, packed, b, y, c, y_row, count, steps, accumulate):
    """2L filters of all whole tiles of pixels."""
    for p in range(0, count - MR + 1, MR):
        tile(MR, 2, panel, base + p * pitch, pitch, 1, packed, b, 2 * L, y, c + p * y_row, y_row, steps, accumulate)


@worker
def _wide_strip_partial(panel, base, pitch, packed, b, y, c, y_row, count, steps, accumulate, lanes):
    """L + lanes filters."""
    for p in range(0, count - MR + 1, MR):
        tile_partial(MR, 2, panel, base + p * pitch, pitch, 1, packed, b, 2 * L, y, c + p * y_row, y_row, steps,
                     accumulate, lanes)


@worker
def _narrow_strip(panel, base, pitch, packed, b, y, c, y_row, count, steps, accumulate, lanes):
    """At most L filters."""
    for p in range(0, count - MR + 1, MR):
        tile_partial(MR, 1, panel, base + p * pitch, pitch, 1, packed, b, L, y, c + p * y_row, y_row, steps,
                     accumulate, lanes)


@worker
def _ragged_tile(panel, base, pitch, packed, b, b_step, corner, y, c, y_row, rows, steps, accumulate, lanes):
    """The last pixels, fewer than MR, through a corner of the scratch memory that holds the panel."""
    tile(MR, 2, panel, base, pitch, 1, packed, b, b_step, panel, corner, 2 * L, steps, 0)
    for i in range(rows):
        for lane in range(0, lanes, L):
            total, left = load(panel, corner + i * 2 * L + lane), min(lanes - lane, L)
            if accumulate:
                total = total + load_partial(y, c + i * y_row + lane, left)
            store_partial(y, c + i * y_row + lane, total, left)


@worker
def _multiply_panel(panel, base, pitch, corner, packed, b, y, c, y_row, count, steps, filters, accumulate):
    """y[c + p * y_row + k] (+)= panel row p times packed column k, for `count` rows and `filters` columns."""
    out_of_line()
    ragged = count % MR
    for k in range(0, filters, 2 * L):
        left = filters - k
        at = b + k * steps
        if left >= 2 * L:
            _wide_strip(panel, base, pitch, packed, at, y, c + k, y_row, count, steps, accumulate)
        elif left > L:
            _wide_strip_partial(panel, base, pitch, packed, at, y, c + k, y_row, count, steps, accumulate, left - L)
        else:
            _narrow_strip(panel, base, pitch, packed, at, y, c + k, y_row, count, steps, accumulate, left)
        if ragged:
            p = count - ragged
            _ragged_tile(panel, base + p * pitch, pitch, packed, at, L if left <= L else 2 * L, corner,
                         y, c + p * y_row + k, y_row, ragged, steps, accumulate, min(left, 2 * L))


@worker
def _gather_jobs(slot, x, packed, y, scratch, walk, block, chunk, parts, with_bias):
    """The share of one slot; a job is a block of pixels and, of each group, one of `parts` ranges of strips."""
    out_of_line()
    Cg, Kg, G, T = walk[0], walk[1], walk[2], walk[5] * walk[6]
    slots, pixels = scratch.shape[0], y.shape[0]
    jobs = (pixels + block - 1) // block * parts
    strips = (Kg + 2 * L - 1) // (2 * L)
    pitch, y_row = odd_pitch(T * chunk + with_bias), y.strides[0] // 4
    base = slot * scratch.shape[1]
    corner = base + block * pitch + L
    for job in range(slot * jobs // slots, (slot + 1) * jobs // slots):
        first, part = job // parts * block, job % parts
        count = min(block, pixels - first)
        k0, k1 = part * strips // parts * 2 * L, min(Kg, (part + 1) * strips // parts * 2 * L)
        for g in range(G):
            for c0 in range(0, Cg, chunk):
                channels = min(chunk, Cg - c0)
                steps = T * channels + (with_bias if c0 + channels == Cg else 0)
                pack_windows(x, walk, first, count, g * Cg + c0, channels, scratch, base, pitch)
                _multiply_panel(scratch, base, pitch, corner, packed,
                                chunk_offset(Cg, Kg, T, with_bias, g, c0) + k0 * steps,
                                y, first * y_row + g * Kg + k0, y_row, count, steps, k1 - k0, 1 if c0 else 0)


@kernel("void(const T[:,:,:,:], const T[::1], T[:,:], T[:,::1], const i8[::1], i8, i8, i8, i8)", parallel=True)
def conv2d_forward_gather(x, packed, y, scratch, walk, block, chunk, parts, with_bias):
    """x (N, H, W, C), y (pixels, K), scratch (slots, floats); each slot takes an equal share of the jobs."""
    for slot in prange(scratch.shape[0]):
        _gather_jobs(np.int64(slot), x, packed, y, scratch, walk, block, chunk, parts, with_bias)
