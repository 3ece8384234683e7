"""Depthwise convolution, one filter a channel: vectors of channels, no matrix product.

    y[n, oh, ow, c] = bias[c] + sum over r, s of x[n, h, w, c] * weight[r, s, c]

A tile is PIXELS pixels by some vectors of channels, and all its pixels have the same taps inside of x: neighbours in a column
where all rows of their windows exist, neighbours in a row above and below, so that borders cost no branch a tap. x is read in
place. Backward-input is this forward pass over grad_y too: at stride s, one for each of the s * s sets of pixels of grad_x
that the same taps reach. Letters: `walk.py` (Cg = Kg = 1, C = G channels). Weights are packed as (T + 1, C rounded up to L),
the last row being the bias.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.convolution.depthwise_tile import pixels_tiles
from numbanet.backends.cpu.convolution.walk import first_inside, last_inside
from numbanet.backends.cpu.hardware import vector_registers
from numbanet.backends.cpu.out_of_line import out_of_line
from numbanet.backends.cpu.shares import begin_shares, next_job
from numbanet.backends.cpu.simd import L

PIXELS = 3                                              # 3, 6, 12, 27, 54 rows of a map leave none over, or few
VECTORS = 4 if vector_registers() == 32 else 2          # of a tile at most


@worker
def _run(count, vectors, lanes, taps, stride, x, at, x_next, pixel, r_step, s_step, R, S, weight, w, w_r, w_s, shift,
         y, target, y_next, y_pixel, residual, added, r_next, r_pixel, low, high):
    out_of_line()
    pixels_tiles(PIXELS, VECTORS, count, vectors, lanes, taps, stride, x, at, x_next, pixel, r_step, s_step, R, S, weight, w, w_r, w_s,
                 shift, y, target, y_next, y_pixel, residual, added, r_next, r_pixel, low, high)


@worker
def _rows(x, n, c, vectors, lanes, oh, r0, r1, inner, end_inner, vertical, weight, y, residual, low, high, walk):
    """PIXELS rows from oh on (`vertical`), or one row, with taps r0, ..., r1 - 1; columns inner, ..., end_inner - 1 have all taps."""
    W, S, stride_h, stride_w, pad_w, dilation_h, dilation_w = walk[4], walk[6], walk[7], walk[8], walk[10], walk[11], walk[12]
    OW, w_s = y.shape[2], weight.shape[1]
    x_h, x_w = x.strides[1] // 4, x.strides[2] // 4
    r_step, s_step, step = dilation_h * x_h, dilation_w * x_w, stride_w * x_w
    y_h, y_w, added_h, added_w = y.strides[1] // 4, y.strides[2] // 4, residual.strides[1] // 4, residual.strides[2] // 4
    h = oh * stride_h - walk[9] + r0 * dilation_h
    source = n * (x.strides[0] // 4) + h * x_h - pad_w * x_w + c
    target, added = n * (y.strides[0] // 4) + oh * y_h + c, n * (residual.strides[0] // 4) + oh * added_h + c
    w, shift, w_r, R = r0 * S * w_s + c, walk[5] * S * w_s + c, S * w_s, r1 - r0
    ow = np.int64(0)
    while ow < OW:
        count, width, s0, s1 = np.int64(1), np.int64(1), np.int64(0), S
        if inner <= ow < end_inner and vertical:
            count = end_inner - ow
        elif inner <= ow < end_inner and end_inner - inner >= PIXELS:
            ow = min(ow, end_inner - PIXELS)            # tiles at the end begin early
            count, width = max(np.int64(1), (end_inner - ow) // PIXELS), np.int64(PIXELS)
        else:
            first = ow * stride_w - pad_w
            s0, s1 = first_inside(first, dilation_w), last_inside(first, dilation_w, S, W)
        if vertical:
            pixel, y_pixel, added_pixel = stride_h * x_h, y_h, added_h
        elif width > 1:
            pixel, y_pixel, added_pixel = step, y_w, added_w
        else:                                           # a corner: all pixels of the tile are this one
            pixel, y_pixel, added_pixel = np.int64(0), np.int64(0), np.int64(0)
        overlap = vertical and dilation_h == 1 and R == walk[5] and (R == 3 or R == 5) and (stride_h == 1 or stride_h == 2)
        _run(count, vectors, lanes, R if overlap else np.int64(0), stride_h, x, source + ow * step + s0 * s_step, width * step, pixel,
             r_step, s_step, R, s1 - s0, weight, w + s0 * w_s, w_r, w_s, shift, y, target + ow * y_w, width * y_w, y_pixel,
             residual, added + ow * added_w, width * added_w, added_pixel, low, high)
        ow += count * width


@worker
def _forward_job(x, n, begin, end, c, vectors, lanes, inner_rows, end_rows, inner, end_inner, weight, y, residual, low, high, walk):
    """Rows begin, ..., end - 1 of image n; rows inner_rows, ..., end_rows - 1 have all taps."""
    out_of_line()
    H, R, stride_h, pad_h, dilation_h = walk[3], walk[5], walk[7], walk[9], walk[11]
    first, last = max(begin, inner_rows), min(end, end_rows)
    if last - first < PIXELS:
        first = last = end
    oh = begin
    while oh < end:
        if first <= oh < last:
            oh = min(oh, last - PIXELS)                 # tiles at the end begin early
            _rows(x, n, c, vectors, lanes, oh, np.int64(0), R, inner, end_inner, True, weight, y, residual, low, high, walk)
            oh += PIXELS
        else:
            h = oh * stride_h - pad_h
            _rows(x, n, c, vectors, lanes, oh, first_inside(h, dilation_h), last_inside(h, dilation_h, R, H), inner, end_inner, False,
                  weight, y, residual, low, high, walk)
            oh += 1


@worker
def _inner_range(size, outputs, taps, stride, pad, dilation):
    """The outputs first, ..., last - 1 whose windows lie inside of the map."""
    first = min(outputs, first_inside(-pad, stride))
    return first, max(first, last_inside((taps - 1) * dilation - pad, stride, outputs, size))


@worker
def _forward_jobs(slot, slots, counters, jobs, parts, x, weight, y, residual, low, high, walk, band):
    """What one slot does; a job is a band of rows and a range of vectors of channels."""
    out_of_line()
    N, OH, OW, C = y.shape
    inner_rows, end_rows = _inner_range(walk[3], OH, walk[5], walk[7], walk[9], walk[11])
    inner, end_inner = _inner_range(walk[4], OW, walk[6], walk[8], walk[10], walk[12])
    bands, whole = (OH + band - 1) // band, C // L
    groups = (whole + VECTORS - 1) // VECTORS
    job = next_job(counters, slot, slots, jobs)
    while job >= 0:
        part, begin, n = job % parts, job // parts % bands * band, job // (parts * bands)
        if part < groups:
            v0, v1 = part * whole // groups, (part + 1) * whole // groups
            lanes = np.int64(L)
        else:
            v0, v1, lanes = whole, whole + 1, C - whole * L
        _forward_job(x, np.int64(n), np.int64(begin), np.int64(min(OH, begin + band)), np.int64(v0 * L), np.int64(v1 - v0), lanes,
                     inner_rows, end_rows, inner, end_inner, weight, y, residual, low, high, walk)
        job = next_job(counters, slot, slots, jobs)


@kernel("void(const T[:,:,:,:], const T[:,::1], T[:,:,:,:], const T[:,:,:,:], f4, f4, const i8[::1], i8, i8)", parallel=True)
def conv2d_forward_depthwise(x, weight, y, residual, low, high, walk, band, slots):
    """x (N, H, W, C), weight (T + 1, C rounded up to L), y and residual (N, OH, OW, C); bands of `band` rows of y."""
    N, OH, _, C = y.shape
    parts = (C // L + VECTORS - 1) // VECTORS + (1 if C % L else 0)
    jobs = N * ((OH + band - 1) // band) * parts
    counters = begin_shares(slots, jobs)
    for slot in prange(slots):
        _forward_jobs(np.int64(slot), slots, counters, jobs, parts, x, weight, y, residual, low, high, walk, band)
