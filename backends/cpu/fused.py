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
from numbanet.backends.cpu.convolution.walk import end_of, strides_of
from numbanet.backends.cpu.layout import are_pixels, finish_pixels, pixels
from numbanet.backends.cpu.limits import limited, limits
from numbanet.backends.cpu.maximum import maximum_row
from numbanet.backends.cpu.pooling import max_pool2d_forward
from numbanet.backends.cpu.registry import implements
from numbanet.backends.cpu.shares import begin_shares, next_job
from numbanet.backends.cpu.simd import L, fma, load, load_partial, store, store_partial
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


@worker(borrows=True)
def maximum_jobs(slot, slots, counters, x, y, rows, columns, row_step, column_step):
    OH, end = y.shape[1], end_of(x)
    (x_n, x_h, x_w), (y_n, y_h, y_w) = strides_of(x), strides_of(y)
    jobs = y.shape[0] * OH
    job = next_job(counters, slot, slots, jobs)
    while job >= 0:
        n, oh = job // OH, job % OH
        maximum_row(x, n * x_n + rows[oh, 0] * x_h, x_h, x_w, end, y, n * y_n + oh * y_h, y_w, y.shape[2], y.shape[3],
                    (rows[oh, 1] - rows[oh, 0] + row_step - 1) // row_step, columns, row_step, column_step)
        job = next_job(counters, slot, slots, jobs)


def _affine_kernels(x, scale, shift, minimum, maximum, out):
    """What `channel_affine` runs where that needs no copies: see `program.joined`."""
    if x.dtype != np.float32 or not out.size or not are_pixels(x, out) or not (scale.flags.c_contiguous and shift.flags.c_contiguous):
        return None
    rows = [pixels(a).reshape(-1, x.shape[1]) for a in (x, out)]
    if not all(map(np.may_share_memory, rows, (x, out))):
        return None
    return [(channel_affine_vectors, (rows[0], scale, shift, *limits(minimum, maximum), rows[1], threads.get_num_threads()), True)]


channel_affine.kernels = _affine_kernels


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
    """What `max_pool2d_values` runs where that needs no copies: see `program.joined`."""
    if x.dtype != np.float32 or not are_pixels(x, out):
        return None
    return [(max_pool2d_values_vectors, _maximum_arguments(pixels(x), pixels(out), geometry), x.size > SMALL)]


max_pool2d_values.kernels = _maximum_kernels
