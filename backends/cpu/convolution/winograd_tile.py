"""The transforms of Winograd's convolutions: of filters, of a tile's window of x, and of a tile of y. See `winograd.py`.

A window has `size` + taps - 1 pixels along each axis: 6 for tiles of 4 with 3 taps and of 2 with 5, whose points are 0, 1, -1, 2, -2; 4 for
tiles of 2 with 3 taps, whose points are 0, 1, -1.
"""

from __future__ import annotations

import numpy as np

from numbanet.backends.cpu.compile import worker
from numbanet.backends.cpu.convolution.compact import compact
from numbanet.backends.cpu.convolution.preactivate import limits_of, preactivated, terms_of
from numbanet.backends.cpu.limits import limited
from numbanet.backends.cpu.simd import L, fma, load, load_partial, load_strided, splat, store, store_partial
from numbanet.backends.cpu.simd.prefetch import prefetch


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


@worker(inline=True)
def _weight_transform_small(g0, g1, g2):
    """G times a column, of a window of 4."""
    even, odd = (g0 + g2) * np.float32(0.5), g1 * np.float32(0.5)
    return g0, even + odd, even - odd, g2


@worker(inline=True)
def _input_transform_small(d0, d1, d2, d3):
    """B^T times a column, of a window of 4."""
    return d0 - d2, d1 + d2, d2 - d1, d1 - d3


@worker(inline=True)
def _output_transform_small(m0, m1, m2, m3):
    """A^T times a column, of a window of 4."""
    return (m0 + m1) + m2, (m1 - m2) - m3


@worker(borrows=True)
def transform_filters(weight, U, scratch, strip, c, window):
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
            _transform_column(scratch, 0, L, R, window, scratch, (5 + s * window) * L, L)
        plane = strips * C * 2 * L
        for i in range(window):
            _transform_column(scratch, (5 + i) * L, window * L, R, window, U,
                              i * window * plane + (strip * C + c) * 2 * L + half * L, plane)


@worker(borrows=True)
def _transform_column(scratch, at, step, R, window, target, to, plane):
    """target[to + i * plane] = (G times the R vectors from scratch[at] on)[i]."""
    if window == 4:
        u0, u1, u2, u3 = _weight_transform_small(load(scratch, at), load(scratch, at + step), load(scratch, at + 2 * step))
    else:
        if R == 3:
            u0, u1, u2, u3, u4, u5 = _weight_transform(load(scratch, at), load(scratch, at + step), load(scratch, at + 2 * step))
        else:
            u0, u1, u2, u3, u4, u5 = _weight_transform_5(load(scratch, at), load(scratch, at + step), load(scratch, at + 2 * step),
                                                         load(scratch, at + 3 * step), load(scratch, at + 4 * step))
        store(target, to + 4 * plane, u4)
        store(target, to + 5 * plane, u5)
    store(target, to, u0)
    store(target, to + plane, u1)
    store(target, to + 2 * plane, u2)
    store(target, to + 3 * plane, u3)


@worker(inline=True, borrows=True)
def pixel_or_zeros(x, line, h, w, x_w, H, W, lanes):
    """A vector of channels of a pixel, zeros outside of x."""
    if h < 0 or h >= H or w < 0 or w >= W:
        return splat(np.float32(0))
    return load_partial(x, line + w * x_w, lanes)


@worker(inline=True, borrows=True)
def _z_or_zeros(x, line, h, w, x_w, H, W, lanes, terms):
    """As `pixel_or_zeros`, of z: see `preactivate.py`."""
    if h < 0 or h >= H or w < 0 or w >= W:
        return splat(np.float32(0))
    return preactivated(load_partial(x, line + w * x_w, lanes), terms)


