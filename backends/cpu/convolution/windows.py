"""Convolution of few channels with at most L filters, no padding and stride 1, such as LeNet-5's second layer.

Forward, for PIXELS neighbouring pixels of a row and all filters:

    y[oh, ow, k] = bias[k] + sum over r, (s, c) of x[oh + r, ow + s, c] * weight[k, c, r, s]

Backward-weight, for each r and PIXELS of the pairs (s, c):

    grad_weight[k, c, r, s] = sum over oh, ow of x[oh + r, ow + s, c] * grad_y[oh, ow, k]

Backward-input, for a row h of grad_x:

    q[ow, (s, c)] = sum over r, k of grad_y[h - r, ow, k] * weight[k, c, r, s]
    grad_x[h, w, c] = sum over s of q[w - s, (s, c)]

The S * C numbers under one row of a window are neighbours in memory, so the register tile reads x and grad_y in place
and keeps every sum in registers over the whole window, where the general kernels copy panels that so few filters do not
pay for. Tiles at the end of a row begin early and compute some numbers a second time. Letters: `walk.py`.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.convolution.run_tile import run_tile
from numbanet.backends.cpu.hardware import vector_registers
from numbanet.backends.cpu.limits import limit_run
from numbanet.backends.cpu.out_of_line import out_of_line
from numbanet.backends.cpu.simd import L, load, load_partial, splat, store, store_partial

PIXELS = 10                                             # rows of a tile of one vector
FOLDED = 10 if vector_registers() == 32 else 5          # rows of a tile of two vectors


@worker
def _forward_rows(begin, end, x, packed, bias, y, low, high):
    """Rows begin, ..., end - 1 of all images of y."""
    out_of_line()
    R, S, C, K = packed.shape
    _, OH, OW, _ = y.shape
    x_n, x_h = x.strides[0] // 4, x.strides[1] // 4
    shift = load_partial(bias, 0, K if bias.size else 0)
    for row in range(begin, end):
        source = row // OH * x_n + row % OH * x_h
        for first in range(0, OW, PIXELS):
            ow = min(first, OW - PIXELS)
            target = (row * OW + ow) * K
            for i in range(PIXELS):
                store_partial(y, target + i * K, shift, K)
            run_tile(PIXELS, 1, x, source + ow * C, C, 1, x_h, packed, 0, K, S * C * K, y, target, K, R, S * C, 1, K)
        limit_run(y, row * OW * K, OW * K, low, high)


@kernel("void(const T[:,:,:,:], const T[:,:,:,::1], const T[::1], T[:,:,:,::1], f4, f4, i8)", parallel=True)
def conv2d_forward_windows(x, packed, bias, y, low, high, slots):
    """x (N, H, W, C), packed (R, S, C, K), y (N, OH, OW, K); each slot takes an equal share of the rows."""
    rows = y.shape[0] * y.shape[1]
    for slot in prange(slots):
        _forward_rows(slot * rows // slots, (slot + 1) * rows // slots, x, packed, bias, y, low, high)


@worker
def _fold_row(scratch, q, pitch, width, C, OW, grad_x, target, count):
    """grad_x[target + j] = sum over ow of q[ow, j - ow * C] for j < count, where q is 0 outside of its `width` columns."""
    low, high = 0, 0
    for j in range(0, count, L):
        while low * C + width <= j:
            low += 1
        while high < OW and high * C < j + L:
            high += 1
        total = splat(np.float32(0))
        for ow in range(low, high):
            total = total + load(scratch, q + ow * (pitch - C) + j)
        store_partial(grad_x, target + j, total, min(L, count - j))


@worker
def _backward_input_images(begin, end, grad_y, packed, grad_x, scratch, base):
    """scratch from `base` on: OW rows of L zeros, two vectors and L zeros."""
    out_of_line()
    R, K, S, C = packed.shape
    _, OH, OW, _ = grad_y.shape
    _, H, W, _ = grad_x.shape
    y_n, y_h, y_w = grad_y.strides[0] // 4, grad_y.strides[1] // 4, grad_y.strides[2] // 4
    pitch, width = 4 * L, S * C
    for i in range(0, OW * pitch, L):
        store(scratch, base + i, splat(np.float32(0)))
    for n in range(begin, end):
        for h in range(H):
            r, last = max(0, h - OH + 1), min(R - 1, h)
            for first in range(0, OW, FOLDED):
                ow = min(first, OW - FOLDED)
                run_tile(FOLDED, 2, grad_y, n * y_n + (h - r) * y_h + ow * y_w, y_w, 1, -y_h,
                         packed, r * K * width, width, K * width,
                         scratch, base + ow * pitch + L, pitch, last - r + 1, K, 0, width - L)
            _fold_row(scratch, base + L, pitch, width, C, OW, grad_x, (n * H + h) * W * C, W * C)


@kernel("void(const T[:,:,:,:], const T[:,:,:,::1], T[:,:,:,::1], T[:,::1])", parallel=True)
def conv2d_backward_input_windows(grad_y, packed, grad_x, scratch):
    """packed (R, K, S, C), grad_x (N, H, W, C), scratch (slots, OW * 4L); each slot takes an equal share of the images."""
    N, slots = grad_y.shape[0], scratch.shape[0]
    for slot in prange(slots):
        _backward_input_images(slot * N // slots, (slot + 1) * N // slots, grad_y, packed, grad_x, scratch,
                               np.int64(slot) * scratch.shape[1])


@worker
def _sum_images(begin, end, grad_y, x, sums, base):
    """sums[r, block, i, k] of the images begin, ..., end - 1; a block is PIXELS of the pairs (s, c)."""
    out_of_line()
    _, OH, OW, K = grad_y.shape
    _, R, blocks, _, _ = sums.shape
    C, S = x.shape[3], x.shape[2] - OW + 1
    x_n, x_h = x.strides[0] // 4, x.strides[1] // 4
    y_n, y_h, y_w = grad_y.strides[0] // 4, grad_y.strides[1] // 4, grad_y.strides[2] // 4
    for n in range(begin, end):
        for r in range(R):
            for block in range(blocks):
                run_tile(PIXELS, 1, x, n * x_n + r * x_h + min(block * PIXELS, S * C - PIXELS), 1, C, x_h,
                         grad_y, n * y_n, y_w, y_h, sums, base + (r * blocks + block) * PIXELS * L, L, OH, OW,
                         n - begin, K)


@kernel("void(const T[:,:,:,:], const T[:,:,:,:], T[:,:,:,:], T[:,:,:,:,::1])", parallel=True)
def conv2d_backward_weight_windows(grad_y, x, grad_weight, sums):
    """grad_weight (K, C, R, S); sums (parts, R, blocks, PIXELS, L), added upwards; parts are fixed ranges of images."""
    N, parts = x.shape[0], sums.shape[0]
    K, C, R, S = grad_weight.shape
    size = R * sums.shape[2] * PIXELS * L
    for part in prange(parts):
        _sum_images(part * N // parts, (part + 1) * N // parts, grad_y, x, sums, np.int64(part) * size)
    for i in range(0, size, L):
        total = load(sums, i)
        for part in range(1, parts):
            total = total + load(sums, part * size + i)
        store(sums, i, total)
    for column in range(S * C):
        block = column // PIXELS
        i = column - min(block * PIXELS, S * C - PIXELS)
        for r in range(R):
            for k in range(K):
                grad_weight[k, column % C, r, column // C] = sums[0, r, block, i, k]
