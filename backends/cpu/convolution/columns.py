"""Convolution of few channels with few filters, such as LeNet-5's first layer: vectors of columns instead of channels.

Forward, for FILTERS filters at once and two vectors of output columns, x lying in planes with its padding:

    y[k, ow] = bias[k] + sum over c, r, s of weight[k, c, r, s] * plane[c, oh * stride_h + r * dilation_h, ow + s]

Backward-weight, for HALF of those filters and TAPS taps of a row, lanes being columns that are added in the end:

    grad_weight[k, c, r, s] = sum over oh, ow of grad_y[k, oh, ow] * plane[c, oh * stride_h + r * dilation_h, ow + s]

Both sums stay in registers and read the planes in place, one float further at each step, so nothing is gathered; y and
grad_y change between planes and neighbouring filters a few vectors at a time. With 1 channel and 6 filters that is 4
times as fast as vectors of filters, which leave 10 of 16 lanes empty. Letters: `walk.py`.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.convolution.compact import compact
from numbanet.backends.cpu.convolution.interleave import deinterleave, interleave
from numbanet.backends.cpu.convolution.run_tile import run_tile
from numbanet.backends.cpu.limits import limit_run
from numbanet.backends.cpu.out_of_line import out_of_line
from numbanet.backends.cpu.shares import begin_shares, next_job
from numbanet.backends.cpu.simd import L, fma, load, load_partial, reduce_add, splat, store, store_partial

FILTERS = 6                 # 12 sums in flight hide the latency of the multiply-adds
HALF, TAPS = 3, 5           # 15 sums, 3 vectors of grad_y and one of a plane fit into 32 registers, and nearly into 16
CELL = HALF * TAPS * L      # floats of one block of sums
PLANES = 6144               # floats of grad_y that are brought into planes at once: they stay in the first-level cache


@worker
def _pack_planes(x, n, walk, planes, base, pitch):
    """planes[c, h + pad_h, w + pad_w] = x[n, h, w, c], zeros around; rows are `pitch` floats apart."""
    compact()
    H, W, pad_h, pad_w = walk[3], walk[4], walk[9], walk[10]
    rows, columns = plane_size(walk)
    flat = planes.reshape(planes.size)
    first, last = max(0, -pad_w), min(W, columns - pad_w)
    for c in range(x.shape[3]):
        for row in range(rows):
            h, at = row - pad_h, base + (c * rows + row) * pitch
            for column in range(0, pitch, L):
                store(planes, at + column, splat(np.float32(0)))
            if 0 <= h < H and x.strides[2] == 4:
                source = n * (x.strides[0] // 4) + h * (x.strides[1] // 4) + c * (x.strides[3] // 4)
                for w in range(first, last, L):
                    store_partial(planes, at + pad_w + w, load_partial(x, source + w, last - w), last - w)
            elif 0 <= h < H:
                for w in range(first, last):
                    flat[at + pad_w + w] = x[n, h, w, c]


@worker
def plane_size(walk):
    """Rows and columns that the windows read, the padding included."""
    R, S, OH, OW = walk[5], walk[6], walk[13], walk[14]
    return (OH - 1) * walk[7] + (R - 1) * walk[11] + 1, OW + S - 1


@worker
def _plane_pitch(columns):
    return (columns + 3 * L - 1) // L * L


@worker
def _forward_image(x, n, weight, bias, y, low, high, scratch, base, walk):
    """weight (K rounded up / FILTERS, C * R * S, FILTERS), bias (K rounded up)."""
    out_of_line()
    K, R, S, stride_h, dilation_h, OH, OW = walk[1], walk[5], walk[6], walk[7], walk[11], walk[13], walk[14]
    C, (rows, columns) = x.shape[3], plane_size(walk)
    pitch = _plane_pitch(columns)
    corner = base + C * rows * pitch
    _pack_planes(x, n, walk, scratch, base, pitch)
    flat = scratch.reshape(scratch.size)
    for oh in range(OH):
        for first in range(0, OW, 2 * L):
            for k in range(0, K, FILTERS):
                for i in range(FILTERS):
                    store(scratch, corner + i * 2 * L, splat(bias[k + i]))
                    store(scratch, corner + i * 2 * L + L, splat(bias[k + i]))
                for c in range(C):
                    run_tile(FILTERS, 2, weight, (k * C + c * FILTERS) * R * S, 1, FILTERS, S * FILTERS,
                             scratch, base + (c * rows + oh * stride_h) * pitch + first, 1, dilation_h * pitch,
                             scratch, corner, 2 * L, R, S, 1, L)
                limit_run(scratch, corner, FILTERS * 2 * L, low, high)
                if K == FILTERS:
                    for half in range(0, min(2 * L, OW - first), L):
                        interleave(FILTERS, scratch, corner + half, 2 * L,
                                   y, ((n * OH + oh) * OW + first + half) * FILTERS, (OW - first - half) * FILTERS)
                else:
                    for column in range(min(2 * L, OW - first)):
                        for i in range(min(FILTERS, K - k)):
                            y[n, oh, first + column, k + i] = flat[corner + i * 2 * L + column]


@worker
def _forward_images(slot, counters, x, weight, bias, y, low, high, scratch, walk):
    slots, base = scratch.shape[0], slot * scratch.shape[1]
    n = next_job(counters, slot, slots, x.shape[0])
    while n >= 0:
        _forward_image(x, n, weight, bias, y, low, high, scratch, base, walk)
        n = next_job(counters, slot, slots, x.shape[0])


@kernel("void(const T[:,:,:,:], const T[:,:,::1], const T[::1], T[:,:,:,::1], f4, f4, T[:,::1], const i8[::1])",
        parallel=True)
def conv2d_forward_columns(x, weight, bias, y, low, high, scratch, walk):
    """x (N, H, W, C), y (N, OH, OW, K), scratch (slots, floats)."""
    slots = scratch.shape[0]
    counters = begin_shares(slots, x.shape[0])
    for slot in prange(slots):
        _forward_images(np.int64(slot), counters, x, weight, bias, y, low, high, scratch, walk)


@worker
def _pack_gradients(grad_y, n, first, count, planes, base, filters, pitch):
    """planes[oh, k, ow] = grad_y[n, first + oh, ow, k] for oh < count, zeros for k up to `filters` and ow up to `pitch`."""
    compact()
    _, _, OW, K = grad_y.shape
    y_n, y_h, y_w = grad_y.strides[0] // 4, grad_y.strides[1] // 4, grad_y.strides[2] // 4
    flat = planes.reshape(planes.size)
    for oh in range(count):
        at = base + oh * filters * pitch
        if K == FILTERS and y_w == K:
            for ow in range(0, OW, L):
                deinterleave(FILTERS, grad_y, n * y_n + (first + oh) * y_h + ow * K, (OW - ow) * K, planes, at + ow, pitch)
        else:
            for i in range(0, filters * pitch, L):
                store(planes, at + i, splat(np.float32(0)))
            for ow in range(OW):
                for k in range(K):
                    flat[at + k * pitch + ow] = grad_y[n, first + oh, ow, k]


@worker
def _add_products(g, g_pitch, g_row, planes, p, p_row, rows, OW, sums, at):
    """sums[i, j] += sum over oh < rows of grad_y[oh, i] * plane[oh] shifted by j, for HALF filters and TAPS taps."""
    out_of_line()
    a0, a1, a2 = load(sums, at), load(sums, at + L), load(sums, at + 2 * L)
    b0, b1, b2 = load(sums, at + 3 * L), load(sums, at + 4 * L), load(sums, at + 5 * L)
    c0, c1, c2 = load(sums, at + 6 * L), load(sums, at + 7 * L), load(sums, at + 8 * L)
    d0, d1, d2 = load(sums, at + 9 * L), load(sums, at + 10 * L), load(sums, at + 11 * L)
    e0, e1, e2 = load(sums, at + 12 * L), load(sums, at + 13 * L), load(sums, at + 14 * L)
    for _ in range(rows):
        for ow in range(0, OW, L):
            # columns behind the last one are not read: a zero times inf or NaN would spoil the sums
            count = OW - ow
            g0, g1, g2 = load(planes, g + ow), load(planes, g + g_pitch + ow), load(planes, g + 2 * g_pitch + ow)
            x = load_partial(planes, p + ow, count)
            a0, a1, a2 = fma(g0, x, a0), fma(g1, x, a1), fma(g2, x, a2)
            x = load_partial(planes, p + ow + 1, count)
            b0, b1, b2 = fma(g0, x, b0), fma(g1, x, b1), fma(g2, x, b2)
            x = load_partial(planes, p + ow + 2, count)
            c0, c1, c2 = fma(g0, x, c0), fma(g1, x, c1), fma(g2, x, c2)
            x = load_partial(planes, p + ow + 3, count)
            d0, d1, d2 = fma(g0, x, d0), fma(g1, x, d1), fma(g2, x, d2)
            x = load_partial(planes, p + ow + 4, count)
            e0, e1, e2 = fma(g0, x, e0), fma(g1, x, e1), fma(g2, x, e2)
        g += g_row
        p += p_row
    store(sums, at, a0), store(sums, at + L, a1), store(sums, at + 2 * L, a2)
    store(sums, at + 3 * L, b0), store(sums, at + 4 * L, b1), store(sums, at + 5 * L, b2)
    store(sums, at + 6 * L, c0), store(sums, at + 7 * L, c1), store(sums, at + 8 * L, c2)
    store(sums, at + 9 * L, d0), store(sums, at + 10 * L, d1), store(sums, at + 11 * L, d2)
    store(sums, at + 12 * L, e0), store(sums, at + 13 * L, e1), store(sums, at + 14 * L, e2)


@worker
def _sum_image(grad_y, x, n, sums, cells, scratch, base, walk):
    """Add one image to the sums from offset `cells` on."""
    out_of_line()
    K, R, S, stride_h, dilation_h, OH, OW = walk[1], walk[5], walk[6], walk[7], walk[11], walk[13], walk[14]
    C, (rows, columns) = x.shape[3], plane_size(walk)
    pitch, g_pitch = _plane_pitch(columns), (OW + L - 1) // L * L
    filters = (K + FILTERS - 1) // FILTERS * FILTERS
    gradients = base + C * rows * pitch
    block = max(1, PLANES // (filters * g_pitch))
    _pack_planes(x, n, walk, scratch, base, pitch)
    for first in range(0, OH, block):
        count = min(block, OH - first)
        _pack_gradients(grad_y, n, first, count, scratch, gradients, filters, g_pitch)
        at = cells
        for k in range(0, filters, HALF):
            for c in range(C):
                for r in range(R):
                    plane = base + (c * rows + first * stride_h + r * dilation_h) * pitch
                    for s in range(0, S, TAPS):
                        _add_products(gradients + k * g_pitch, g_pitch, filters * g_pitch, scratch, plane + s,
                                      stride_h * pitch, count, OW, sums, at)
                        at += CELL


@worker
def _sum_parts(slot, counters, grad_y, x, sums, scratch, walk):
    slots, base, N, parts = scratch.shape[0], slot * scratch.shape[1], x.shape[0], sums.shape[0]
    size = sums.size // parts
    part = next_job(counters, slot, slots, parts)
    while part >= 0:
        for i in range(0, size, L):
            store(sums, part * size + i, splat(np.float32(0)))
        for n in range(part * N // parts, (part + 1) * N // parts):
            _sum_image(grad_y, x, n, sums, part * size, scratch, base, walk)
        part = next_job(counters, slot, slots, parts)


@kernel("void(const T[:,:,:,:], const T[:,:,:,:], T[:,:,:,:], T[:,::1], T[:,:,:,:,:,::1], const i8[::1])", parallel=True)
def conv2d_backward_weight_columns(grad_y, x, grad_weight, scratch, sums, walk):
    """grad_weight (K, C, R, S); parts are fixed ranges of images, added upwards.

    sums (parts, K rounded up to FILTERS / HALF, C * R, S rounded up / TAPS, TAPS * HALF, L).
    """
    slots, parts = scratch.shape[0], sums.shape[0]
    size = sums.size // parts
    counters = begin_shares(slots, parts)
    for slot in prange(slots):
        _sum_parts(np.int64(slot), counters, grad_y, x, sums, scratch, walk)
    K, C, R, S = grad_weight.shape
    for k in range(K):
        for row in range(C * R):
            for s in range(S):
                cell = (k // HALF * C * R + row) * sums.shape[3] + s // TAPS
                at = cell * CELL + (s % TAPS * HALF + k % HALF) * L
                total = load(sums, at)
                for part in range(1, parts):
                    total = total + load(sums, part * size + at)
                grad_weight[k, row // R, row % R, s] = reduce_add(total)
