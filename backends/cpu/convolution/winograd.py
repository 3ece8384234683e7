"""Winograd's convolutions F(4 x 4, 3 x 3), F(2 x 2, 3 x 3) and F(2 x 2, 5 x 5): forward, and backward-input at stride 1.

    y tile = A^T [ sum over c of (G weight[k, c] G^T) * (B^T x[c] tile B) ] A

A tile is 4 x 4 output pixels, or 2 x 2 with 5 x 5 taps, whose windows cover 6 x 6 input pixels: 36 multiplications instead of 144,
or of 100. Both use the same points, so only G and A are others. Tiles of 2 x 2 with 3 x 3 taps have windows of 4 x 4: 16 multiplications
instead of 36, and weights that are 16 / 9 as large as plain ones, not fourfold. For each of the positions of a transformed tile the sum
over channels is a matrix product of tiles by filters, done on the register tile. A job takes a block of
tiles through all of it, so that transformed inputs and products stay in its second-level cache; or, where the weights are
so many that reading them for each block takes longer than the products, a group of tiles goes through one phase after the
other on all threads, and the weights are read once a group. Zeros outside of x enter at the transform. Lavin and Gray
(2016), arXiv:1509.09308, with the points 0, 1, -1, and 2, -2 where windows are large. Letters: `walk.py`; tiles: TH x TW an image; `size`:
output pixels of a tile along an axis.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu.activating import activate
from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.convolution.gather import MR, ahead_of
from numbanet.backends.cpu.convolution.statistics import take_moments
from numbanet.backends.cpu.convolution.walk import odd_pitch, strides_of
from numbanet.backends.cpu.convolution.winograd_tile import (
    transform_filters,
    transform_input_tile,
    transform_output_tile,
    transform_small_input_tile,
    transform_small_output_tile,
)
from numbanet.backends.cpu.out_of_line import out_of_line
from numbanet.backends.cpu.shares import begin_shares, next_job
from numbanet.backends.cpu.simd import L, tile, tile_ahead

FILTERS = 4 * L         # of a block whose products are transformed back together
RUN = 4                 # tiles that a thread takes at once in a phase
FEW = 4 if MR == 12 else 3      # tiles of the last products; MR is a multiple


@worker
def _transform_strip(weight, U, task, window):
    C = weight.shape[2]
    blocks = (C + 15) // 16
    scratch = np.empty(36 * L, np.float32)
    for c in range(task % blocks * 16, min(C, task % blocks * 16 + 16)):
        transform_filters(weight, U, scratch, task // blocks, c, window)


@kernel("void(const T[:,:,:,:,:], T[::1], i8)", parallel=True)
def transform_weights(weight, U, size):
    """U (window * window, strips of 2L filters, C, 2L) = G weight G^T; weight (1, K, C, 3, 3) or (1, K, C, 5, 5)."""
    _, K, C, R, _ = weight.shape
    for task in prange((K + 2 * L - 1) // (2 * L) * ((C + 15) // 16)):
        _transform_strip(weight, U, np.int64(task), size + R - 1)


@worker(inline=True)
def _transform_input(x, preactivation, n, h0, w0, scratch, v, v_plane, t, window):
    if window == 4:
        transform_small_input_tile(x, preactivation, n, h0, w0, x.shape[3], scratch, v, v_plane, t)
    else:
        transform_input_tile(x, preactivation, n, h0, w0, 0, x.shape[3], scratch, v, v_plane, t)


@worker(inline=True)
def _transform_output(scratch, m, m_plane, t, bias, k0, k1, y, n, oh, ow, size, residual, low, high, activation, moments, run, is_first,
                      window):
    if window == 4:
        transform_small_output_tile(scratch, m, m_plane, t, bias, k0, k1, y, n, oh, ow, residual, low, high)
    else:
        transform_output_tile(scratch, m, m_plane, t, bias, k0, k1, y, n, oh, ow, size, residual, low, high)
    if activation:
        y_n, y_h, y_w = strides_of(y)
        for i in range(oh, min(y.shape[1], oh + size)):
            activate(activation, y, n * y_n + i * y_h + ow * y_w + k0, min(y.shape[2] - ow, size), y_w, k1 - k0)
    if moments.size:
        y_n, y_h, y_w = strides_of(y)
        take_moments(moments, run, k0, y, n * y_n + oh * y_h + ow * y_w + k0, min(y.shape[1] - oh, size), y_h, min(y.shape[2] - ow, size),
                     y_w, k1 - k0, is_first)


@worker(borrows=True)
def _multiply_tiles(scratch, v, v_pitch, U, b, far, C, m, m_pitch, count):
    """M[tile, :2L] = V[tile] times one strip of U, for `count` tiles, and up to FEW - 1 more; the strip `far` behind is asked for."""
    p = 0
    while count - p > MR - FEW:
        tile_ahead(MR, 2, scratch, v + p * v_pitch, v_pitch, 1, U, b, 2 * L, scratch, m + p * m_pitch, m_pitch, C, 0, ahead_of(p, far))
        p += MR
    while p < count:
        tile(FEW, 2, scratch, v + p * v_pitch, v_pitch, 1, U, b, 2 * L, scratch, m + p * m_pitch, m_pitch, C, 0)
        p += FEW


@worker(borrows=True)
def _multiply_narrow_tiles(scratch, v, v_pitch, U, b, C, m, m_pitch, count):
    """As `_multiply_tiles`, of a strip with L filters at most."""
    p = 0
    while count - p > MR - FEW:
        tile(MR, 1, scratch, v + p * v_pitch, v_pitch, 1, U, b, 2 * L, scratch, m + p * m_pitch, m_pitch, C, 0)
        p += MR
    while p < count:
        tile(FEW, 1, scratch, v + p * v_pitch, v_pitch, 1, U, b, 2 * L, scratch, m + p * m_pitch, m_pitch, C, 0)
        p += FEW


@worker(borrows=True)
def _multiply_block(scratch, v, v_pitch, v_plane, U, strip0, strip1, K, C, m, m_plane, count, positions):
    """M[position, tile, k] = V[position, tile] times the strips strip0, ..., strip1 - 1 of U[position], of K filters in all."""
    out_of_line()
    strips, whole = (K + 2 * L - 1) // (2 * L), (K + L - 1) // (2 * L)
    for position in range(positions):
        for strip in range(strip0, min(strip1, whole)):
            far = 1 if strip + 1 < strip1 else strips - strip + strip0
            _multiply_tiles(scratch, v + position * v_plane, v_pitch, U, (position * strips + strip) * C * 2 * L, far * C * 2 * L, C,
                            m + position * m_plane + (strip - strip0) * 2 * L, FILTERS, count)
        if strip1 > whole:
            _multiply_narrow_tiles(scratch, v + position * v_plane, v_pitch, U, (position * strips + whole) * C * 2 * L, C,
                                   m + position * m_plane + (whole - strip0) * 2 * L, FILTERS, count)


@worker(borrows=True)
def _winograd_jobs(slot, counters, jobs, x, preactivation, U, bias, y, residual, low, high, activation, moments, scratch, walk, block,
                   size):
    """What one slot does; a job is `block` tiles, a multiple of MR."""
    out_of_line()
    pad_h, pad_w = walk[9], walk[10]
    C, (N, OH, OW, K), window = x.shape[3], y.shape, size + walk[5] - 1
    TH, TW, strips = (OH + size - 1) // size, (OW + size - 1) // size, (K + 2 * L - 1) // (2 * L)
    slots, tiles = scratch.shape[0], N * TH * TW
    v_pitch = odd_pitch(C)
    v_plane, m_plane = block * v_pitch + L, block * FILTERS + L
    t = slot * scratch.shape[1]
    v = t + 36 * L
    m = v + window * window * v_plane
    job = next_job(counters, slot, slots, jobs)
    while job >= 0:
        first = job * block
        count = min(block, tiles - first)
        for i in range(count):
            n, th, tw = (first + i) // (TH * TW), (first + i) // TW % TH, (first + i) % TW
            _transform_input(x, preactivation, n, th * size - pad_h, tw * size - pad_w, scratch, v + i * v_pitch, v_plane, t, window)
        for k0 in range(0, K, FILTERS):
            k1 = min(K, k0 + FILTERS)
            strip0 = k0 // (2 * L)
            _multiply_block(scratch, v, v_pitch, v_plane, U, strip0, min(strips, strip0 + FILTERS // (2 * L)), K,
                            C, m, m_plane, count, window * window)
            for i in range(count):
                n, th, tw = (first + i) // (TH * TW), (first + i) // TW % TH, (first + i) % TW
                _transform_output(scratch, m + i * FILTERS, m_plane, t, bias, k0, k1, y, n, th * size, tw * size,
                                  size, residual, low, high, activation, moments, (first + i) // MR, i % MR == 0, window)
        job = next_job(counters, slot, slots, jobs)


@kernel("void(const T[:,:,:,:], const T[:,::1], const T[::1], const T[::1], T[:,:,:,:], const T[:,:,:,:], f4, f4, i8, T[:,:,::1], "
        "T[:,::1], const i8[::1], i8, i8)", parallel=True)
def conv2d_forward_winograd(x, preactivation, U, bias, y, residual, low, high, activation, moments, scratch, walk, block, size):
    """x (N, H, W, C), y and residual (N, OH, OW, K), scratch (slots, floats); an empty bias or residual adds nothing.

    moments (runs of MR tiles, 3, K), or empty: see `statistics.py`; `preactivation`: see `preactivate.py`.
    """
    N, OH, OW, _ = y.shape
    jobs = (N * ((OH + size - 1) // size) * ((OW + size - 1) // size) + block - 1) // block
    counters = begin_shares(scratch.shape[0], jobs)
    for slot in prange(scratch.shape[0]):
        _winograd_jobs(np.int64(slot), counters, jobs, x, preactivation, U, bias, y, residual, low, high, activation, moments, scratch,
                       walk, block, size)


@worker(borrows=True)
def _transform_inputs(slot, slots, counters, count, x, preactivation, scratch, first, t, v, v_pitch, v_plane, walk, TH, TW, size):
    """Of tiles first, ..., first + count - 1."""
    out_of_line()
    window = size + walk[5] - 1
    jobs = (count + RUN - 1) // RUN
    job = next_job(counters, slot, slots, jobs)
    while job >= 0:
        for i in range(job * RUN, min(count, job * RUN + RUN)):
            n, th, tw = (first + i) // (TH * TW), (first + i) // TW % TH, (first + i) % TW
            _transform_input(x, preactivation, n, th * size - walk[9], tw * size - walk[10], scratch, v + i * v_pitch, v_plane, t, window)
        job = next_job(counters, slot, slots, jobs)


@worker(borrows=True)
def _multiply_strips(slot, slots, counters, scratch, v, v_pitch, v_plane, U, strips, C, m, m_pitch, m_plane, count, positions):
    """Products of strips, counted over all positions."""
    out_of_line()
    job = next_job(counters, slot, slots, positions * strips)
    while job >= 0:
        position, strip = job // strips, job % strips
        _multiply_tiles(scratch, v + position * v_plane, v_pitch, U, job * C * 2 * L, C * 2 * L, C,
                        m + position * m_plane + strip * 2 * L, m_pitch, count)
        job = next_job(counters, slot, slots, positions * strips)


@worker(borrows=True)
def _transform_outputs(slot, slots, counters, count, scratch, first, t, m, m_pitch, m_plane, bias, y, residual, low, high, activation,
                       moments, runs_before, TH, TW, size, window):
    """Of tiles first, ..., first + count - 1."""
    out_of_line()
    jobs = (count + RUN - 1) // RUN
    job = next_job(counters, slot, slots, jobs)
    while job >= 0:
        for i in range(job * RUN, min(count, job * RUN + RUN)):
            n, th, tw = (first + i) // (TH * TW), (first + i) // TW % TH, (first + i) % TW
            _transform_output(scratch, m + i * m_pitch, m_plane, t, bias, 0, y.shape[3], y, n, th * size, tw * size, size,
                              residual, low, high, activation, moments, runs_before + job, i == job * RUN, window)
        job = next_job(counters, slot, slots, jobs)


@kernel("void(const T[:,:,:,:], const T[:,::1], const T[::1], const T[::1], T[:,:,:,:], const T[:,:,:,:], f4, f4, i8, T[:,:,::1], "
        "T[::1], const i8[::1], i8, i8, i8)", parallel=True)
def conv2d_forward_winograd_phases(x, preactivation, U, bias, y, residual, low, high, activation, moments, scratch, walk, group, slots,
                                   size):
    """As `conv2d_forward_winograd`, `group` tiles at a time; scratch (see `choose.winograd_plan`) is shared by all slots.

    moments (runs of all groups, 3, K), or empty.
    """
    C, (N, OH, OW, K), window = x.shape[3], y.shape, size + walk[5] - 1
    positions = window * window
    TH, TW, strips = (OH + size - 1) // size, (OW + size - 1) // size, (K + 2 * L - 1) // (2 * L)
    v_pitch, m_pitch = odd_pitch(C), odd_pitch(strips * 2 * L)
    v_plane, m_plane = group * v_pitch + L, group * m_pitch + L
    v = slots * 36 * L
    m = v + positions * v_plane
    for first in range(0, N * TH * TW, group):
        count = min(group, N * TH * TW - first)
        runs = (count + RUN - 1) // RUN
        inputs, products, outputs = begin_shares(slots, runs), begin_shares(slots, positions * strips), begin_shares(slots, runs)
        for slot in prange(slots):
            _transform_inputs(np.int64(slot), slots, inputs, count, x, preactivation, scratch, first, np.int64(slot) * 36 * L, v, v_pitch,
                              v_plane, walk, TH, TW, size)
        for slot in prange(slots):
            _multiply_strips(np.int64(slot), slots, products, scratch, v, v_pitch, v_plane, U, strips, C, m, m_pitch, m_plane, count,
                             positions)
        for slot in prange(slots):
            _transform_outputs(np.int64(slot), slots, outputs, count, scratch, first, np.int64(slot) * 36 * L, m, m_pitch, m_plane,
                               bias, y, residual, low, high, activation, moments, first // group * ((group + RUN - 1) // RUN), TH, TW, size,
                               window)
