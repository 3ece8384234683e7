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
from numbanet.backends.cpu.shares import begin_shares, next_job
from numbanet.backends.cpu.simd import L, load, load_partial, splat, store, store_partial

PIXELS = 10                                             # rows of a tile of one vector
FOLDED = 10 if vector_registers() == 32 else 5          # rows of a tile of two vectors
ROWS = 8                                                # of y in a job
IMAGES = 4


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


@worker
def _forward_jobs(slot, slots, counters, jobs, x, packed, bias, y, low, high):
    job = next_job(counters, slot, slots, jobs)
    while job >= 0:
        _forward_rows(job * ROWS, min(y.shape[0] * y.shape[1], (job + 1) * ROWS), x, packed, bias, y, low, high)
        job = next_job(counters, slot, slots, jobs)


@kernel("void(const T[:,:,:,:], const T[:,:,:,::1], const T[::1], T[:,:,:,::1], f4, f4, i8)", parallel=True)
def conv2d_forward_windows(x, packed, bias, y, low, high, slots):
    """x (N, H, W, C), packed (R, S, C, K), y (N, OH, OW, K)."""
    jobs = (y.shape[0] * y.shape[1] + ROWS - 1) // ROWS
    counters = begin_shares(slots, jobs)
    for slot in prange(slots):
        _forward_jobs(np.int64(slot), slots, counters, jobs, x, packed, bias, y, low, high)


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
    for n in range(begin, end):
        for h in range(H):
            r, last = max(0, h - OH + 1), min(R - 1, h)
            for first in range(0, OW, FOLDED):
                ow = min(first, OW - FOLDED)
                run_tile(FOLDED, 2, grad_y, n * y_n + (h - r) * y_h + ow * y_w, y_w, 1, -y_h,
                         packed, r * K * width, width, K * width,
                         scratch, base + ow * pitch + L, pitch, last - r + 1, K, 0, width - L)
            _fold_row(scratch, base + L, pitch, width, C, OW, grad_x, (n * H + h) * W * C, W * C)


@worker
def _backward_input_jobs(slot, counters, grad_y, packed, grad_x, scratch):
    (slots, size), N = scratch.shape, grad_y.shape[0]
    for i in range(slot * size, slot * size + size, L):
        store(scratch, i, splat(np.float32(0)))
    jobs = (N + IMAGES - 1) // IMAGES
    job = next_job(counters, slot, slots, jobs)
    while job >= 0:
        _backward_input_images(job * IMAGES, min(N, (job + 1) * IMAGES), grad_y, packed, grad_x, scratch, slot * size)
        job = next_job(counters, slot, slots, jobs)


@kernel("void(const T[:,:,:,:], const T[:,:,:,::1], T[:,:,:,::1], T[:,::1])", parallel=True)
def conv2d_backward_input_windows(grad_y, packed, grad_x, scratch):
    """packed (R, K, S, C), grad_x (N, H, W, C), scratch (slots, OW * 4L)."""
    counters = begin_shares(scratch.shape[0], (grad_y.shape[0] + IMAGES - 1) // IMAGES)
    for slot in prange(scratch.shape[0]):
        _backward_input_jobs(np.int64(slot), counters, grad_y, packed, grad_x, scratch)


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


@worker
def _sum_parts(slot, slots, counters, grad_y, x, sums):
    N, parts = x.shape[0], sums.shape[0]
    part = next_job(counters, slot, slots, parts)
    while part >= 0:
        _sum_images(part * N // parts, (part + 1) * N // parts, grad_y, x, sums, part * (sums.size // parts))
        part = next_job(counters, slot, slots, parts)


@kernel("void(const T[:,:,:,:], const T[:,:,:,:], T[:,:,:,:], T[:,:,:,:,::1], i8)", parallel=True)
def conv2d_backward_weight_windows(grad_y, x, grad_weight, sums, slots):
    """grad_weight (K, C, R, S); sums (parts, R, blocks, PIXELS, L), added upwards; parts are fixed ranges of images."""
    parts = sums.shape[0]
    K, C, R, S = grad_weight.shape
    size = sums.size // parts
    counters = begin_shares(slots, parts)
    for slot in prange(slots):
        _sum_parts(np.int64(slot), slots, counters, grad_y, x, sums)
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
