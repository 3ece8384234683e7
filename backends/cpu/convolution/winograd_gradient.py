"""Winograd's backward-weight for 3 x 3 kernels at stride 1, with a quarter of the multiplications.

    grad_weight[k, c] = G^T [ sum over tiles of (A grad_y[tile, k] A^T) * (B^T x[tile, c] B) ] G

The transpose of the forward algorithm F(4 x 4, 3 x 3), with its matrices (`winograd.py`): a tile is 4 x 4 pixels of grad_y,
whose windows cover 6 x 6 pixels of x; zeros outside of both enter at the transforms. For each of the 36 positions of a
transformed tile the sum over tiles is a matrix product of filters by channels.

A job owns a block of filters, a block of channels, and one of `parts` ranges of tiles. It transforms GROUP tiles and
multiplies them, again and again, while its sums stay in the second- or third-level cache (which are nearly as fast: 98 and
80 GB/s a core of Zen 4), and then brings the sums back into 3 x 3 taps, or leaves that to a second pass, which adds the parts
upwards. Each product of GROUP tiles is summed from 0, so that the rounding error hardly grows with the size of the maps. Lavin
and Gray (2016), arXiv:1509.09308. Letters: `walk.py`; tiles: TH x TW an image.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.convolution.compact import compact
from numbanet.backends.cpu.convolution.gather import MR
from numbanet.backends.cpu.convolution.summing_tile import summing_tile
from numbanet.backends.cpu.convolution.walk import odd_pitch
from numbanet.backends.cpu.convolution.winograd_tile import pixel_or_zeros, transform_input_tile
from numbanet.backends.cpu.out_of_line import out_of_line
from numbanet.backends.cpu.simd import L, fma, load, load_partial, splat, store, store_partial, store_strided
from numbanet.backends.cpu.simd.prefetch import prefetch

MK = min(8, MR)     # filters of a register tile
GROUP = 64          # tiles of a product: 2L channels of them take a quarter of the first-level cache
BLOCK = 128         # filters or channels of a job, at most


@worker(inline=True)
def _gradient_transform(d0, d1, d2, d3):
    """A times a column."""
    four = splat(np.float32(4))
    even, odd, wide, double = d0 + d2, d1 + d3, fma(d2, four, d0), fma(d3, four, d1) * np.float32(2)
    return d0, even + odd, even - odd, wide + double, wide - double, d3


@worker(inline=True)
def _sum_transform(m0, m1, m2, m3, m4, m5):
    """G^T times a column."""
    s1, d1, s2, d2 = m1 + m2, m2 - m1, m3 + m4, m3 - m4
    sixth = splat(np.float32(1 / 6))
    return (fma(m0, splat(np.float32(0.25)), fma(s1, splat(np.float32(-1 / 6)), s2 * np.float32(1 / 24))),
            fma(d1, sixth, d2 * np.float32(1 / 12)), fma(s2 - s1, sixth, m5))


@worker
def _transform_gradients(y, n, oh, ow, k0, k1, scratch, t, u, u_plane):
    """U[position, k] of one tile, filters k0, ..., k1 - 1; t is room for 24 vectors."""
    compact()
    _, OH, OW, _ = y.shape
    y_n, y_h, y_w = y.strides[0] // 4, y.strides[1] // 4, y.strides[2] // 4
    for k in range(k0, k1, L):
        lanes = min(L, k1 - k)
        for i in range(4):
            h = oh + i
            line = n * y_n + h * y_h + k
            u0, u1, u2, u3, u4, u5 = _gradient_transform(
                pixel_or_zeros(y, line, h, ow, y_w, OH, OW, lanes), pixel_or_zeros(y, line, h, ow + 1, y_w, OH, OW, lanes),
                pixel_or_zeros(y, line, h, ow + 2, y_w, OH, OW, lanes), pixel_or_zeros(y, line, h, ow + 3, y_w, OH, OW, lanes))
            at = t + i * 6 * L
            store(scratch, at, u0)
            store(scratch, at + L, u1)
            store(scratch, at + 2 * L, u2)
            store(scratch, at + 3 * L, u3)
            store(scratch, at + 4 * L, u4)
            store(scratch, at + 5 * L, u5)
        for j in range(6):
            at = t + j * L
            u0, u1, u2, u3, u4, u5 = _gradient_transform(
                load(scratch, at), load(scratch, at + 6 * L), load(scratch, at + 12 * L), load(scratch, at + 18 * L))
            at, step = u + j * u_plane + k - k0, 6 * u_plane
            store(scratch, at, u0)
            store(scratch, at + step, u1)
            store(scratch, at + 2 * step, u2)
            store(scratch, at + 3 * step, u3)
            store(scratch, at + 4 * step, u4)
            store(scratch, at + 5 * step, u5)


@worker
def _fetch_tile(y, n, h0, w0, rows, columns, k0, k1):
    """Ask for the pixels of a window, as far as they exist."""
    compact()
    _, H, W, _ = y.shape
    y_n, y_h, y_w = y.strides[0] // 4, y.strides[1] // 4, y.strides[2] // 4
    for h in range(max(h0, 0), min(h0 + rows, H)):
        for w in range(max(w0, 0), min(w0 + columns, W)):
            for k in range(k0, k1, 16):
                prefetch(y, n * y_n + h * y_h + w * y_w + k)


@worker
def _transform_tiles(first, count, grad_y, k0, k1, x, preactivation, c0, c1, scratch, t, v, v_pitch, v_plane, u, u_pitch, u_plane, pad_h,
                     pad_w, last):
    """Tiles first, ..., first + count - 1 of both; those up to `last` follow."""
    out_of_line()
    _, OH, OW, _ = grad_y.shape
    TH, TW = (OH + 3) // 4, (OW + 3) // 4
    for i in range(count):
        tile = min(first + i + 1, last)
        n, oh, ow = tile // (TH * TW), tile // TW % TH * 4, tile % TW * 4
        _fetch_tile(x, n, oh - pad_h + 2, ow - pad_w + 2, 4, 4, c0, c1)
        _fetch_tile(grad_y, n, oh, ow, 4, 4, k0, k1)
        tile = first + i
        n, oh, ow = tile // (TH * TW), tile // TW % TH * 4, tile % TW * 4
        transform_input_tile(x, preactivation, n, oh - pad_h, ow - pad_w, c0, c1, scratch, v + i * v_pitch, v_plane, t)
        _transform_gradients(grad_y, n, oh, ow, k0, k1, scratch, t, u + i * u_pitch, u_plane)


@worker
def _multiply_tiles(scratch, v, v_pitch, v_plane, u, u_pitch, u_plane, sums, m, m_pitch, m_plane, filters, channels, count, accumulate):
    """M[position, k, c] (+)= sum over `count` tiles of U[position, tile, k] * V[position, tile, c]."""
    out_of_line()
    for position in range(36):
        a, b, c = u + position * u_plane, v + position * v_plane, m + position * m_plane
        for column in range(0, channels, 2 * L):
            for k in range(0, filters, MK):
                summing_tile(MK, 2, scratch, a + k, 1, u_pitch, scratch, b + column, v_pitch,
                             sums, c + k * m_pitch + column, m_pitch, count, accumulate)


@worker(inline=True)
def _sum(sums, at, parts, step):
    total = load(sums, at)
    for part in range(1, parts):
        total = total + load(sums, at + part * step)
    return total


@worker
def _finish_filter(sums, m, m_plane, parts, step, scratch, t, grad_weight, k, c0, c1):
    """grad_weight[k, c0:c1] from the sums of `parts` parts, `step` floats apart; t is room for 21 vectors."""
    compact()
    w_k, w_c, w_r, w_s = (grad_weight.strides[0] // 4, grad_weight.strides[1] // 4, grad_weight.strides[2] // 4,
                          grad_weight.strides[3] // 4)
    for c in range(c0, c1, L):
        for i in range(6):
            at = m + i * 6 * m_plane + c - c0
            w0, w1, w2 = _sum_transform(
                _sum(sums, at, parts, step), _sum(sums, at + m_plane, parts, step), _sum(sums, at + 2 * m_plane, parts, step),
                _sum(sums, at + 3 * m_plane, parts, step), _sum(sums, at + 4 * m_plane, parts, step),
                _sum(sums, at + 5 * m_plane, parts, step))
            store(scratch, t + i * 3 * L, w0)
            store(scratch, t + i * 3 * L + L, w1)
            store(scratch, t + i * 3 * L + 2 * L, w2)
        for s in range(3):
            at = t + s * L
            w0, w1, w2 = _sum_transform(
                load(scratch, at), load(scratch, at + 3 * L), load(scratch, at + 6 * L),
                load(scratch, at + 9 * L), load(scratch, at + 12 * L), load(scratch, at + 15 * L))
            target = k * w_k + c * w_c + s * w_s
            if c + L <= c1:
                store_strided(grad_weight, target, w_c, w0)
                store_strided(grad_weight, target + w_r, w_c, w1)
                store_strided(grad_weight, target + 2 * w_r, w_c, w2)
            else:
                store(scratch, t + 18 * L, w0)
                store(scratch, t + 19 * L, w1)
                store(scratch, t + 20 * L, w2)
                for r in range(3):
                    for lane in range(c1 - c):
                        number = load_partial(scratch, t + (18 + r) * L + lane, 1)
                        store_partial(grad_weight, target + r * w_r + lane * w_c, number, 1)


@worker
def _winograd_jobs(slot, grad_y, x, preactivation, grad_weight, scratch, sums, walk, filters, channels, parts):
    """The share of one slot; a job is a block of filters, a block of channels and one of `parts` ranges of tiles."""
    out_of_line()
    (N, OH, OW, K), C = grad_y.shape, x.shape[3]
    tiles = N * ((OH + 3) // 4) * ((OW + 3) // 4)
    m_pitch = (channels + 2 * L - 1) // (2 * L) * 2 * L
    v_pitch, u_pitch = odd_pitch(channels), odd_pitch(filters)
    v_plane, u_plane, m_plane = GROUP * v_pitch + 16, GROUP * u_pitch + 16, (filters + MK - 1) // MK * MK * m_pitch + 16
    base, slots = slot * scratch.shape[1], scratch.shape[0]
    v = base + 36 * L
    u = v + 36 * v_plane + 2 * L
    c_blocks = (C + channels - 1) // channels
    jobs = (K + filters - 1) // filters * c_blocks * parts
    for job in range(slot * jobs // slots, (slot + 1) * jobs // slots):
        block, part = job // parts, job % parts
        k0, c0 = block // c_blocks * filters, block % c_blocks * channels
        k1, c1 = min(K, k0 + filters), min(C, c0 + channels)
        m = (job if parts > 1 else slot) * sums.shape[1]
        begin, end = part * tiles // parts, (part + 1) * tiles // parts
        for first in range(begin, end, GROUP):
            count = min(GROUP, end - first)
            _transform_tiles(first, count, grad_y, k0, k1, x, preactivation, c0, c1, scratch, base, v, v_pitch, v_plane, u, u_pitch,
                             u_plane, walk[9], walk[10], end - 1)
            _multiply_tiles(scratch, v, v_pitch, v_plane, u, u_pitch, u_plane, sums, m, m_pitch, m_plane, k1 - k0, c1 - c0, count,
                            first - begin)
        if parts == 1:
            for k in range(k0, k1):
                _finish_filter(sums, m + (k - k0) * m_pitch, m_plane, 1, 0, scratch, base, grad_weight, k, c0, c1)


@worker
def _merge(task, grad_weight, sums, filters, channels, parts):
    """One filter of one block of channels."""
    C = grad_weight.shape[1]
    c_blocks = (C + channels - 1) // channels
    m_pitch = (channels + 2 * L - 1) // (2 * L) * 2 * L
    m_plane = (filters + MK - 1) // MK * MK * m_pitch + 16
    k, c0 = task // c_blocks, task % c_blocks * channels
    block = k // filters * c_blocks + task % c_blocks
    t = np.empty(21 * L, np.float32)
    _finish_filter(sums, block * parts * sums.shape[1] + k % filters * m_pitch, m_plane, parts, sums.shape[1], t, 0, grad_weight,
                   k, c0, min(C, c0 + channels))


@kernel("void(const T[:,:,:,:], const T[:,:,:,:], const T[:,::1], T[:,:,:,:], T[:,::1], T[:,::1], const i8[::1], i8, i8, i8)",
        parallel=True)
def conv2d_backward_weight_winograd(grad_y, x, preactivation, grad_weight, scratch, sums, walk, filters, channels, parts):
    """grad_y (N, OH, OW, K), x (N, H, W, C), grad_weight (K, C, 3, 3), scratch (slots, floats); `preactivation`: see `preactivate.py`.

    sums (jobs, or slots where there is one part; 36 planes of filters rounded up to MK by channels rounded up to 2L).
    """
    for slot in prange(scratch.shape[0]):
        _winograd_jobs(np.int64(slot), grad_y, x, preactivation, grad_weight, scratch, sums, walk, filters, channels, parts)
    if parts > 1:
        for task in prange(grad_weight.shape[0] * ((grad_weight.shape[1] + channels - 1) // channels)):
            _merge(np.int64(task), grad_weight, sums, filters, channels, parts)
