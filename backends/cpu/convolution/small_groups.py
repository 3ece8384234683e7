"""Grouped convolution with 2, 4 or 8 channels and as many filters a group: vectors of channels, several groups in each.

    y[n, oh, ow, c] = bias[c] + sum over r, s, j of x[n, h, w, first channel of c's group + j] * weight[(r, s), j, c]

A vector of y is as many vectors of weights, each times a vector of x whose lanes were spread, so that all lanes of a
group hold its channel j: all lanes do useful work, where a matrix product with 4 columns would use a quarter of them.
Weights are packed as (T, width, C), and a last row holds the bias. Letters: `walk.py`; Cg = Kg = width.

The same loop is backward-input, with weights mirrored and `step` the stride: x is read where h = (oh * stride + r *
dilation - pad) / step is whole.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.convolution.compact import compact
from numbanet.backends.cpu.convolution.spread import spread
from numbanet.backends.cpu.limits import limited
from numbanet.backends.cpu.simd import L, fma, load, load_partial, splat, store, store_partial


@worker(inline=True)
def _times_group(x, weight, w, C, width, total):
    """total + sum over j of (x spread from channel j of each group) * weight[w + j * C]."""
    if width == 2:
        total = fma(spread(x, 2, 0), load(weight, w), total)
        total = fma(spread(x, 2, 1), load(weight, w + C), total)
    elif width == 4:
        total = fma(spread(x, 4, 0), load(weight, w), total)
        total = fma(spread(x, 4, 1), load(weight, w + C), total)
        total = fma(spread(x, 4, 2), load(weight, w + 2 * C), total)
        total = fma(spread(x, 4, 3), load(weight, w + 3 * C), total)
    else:
        total = fma(spread(x, 8, 0), load(weight, w), total)
        total = fma(spread(x, 8, 1), load(weight, w + C), total)
        total = fma(spread(x, 8, 2), load(weight, w + 2 * C), total)
        total = fma(spread(x, 8, 3), load(weight, w + 3 * C), total)
        total = fma(spread(x, 8, 4), load(weight, w + 4 * C), total)
        total = fma(spread(x, 8, 5), load(weight, w + 5 * C), total)
        total = fma(spread(x, 8, 6), load(weight, w + 6 * C), total)
        total = fma(spread(x, 8, 7), load(weight, w + 7 * C), total)
    return total


@worker(inline=True)
def _whole(position, step, size):
    """position / step where that is a whole number inside the map, otherwise -1."""
    if step > 1:
        if position % step:
            return -1
        position //= step
    return position if position < size else -1


@worker
def _small_groups_row(row, x, weight, y, residual, low, high, walk, step):
    """One row of y. weight (T * width + 1, C rounded up to L)."""
    compact()
    width, H, W, R, S = walk[0], walk[3], walk[4], walk[5], walk[6]
    stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w = walk[7], walk[8], walk[9], walk[10], walk[11], walk[12]
    _, OH, OW, channels = y.shape
    C = weight.shape[1]
    x_n, x_h, x_w = x.strides[0] // 4, x.strides[1] // 4, x.strides[2] // 4
    y_n, y_h, y_w = y.strides[0] // 4, y.strides[1] // 4, y.strides[2] // 4
    r_n, r_h, r_w = residual.strides[0] // 4, residual.strides[1] // 4, residual.strides[2] // 4
    n, oh = row // OH, row % OH
    for c in range(0, channels, L):
        lanes = min(L, channels - c)
        for first in range(0, OW, 2):
            # two pixels, so that two chains of sums are in flight
            second = min(first + 1, OW - 1)
            a = load(weight, R * S * width * C + c)
            b = a
            for r in range(R):
                h = _whole(oh * stride_h + r * dilation_h - pad_h, step, H)
                if h < 0:
                    continue
                line = n * x_n + h * x_h + c
                for s in range(S):
                    w = (r * S + s) * width * C + c
                    at = _whole(first * stride_w + s * dilation_w - pad_w, step, W)
                    if at >= 0:
                        a = _times_group(load_partial(x, line + at * x_w, lanes), weight, w, C, width, a)
                    at = _whole(second * stride_w + s * dilation_w - pad_w, step, W)
                    if at >= 0:
                        b = _times_group(load_partial(x, line + at * x_w, lanes), weight, w, C, width, b)
            target, added = n * y_n + oh * y_h + c, n * r_n + oh * r_h + c
            if residual.size:
                a = a + load_partial(residual, added + first * r_w, lanes)
                b = b + load_partial(residual, added + second * r_w, lanes)
            store_partial(y, target + first * y_w, limited(a, low, high), lanes)
            store_partial(y, target + second * y_w, limited(b, low, high), lanes)


@kernel("void(const T[:,:,:,:], const T[:,::1], T[:,:,:,:], const T[:,:,:,:], f4, f4, const i8[::1], i8)", parallel=True)
def conv2d_forward_small_groups(x, weight, y, residual, low, high, walk, step):
    """x (N, H, W, C), y and residual (N, OH, OW, C); parallel over the rows of y. An empty residual adds nothing."""
    for row in prange(y.shape[0] * y.shape[1]):
        _small_groups_row(np.int64(row), x, weight, y, residual, low, high, walk, step)


@worker(inline=True)
def _add_products(x, g, sums, at, C, width):
    """sums[at + j * C] += g * (x spread from channel j of each group)."""
    if width == 2:
        store(sums, at, fma(spread(x, 2, 0), g, load(sums, at)))
        store(sums, at + C, fma(spread(x, 2, 1), g, load(sums, at + C)))
    elif width == 4:
        store(sums, at, fma(spread(x, 4, 0), g, load(sums, at)))
        store(sums, at + C, fma(spread(x, 4, 1), g, load(sums, at + C)))
        store(sums, at + 2 * C, fma(spread(x, 4, 2), g, load(sums, at + 2 * C)))
        store(sums, at + 3 * C, fma(spread(x, 4, 3), g, load(sums, at + 3 * C)))
    else:
        store(sums, at, fma(spread(x, 8, 0), g, load(sums, at)))
        store(sums, at + C, fma(spread(x, 8, 1), g, load(sums, at + C)))
        store(sums, at + 2 * C, fma(spread(x, 8, 2), g, load(sums, at + 2 * C)))
        store(sums, at + 3 * C, fma(spread(x, 8, 3), g, load(sums, at + 3 * C)))
        store(sums, at + 4 * C, fma(spread(x, 8, 4), g, load(sums, at + 4 * C)))
        store(sums, at + 5 * C, fma(spread(x, 8, 5), g, load(sums, at + 5 * C)))
        store(sums, at + 6 * C, fma(spread(x, 8, 6), g, load(sums, at + 6 * C)))
        store(sums, at + 7 * C, fma(spread(x, 8, 7), g, load(sums, at + 7 * C)))


@worker
def _sum_rows(part, parts, grad_y, x, sums, walk):
    """sums[part] (T * width, C rounded up to L) over a fixed range of the rows of grad_y."""
    compact()
    width, H, W, R, S = walk[0], walk[3], walk[4], walk[5], walk[6]
    stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w = walk[7], walk[8], walk[9], walk[10], walk[11], walk[12]
    N, OH, OW, channels = grad_y.shape
    C, base = sums.shape[2], part * sums.shape[1] * sums.shape[2]
    x_n, x_h, x_w = x.strides[0] // 4, x.strides[1] // 4, x.strides[2] // 4
    y_n, y_h, y_w = grad_y.strides[0] // 4, grad_y.strides[1] // 4, grad_y.strides[2] // 4
    for i in range(0, sums.shape[1] * C, L):
        store(sums, base + i, splat(np.float32(0)))
    for row in range(part * N * OH // parts, (part + 1) * N * OH // parts):
        n, oh = row // OH, row % OH
        for c in range(0, channels, L):
            lanes = min(L, channels - c)
            for ow in range(OW):
                g = load_partial(grad_y, n * y_n + oh * y_h + ow * y_w + c, lanes)
                for r in range(R):
                    h = oh * stride_h + r * dilation_h - pad_h
                    if h < 0 or h >= H:
                        continue
                    for s in range(S):
                        w = ow * stride_w + s * dilation_w - pad_w
                        if 0 <= w < W:
                            _add_products(load_partial(x, n * x_n + h * x_h + w * x_w + c, lanes), g, sums,
                                          base + (r * S + s) * width * C + c, C, width)


@kernel("void(const T[:,:,:,:], const T[:,:,:,:], T[:,:,:,:], T[:,:,::1], const i8[::1])", parallel=True)
def conv2d_backward_weight_small_groups(grad_y, x, grad_weight, sums, walk):
    """grad_weight (C, width, R, S); sums (parts, T * width, C rounded up to L), added upwards."""
    parts = sums.shape[0]
    for part in prange(parts):
        _sum_rows(np.int64(part), parts, grad_y, x, sums, walk)
    K, width, R, S = grad_weight.shape
    for k in range(K):
        for j in range(width):
            for r in range(R):
                for s in range(S):
                    total = sums[0, (r * S + s) * width + j, k]
                    for part in range(1, parts):
                        total += sums[part, (r * S + s) * width + j, k]
                    grad_weight[k, j, r, s] = total
