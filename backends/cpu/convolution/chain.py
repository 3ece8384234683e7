"""Convolutions one after the other, a band of rows at a time, so that what lies between them stays in a second-level cache.

    for each segment of rows of the last map, for each band of it:
        for each stage: those rows of its map that the band needs and that are not there yet

A stage's rows lie in a buffer of the thread: before a new band, rows that it needs again move to the front. Only where a segment
begins are rows computed that another segment computes too. Stages are a matrix product of pixels that are read in place (1 x 1), the
same with windows gathered (`gather.py`), and depthwise (`depthwise.py`), with the kernels of those files. An inverted residual of
MobileNet v2 (Sandler et al., 2018, arXiv:1801.04381), whose inner maps are six times as large as the others, is one such chain: fusing
across layers is Alwani et al.'s (2016, doi:10.1109/MICRO.2016.7783725). Letters: `walk.py`.

A row of the table of stages is a walk and then: its kind, where its weights begin, the distance of depthwise taps, where its buffer
begins in the scratch memory, the floats from row to row and from pixel to pixel there, and the address of its activation.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu.activating import activate
from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.convolution.depthwise import VECTORS, depthwise_rows
from numbanet.backends.cpu.convolution.finishing_tile import LIMITS, RESIDUAL
from numbanet.backends.cpu.convolution.flat import flat_to_read, flat_to_write
from numbanet.backends.cpu.convolution.gather import MR, multiply_panel
from numbanet.backends.cpu.convolution.preactivate import NOTHING
from numbanet.backends.cpu.convolution.walk import end_of, odd_pitch, pack_windows, strides_of
from numbanet.backends.cpu.convolution.weights import bias_offset
from numbanet.backends.cpu.out_of_line import out_of_line
from numbanet.backends.cpu.shares import begin_shares, next_job
from numbanet.backends.cpu.simd import L, load_partial, store_partial

PIXELWISE, GATHERED, DEPTHWISE = 0, 1, 2        # kinds of stages
KIND, WEIGHTS, TAP, BUFFER, ROW, PIXEL, ACTIVATION = 15, 16, 17, 18, 19, 20, 21
COLUMNS = 22                                    # of the table
BLOCK = 8 * MR                                  # pixels of a product, which read each packed weight from the first-level cache


@worker(borrows=True)
def _product_rows(x, x_at, end, begin, stop, packed, y, y_at, residual, r_at, low, high, scratch, base, walk):
    """Rows begin, ..., stop - 1 of a product's map; `base`: room for a corner and for a panel."""
    out_of_line()
    C, K, T, OW, kind = walk[0], walk[1], walk[5] * walk[6], walk[14], walk[KIND]
    (x_0, x_h, x_w), (y_0, y_h, y_w), (r_0, r_h, r_w) = x_at, y_at, r_at
    steps = (RESIDUAL if residual.size else 0) | (LIMITS if low > -np.inf or high < np.inf else 0)
    shifts, panel, pitch = walk[WEIGHTS] + bias_offset(C, K, np.int64(1), T, np.int64(0)), base + (MR + 1) * 2 * L, odd_pitch(T * C)
    even = y_h == OW * y_w and (residual.size == 0 or r_h == OW * r_w) and (kind == GATHERED or x_h == OW * x_w)
    rows, width = (1, (stop - begin) * OW) if even else (stop - begin, OW)
    for row in range(begin, begin + rows):
        for p in range(0, width, BLOCK):
            count = min(BLOCK, width - p)
            if kind == GATHERED:
                pack_windows(x, NOTHING, np.int64(0), x_0, (np.int64(0), x_h, x_w), end, walk, row * OW + p, count, C, scratch, panel,
                             pitch)
                multiply_panel(scratch, panel, pitch, scratch, base, packed, walk[WEIGHTS], y, y_0 + row * y_h + p * y_w, y_w, count,
                               T * C, K, shifts, residual, r_0 + row * r_h + p * r_w, r_w, low, high, steps, np.int64(-1),
                               walk[WEIGHTS])
            else:
                multiply_panel(x, x_0 + row * x_h + p * x_w, x_w, scratch, base, packed, walk[WEIGHTS], y, y_0 + row * y_h + p * y_w,
                               y_w, count, C, K, shifts, residual, r_0 + row * r_h + p * r_w, r_w, low, high, steps, p, walk[WEIGHTS])


@worker(borrows=True)
def _depthwise_rows(x, x_at, begin, stop, packed, y, y_at, residual, r_at, low, high, walk):
    """Rows begin, ..., stop - 1 of a depthwise map, all channels."""
    out_of_line()
    C, w_at = walk[2], (walk[WEIGHTS], walk[TAP])
    whole = C // L
    for v in range(0, whole, VECTORS):
        depthwise_rows(x, x_at, begin, stop, v * L, min(VECTORS, whole - v), np.int64(L), packed, w_at, y, y_at, residual, r_at,
                       low, high, walk)
    if whole * L < C:
        depthwise_rows(x, x_at, begin, stop, whole * L, np.int64(1), C - whole * L, packed, w_at, y, y_at, residual, r_at,
                       low, high, walk)


