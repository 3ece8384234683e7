"""Convolution of few channels with few filters, such as LeNet-5's first layer: vectors of columns instead of channels.

Forward, for FILTERS filters at once and two vectors of output columns, x lying in planes with its padding:

    y[k, ow] = bias[k] + sum over c, r of  (sum over s of weight[k, c, r, s] * plane[c, oh * stride_h + r * dilation_h,
    ow + s])

Backward-weight, for FILTERS filters at once and the S taps of a row as lanes:

    grad_weight[k, c, r, s] = sum over oh, ow of grad_y[oh, ow, k] * plane[c, oh * stride_h + r * dilation_h, ow + s]

Both inner sums are register tiles that read the planes in place, one float further at each step, so nothing is
gathered. With 1 channel and 6 filters that is 3 times as fast as vectors of filters, which leave 10 of 16 lanes empty.
Letters: `walk.py`.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.convolution.compact import compact
from numbanet.backends.cpu.convolution.walk import pack_pixels
from numbanet.backends.cpu.out_of_line import out_of_line
from numbanet.backends.cpu.simd import L, splat, store, tile, tile_partial

FILTERS = 6         # 12 sums in flight hide the latency of the multiply-adds


@worker
def _pack_planes(x, n, walk, planes, base, pitch):
    """planes[c, h + pad_h, w + pad_w] = x[n, h, w, c], zeros around; rows are `pitch` floats apart."""
    compact()
    H, W, pad_h, pad_w = walk[3], walk[4], walk[9], walk[10]
    rows, columns = plane_size(walk)
    for c in range(x.shape[3]):
        for row in range(rows):
            h, at = row - pad_h, base + (c * rows + row) * pitch
            for column in range(0, pitch, L):
                store(planes, at + column, splat(np.float32(0)))
            if 0 <= h < H:
                flat = planes.reshape(planes.size)
                for w in range(max(0, -pad_w), min(W, columns - pad_w)):
                    flat[at + pad_w + w] = x[n, h, w, c]


@worker
def plane_size(walk):
    """Rows and columns that the windows read, the padding included."""
    R, S, OH, OW = walk[5], walk[6], walk[13], walk[14]
    return (OH - 1) * walk[7] + (R - 1) * walk[11] + 1, OW + S - 1


@worker
def _forward_image(x, n, weight, bias, y, scratch, base, walk):
    """weight (K rounded up to FILTERS, C * R * S), bias (as many)."""
    out_of_line()
    K, R, S, stride_h, dilation_h, OH, OW = walk[1], walk[5], walk[6], walk[7], walk[11], walk[13], walk[14]
    C, (rows, columns) = x.shape[3], plane_size(walk)
    pitch = (columns + 3 * L - 1) // L * L
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
                    for r in range(R):
                        tile(FILTERS, 2, weight, (k * C + c) * R * S + r * S, C * R * S, 1,
                             scratch, base + (c * rows + oh * stride_h + r * dilation_h) * pitch + first, 1,
                             scratch, corner, 2 * L, S, 1)
                for column in range(min(2 * L, OW - first)):
                    for i in range(min(FILTERS, K - k)):
                        y[n, oh, first + column, k + i] = flat[corner + i * 2 * L + column]


@kernel("void(const T[:,:,:,:], const T[:,::1], const T[::1], T[:,:,:,::1], T[:,::1], const i8[::1])", parallel=True)
def conv2d_forward_columns(x, weight, bias, y, scratch, walk):
    """x (N, H, W, C), y (N, OH, OW, K), scratch (slots, floats); each slot takes an equal share of the images."""
    slots, N = scratch.shape[0], x.shape[0]
    for slot in prange(slots):
        for n in range(slot * N // slots, (slot + 1) * N // slots):
            _forward_image(x, np.int64(n), weight, bias, y, scratch, np.int64(slot) * scratch.shape[1], walk)


@worker
def _sum_image(grad_y, x, n, sums, base_sums, scratch, base, walk):
    """Add one image to sums (K rounded up to FILTERS, C * R, L)."""
    out_of_line()
    K, R, S, stride_h, dilation_h, OH, OW = walk[1], walk[5], walk[6], walk[7], walk[11], walk[13], walk[14]
    C, (rows, columns) = x.shape[3], plane_size(walk)
    pitch = (columns + 3 * L - 1) // L * L
    a, a_pitch = base + C * rows * pitch, (K + FILTERS + 2 * L - 1) // L * L
    _pack_planes(x, n, walk, scratch, base, pitch)
    for oh in range(OH):
        pack_pixels(grad_y, (n * OH + oh) * OW, OW, 0, K, scratch, a, a_pitch)
        for k in range(0, K, FILTERS):
            for c in range(C):
                for r in range(R):
                    tile_partial(FILTERS, 1, scratch, a + k, 1, a_pitch,
                                 scratch, base + (c * rows + oh * stride_h + r * dilation_h) * pitch, 1,
                                 sums, base_sums + (k * C * R + c * R + r) * L, C * R * L, OW, 1, S)


@kernel("void(const T[:,:,:,:], const T[:,:,:,:], T[:,:,:,:], T[:,::1], T[:,:,:,::1], const i8[::1])", parallel=True)
def conv2d_backward_weight_columns(grad_y, x, grad_weight, scratch, sums, walk):
    """grad_weight (K, C, R, S); sums (parts, K rounded up to FILTERS, C * R, L), parts are fixed ranges of images."""
    slots, N, parts = scratch.shape[0], x.shape[0], sums.shape[0]
    size = sums.shape[1] * sums.shape[2] * sums.shape[3]
    for slot in prange(slots):
        for part in range(slot * parts // slots, (slot + 1) * parts // slots):
            for i in range(0, size, L):
                store(sums, np.int64(part) * size + i, splat(np.float32(0)))
            for n in range(part * N // parts, (part + 1) * N // parts):
                _sum_image(grad_y, x, np.int64(n), sums, np.int64(part) * size, scratch,
                           np.int64(slot) * scratch.shape[1], walk)
    K, C, R, S = grad_weight.shape
    for k in range(K):
        for c in range(C):
            for r in range(R):
                for s in range(S):
                    total = sums[0, k, c * R + r, s]
                    for part in range(1, parts):
                        total += sums[part, k, c * R + r, s]
                    grad_weight[k, c, r, s] = total
