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

from numbanet.backends.cpu.activating import activate
from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.convolution.depthwise_tile import pixels_tiles
from numbanet.backends.cpu.convolution.flat import flat_to_read
from numbanet.backends.cpu.convolution.preactivate import preactivate_rows
from numbanet.backends.cpu.convolution.statistics import take_moments
from numbanet.backends.cpu.convolution.walk import first_inside, last_inside, strides_of
from numbanet.backends.cpu.hardware import vector_registers
from numbanet.backends.cpu.out_of_line import out_of_line
from numbanet.backends.cpu.shares import begin_shares, next_job
from numbanet.backends.cpu.simd import L

PIXELS = 3                                              # 3, 6, 12, 27, 54 rows of a map leave none over, or few
VECTORS = 4 if vector_registers() == 32 else 2          # of a tile at most


@worker(borrows=True)
def _run(count, vectors, lanes, taps, stride, x, at, x_next, pixel, r_step, s_step, R, S, weight, w, w_r, w_s, shift,
         y, target, y_next, y_pixel, residual, added, r_next, r_pixel, low, high):
    out_of_line()
    pixels_tiles(PIXELS, VECTORS, count, vectors, lanes, taps, stride, x, at, x_next, pixel, r_step, s_step, R, S, weight, w, w_r, w_s,
                 shift, y, target, y_next, y_pixel, residual, added, r_next, r_pixel, low, high)


@worker(borrows=True)
def _rows(x, x_at, c, vectors, lanes, oh, r0, r1, inner, end_inner, vertical, weight, w_at, y, y_at, residual, r_at, low, high, walk):
    """PIXELS rows from oh on (`vertical`), or one row, with taps r0, ..., r1 - 1; columns inner, ..., end_inner - 1 have all taps."""
    W, S, stride_h, stride_w, pad_w, dilation_h, dilation_w = walk[4], walk[6], walk[7], walk[8], walk[10], walk[11], walk[12]
    OW, (w, w_s), (x_0, x_h, x_w), (y_0, y_h, y_w), (r_0, r_h, r_w) = walk[14], w_at, x_at, y_at, r_at
    r_step, s_step, step = dilation_h * x_h, dilation_w * x_w, stride_w * x_w
    h = oh * stride_h - walk[9] + r0 * dilation_h
    source = x_0 + h * x_h - pad_w * x_w + c
    target, added = y_0 + oh * y_h + c, r_0 + oh * r_h + c
    shift = w + walk[5] * S * w_s + c
    w, w_r, R = w + r0 * S * w_s + c, S * w_s, r1 - r0
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
            pixel, y_pixel, r_pixel = stride_h * x_h, y_h, r_h
        elif width > 1:
            pixel, y_pixel, r_pixel = step, y_w, r_w
        else:                                           # a corner: all pixels of the tile are this one
            pixel, y_pixel, r_pixel = np.int64(0), np.int64(0), np.int64(0)
        overlap = vertical and dilation_h == 1 and R == walk[5] and (R == 3 or R == 5) and (stride_h == 1 or stride_h == 2)
        _run(count, vectors, lanes, R if overlap else np.int64(0), stride_h, x, source + ow * step + s0 * s_step, width * step, pixel,
             r_step, s_step, R, s1 - s0, weight, w + s0 * w_s, w_r, w_s, shift, y, target + ow * y_w, width * y_w, y_pixel,
             residual, added + ow * r_w, width * r_w, r_pixel, low, high)
        ow += count * width