@worker(borrows=True)
def _move_rows(scratch, buffer, row, first, count):
    """Rows first, ..., first + count - 1 of a buffer to its front."""
    for i in range(0, count * row, L):
        left = count * row - i
        store_partial(scratch, buffer + i, load_partial(scratch, buffer + first * row + i, left), left)


@worker(borrows=True)
def _needed_rows(table, first, stop):
    """From the rows of the last stage's map, those of all others that they depend on."""
    for s in range(table.shape[0] - 1, 0, -1):
        H, stride, pad = table[s, 3], table[s, 7], table[s, 9]
        first[s - 1] = min(H, max(0, first[s] * stride - pad))
        stop[s - 1] = max(first[s - 1], min(H, (stop[s] - 1) * stride - pad + (table[s, 5] - 1) * table[s, 11] + 1))


@worker
def _chain_segment(n, begin, end, band, x, x_strides, x_end, packed, y, y_strides, residual, r_strides, bounds, scratch, base, table):
    """Rows begin, ..., end - 1 of image n of the last map."""
    out_of_line()
    stages, buffers = table.shape[0], flat_to_read(scratch)
    (x_n, x_h, x_w), (y_n, y_h, y_w), (r_n, r_h, r_w) = x_strides, y_strides, r_strides
    first, stop, front, done = (np.empty(stages, np.int64), np.empty(stages, np.int64), np.empty(stages, np.int64),
                                np.zeros(stages, np.int64))
    for o in range(begin, end, band):
        first[stages - 1], stop[stages - 1] = o, min(end, o + band)
        _needed_rows(table, first, stop)
        for s in range(stages):
            walk, is_first, is_last = table[s], s == 0, s == stages - 1
            buffer, row, pixel = base + walk[BUFFER], walk[ROW], walk[PIXEL]
            if o > begin and not is_last and first[s] < done[s] and first[s] > front[s]:
                _move_rows(scratch, buffer, row, first[s] - front[s], done[s] - first[s])
            front[s] = first[s]
            r0 = first[s] if o == begin else max(first[s], done[s])
            done[s] = max(r0, stop[s])
            if r0 >= stop[s]:
                continue
            source = x if is_first else buffers
            limit = x_end if is_first else scratch.size
            x_at = n * x_n, x_h, x_w
            if not is_first:
                before = table[s - 1]
                x_at = base + before[BUFFER] - front[s - 1] * before[ROW], before[ROW], before[PIXEL]
            target = y if is_last else scratch
            y_at = (n * y_n, y_h, y_w) if is_last else (buffer - front[s] * row, row, pixel)
            added = residual if is_last else residual[:0]
            low, high = bounds[s, 0], bounds[s, 1]
            if walk[KIND] == DEPTHWISE:
                _depthwise_rows(source, x_at, r0, stop[s], packed, target, y_at, added, (n * r_n, r_h, r_w), low, high, walk)
            else:
                _product_rows(source, x_at, limit, r0, stop[s], packed, target, y_at, added, (n * r_n, r_h, r_w), low, high,
                              scratch, base, walk)
            if walk[ACTIVATION]:
                filters = walk[2] if walk[KIND] == DEPTHWISE else walk[1]
                for row in range(r0, stop[s]):
                    activate(walk[ACTIVATION], target, y_at[0] + row * y_at[1], walk[14], y_at[2], filters)


@worker
def _chain_jobs(slot, slots, counters, jobs, x, packed, y, residual, bounds, scratch, floats, table, band, segment):
    """What one slot does; a job is a segment of rows of an image."""
    out_of_line()
    OH = y.shape[1]
    segments = (OH + segment - 1) // segment
    sources, targets, added = flat_to_read(x), flat_to_write(y), flat_to_read(residual)
    job = next_job(counters, slot, slots, jobs)
    while job >= 0:
        begin = job % segments * segment
        _chain_segment(job // segments, begin, min(OH, begin + segment), band, sources, strides_of(x), end_of(x), packed, targets,
                       strides_of(y), added, strides_of(residual), bounds, scratch, slot * floats, table)
        job = next_job(counters, slot, slots, jobs)


@kernel("void(const T[:,:,:,:], const T[::1], T[:,:,:,:], const T[:,:,:,:], const T[:,::1], T[:,::1], const i8[:,::1], i8, i8)",
        parallel=True)
def conv2d_chain_bands(x, packed, y, residual, bounds, scratch, table, band, segment):
    """x (N, H, W, C), y and residual (N, OH, OW, K) of the last stage, bounds (stages, 2), scratch (slots, floats).

    An empty residual adds nothing.
    """
    slots, floats = scratch.shape
    jobs = y.shape[0] * ((y.shape[1] + segment - 1) // segment)
    counters, buffers = begin_shares(slots, jobs), scratch.reshape(scratch.size)
    for slot in prange(slots):
        _chain_jobs(np.int64(slot), slots, counters, jobs, x, packed, y, residual, bounds, buffers, floats, table, band, segment)