@worker(borrows=True)
def transform_input_tile(x, preactivation, n, h0, w0, c0, c1, scratch, v, v_plane, t):
    """V[position, c - c0] of one tile, channels c0, ..., c1 - 1; t is room for 36 vectors. `preactivation`: see `preactivate.py`."""
    compact()
    _, H, W, _ = x.shape
    x_n, x_h, x_w = x.strides[0] // 4, x.strides[1] // 4, x.strides[2] // 4
    ends = limits_of(preactivation)
    for c in range(c0, c1, L):
        lanes, terms = min(L, c1 - c), terms_of(preactivation, c) + ends
        for i in range(6):
            h = h0 + i
            line = n * x_n + h * x_h + c
            if preactivation.size:
                v0, v1, v2, v3, v4, v5 = input_transform(
                    _z_or_zeros(x, line, h, w0, x_w, H, W, lanes, terms), _z_or_zeros(x, line, h, w0 + 1, x_w, H, W, lanes, terms),
                    _z_or_zeros(x, line, h, w0 + 2, x_w, H, W, lanes, terms), _z_or_zeros(x, line, h, w0 + 3, x_w, H, W, lanes, terms),
                    _z_or_zeros(x, line, h, w0 + 4, x_w, H, W, lanes, terms), _z_or_zeros(x, line, h, w0 + 5, x_w, H, W, lanes, terms))
            else:
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
def transform_output_tile(scratch, m, m_plane, t, bias, k0, k1, y, n, oh, ow, size, residual, low, high):
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
def transform_small_input_tile(x, preactivation, n, h0, w0, C, scratch, v, v_plane, t):
    """As `transform_input_tile` for a window of 4, all channels; t is room for 16 vectors."""
    compact()
    _, H, W, _ = x.shape
    x_n, x_h, x_w = x.strides[0] // 4, x.strides[1] // 4, x.strides[2] // 4
    ends = limits_of(preactivation)
    for c in range(0, C, L):
        lanes, terms = min(L, C - c), terms_of(preactivation, c) + ends
        for i in range(4):
            h = h0 + i
            line = n * x_n + h * x_h + c
            if preactivation.size:
                v0, v1, v2, v3 = _input_transform_small(
                    _z_or_zeros(x, line, h, w0, x_w, H, W, lanes, terms), _z_or_zeros(x, line, h, w0 + 1, x_w, H, W, lanes, terms),
                    _z_or_zeros(x, line, h, w0 + 2, x_w, H, W, lanes, terms), _z_or_zeros(x, line, h, w0 + 3, x_w, H, W, lanes, terms))
            else:
                v0, v1, v2, v3 = _input_transform_small(
                    pixel_or_zeros(x, line, h, w0, x_w, H, W, lanes), pixel_or_zeros(x, line, h, w0 + 1, x_w, H, W, lanes),
                    pixel_or_zeros(x, line, h, w0 + 2, x_w, H, W, lanes), pixel_or_zeros(x, line, h, w0 + 3, x_w, H, W, lanes))
            at = t + i * 4 * L
            store(scratch, at, v0)
            store(scratch, at + L, v1)
            store(scratch, at + 2 * L, v2)
            store(scratch, at + 3 * L, v3)
        for j in range(4):
            at = t + j * L
            v0, v1, v2, v3 = _input_transform_small(load(scratch, at), load(scratch, at + 4 * L), load(scratch, at + 8 * L),
                                                    load(scratch, at + 12 * L))
            at, step = v + j * v_plane + c, 4 * v_plane
            store(scratch, at, v0)
            store(scratch, at + step, v1)
            store(scratch, at + 2 * step, v2)
            store(scratch, at + 3 * step, v3)


@worker(borrows=True)
def transform_small_output_tile(scratch, m, m_plane, t, bias, k0, k1, y, n, oh, ow, residual, low, high):
    """As `transform_output_tile` for a window of 4, from 16 products; t is room for 8 vectors."""
    compact()
    _, OH, OW, _ = y.shape
    y_n, y_h, y_w = y.strides[0] // 4, y.strides[1] // 4, y.strides[2] // 4
    r_n, r_h, r_w = residual.strides[0] // 4, residual.strides[1] // 4, residual.strides[2] // 4
    for k in range(k0, k1, L):
        lanes = min(L, k1 - k)
        for i in range(4):
            at = m + i * 4 * m_plane + k - k0
            y0, y1 = _output_transform_small(load(scratch, at), load(scratch, at + m_plane), load(scratch, at + 2 * m_plane),
                                             load(scratch, at + 3 * m_plane))
            store(scratch, t + i * 2 * L, y0)
            store(scratch, t + i * 2 * L + L, y1)
        shift = load_partial(bias, k, lanes) if bias.size else splat(np.float32(0))
        for j in range(min(2, OW - ow)):
            at = t + j * L
            y0, y1 = _output_transform_small(load(scratch, at), load(scratch, at + 2 * L), load(scratch, at + 4 * L),
                                             load(scratch, at + 6 * L))
            at, r = n * y_n + oh * y_h + (ow + j) * y_w + k, n * r_n + oh * r_h + (ow + j) * r_w + k
            _finish(y, at, y0 + shift, residual, r, low, high, lanes)
            if oh + 1 < OH:
                _finish(y, at + y_h, y1 + shift, residual, r + r_h, low, high, lanes)
