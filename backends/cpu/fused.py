"""What inference fuses, on the CPU: see `contract/fused.py`. Convolution and the linear layer have their own files.

    channel_affine      y[p, c] = limited(x[p, c] * scale[c] + shift[c])           x, y (pixels, C)
    max_pool2d_values   y[n, oh, ow, c] = max over the window of x[n, h, w, c]     x (N, H, W, C), y (N, OH, OW, C)

Vectors of channels, one pass, no scratch: both are as fast as memory.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu import threads, windows
from numbanet.backends.cpu.compile import alone, kernel, worker
from numbanet.backends.cpu.convolution.walk import end_of
from numbanet.backends.cpu.layout import finish_pixels, pixels
from numbanet.backends.cpu.limits import limited, limits
from numbanet.backends.cpu.out_of_line import out_of_line
from numbanet.backends.cpu.pooling import max_pool2d_forward
from numbanet.backends.cpu.registry import implements
from numbanet.backends.cpu.shares import begin_shares, next_job
from numbanet.backends.cpu.simd import L, any_lane, fma, load, load_partial, maximum, select, splat, store, store_partial
from numbanet.backends.reference import fused as numpy

BLOCK = 64      # pixels of a task
SMALL = 1 << 14     # elements that one thread has done before another would have begun

implements(numpy.batch_norm_scale_shift)        # a few thousand numbers, once a plan
implements(numpy.fold_batch_norm)
implements(numpy.round_to_bfloat16)


@worker(borrows=True)
def affine_rows(x, begin, end, scale, shift, low, high, y):
    C = x.shape[1]
    for p in range(begin, end):
        source, target = p * (x.strides[0] // 4), p * (y.strides[0] // 4)
        whole = C // L * L
        for c in range(0, whole, L):
            store(y, target + c, limited(fma(load(x, source + c), load(scale, c), load(shift, c)), low, high))
        if whole < C:
            left = C - whole
            value = fma(load_partial(x, source + whole, left), load_partial(scale, whole, left), load_partial(shift, whole, left))
            store_partial(y, target + whole, limited(value, low, high), left)


@worker(borrows=True)
def affine_jobs(slot, slots, counters, jobs, x, scale, shift, low, high, y):
    job = next_job(counters, slot, slots, jobs)
    while job >= 0:
        affine_rows(x, job * BLOCK, min(x.shape[0], (job + 1) * BLOCK), scale, shift, low, high, y)
        job = next_job(counters, slot, slots, jobs)


@kernel("void(const T[:,:], const T[::1], const T[::1], f4, f4, T[:,:], i8)", parallel=True)
def channel_affine_vectors(x, scale, shift, low, high, y, slots):
    jobs = (x.shape[0] + BLOCK - 1) // BLOCK
    counters = begin_shares(slots, jobs)
    for slot in prange(slots):
        affine_jobs(np.int64(slot), slots, counters, jobs, x, scale, shift, low, high, y)


@implements
def channel_affine(x, scale, shift, minimum, maximum, out):
    low, high = limits(minimum, maximum)
    C = x.shape[1]
    if x.dtype == np.float64:
        per_channel = (C, *[1] * (x.ndim - 2))
        np.clip(x * scale.reshape(per_channel) + shift.reshape(per_channel), low, high, out=out)
    elif out.size:
        y = pixels(out)
        rows = y.reshape(-1, C)
        channel_affine_vectors(pixels(x).reshape(-1, C), np.ascontiguousarray(scale), np.ascontiguousarray(shift), low, high, rows,
                               threads.get_num_threads())
        if not np.may_share_memory(rows, y):
            np.copyto(y, rows.reshape(y.shape))
        finish_pixels(y, out)


@worker(inline=True)
def larger(a, b):
    """The larger, b where one is a NaN: one instruction. Not all NaNs win, so whoever uses it looks for them."""
    return select(a > b, a, b)


@worker(inline=True, borrows=True)
def triple_maximum(x, a, x_row, x_column, rows):
    """Maximum of `rows` x 3 elements, one row at least, and a NaN if there is one: the sum tells."""
    p, q, r = load(x, a), load(x, a + x_column), load(x, a + 2 * x_column)
    best, total = larger(larger(p, q), r), (p + q) + r
    for _row in range(1, rows):
        a += x_row
        p, q, r = load(x, a), load(x, a + x_column), load(x, a + 2 * x_column)
        best, total = larger(larger(larger(p, q), r), best), ((p + q) + r) + total
    return best, total


@worker(inline=True, borrows=True)
def pair_maximum(x, a, x_row, x_column, rows):
    """As `triple_maximum`, of `rows` x 2 elements."""
    p, q = load(x, a), load(x, a + x_column)
    best, total = larger(p, q), p + q
    for _row in range(1, rows):
        a += x_row
        p, q = load(x, a), load(x, a + x_column)
        best, total = larger(larger(p, q), best), (p + q) + total
    return best, total


@worker(borrows=True)
def window_maximum(x, a, x_row, x_column, rows, columns, count):
    """Maximum of `rows` x `columns` elements in `count` lanes, -inf where there are none; a NaN wins."""
    out_of_line()
    best = splat(-np.inf)
    for row in range(rows):
        for column in range(columns):
            best = maximum(best, load_partial(x, a + row * x_row + column * x_column, count))
    return best


@worker(borrows=True)
def maximum_row(x, end, y, n, oh, rows, columns, row_step, column_step):
    """Row oh of sample n; nothing of x from offset `end` on is read."""
    C, OW = x.shape[3], y.shape[2]
    x_w, y_w = x.strides[2] // 4, y.strides[2] // 4
    x_row, x_column = row_step * (x.strides[1] // 4), column_step * x_w
    height = (rows[oh, 1] - rows[oh, 0] + row_step - 1) // row_step
    line = n * (x.strides[0] // 4) + rows[oh, 0] * (x.strides[1] // 4)
    target = n * (y.strides[0] // 4) + oh * (y.strides[1] // 4)
    # channels that fill no vector: the lanes behind them are the next pixels', in y written later
    joined = C < L and x_w == C and y_w == C
    total = splat(np.float32(0))
    for ow in range(OW):
        span = columns[ow, 1] - columns[ow, 0]
        width = (span + column_step - 1) // column_step if column_step > 1 else span
        a = line + columns[ow, 0] * x_w
        whole = C // L * L if height > 0 and (width == 3 or width == 2) else 0
        if joined and height > 0 and (width == 3 or width == 2) and a + (height - 1) * x_row + (width - 1) * x_column + L <= end:
            whole = C
        for c in range(0, whole, L):
            if width == 3:
                best, sum_of_window = triple_maximum(x, a + c, x_row, x_column, height)
            else:
                best, sum_of_window = pair_maximum(x, a + c, x_row, x_column, height)
            total = total + sum_of_window
            if joined and (OW - ow) * C < L:
                store_partial(y, target + ow * C, best, (OW - ow) * C)
            else:
                store(y, target + ow * y_w + c, best)
        if whole < C:
            _maximum_of_channels(x, a, x_row, x_column, height, width, whole, C, y, target + ow * y_w)
    if any_lane(~(total == total)):                             # a NaN somewhere, or infinities of both signs
        for ow in range(OW):
            width = (columns[ow, 1] - columns[ow, 0] + column_step - 1) // column_step
            _maximum_of_channels(x, line + columns[ow, 0] * x_w, x_row, x_column, height, width, np.int64(0), C, y, target + ow * y_w)


@worker(borrows=True)
def _maximum_of_channels(x, a, x_row, x_column, height, width, begin, end, y, target):
    """One window, with NaNs."""
    for c in range(begin, end, L):
        count = min(L, end - c)
        store_partial(y, target + c, window_maximum(x, a + c, x_row, x_column, height, width, count), count)


@worker(borrows=True)
def maximum_jobs(slot, slots, counters, x, y, rows, columns, row_step, column_step):
    OH, end = y.shape[1], end_of(x)
    jobs = y.shape[0] * OH
    job = next_job(counters, slot, slots, jobs)
    while job >= 0:
        maximum_row(x, end, y, job // OH, job % OH, rows, columns, row_step, column_step)
        job = next_job(counters, slot, slots, jobs)


@kernel("void(const T[:,:,:,:], T[:,:,:,:], const i8[:,::1], const i8[:,::1], i8, i8, i8)", parallel=True)
def max_pool2d_values_vectors(x, y, rows, columns, row_step, column_step, slots):
    counters = begin_shares(slots, y.shape[0] * y.shape[1])
    for slot in prange(slots):
        maximum_jobs(np.int64(slot), slots, counters, x, y, rows, columns, row_step, column_step)


def _maximum_arguments(x, y, geometry):
    return x, y, windows.regular(geometry, 0)[0], windows.regular(geometry, 1)[0], *geometry.dilation, threads.get_num_threads()


@implements
def max_pool2d_values(x, geometry, out):
    if x.dtype == np.float64:
        max_pool2d_forward(x, geometry, (out, np.empty(out.shape, np.int32)))
        return
    y = pixels(out)
    alone(max_pool2d_values_vectors, x.size <= SMALL)(*_maximum_arguments(pixels(x), y, geometry))
    finish_pixels(y, out)


def _maximum_kernels(x, geometry, out):
    """What `max_pool2d_values` runs where that is for one thread alone and without copies: see `program.joined`."""
    x, y = x.transpose(0, 2, 3, 1), out.transpose(0, 2, 3, 1)
    if x.dtype != np.float32 or x.size > SMALL or any(a.strides[3] != a.itemsize and a.shape[3] > 1 for a in (x, y)):
        return None
    return [(max_pool2d_values_vectors, _maximum_arguments(x, y, geometry))]


max_pool2d_values.kernels = _maximum_kernels
