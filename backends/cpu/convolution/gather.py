"""Convolution as a matrix product whose left side is gathered on the way: forward, and backward-input at stride 1.

    y[pixel, k] = sum over steps of panel[pixel, step] * packed[step, k]

A thread copies the windows of a block of output pixels, edges as zeros, into a panel in its second-level cache and
multiplies it with the packed weights on the register tile, whose sums stay in registers over all taps and channels.
Copying costs one load and one store where the product spends K multiply-adds, and lets the one tile serve every stride,
padding, dilation and group; pixels are counted through rows and images, so only the last block is ragged. The tile
adds residuals and limits. This is the lowering of Chellapilla et al. (2006) done a panel at a time, as in Chetlur et al. (2014),
arXiv:1410.0759. Letters: `walk.py`; packed weights: `weights.py`.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu.activating import activate
from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.convolution.finishing_tile import ACCUMULATE, AHEAD, LIMITS, RESIDUAL, finishing_tile
from numbanet.backends.cpu.convolution.flat import flat_to_read
from numbanet.backends.cpu.convolution.statistics import take_moments
from numbanet.backends.cpu.convolution.walk import end_of, odd_pitch, pack_windows, strides_of
from numbanet.backends.cpu.convolution.weights import bias_offset, chunk_offset
from numbanet.backends.cpu.limits import limited
from numbanet.backends.cpu.out_of_line import out_of_line
from numbanet.backends.cpu.shares import begin_shares, next_job
from numbanet.backends.cpu.simd import L, load, load_partial, store, store_partial, tile_shapes

MR = min(12, tile_shapes()[0][0])   # pixels of a tile; with 14 ResNet-50 takes 4% longer at batch 1
THIRD, THIRDS = MR // 3, MR // 3 * 2    # of the last tile, where it has so few
CORNER = (MR + 1) * 2 * L           # floats of scratch memory for each thread
PACKED_TOGETHER = MR                # rows of a panel for all threads that one of them packs at once


@worker(inline=True)
def ahead_of(p, far):
    """How far behind its own steps of the weights those are that a tile asks for: the first tiles ask for all of the strip `far` behind."""
    return far + p // MR * 2 * L if p < AHEAD * MR else np.int64(0)


@worker(borrows=True)
def _wide_strip(panel, base, pitch, packed, b, far, y, c, y_row, count, depth, shifts, residual, r, r_row, low, high, steps):
    """2L filters of all whole tiles of pixels."""
    for p in range(0, count - MR + 1, MR):
        finishing_tile(MR, 2, panel, base + p * pitch, pitch, packed, b, 2 * L, y, c + p * y_row, y_row, depth, packed, shifts,
                       residual, r + p * r_row, r_row, low, high, steps, 0, ahead_of(p, far))


@worker(borrows=True)
def _wide_strip_partial(panel, base, pitch, packed, b, far, y, c, y_row, count, depth, shifts, residual, r, r_row, low, high,
                        steps, lanes):
    """L + lanes filters."""
    for p in range(0, count - MR + 1, MR):
        finishing_tile(MR, 2, panel, base + p * pitch, pitch, packed, b, 2 * L, y, c + p * y_row, y_row, depth, packed, shifts,
                       residual, r + p * r_row, r_row, low, high, steps, lanes, ahead_of(p, far))


@worker(borrows=True)
def _narrow_strip(panel, base, pitch, packed, b, y, c, y_row, count, depth, shifts, residual, r, r_row, low, high, steps, lanes):
    """At most L filters."""
    for p in range(0, count - MR + 1, MR):
        finishing_tile(MR, 1, panel, base + p * pitch, pitch, packed, b, L, y, c + p * y_row, y_row, depth, packed, shifts,
                       residual, r + p * r_row, r_row, low, high, steps, lanes, np.int64(0))


@worker(borrows=True)
def finish_rows(spare, start, rows, lanes, y, c, y_row, residual, r, r_row, low, high, steps):
    """What `finishing_tile` does with complete sums, for `lanes` filters of the rows of a tile that lie in scratch memory."""
    for i in range(rows):
        for lane in range(0, lanes, L):
            total, left = load(spare, start + i * 2 * L + lane), min(lanes - lane, L)
            if steps & RESIDUAL:
                total = total + load_partial(residual, r + i * r_row + lane, left)
            if steps & LIMITS:
                total = limited(total, low, high)
            store_partial(y, c + i * y_row + lane, total, left)


@worker(borrows=True)
def _ragged_tile(panel, base, pitch, packed, b, b_step, spare, corner, y, c, y_row, rows, depth, shifts, residual, r, r_row, low, high,
                 steps, lanes, before, ahead):
    """The last pixels, fewer than MR, through a corner of scratch memory. `before`: as in `multiply_panel`."""
    tile = THIRD if rows <= THIRD else THIRDS if rows <= THIRDS else MR
    back = 0 if before < 0 else tile - rows         # pixels that are computed once more, so that none behind the last is read
    start = corner + back * 2 * L
    if steps & ACCUMULATE:
        for i in range(rows):
            for lane in range(0, lanes, L):
                store(spare, start + i * 2 * L + lane, load_partial(y, c + i * y_row + lane, lanes - lane))
    if rows == 1 or back > before >= 0:
        for i in range(rows):
            finishing_tile(1, 2, panel, base + i * pitch, pitch, packed, b, b_step, spare, start + i * 2 * L, 2 * L, depth, packed, shifts,
                           residual, r, r_row, low, high, steps & ACCUMULATE, 0, 0)
    elif tile == THIRD:
        finishing_tile(THIRD, 2, panel, base - back * pitch, pitch, packed, b, b_step, spare, corner, 2 * L, depth, packed, shifts,
                       residual, r, r_row, low, high, steps & ACCUMULATE, 0, ahead)
    elif tile == THIRDS:
        finishing_tile(THIRDS, 2, panel, base - back * pitch, pitch, packed, b, b_step, spare, corner, 2 * L, depth, packed, shifts,
                       residual, r, r_row, low, high, steps & ACCUMULATE, 0, ahead)
    else:
        finishing_tile(MR, 2, panel, base - back * pitch, pitch, packed, b, b_step, spare, corner, 2 * L, depth, packed, shifts,
                       residual, r, r_row, low, high, steps & ACCUMULATE, 0, ahead)
    finish_rows(spare, start, rows, lanes, y, c, y_row, residual, r, r_row, low, high, steps)


@worker(borrows=True)
def multiply_panel(panel, base, pitch, spare, corner, packed, b, y, c, y_row, count, depth, filters, shifts, residual, r, r_row,
                   low, high, steps, before, following):
    """y[c + p * y_row + k] (+)= panel row p times packed column k, for `count` rows and `filters` columns.

    `spare` has room for MR * 2L floats from offset `corner` on. `before`: rows of the panel in front of `base`, where nothing behind its
    last row may be read; -1 where MR rows behind that are memory of the panel.
    `following`: where the weights are that will be needed next, which are asked for while the last strip is read.
    """
    out_of_line()
    ragged = count % MR
    for k in range(0, filters, 2 * L):
        left = filters - k
        at = b + k * depth
        far = 2 * L * depth if left > 2 * L else following - at
        if left >= 2 * L:
            _wide_strip(panel, base, pitch, packed, at, far, y, c + k, y_row, count, depth, shifts + k, residual, r + k, r_row,
                        low, high, steps)
        elif left > L:
            _wide_strip_partial(panel, base, pitch, packed, at, far, y, c + k, y_row, count, depth, shifts + k, residual, r + k, r_row,
                                low, high, steps, left - L)
        else:
            _narrow_strip(panel, base, pitch, packed, at, y, c + k, y_row, count, depth, shifts + k, residual, r + k, r_row,
                          low, high, steps, left)
        if ragged:
            p = count - ragged
            _ragged_tile(panel, base + p * pitch, pitch, packed, at, L if left <= L else 2 * L, spare, corner, y, c + p * y_row + k,
                         y_row, ragged, depth, shifts + k, residual, r + p * r_row + k, r_row, low, high, steps, min(left, 2 * L),
                         -1 if before < 0 else before + p, ahead_of(p, far) if left > L else np.int64(0))


@worker
def panel_pitch(depth, together):
    """Floats from row to row of a panel; rows that threads pack side by side do not reach into each other, as `pack_windows` does."""
    return odd_pitch(depth + L) if together else odd_pitch(depth)


@worker
def _panel_of(g, c0, Cg, chunk, pixels, pitch):
    """Where a chunk of a group's channels begins in panels of all pixels."""
    return (g * ((Cg + chunk - 1) // chunk) + c0 // chunk) * pixels * pitch


@worker(borrows=True)
def _pack_jobs(slot, counters, jobs, x, preactivation, scratch, panels, walk, chunk, pixels, pitch):
    """What one slot packs of the panels of all pixels; a job is a few rows of a chunk of a group's channels."""
    out_of_line()
    Cg, slots = walk[0], scratch.shape[0]
    chunks = (Cg + chunk - 1) // chunk
    parts = (pixels + PACKED_TOGETHER - 1) // PACKED_TOGETHER
    job = next_job(counters, slot, slots, jobs)
    while job >= 0:
        first, g, c0 = job % parts * PACKED_TOGETHER, job // parts // chunks, job // parts % chunks * chunk
        channel = g * Cg + c0
        pack_windows(x, preactivation, channel, channel, strides_of(x), end_of(x), walk, first, min(PACKED_TOGETHER, pixels - first),
                     min(chunk, Cg - c0), scratch, panels + _panel_of(g, c0, Cg, chunk, pixels, pitch) + first * pitch, pitch)
        job = next_job(counters, slot, slots, jobs)


@worker(borrows=True)
def _gather_jobs(slot, counters, jobs, x, preactivation, packed, y, residual, low, high, activation, moments, scratch, walk, block, chunk,
                 parts, apart, together):
    """What one slot does; a job is a block of pixels and, of each group, one of `parts` ranges of strips."""
    out_of_line()
    Cg, Kg, G, T = walk[0], walk[1], walk[2], walk[5] * walk[6]
    slots, pixels = scratch.shape[0], y.shape[0]
    strips = (Kg + 2 * L - 1) // (2 * L)
    pitch, y_row, r_row = panel_pitch(T * chunk, together), y.strides[0] // 4, residual.strides[0] // 4
    first_steps, last_steps = RESIDUAL if residual.size else 0, LIMITS if low > -np.inf or high < np.inf else 0
    # up to a vector behind the last row of a panel is overwritten
    corner, base = slot * CORNER, slots * CORNER + (0 if together else slot * (block * pitch + 2 * L))
    pixels_of_x, panels = flat_to_read(x), flat_to_read(scratch)
    job = next_job(counters, slot, slots, jobs)
    while job >= 0:
        first, part = job // parts * block, job % parts
        count = min(block, pixels - first)
        k0, k1 = part * strips // parts * 2 * L, min(Kg, (part + 1) * strips // parts * 2 * L)
        for g in range(G):
            k = g * Kg + k0
            for c0 in range(0, Cg, chunk):
                channels = min(chunk, Cg - c0)
                # the residual first: y may lie in its memory
                steps = (ACCUMULATE if c0 else first_steps) | (last_steps if c0 + channels == Cg else 0)
                if apart:
                    source, at, step, before = pixels_of_x, first * apart + g * Cg + c0, apart, first
                elif together:
                    at = base + _panel_of(g, c0, Cg, chunk, pixels, pitch) + first * pitch
                    source, step, before = panels, pitch, first
                else:
                    channel = g * Cg + c0
                    pack_windows(x, preactivation, channel, channel, strides_of(x), end_of(x), walk, first, count, channels, scratch, base,
                                 pitch)
                    source, at, step, before = panels, base, pitch, np.int64(-1)
                if c0 + channels < Cg:
                    following = chunk_offset(Cg, Kg, T, g, c0 + channels) + k0 * T * min(chunk, Cg - c0 - channels)
                elif g + 1 < G:
                    following = chunk_offset(Cg, Kg, T, g + 1, np.int64(0)) + k0 * T * min(chunk, Cg)
                else:
                    following = (k1 if part + 1 < parts else 0) * T * min(chunk, Cg)        # of the job that most likely comes next
                multiply_panel(source, at, step, scratch, corner, packed, chunk_offset(Cg, Kg, T, g, c0) + k0 * T * channels,
                               y, first * y_row + k, y_row, count, T * channels, k1 - k0, bias_offset(Cg, Kg, G, T, g) + k0,
                               residual, first * r_row + k, r_row, low, high, steps, before, following)
            activate(activation, y, first * y_row + k, count, y_row, k1 - k0)
            if moments.size:
                take_moments(moments, job // parts, k, y, first * y_row + k, 1, 0, count, y_row, k1 - k0, True)
        job = next_job(counters, slot, slots, jobs)


@kernel("void(const T[:,:,:,:], const T[:,::1], const T[::1], T[:,:], const T[:,:], f4, f4, i8, T[:,:,::1], T[:,::1], const i8[::1], i8, "
        "i8, i8, i8, i8)", parallel=True)
def conv2d_forward_gather(x, preactivation, packed, y, residual, low, high, activation, moments, scratch, walk, block, chunk, parts, apart,
                          together):
    """x (N, H, W, C), y and residual (pixels, K), scratch (slots, floats); `preactivation`: see `preactivate.py`.

    An empty residual adds nothing; y is limited to [low, high], and then given to `activation`; moments (blocks, 3, K), or empty: see
    `statistics.py`. Where `apart` is not 0, windows are pixels, that many floats apart in x, and are read there. `together`: whether
    windows of all pixels are packed first, for all jobs, since several would pack the same ones.
    """
    slots, pixels = scratch.shape[0], y.shape[0]
    if together and not apart:
        pitch = panel_pitch(walk[5] * walk[6] * chunk, together)
        rows = (pixels + PACKED_TOGETHER - 1) // PACKED_TOGETHER
        packs = rows * walk[2] * ((walk[0] + chunk - 1) // chunk)
        packed_rows = begin_shares(slots, packs)
        for slot in prange(slots):
            _pack_jobs(np.int64(slot), packed_rows, packs, x, preactivation, scratch, slots * CORNER, walk, chunk, pixels, pitch)
    jobs = (pixels + block - 1) // block * parts
    counters = begin_shares(slots, jobs)
    for slot in prange(slots):
        _gather_jobs(np.int64(slot), counters, jobs, x, preactivation, packed, y, residual, low, high, activation, moments, scratch, walk,
                     block, chunk, parts, apart, together)
