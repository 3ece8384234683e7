"""Winograd's convolutions F(4 x 4, 3 x 3) and F(2 x 2, 5 x 5): forward, and backward-input at stride 1.

    y tile = A^T [ sum over c of (G weight[k, c] G^T) * (B^T x[c] tile B) ] A

A tile is 4 x 4 output pixels, or 2 x 2 with 5 x 5 taps, whose windows cover 6 x 6 input pixels: 36 multiplications instead of 144,
or of 100. Both use the same points, so only G and A are others. For each of the 36 positions of a transformed
tile the sum over channels is a matrix product of tiles by filters, done on the register tile. A job takes a block of
tiles through all of it, so that transformed inputs and products stay in its second-level cache; or, where the weights are
so many that reading them for each block takes longer than the products, a group of tiles goes through one phase after the
other on all threads, and the weights are read once a group. Zeros outside of x enter at the transform. Lavin and Gray
(2016), arXiv:1509.09308, with the points 0, 1, -1, 2, -2. Letters: `walk.py`; tiles: TH x TW an image.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.convolution.compact import compact
from numbanet.backends.cpu.convolution.gather import MR
from numbanet.backends.cpu.convolution.prefetch import prefetch
from numbanet.backends.cpu.convolution.walk import odd_pitch
from numbanet.backends.cpu.limits import limited
from numbanet.backends.cpu.out_of_line import out_of_line
from numbanet.backends.cpu.shares import begin_shares, next_job
from numbanet.backends.cpu.simd import L, fma, load, load_partial, load_strided, splat, store, store_partial, tile

FILTERS = 4 * L         # of a block whose products are transformed back together
RUN = 4                 # tiles that a thread takes at once in a phase
FEW = 4 if MR == 12 else 3      # tiles of the last products; MR is a multiple


@worker(inline=True)
def _weight_transform(g0, g1, g2):
    """G times a column."""
    half = (g0 + g2) * np.float32(-1 / 6)
    third = fma(g2, splat(np.float32(1 / 6)), g0 * np.float32(1 / 24))
    return (g0 * np.float32(0.25), fma(g1, splat(np.float32(-1 / 6)), half), fma(g1, splat(np.float32(1 / 6)), half),
            fma(g1, splat(np.float32(1 / 12)), third), fma(g1, splat(np.float32(-1 / 12)), third), g2)


@worker(inline=True)
def _weight_transform_5(g0, g1, g2, g3, g4):
    """G times a column of 5 taps."""
    two, four = splat(np.float32(2)), splat(np.float32(4))
    even, odd = (g0 + g2) + g4, g1 + g3
    wide_even, wide_odd = fma(four, fma(four, g4, g2), g0), fma(four, g3, g1)
    return (g0 * np.float32(0.25), (even + odd) * np.float32(-1 / 6), (even - odd) * np.float32(-1 / 6),
            fma(two, wide_odd, wide_even) * np.float32(1 / 24), (wide_even - two * wide_odd) * np.float32(1 / 24), g4)


@worker(inline=True)
def input_transform(d0, d1, d2, d3, d4, d5):
    """B^T times a column."""
    four, minus_four, minus_five = splat(np.float32(4)), splat(np.float32(-4)), splat(np.float32(-5))
    even, odd = fma(d2, minus_four, d4), fma(d1, minus_four, d3)
    wide, double = d4 - d2, (d3 - d1) * np.float32(2)
    return (fma(d0, four, fma(d2, minus_five, d4)), even + odd, even - odd, wide + double, wide - double,
            fma(d1, four, fma(d3, minus_five, d5)))


@worker(inline=True)
def _output_transform(m0, m1, m2, m3, m4, m5):
    """A^T times a column."""
    two, four, eight = splat(np.float32(2)), splat(np.float32(4)), splat(np.float32(8))
    s1, d1, s2, d2 = m1 + m2, m1 - m2, m3 + m4, m3 - m4
    return m0 + s1 + s2, fma(two, d2, d1), fma(four, s2, s1), fma(eight, d2, d1) + m5


@worker(inline=True)
def _output_transform_5(m0, m1, m2, m3, m4, m5):
    """A^T times a column, of 5 taps."""
    return ((m0 + (m1 + m2)) + (m3 + m4)), fma(splat(np.float32(2)), m3 - m4, m1 - m2) + m5


@worker
def tile_size(taps):
    """Output pixels of a tile along one axis."""
    return 4 if taps == 3 else 2


@worker(borrows=True)
def _transform_filters(weight, U, scratch, strip, c):
    """U[position, strip, c, :2L] of 2L filters; scratch (36 * L floats)."""
    compact()
    _, K, C, R, _ = weight.shape
    k_step, c_step, r_step, s_step = (weight.strides[1] // 4, weight.strides[2] // 4, weight.strides[3] // 4,
                                      weight.strides[4] // 4)
    strips = (K + 2 * L - 1) // (2 * L)
    for half in range(2):
        k = strip * 2 * L + half * L
        for s in range(R):
            at = k * k_step + c * c_step + s * s_step
            for r in range(R):
                if k + L <= K:
                    store(scratch, r * L, load_strided(weight, at + r * r_step, k_step))
                else:
                    store(scratch, r * L, splat(np.float32(0)))
                    for lane in range(K - k):
                        scratch[r * L + lane] = weight[0, k + lane, c, r, s]
            _transform_column(scratch, 0, L, R, scratch, (5 + s * 6) * L, L)
        plane = strips * C * 2 * L
        for i in range(6):
            _transform_column(scratch, (5 + i) * L, 6 * L, R, U, i * 6 * plane + (strip * C + c) * 2 * L + half * L, plane)


@worker(borrows=True)
def _transform_column(scratch, at, step, R, target, to, plane):
    """target[to + i * plane] = (G times the R vectors from scratch[at] on)[i]."""
    if R == 3:
        u0, u1, u2, u3, u4, u5 = _weight_transform(load(scratch, at), load(scratch, at + step), load(scratch, at + 2 * step))
    else:
        u0, u1, u2, u3, u4, u5 = _weight_transform_5(load(scratch, at), load(scratch, at + step), load(scratch, at + 2 * step),
                                                     load(scratch, at + 3 * step), load(scratch, at + 4 * step))
    store(target, to, u0)
    store(target, to + plane, u1)
    store(target, to + 2 * plane, u2)
    store(target, to + 3 * plane, u3)
    store(target, to + 4 * plane, u4)
    store(target, to + 5 * plane, u5)


@worker
def _transform_strip(weight, U, task):
    C = weight.shape[2]
    blocks = (C + 15) // 16
    scratch = np.empty(36 * L, np.float32)
    for c in range(task % blocks * 16, min(C, task % blocks * 16 + 16)):
        _transform_filters(weight, U, scratch, task // blocks, c)


@kernel("void(const T[:,:,:,:,:], T[::1])", parallel=True)
def transform_weights(weight, U):
    """U (36, strips of 2L filters, C, 2L) = G weight G^T; weight (1, K, C, 3, 3) or (1, K, C, 5, 5)."""
    _, K, C, _, _ = weight.shape
    for task in prange((K + 2 * L - 1) // (2 * L) * ((C + 15) // 16)):
        _transform_strip(weight, U, np.int64(task))


@worker(inline=True, borrows=True)
def pixel_or_zeros(x, line, h, w, x_w, H, W, lanes):
    """A vector of channels of a pixel, zeros outside of x."""
    if h < 0 or h >= H or w < 0 or w >= W:
        return splat(np.float32(0))
    return load_partial(x, line + w * x_w, lanes)


@worker(borrows=True)
def transform_input_tile(x, n, h0, w0, c0, c1, scratch, v, v_plane, t):
    """V[position, c - c0] of one tile, channels c0, ..., c1 - 1; t is room for 36 vectors."""
    compact()
    _, H, W, _ = x.shape
    x_n, x_h, x_w = x.strides[0] // 4, x.strides[1] // 4, x.strides[2] // 4
    for c in range(c0, c1, L):
        lanes = min(L, c1 - c)
        for i in range(6):
            h = h0 + i
            line = n * x_n + h * x_h + c
            v0, v1, v2, v3, v4, v5 = input_transform(
                pixel_or_zeros(x, line, h, w0, x_w, H, W, lanes), pixel_or_zeros(x, line, h, w0 + 1, x_w, H, W, lanes),
                pixel_or_zeros(x, line, h, w0 + 2, x_w, H, W, lanes), pixel_or_zeros(x, line, h, w0 + 3, x_w, H, W, lanes),
                pixel_or_zeros(x, line, h, w0 + 4, x_w, H, W, lanes), pixel_or_zeros(x, line, h, w0 + 5, x_w, H, W, lanes))
            at = t + i * 6 * L
            store(scratch, at, v0)
            store(scratch, at + L, v1)
            store(scratch, at + 2 * L, v2)
            store(scratch, at + 3 * L, v3)
            store(scratch, at + 4 * L, v4)
            store(scratch, at + 5 * L, v5)
        for j in range(6):
            at = t + j * L
            v0, v1, v2, v3, v4, v5 = input_transform(
                load(scratch, at), load(scratch, at + 6 * L), load(scratch, at + 12 * L), load(scratch, at + 18 * L),
                load(scratch, at + 24 * L), load(scratch, at + 30 * L))
            at, step = v + j * v_plane + c - c0, 6 * v_plane
            store(scratch, at, v0)
            store(scratch, at + step, v1)
            store(scratch, at + 2 * step, v2)
            store(scratch, at + 3 * step, v3)
            store(scratch, at + 4 * step, v4)
            store(scratch, at + 5 * step, v5)


@worker(inline=True, borrows=True)
def _finish(y, at, value, residual, r, low, high, lanes):
    if residual.size:
        value = value + load_partial(residual, r, lanes)
    if lanes == L:
        store(y, at, limited(value, low, high))
    else:
        store_partial(y, at, limited(value, low, high), lanes)


@worker(borrows=True)
def _transform_output_tile(scratch, m, m_plane, t, bias, k0, k1, y, n, oh, ow, size, residual, low, high):
    """Filters k0, ..., k1 - 1 of one tile of y from their 36 products; t is room for 24 vectors."""
    compact()
    _, OH, OW, _ = y.shape
    y_n, y_h, y_w = y.strides[0] // 4, y.strides[1] // 4, y.strides[2] // 4
    r_n, r_h, r_w = residual.strides[0] // 4, residual.strides[1] // 4, residual.strides[2] // 4
    if residual.size:
        for i in range(min(size, OH - oh)):
            for j in range(min(size, OW - ow)):
                for k in range(k0, k1, 16):
                    prefetch(residual, n * r_n + (oh + i) * r_h + (ow + j) * r_w + k)
    for k in range(k0, k1, L):
        lanes = min(L, k1 - k)
        for i in range(6):
            at = m + i * 6 * m_plane + k - k0
            m0, m1, m2 = load(scratch, at), load(scratch, at + m_plane), load(scratch, at + 2 * m_plane)
            m3, m4, m5 = load(scratch, at + 3 * m_plane), load(scratch, at + 4 * m_plane), load(scratch, at + 5 * m_plane)
            at = t + i * 4 * L
            if size == 4:
                y0, y1, y2, y3 = _output_transform(m0, m1, m2, m3, m4, m5)
                store(scratch, at + 2 * L, y2)
                store(scratch, at + 3 * L, y3)
            else:
                y0, y1 = _output_transform_5(m0, m1, m2, m3, m4, m5)
            store(scratch, at, y0)
            store(scratch, at + L, y1)
        shift = load_partial(bias, k, lanes) if bias.size else splat(np.float32(0))
        for j in range(min(size, OW - ow)):
            at = t + j * L
            m0, m1, m2 = load(scratch, at), load(scratch, at + 4 * L), load(scratch, at + 8 * L)
            m3, m4, m5 = load(scratch, at + 12 * L), load(scratch, at + 16 * L), load(scratch, at + 20 * L)
            at, r = n * y_n + oh * y_h + (ow + j) * y_w + k, n * r_n + oh * r_h + (ow + j) * r_w + k
            if size == 4:
                y0, y1, y2, y3 = _output_transform(m0, m1, m2, m3, m4, m5)
                if oh + 2 < OH:
                    _finish(y, at + 2 * y_h, y2 + shift, residual, r + 2 * r_h, low, high, lanes)
                if oh + 3 < OH:
                    _finish(y, at + 3 * y_h, y3 + shift, residual, r + 3 * r_h, low, high, lanes)
            else:
                y0, y1 = _output_transform_5(m0, m1, m2, m3, m4, m5)
            _finish(y, at, y0 + shift, residual, r, low, high, lanes)
            if oh + 1 < OH:
                _finish(y, at + y_h, y1 + shift, residual, r + r_h, low, high, lanes)


@worker(borrows=True)
def _multiply_tiles(scratch, v, v_pitch, U, b, C, m, m_pitch, count):
    """M[tile, :2L] = V[tile] times one strip of U, for `count` tiles, and up to FEW - 1 more."""
    p = 0
    while count - p > MR - FEW:
        tile(MR, 2, scratch, v + p * v_pitch, v_pitch, 1, U, b, 2 * L, scratch, m + p * m_pitch, m_pitch, C, 0)
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
def _multiply_block(scratch, v, v_pitch, v_plane, U, strip0, strip1, K, C, m, m_plane, count):
    """M[position, tile, k] = V[position, tile] times the strips strip0, ..., strip1 - 1 of U[position], of K filters in all."""
    out_of_line()
    strips, whole = (K + 2 * L - 1) // (2 * L), (K + L - 1) // (2 * L)
    for position in range(36):
        for strip in range(strip0, min(strip1, whole)):
            _multiply_tiles(scratch, v + position * v_plane, v_pitch, U, (position * strips + strip) * C * 2 * L, C,
                            m + position * m_plane + (strip - strip0) * 2 * L, FILTERS, count)
        if strip1 > whole:
            _multiply_narrow_tiles(scratch, v + position * v_plane, v_pitch, U, (position * strips + whole) * C * 2 * L, C,
                                   m + position * m_plane + (whole - strip0) * 2 * L, FILTERS, count)


@worker(borrows=True)
def _winograd_jobs(slot, counters, jobs, x, U, bias, y, residual, low, high, scratch, walk, block):
    """What one slot does; a job is `block` tiles, a multiple of MR."""
    out_of_line()
    pad_h, pad_w = walk[9], walk[10]
    C, (N, OH, OW, K) = x.shape[3], y.shape
    size = tile_size(walk[5])
    TH, TW, strips = (OH + size - 1) // size, (OW + size - 1) // size, (K + 2 * L - 1) // (2 * L)
    slots, tiles = scratch.shape[0], N * TH * TW
    v_pitch = odd_pitch(C)
    v_plane, m_plane = block * v_pitch + L, block * FILTERS + L
    t = slot * scratch.shape[1]
    v = t + 36 * L
    m = v + 36 * v_plane
    job = next_job(counters, slot, slots, jobs)
    while job >= 0:
        first = job * block
        count = min(block, tiles - first)
        for i in range(count):
            n, th, tw = (first + i) // (TH * TW), (first + i) // TW % TH, (first + i) % TW
            transform_input_tile(x, n, th * size - pad_h, tw * size - pad_w, 0, C, scratch, v + i * v_pitch, v_plane, t)
        for k0 in range(0, K, FILTERS):
            k1 = min(K, k0 + FILTERS)
            strip0 = k0 // (2 * L)
            _multiply_block(scratch, v, v_pitch, v_plane, U, strip0, min(strips, strip0 + FILTERS // (2 * L)), K,
                            C, m, m_plane, count)
            for i in range(count):
                n, th, tw = (first + i) // (TH * TW), (first + i) // TW % TH, (first + i) % TW
                _transform_output_tile(scratch, m + i * FILTERS, m_plane, t, bias, k0, k1, y, n, th * size, tw * size,
                                       size, residual, low, high)
        job = next_job(counters, slot, slots, jobs)


@kernel("void(const T[:,:,:,:], const T[::1], const T[::1], T[:,:,:,:], const T[:,:,:,:], f4, f4, T[:,::1], const i8[::1], i8)",
        parallel=True)
def conv2d_forward_winograd(x, U, bias, y, residual, low, high, scratch, walk, block):
    """x (N, H, W, C), y and residual (N, OH, OW, K), scratch (slots, floats); an empty bias or residual adds nothing."""
    N, OH, OW, _ = y.shape
    size = tile_size(walk[5])
    jobs = (N * ((OH + size - 1) // size) * ((OW + size - 1) // size) + block - 1) // block
    counters = begin_shares(scratch.shape[0], jobs)
    for slot in prange(scratch.shape[0]):
        _winograd_jobs(np.int64(slot), counters, jobs, x, U, bias, y, residual, low, high, scratch, walk, block)


@worker(borrows=True)
def _transform_inputs(slot, slots, counters, count, x, scratch, first, t, v, v_pitch, v_plane, walk, TH, TW):
    """Of tiles first, ..., first + count - 1."""
    out_of_line()
    size = tile_size(walk[5])
    jobs = (count + RUN - 1) // RUN
    job = next_job(counters, slot, slots, jobs)
    while job >= 0:
        for i in range(job * RUN, min(count, job * RUN + RUN)):
            n, th, tw = (first + i) // (TH * TW), (first + i) // TW % TH, (first + i) % TW
            transform_input_tile(x, n, th * size - walk[9], tw * size - walk[10], 0, x.shape[3], scratch, v + i * v_pitch, v_plane, t)
        job = next_job(counters, slot, slots, jobs)


@worker(borrows=True)
def _multiply_strips(slot, slots, counters, scratch, v, v_pitch, v_plane, U, strips, C, m, m_pitch, m_plane, count):
    """Products of strips, counted over all positions."""
    out_of_line()
    job = next_job(counters, slot, slots, 36 * strips)
    while job >= 0:
        position, strip = job // strips, job % strips
        _multiply_tiles(scratch, v + position * v_plane, v_pitch, U, job * C * 2 * L, C,
                        m + position * m_plane + strip * 2 * L, m_pitch, count)
        job = next_job(counters, slot, slots, 36 * strips)


@worker(borrows=True)
def _transform_outputs(slot, slots, counters, count, scratch, first, t, m, m_pitch, m_plane, bias, y, residual, low, high, TH, TW, size):
    """Of tiles first, ..., first + count - 1."""
    out_of_line()
    jobs = (count + RUN - 1) // RUN
    job = next_job(counters, slot, slots, jobs)
    while job >= 0:
        for i in range(job * RUN, min(count, job * RUN + RUN)):
            n, th, tw = (first + i) // (TH * TW), (first + i) // TW % TH, (first + i) % TW
            _transform_output_tile(scratch, m + i * m_pitch, m_plane, t, bias, 0, y.shape[3], y, n, th * size, tw * size, size,
                                   residual, low, high)
        job = next_job(counters, slot, slots, jobs)


@kernel("void(const T[:,:,:,:], const T[::1], const T[::1], T[:,:,:,:], const T[:,:,:,:], f4, f4, T[::1], const i8[::1], i8, i8)",
        parallel=True)
def conv2d_forward_winograd_phases(x, U, bias, y, residual, low, high, scratch, walk, group, slots):
    """As `conv2d_forward_winograd`, `group` tiles at a time; scratch (see `choose.winograd_plan`) is shared by all slots."""
    C, (N, OH, OW, K) = x.shape[3], y.shape
    size = tile_size(walk[5])
    TH, TW, strips = (OH + size - 1) // size, (OW + size - 1) // size, (K + 2 * L - 1) // (2 * L)
    v_pitch, m_pitch = odd_pitch(C), odd_pitch(strips * 2 * L)
    v_plane, m_plane = group * v_pitch + L, group * m_pitch + L
    v = slots * 36 * L
    m = v + 36 * v_plane
    for first in range(0, N * TH * TW, group):
        count = min(group, N * TH * TW - first)
        runs = (count + RUN - 1) // RUN
        inputs, products, outputs = begin_shares(slots, runs), begin_shares(slots, 36 * strips), begin_shares(slots, runs)
        for slot in prange(slots):
            _transform_inputs(np.int64(slot), slots, inputs, count, x, scratch, first, np.int64(slot) * 36 * L, v, v_pitch, v_plane,
                              walk, TH, TW)
        for slot in prange(slots):
            _multiply_strips(np.int64(slot), slots, products, scratch, v, v_pitch, v_plane, U, strips, C, m, m_pitch, m_plane, count)
        for slot in prange(slots):
            _transform_outputs(np.int64(slot), slots, outputs, count, scratch, first, np.int64(slot) * 36 * L, m, m_pitch, m_plane,
                               bias, y, residual, low, high, TH, TW, size)
