"""Convolution, limits and maxima of windows of 2 x 2 pixels in one: the map in between is never written to memory.

    m = limited(x * weight + bias)    (N, OH, OW, K)
    y[n, ph, pw, k] = max of m[n, 2 ph : 2 ph + 2, 2 pw : 2 pw + 2, k],    argmax its position oh * OW + ow

Two rows of m at a time, by the tiles of `columns.py` (few channels, few filters: columns fill the vectors) or of `windows.py` (at most
L filters), stay in the first-level cache. An empty argmax is not wanted. Letters: `walk.py`; PH x PW pooled pixels.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.convolution.columns import FILTERS, pack_planes, plane_pitch, plane_size
from numbanet.backends.cpu.convolution.interleave import interleave
from numbanet.backends.cpu.convolution.run_tile import run_tile
from numbanet.backends.cpu.convolution.spread import every_other
from numbanet.backends.cpu.convolution.windows import PIXELS
from numbanet.backends.cpu.hardware import vector_registers
from numbanet.backends.cpu.limits import limited
from numbanet.backends.cpu.out_of_line import out_of_line
from numbanet.backends.cpu.pooling import quad_of
from numbanet.backends.cpu.shares import begin_shares, next_job
from numbanet.backends.cpu.simd import L, lane_indices, load, load_partial, select, splat, splat_int, store, store_partial

JOB = 4                                     # rows of y that are one job of `windows`
COLUMNS_SCRATCH = 5 * FILTERS * L           # floats beside the planes
REGISTERS = vector_registers()
POSITIONS = FILTERS * L                     # integers of scratch


@worker(inline=True)
def limited_quad(p, q, r, s, W, low, high):
    """As `quad_of` of the four elements limited to [low, high]: where all stop at a limit, the first of them counts."""
    if high < np.inf:
        p, q, r, s = limited(p, low, high), limited(q, low, high), limited(r, low, high), limited(s, low, high)
    best, where = quad_of(p, q, r, s, W)
    return select(best < low, low, best), select(best <= low, splat_int(0), where)


@worker(inline=True)
def _pool_columns(scratch, at, OW, low, high, begin, target, where, place):
    """The maxima of two rows of 2L columns from position `begin` of their map on."""
    a0, a1, b0, b1 = load(scratch, at), load(scratch, at + L), load(scratch, at + 2 * L), load(scratch, at + 3 * L)
    best, position = limited_quad(every_other(a0, a1, 0), every_other(a0, a1, 1), every_other(b0, b1, 0), every_other(b0, b1, 1),
                                  OW, low, high)
    store(scratch, target, best)
    store(where, place, position + lane_indices() * 2 + begin)


@worker
def _image_by_columns(x, n, weight, bias, y, argmax, low, high, scratch, base, where, place, walk):
    """As `columns._forward_image`, two rows at a time."""
    out_of_line()
    K, R, S, stride_h, dilation_h, OW = walk[1], walk[5], walk[6], walk[7], walk[11], walk[14]
    _, PH, PW, _ = y.shape
    C, (rows, columns) = x.shape[3], plane_size(walk)
    # rows of two vectors: the second two of four are the row below, and each weight is read once for both rows
    together = REGISTERS == 32 and columns <= 2 * L and stride_h == 1
    pitch = 2 * L if together else plane_pitch(columns)
    corner = base + C * rows * pitch
    best = corner + 4 * FILTERS * L
    pack_planes(x, n, walk, scratch, base, pitch)
    flat, positions = scratch.reshape(scratch.size), where.reshape(where.size)
    for ph in range(PH):
        for first in range(0, 2 * PW, 2 * L):
            count, pw = min(L, PW - first // 2), first // 2
            for k in range(0, K, FILTERS):
                for i in range(FILTERS):
                    for j in range(4):
                        store(scratch, corner + (4 * i + j) * L, splat(bias[k + i]))
                for c in range(C):
                    w, at = (k * C + c * FILTERS) * R * S, base + (c * rows + 2 * ph * stride_h) * pitch + first
                    if together:
                        run_tile(FILTERS, 4, weight, w, 1, FILTERS, S * FILTERS, scratch, at, 1, dilation_h * pitch,
                                 scratch, corner, 4 * L, R, S, 1, L)
                    else:
                        for lower in range(2):
                            run_tile(FILTERS, 2, weight, w, 1, FILTERS, S * FILTERS,
                                     scratch, at + lower * stride_h * pitch, 1, dilation_h * pitch,
                                     scratch, corner + lower * 2 * L, 4 * L, R, S, 1, L)
                for i in range(FILTERS):
                    _pool_columns(scratch, corner + i * 4 * L, OW, low, high, 2 * ph * OW + first, best + i * L, where, place + i * L)
                if K == FILTERS:
                    at = ((n * PH + ph) * PW + pw) * FILTERS
                    interleave(FILTERS, scratch, best, L, y, at, count * FILTERS)
                    if argmax.size:
                        interleave(FILTERS, where, place, L, argmax, at, count * FILTERS)
                else:
                    for column in range(count):
                        for i in range(min(FILTERS, K - k)):
                            y[n, ph, pw + column, k + i] = flat[best + i * L + column]
                            if argmax.size:
                                argmax[n, ph, pw + column, k + i] = positions[place + i * L + column]


@worker
def _images_by_columns(slot, counters, x, weight, bias, y, argmax, low, high, scratch, where, walk):
    slots = scratch.shape[0]
    n = next_job(counters, slot, slots, x.shape[0])
    while n >= 0:
        _image_by_columns(x, n, weight, bias, y, argmax, low, high, scratch, slot * scratch.shape[1], where, slot * POSITIONS, walk)
        n = next_job(counters, slot, slots, x.shape[0])


@kernel("void(const T[:,:,:,:], const T[:,:,::1], const T[::1], T[:,:,:,::1], i4[:,:,:,::1], f4, f4, T[:,::1], i4[:,::1], "
        "const i8[::1])", parallel=True)
def conv2d_max_pool_columns(x, weight, bias, y, argmax, low, high, scratch, where, walk):
    """x (N, H, W, C), weight and bias as for `conv2d_forward_columns`, y and argmax (N, PH, PW, K), scratch and where (slots, ...)."""
    slots = scratch.shape[0]
    counters = begin_shares(slots, x.shape[0])
    for slot in prange(slots):
        _images_by_columns(np.int64(slot), counters, x, weight, bias, y, argmax, low, high, scratch, where, walk)


@worker
def _rows_by_windows(begin, end, x, packed, bias, y, argmax, low, high, OW, scratch, base):
    """Rows begin, ..., end - 1 of all images of y; scratch holds two rows of pixels, each a vector of filters."""
    out_of_line()
    R, S, C, K = packed.shape
    _, PH, PW, _ = y.shape
    x_n, x_h = x.strides[0] // 4, x.strides[1] // 4
    shift = load_partial(bias, 0, K if bias.size else 0)
    lower = base + OW * L
    for row in range(begin, end):
        ph = row % PH
        for i in range(2):
            source = row // PH * x_n + (2 * ph + i) * x_h
            for first in range(0, OW, PIXELS):
                ow = min(first, OW - PIXELS)
                at = base + (i * OW + ow) * L
                for p in range(PIXELS):
                    store(scratch, at + p * L, shift)
                run_tile(PIXELS, 1, x, source + ow * C, C, 1, x_h, packed, 0, K, S * C * K, scratch, at, L, R, S * C, 1, K)
        for pw in range(PW):
            at, target = 2 * pw * L, (row * PW + pw) * K
            best, where = limited_quad(load(scratch, base + at), load(scratch, base + at + L), load(scratch, lower + at),
                                       load(scratch, lower + at + L), OW, low, high)
            store_partial(y, target, best, K)
            if argmax.size:
                store_partial(argmax, target, where + (2 * ph * OW + 2 * pw), K)


@worker
def _jobs_by_windows(slot, counters, jobs, x, packed, bias, y, argmax, low, high, OW, scratch):
    slots = scratch.shape[0]
    job = next_job(counters, slot, slots, jobs)
    while job >= 0:
        _rows_by_windows(job * JOB, min(y.shape[0] * y.shape[1], (job + 1) * JOB), x, packed, bias, y, argmax, low, high, OW, scratch,
                         slot * scratch.shape[1])
        job = next_job(counters, slot, slots, jobs)


@kernel("void(const T[:,:,:,:], const T[:,:,:,::1], const T[::1], T[:,:,:,::1], i4[:,:,:,::1], f4, f4, i8, T[:,::1])", parallel=True)
def conv2d_max_pool_windows(x, packed, bias, y, argmax, low, high, OW, scratch):
    """x (N, H, W, C), packed (R, S, C, K), y and argmax (N, PH, PW, K), scratch (slots, 2 * OW * L)."""
    jobs = (y.shape[0] * y.shape[1] + JOB - 1) // JOB
    counters = begin_shares(scratch.shape[0], jobs)
    for slot in prange(scratch.shape[0]):
        _jobs_by_windows(np.int64(slot), counters, jobs, x, packed, bias, y, argmax, low, high, OW, scratch)


@kernel("void(const T[:,:,:,:], const T[::1], T[:,:,::1], T[::1])")
def pack_columns(weight, bias, packed, shifts):
    """weight (K, C, R, S) and bias, which may be empty, as `conv2d_forward_columns` reads them."""
    K, C, R, S = weight.shape
    for k in range(shifts.shape[0]):
        shifts[k] = bias[k] if k < bias.shape[0] else np.float32(0)
        for c in range(C):
            for r in range(R):
                for s in range(S):
                    packed[k // FILTERS, (c * R + r) * S + s, k % FILTERS] = weight[k, c, r, s] if k < K else np.float32(0)


@kernel("void(const T[:,:,:,:], T[:,:,:,::1])")
def pack_windows(weight, packed):
    """weight (K, C, R, S) as (R, S, C, K)."""
    K, C, R, S = weight.shape
    for k in range(K):
        for c in range(C):
            for r in range(R):
                for s in range(S):
                    packed[r, s, c, k] = weight[k, c, r, s]
