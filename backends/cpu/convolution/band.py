"""Convolution of few channels, such as the first layer of a network: any stride and padding, no window gathered.

    y[oh, ow, k] = bias[k] + sum over r, (s, c) of rows[oh * stride_h + r, ow * stride_w + s, c] * packed[r, s, c, k]

A job is a band of output rows of one image. It copies the input rows under the band once, with zeros for the padding, into rows of scratch
memory that stay in the nearer caches. There a window is R runs of S * C neighbouring numbers, and the windows of neighbouring pixels
are stride_w * C numbers apart: the register tile reads them in place. Gathering copies each number R * S / (stride_h * stride_w) times, in
pieces shorter than two vectors. Sums run in the same order as in `gather.py`, over the same packed weights: the bits are the same.

Max pooling behind it reads the map, often the largest of a network, from scratch memory: a band is one of pooled rows then.
Letters: `walk.py`; packed weights: `weights.py`.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu.activating import activate
from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.convolution.compact import compact
from numbanet.backends.cpu.convolution.finishing_run_tile import finishing_run_tile
from numbanet.backends.cpu.convolution.finishing_tile import LIMITS, RESIDUAL
from numbanet.backends.cpu.convolution.flat import flat_to_read, flat_to_write
from numbanet.backends.cpu.convolution.gather import MR, THIRD, THIRDS, finish_rows
from numbanet.backends.cpu.convolution.interleave import interleave
from numbanet.backends.cpu.convolution.statistics import take_moments
from numbanet.backends.cpu.convolution.walk import clear_run, copy_run, end_of, strides_of
from numbanet.backends.cpu.convolution.weights import bias_offset
from numbanet.backends.cpu.maximum import maximum_row
from numbanet.backends.cpu.out_of_line import out_of_line
from numbanet.backends.cpu.shares import begin_shares, next_job
from numbanet.backends.cpu.simd import L


@worker(borrows=True)
def _copy_planes(x, source, x_w, x_c, scratch, target, columns, C):
    """scratch[target + w * C + c] = x[source + w * x_w + c * x_c]: a row of maps that lie one after the other."""
    out_of_line()
    given, copied = flat_to_read(x), flat_to_write(scratch)
    done = np.int64(0)
    if C == 3 and x_w == 1:         # of an image
        while done + L <= columns:
            interleave(3, x, source + done, x_c, scratch, target + done * 3, np.int64(3 * L))
            done += L
    for c in range(C):
        for w in range(done, columns):
            copied[target + w * C + c] = given[source + w * x_w + c * x_c]


@worker(borrows=True)
def _copy_rows(x, n, first, count, walk, scratch, base, pitch):
    """scratch[i, pad_w + w, c] = x[n, first + i, w, c] for `count` rows `pitch` floats apart, zeros outside of x.

    Up to L floats behind the last row are overwritten.
    """
    compact()
    C, H, pad_w = walk[0], walk[3], walk[10]
    (x_n, x_h, x_w), x_c = strides_of(x), x.strides[3] // 4
    end = end_of(x)
    before = min(pad_w * C, pitch)
    columns = max(np.int64(0), min(walk[4], (walk[14] - 1) * walk[8] + walk[6] - pad_w))     # as far as windows reach
    for i in range(count):
        h, target = first + i, base + i * pitch
        if h < 0 or h >= H or columns == 0:
            clear_run(scratch, target, pitch)
        else:
            clear_run(scratch, target, before)
            source = n * x_n + h * x_h
            if C > 1 and x_c != 1:
                _copy_planes(x, source, x_w, x_c, scratch, target + before, columns, C)
            elif x_w == C:
                copy_run(x, source, scratch, target + before, columns * C, end)
            else:
                for w in range(columns):
                    copy_run(x, source + w * x_w, scratch, target + before + w * C, C, end)
            behind = before + columns * C
            clear_run(scratch, target + behind, pitch - behind)


@worker(borrows=True)
def _wide_strip(rows, a, step, pitch, packed, b, y, c, y_w, OW, runs, run, shifts, residual, r, r_w, low, high, steps):
    """2L filters of all whole tiles of a row of pixels."""
    for p in range(0, OW - MR + 1, MR):
        finishing_run_tile(MR, 2, rows, a + p * step, step, pitch, packed, b, 2 * L, run * 2 * L, y, c + p * y_w, y_w, runs, run,
                           packed, shifts, residual, r + p * r_w, r_w, low, high, steps, 0)


@worker(borrows=True)
def _wide_strip_partial(rows, a, step, pitch, packed, b, y, c, y_w, OW, runs, run, shifts, residual, r, r_w, low, high, steps, lanes):
    """L + lanes filters."""
    for p in range(0, OW - MR + 1, MR):
        finishing_run_tile(MR, 2, rows, a + p * step, step, pitch, packed, b, 2 * L, run * 2 * L, y, c + p * y_w, y_w, runs, run,
                           packed, shifts, residual, r + p * r_w, r_w, low, high, steps, lanes)


@worker(borrows=True)
def _narrow_strip(rows, a, step, pitch, packed, b, y, c, y_w, OW, runs, run, shifts, residual, r, r_w, low, high, steps, lanes):
    """At most L filters."""
    for p in range(0, OW - MR + 1, MR):
        finishing_run_tile(MR, 1, rows, a + p * step, step, pitch, packed, b, L, run * L, y, c + p * y_w, y_w, runs, run,
                           packed, shifts, residual, r + p * r_w, r_w, low, high, steps, lanes)


@worker(borrows=True)
def _ragged_tile(rows, a, step, pitch, packed, b, b_step, spare, y, c, y_w, pixels, runs, run, shifts, residual, r, r_w, low, high, steps,
                 lanes):
    """The last pixels of a row, fewer than MR, through a corner of `rows`; behind them are zeros."""
    b_run = run * b_step
    if pixels <= THIRD:
        finishing_run_tile(THIRD, 2, rows, a, step, pitch, packed, b, b_step, b_run, rows, spare, 2 * L, runs, run, packed, shifts,
                           residual, r, r_w, low, high, 0, 0)
    elif pixels <= THIRDS:
        finishing_run_tile(THIRDS, 2, rows, a, step, pitch, packed, b, b_step, b_run, rows, spare, 2 * L, runs, run, packed, shifts,
                           residual, r, r_w, low, high, 0, 0)
    else:
        finishing_run_tile(MR, 2, rows, a, step, pitch, packed, b, b_step, b_run, rows, spare, 2 * L, runs, run, packed, shifts,
                           residual, r, r_w, low, high, 0, 0)
    finish_rows(rows, spare, pixels, lanes, y, c, y_w, residual, r, r_w, low, high, steps)


@worker(borrows=True)
def _multiply_row(rows, a, step, pitch, spare, packed, y, c, y_w, OW, K, runs, run, residual, r, r_w, low, high, steps):
    """All filters of a row of OW pixels, whose windows are `runs` runs of `run` floats, `step` apart, from offset `a` on."""
    out_of_line()
    p, bias = OW - OW % MR, bias_offset(run, K, 1, runs, 0)
    for k in range(0, K, 2 * L):
        left, b, shifts = K - k, k * runs * run, bias + k
        if left >= 2 * L:
            _wide_strip(rows, a, step, pitch, packed, b, y, c + k, y_w, OW, runs, run, shifts, residual, r + k, r_w, low, high, steps)
        elif left > L:
            _wide_strip_partial(rows, a, step, pitch, packed, b, y, c + k, y_w, OW, runs, run, shifts, residual, r + k, r_w, low, high,
                                steps, left - L)
        else:
            _narrow_strip(rows, a, step, pitch, packed, b, y, c + k, y_w, OW, runs, run, shifts, residual, r + k, r_w, low, high, steps,
                          left)
        if p < OW:
            _ragged_tile(rows, a + p * step, step, pitch, packed, b, L if left <= L else 2 * L, spare, y, c + k + p * y_w, y_w, OW - p,
                         runs, run, shifts, residual, r + k + p * r_w, r_w, low, high, steps, min(left, 2 * L))


@worker(borrows=True)
def _band_jobs(slot, counters, jobs, x, packed, y, residual, low, high, activation, moments, scratch, walk, band, pitch, map_at,
               rows, columns):
    """What one slot does; a job is a band of rows of y of an image."""
    out_of_line()
    slots, lines = scratch.shape[0], y.shape[1]
    bands = (lines + band - 1) // band
    K, R, stride_h, OW, run = walk[1], walk[5], walk[7], walk[14], walk[6] * walk[0]
    y_n, y_h, y_w = strides_of(y)
    r_n, r_h, r_w = strides_of(residual)
    steps = (RESIDUAL if residual.size else 0) | (LIMITS if low > -np.inf or high < np.inf else 0)
    spare = slot * scratch.shape[1]
    base, end = spare + MR * 2 * L, spare + scratch.shape[1]
    pools, results, memory = len(rows) > 0, flat_to_write(y), flat_to_write(scratch)
    line = OW * K
    map_base = spare + map_at
    previous, stop = np.int64(-2), np.int64(0)
    job = next_job(counters, slot, slots, jobs)
    while job >= 0:
        n, first = job // bands, job % bands * band
        count = min(band, lines - first)
        if pools:
            top, kept = rows[first, 0], np.int64(0)
            if job == previous + 1 and first > 0:       # rows that the band before has needed as well move to the front
                kept = max(np.int64(0), stop - top)
                copy_run(memory, map_base + (top - rows[first - band, 0]) * line, memory, map_base, kept * line, end)
            begin, stop = top + kept, max(top + kept, rows[first + count - 1, 1])
            target, at, t_h, t_w = memory, map_base - top * line, line, K
        else:
            begin, stop = first, first + count
            target, at, t_h, t_w = results, n * y_n, y_h, y_w
        _copy_rows(x, n, begin * stride_h - walk[9], (stop - begin - 1) * stride_h + R, walk, scratch, base, pitch)
        for oh in range(begin, stop):
            _multiply_row(scratch, base + (oh - begin) * stride_h * pitch, walk[8] * walk[0], pitch, spare, packed, target, at + oh * t_h,
                          t_w, OW, K, R, run, residual, n * r_n + oh * r_h, r_w, low, high, steps)
            activate(activation, y, n * y_n + oh * y_h, OW, y_w, K)
        if moments.size:
            take_moments(moments, job, 0, y, n * y_n + first * y_h, count, y_h, OW, y_w, K, True)
        if pools:
            for i in range(first, first + count):
                maximum_row(memory, at + rows[i, 0] * line, line, K, end, results, n * y_n + i * y_h, y_w, y.shape[2], K,
                            rows[i, 1] - rows[i, 0], columns, 1, 1)
        previous = job
        job = next_job(counters, slot, slots, jobs)


@kernel("void(const T[:,:,:,:], const T[::1], T[:,:,:,:], const T[:,:,:,:], f4, f4, i8, T[:,:,::1], T[:,::1], const i8[::1], i8, i8, i8, "
        "const i8[:,::1], const i8[:,::1])", parallel=True)
def conv2d_forward_band(x, packed, y, residual, low, high, activation, moments, scratch, walk, band, pitch, map_at, rows, columns):
    """x (N, H, W, C) of any strides, y and residual (N, OH, OW, K), scratch (slots, floats).

    An empty residual adds nothing; y is limited to [low, high], and then given to `activation`; moments (bands of all images, 3, K), or
    empty: see `statistics.py`. Copied rows are `pitch` floats apart. Where `rows` and `columns` are windows, without dilation, y has the
    maxima of the map in these. Rows of the map lie from offset `map_at` of a slot's scratch memory on then, and there are no residual,
    activation and moments.
    """
    jobs = y.shape[0] * ((y.shape[1] + band - 1) // band)
    counters = begin_shares(scratch.shape[0], jobs)
    for slot in prange(scratch.shape[0]):
        _band_jobs(np.int64(slot), counters, jobs, x, packed, y, residual, low, high, activation, moments, scratch, walk, band, pitch,
                   map_at, rows, columns)