@worker(borrows=True)
def depthwise_rows(x, x_at, begin, end, c, vectors, lanes, weight, w_at, y, y_at, residual, r_at, low, high, walk):
    """Rows begin, ..., end - 1 of an image; channels c, ..., c + vectors * L - 1, or `lanes` < L of one vector.

    x_at, y_at, r_at: the offset of the image, and floats from row to row and from pixel to pixel; w_at: the offset of the weights,
    and floats from tap to tap.
    """
    out_of_line()
    H, R, stride_h, pad_h, dilation_h = walk[3], walk[5], walk[7], walk[9], walk[11]
    inner_rows, end_rows = _inner_range(H, walk[13], R, stride_h, pad_h, dilation_h)
    inner, end_inner = _inner_range(walk[4], walk[14], walk[6], walk[8], walk[10], walk[12])
    first, last = max(begin, inner_rows), min(end, end_rows)
    if last - first < PIXELS:
        first = last = end
    oh = begin
    while oh < end:
        if first <= oh < last:
            oh = min(oh, last - PIXELS)                 # tiles at the end begin early
            _rows(x, x_at, c, vectors, lanes, oh, np.int64(0), R, inner, end_inner, True, weight, w_at, y, y_at, residual, r_at,
                  low, high, walk)
            oh += PIXELS
        else:
            h = oh * stride_h - pad_h
            _rows(x, x_at, c, vectors, lanes, oh, first_inside(h, dilation_h), last_inside(h, dilation_h, R, H), inner, end_inner, False,
                  weight, w_at, y, y_at, residual, r_at, low, high, walk)
            oh += 1


@worker
def _inner_range(size, outputs, taps, stride, pad, dilation):
    """The outputs first, ..., last - 1 whose windows lie inside of the map."""
    first = min(outputs, first_inside(-pad, stride))
    return first, max(first, last_inside((taps - 1) * dilation - pad, stride, outputs, size))


@worker(borrows=True)
def _forward_jobs(slot, slots, counters, jobs, parts, x, preactivation, weight, y, residual, low, high, activation, moments, scratch, walk,
                  band):
    """What one slot does; a job is a band of rows and a range of vectors of channels."""
    out_of_line()
    _, OH, OW, C = y.shape
    H, W, stride_h, pad_h, extent = walk[3], walk[4], walk[7], walk[9], (walk[5] - 1) * walk[11] + 1
    given, copied = flat_to_read(x), flat_to_read(scratch)
    (x_n, x_h, x_w), (y_n, y_h, y_w), (r_n, r_h, r_w) = strides_of(x), strides_of(y), strides_of(residual)
    w_at = np.int64(0), weight.shape[1]
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
        end, source, x_at = min(OH, begin + band), given, (n * x_n, x_h, x_w)
        if preactivation.size:                          # the rows under the band, of these channels alone
            first, last = max(np.int64(0), begin * stride_h - pad_h), min(H, (end - 1) * stride_h - pad_h + extent)
            channels, base = (v1 - v0) * lanes, slot * scratch.shape[1]
            preactivate_rows(x, n, first, last, v0 * L, channels, preactivation, scratch, base)
            source, x_at = copied, (base - first * W * channels - v0 * L, W * channels, channels)
        depthwise_rows(source, x_at, begin, end, v0 * L, v1 - v0, lanes, weight, w_at, y, (n * y_n, y_h, y_w),
                       residual, (n * r_n, r_h, r_w), low, high, walk)
        for oh in range(begin, min(OH, begin + band)):
            activate(activation, y, n * y_n + oh * y_h + v0 * L, OW, y_w, (v1 - v0) * lanes)
        if moments.size:
            take_moments(moments, job // parts, v0 * L, y, n * y_n + begin * y_h + v0 * L, min(OH - begin, band), y_h, OW, y_w,
                         (v1 - v0) * lanes, True)
        job = next_job(counters, slot, slots, jobs)


@kernel("void(const T[:,:,:,:], const T[:,::1], const T[:,::1], T[:,:,:,:], const T[:,:,:,:], f4, f4, i8, T[:,:,::1], T[:,::1], "
        "const i8[::1], i8, i8)", parallel=True)
def conv2d_forward_depthwise(x, preactivation, weight, y, residual, low, high, activation, moments, scratch, walk, band, slots):
    """x (N, H, W, C), weight (T + 1, C rounded up to L), y and residual (N, OH, OW, C); bands of `band` rows of y.

    moments (N * bands, 3, C), or empty: see `statistics.py`; `preactivation`: see `preactivate.py`, then scratch (slots, floats).
    """
    N, OH, _, C = y.shape
    parts = (C // L + VECTORS - 1) // VECTORS + (1 if C % L else 0)
    jobs = N * ((OH + band - 1) // band) * parts
    counters = begin_shares(slots, jobs)
    for slot in prange(slots):
        _forward_jobs(np.int64(slot), slots, counters, jobs, parts, x, preactivation, weight, y, residual, low, high, activation, moments,
                      scratch, walk, band)
