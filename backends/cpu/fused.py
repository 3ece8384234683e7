"""What inference fuses, on the CPU: see `contract/fused.py`. Convolution and the linear layer have their own files.

    channel_affine      y[p, c] = limited(x[p, c] * scale[c] + shift[c])           x, y (pixels, C)
    max_pool2d_values   y[n, oh, ow, c] = max over the window of x[n, h, w, c]     x (N, H, W, C), y (N, OH, OW, C)

Vectors of channels, one pass, no scratch: both are as fast as memory.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu import windows
from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.layout import finish_pixels, pixels
from numbanet.backends.cpu.limits import limited, limits
from numbanet.backends.cpu.pooling import max_pool2d_forward
from numbanet.backends.cpu.registry import implements
from numbanet.backends.cpu.simd import L, fma, load, load_partial, maximum, splat, store, store_partial
from numbanet.backends.reference import fused as numpy

BLOCK = 64      # pixels of a task

implements(numpy.batch_norm_scale_shift)        # a few thousand numbers, once a plan
implements(numpy.fold_batch_norm)


@worker
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


@kernel("void(const T[:,:], const T[::1], const T[::1], f4, f4, T[:,:])", parallel=True)
def channel_affine_vectors(x, scale, shift, low, high, y):
    for task in prange((x.shape[0] + BLOCK - 1) // BLOCK):
        affine_rows(x, np.int64(task) * BLOCK, min(x.shape[0], (np.int64(task) + 1) * BLOCK), scale, shift, low, high, y)


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
        channel_affine_vectors(pixels(x).reshape(-1, C), np.ascontiguousarray(scale), np.ascontiguousarray(shift), low, high, rows)
        if not np.may_share_memory(rows, y):
            np.copyto(y, rows.reshape(y.shape))
        finish_pixels(y, out)


@worker(inline=True)
def window_maximum(x, a, x_row, x_column, rows, columns, count):
    """Maximum of `rows` x `columns` elements, -inf where there are none; a NaN wins."""
    best = splat(-np.inf)
    for _row in range(rows):
        at = a
        for _column in range(columns):
            best = maximum(best, load(x, at) if count == L else load_partial(x, at, count))
            at += x_column
        a += x_row
    return best


@worker
def maximum_row(x, y, n, oh, rows, columns, row_step, column_step):
    """Row oh of sample n."""
    C = x.shape[3]
    x_row, x_column = x.strides[1] // 4, x.strides[2] // 4
    height = (rows[oh, 1] - rows[oh, 0] + row_step - 1) // row_step
    line, target = n * (x.strides[0] // 4) + rows[oh, 0] * x_row, n * (y.strides[0] // 4) + oh * (y.strides[1] // 4)
    for ow in range(y.shape[2]):
        width = (columns[ow, 1] - columns[ow, 0] + column_step - 1) // column_step if column_step > 1 else columns[ow, 1] - columns[ow, 0]
        a = line + columns[ow, 0] * x_column
        for c in range(0, C, L):
            count = min(L, C - c)
            best = window_maximum(x, a + c, row_step * x_row, column_step * x_column, height, width, count)
            if count == L:
                store(y, target + c, best)
            else:
                store_partial(y, target + c, best, count)
        target += y.strides[2] // 4


@kernel("void(const T[:,:,:,:], T[:,:,:,:], const i8[:,::1], const i8[:,::1], i8, i8)", parallel=True)
def max_pool2d_values_vectors(x, y, rows, columns, row_step, column_step):
    OH = y.shape[1]
    for task in prange(y.shape[0] * OH):
        maximum_row(x, y, task // OH, task % OH, rows, columns, row_step, column_step)


@implements
def max_pool2d_values(x, geometry, out):
    if x.dtype == np.float64:
        max_pool2d_forward(x, geometry, (out, np.empty(out.shape, np.int32)))
        return
    y = pixels(out)
    max_pool2d_values_vectors(pixels(x), y, windows.regular(geometry, 0)[0], windows.regular(geometry, 1)[0], *geometry.dilation)
    finish_pixels(y, out)
