"""Depthwise convolution, one filter a channel: vectors of channels, no matrix product.

    y[n, oh, ow, c] = bias[c] + sum over r, s of x[n, h, w, c] * weight[r, s, c]

Weights are packed as (T + 1, C), the last row being the bias. Letters: `walk.py` (Cg = Kg = 1, C = G channels).
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.convolution.compact import compact
from numbanet.backends.cpu.convolution.walk import clear_run, first_inside, last_inside
from numbanet.backends.cpu.simd import L, fma, load, load_partial, splat, store, store_partial


@worker
def _one_pixel(x, source, r_step, s_step, weight, weights, C, r0, r1, s0, s1, S, bias, y, target, lanes):
    compact()
    total = load_partial(weight, bias, lanes)
    for r in range(r0, r1):
        for s in range(s0, s1):
            total = fma(load_partial(x, source + r * r_step + s * s_step, lanes),
                        load_partial(weight, weights + (r * S + s) * C, lanes), total)
    store_partial(y, target, total, lanes)


@worker
def _four_pixels(x, source, pixel, r_step, s_step, weight, weights, C, r0, r1, S, bias, y, target, y_w):
    """Four neighbours whose windows lie inside, so that each weight is loaded once."""
    compact()
    a = load(weight, bias)
    b, c, d = a, a, a
    for r in range(r0, r1):
        for s in range(S):
            w = load(weight, weights + (r * S + s) * C)
            at = source + r * r_step + s * s_step
            a = fma(load(x, at), w, a)
            b = fma(load(x, at + pixel), w, b)
            c = fma(load(x, at + 2 * pixel), w, c)
            d = fma(load(x, at + 3 * pixel), w, d)
    store(y, target, a)
    store(y, target + y_w, b)
    store(y, target + 2 * y_w, c)
    store(y, target + 3 * y_w, d)


@kernel("void(const T[:,:,:,:], const T[:,::1], T[:,:,:,:], const i8[::1])", parallel=True)
def conv2d_forward_depthwise(x, weight, y, walk):
    """x (N, H, W, C), weight (T + 1, C), y (N, OH, OW, C); parallel over the rows of y."""
    H, W, R, S = walk[3], walk[4], walk[5], walk[6]
    stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w = walk[7], walk[8], walk[9], walk[10], walk[11], walk[12]
    N, OH, OW, C = y.shape
    x_n, x_h, x_w = x.strides[0] // 4, x.strides[1] // 4, x.strides[2] // 4
    y_n, y_h, y_w = y.strides[0] // 4, y.strides[1] // 4, y.strides[2] // 4
    for row in prange(N * OH):
        n, oh = row // OH, row % OH
        h0 = oh * stride_h - pad_h
        r0, r1 = first_inside(h0, dilation_h), last_inside(h0, dilation_h, R, H)
        for c in range(0, C, L):
            lanes = min(L, C - c)
            ow = 0
            while ow < OW:
                w0 = ow * stride_w - pad_w
                source, target = n * x_n + h0 * x_h + w0 * x_w + c, n * y_n + oh * y_h + ow * y_w + c
                if lanes == L and w0 >= 0 and ow + 4 <= OW and w0 + 3 * stride_w + (S - 1) * dilation_w < W:
                    _four_pixels(x, source, stride_w * x_w, dilation_h * x_h, dilation_w * x_w, weight, c, C, r0, r1, S,
                                 R * S * C + c, y, target, y_w)
                    ow += 4
                else:
                    s0, s1 = first_inside(w0, dilation_w), last_inside(w0, dilation_w, S, W)
                    _one_pixel(x, source, dilation_h * x_h, dilation_w * x_w, weight, c, C, r0, r1, s0, s1, S,
                               R * S * C + c, y, target, lanes)
                    ow += 1


@kernel("void(const T[:,:,:,:], const T[:,::1], T[:,:,:,:], const i8[::1])", parallel=True)
def conv2d_backward_input_depthwise(grad_y, weight, grad_x, walk):
    """grad_x (N, H, W, C); each pixel adds up the taps that read it. For strides above 1: at 1 it is a forward pass."""
    H, W, R, S = walk[3], walk[4], walk[5], walk[6]
    stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w = walk[7], walk[8], walk[9], walk[10], walk[11], walk[12]
    N, OH, OW, C = grad_y.shape
    x_n, x_h, x_w = grad_x.strides[0] // 4, grad_x.strides[1] // 4, grad_x.strides[2] // 4
    y_n, y_h, y_w = grad_y.strides[0] // 4, grad_y.strides[1] // 4, grad_y.strides[2] // 4
    for row in prange(N * H):
        n, h = row // H, row % H
        for w in range(W):
            target = n * x_n + h * x_h + w * x_w
            clear_run(grad_x, target, C)
            for r in range(R):
                oh = (h + pad_h - r * dilation_h) // stride_h
                if oh < 0 or oh >= OH or oh * stride_h != h + pad_h - r * dilation_h:
                    continue
                for s in range(S):
                    ow = (w + pad_w - s * dilation_w) // stride_w
                    if ow < 0 or ow >= OW or ow * stride_w != w + pad_w - s * dilation_w:
                        continue
                    source, weights = n * y_n + oh * y_h + ow * y_w, (r * S + s) * C
                    whole = C // L * L
                    for c in range(0, whole, L):
                        total = fma(load(grad_y, source + c), load(weight, weights + c), load(grad_x, target + c))
                        store(grad_x, target + c, total)
                    if whole < C:
                        left = C - whole
                        total = fma(load_partial(grad_y, source + whole, left),
                                    load_partial(weight, weights + whole, left),
                                    load_partial(grad_x, target + whole, left))
                        store_partial(grad_x, target + whole, total, left)


@worker
def _tap_sum(grad_y, g, g_step, x, source, x_step, count, lanes):
    """Sum over `count` pixels of a row; four sums, so that a product need not wait for the one before."""
    compact()
    a, b, c, d = splat(np.float32(0)), splat(np.float32(0)), splat(np.float32(0)), splat(np.float32(0))
    i = 0
    while i + 4 <= count:
        a = fma(load_partial(grad_y, g, lanes), load_partial(x, source, lanes), a)
        b = fma(load_partial(grad_y, g + g_step, lanes), load_partial(x, source + x_step, lanes), b)
        c = fma(load_partial(grad_y, g + 2 * g_step, lanes), load_partial(x, source + 2 * x_step, lanes), c)
        d = fma(load_partial(grad_y, g + 3 * g_step, lanes), load_partial(x, source + 3 * x_step, lanes), d)
        g += 4 * g_step
        source += 4 * x_step
        i += 4
    while i < count:
        a = fma(load_partial(grad_y, g, lanes), load_partial(x, source, lanes), a)
        g += g_step
        source += x_step
        i += 1
    return (a + b) + (c + d)


@kernel("void(const T[:,:,:,:], const T[:,:,:,:], T[:,:,:,:], T[:,:,::1], const i8[::1])", parallel=True)
def conv2d_backward_weight_depthwise(grad_y, x, grad_weight, sums, walk):
    """grad_weight (C, 1, R, S); sums (parts, T, C rounded up to L): rows of grad_y in fixed ranges, added upwards."""
    H, W, R, S = walk[3], walk[4], walk[5], walk[6]
    stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w = walk[7], walk[8], walk[9], walk[10], walk[11], walk[12]
    N, OH, OW, C = grad_y.shape
    x_n, x_h, x_w = x.strides[0] // 4, x.strides[1] // 4, x.strides[2] // 4
    y_n, y_h, y_w = grad_y.strides[0] // 4, grad_y.strides[1] // 4, grad_y.strides[2] // 4
    parts, blocks = sums.shape[0], (C + L - 1) // L
    for task in prange(parts * blocks):
        part, c = task // blocks, task % blocks * L
        lanes = min(L, C - c)
        at = part * sums.shape[1] * sums.shape[2] + c
        for t in range(R * S):
            store(sums, at + t * sums.shape[2], splat(np.float32(0)))
        for row in range(part * N * OH // parts, (part + 1) * N * OH // parts):
            n, oh = row // OH, row % OH
            for r in range(R):
                h = oh * stride_h + r * dilation_h - pad_h
                if h < 0 or h >= H:
                    continue
                for s in range(S):
                    offset = s * dilation_w - pad_w      # w = ow * stride_w + offset
                    first = first_inside(offset, stride_w)
                    last = last_inside(offset, stride_w, OW, W)
                    if first < last:
                        total = _tap_sum(grad_y, n * y_n + oh * y_h + first * y_w + c, y_w,
                                         x, n * x_n + h * x_h + (first * stride_w + offset) * x_w + c, stride_w * x_w,
                                         last - first, lanes)
                        tap = at + (r * S + s) * sums.shape[2]
                        store(sums, tap, load(sums, tap) + total)
    for c in range(C):
        for r in range(R):
            for s in range(S):
                total = sums[0, r * S + s, c]
                for part in range(1, parts):
                    total += sums[part, r * S + s, c]
                grad_weight[c, 0, r, s] = total
