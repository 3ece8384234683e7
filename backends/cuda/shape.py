"""Views, which are other strides over the same memory, and copies."""

from __future__ import annotations

import numpy as np

from numbanet.backends.cuda.compile import Sizes, kernel
from numbanet.backends.cuda.elementwise import full
from numbanet.backends.cuda.index import grid_stride, offset
from numbanet.backends.cuda.launch import launch
from numbanet.backends.cuda.layout import merged, reshaped_strides
from numbanet.backends.cuda.memory import DeviceArray
from numbanet.backends.cuda.pointwise import convert
from numbanet.backends.cuda.registry import implements
from numbanet.backends.interface import dense_strides


@implements
def transpose(x, axes):
    return x.view(tuple([x.shape[a] for a in axes]), tuple([x.strides[a] for a in axes]))


@implements
def reshape(x, shape):
    strides = reshaped_strides(x.shape, x.strides, shape, x.itemsize)
    if strides is None:
        x = row_major(x)
        strides = dense_strides(shape, x.dtype)
    return x.view(shape, strides)


def row_major(x: DeviceArray) -> DeviceArray:
    """x itself where it lies in logical order without gaps, else a copy that does."""
    if x.is_row_major:
        return x
    made = x.lease.allocator.empty(x.shape, x.dtype)
    convert(x, made)
    return made


@implements
def expand(x, shape):
    lead = len(shape) - len(x.shape)
    return x.view(shape, (*(0,) * lead, *[0 if n != m else s for n, m, s in zip(x.shape, shape[lead:], x.strides)]))


@implements
def slice_view(x, index):
    return sliced(x, index)


def sliced(x: DeviceArray, index: tuple) -> DeviceArray:
    """x[index]; entries are ints, None (a new axis) or (start, stop, step), not negative."""
    shape, strides, begin, axis = [], [], 0, 0
    for entry in index:
        if entry is None:
            shape.append(1)
            strides.append(0)
            continue
        if type(entry) is tuple:
            start, stop, step = entry
            shape.append(-(-(stop - start) // step))
            strides.append(x.strides[axis] * step)
            begin += start * x.strides[axis]
        else:
            begin += entry * x.strides[axis]
        axis += 1
    shape, strides = (*shape, *x.shape[axis:]), (*strides, *x.strides[axis:])
    return x.view(shape, strides, 0 if 0 in shape else begin)       # an empty view may begin past the end


@implements
def slice_view_backward_input(grad_y, index, shape, out):
    full(out.shape, 0, out.dtype, out)
    convert(grad_y, sliced(out, index))


@implements
def concatenate(arrays, axis, out):
    begin = 0
    for x in arrays:
        end = begin + x.shape[axis]
        convert(x, sliced(out, (*[(0, n, 1) for n in out.shape[:axis]], (begin, end, 1))))
        begin = end


@implements
def interleave_channels(arrays, out):
    whole = [(0, n, 1) for n in out.shape]
    for i, x in enumerate(arrays):
        convert(x, sliced(out, (whole[0], (i, out.shape[1], len(arrays)), *whole[2:])))


@implements
def separate_channels(x, groups, out):
    whole, count = [(0, n, 1) for n in x.shape], x.shape[1] // groups
    for i in range(groups):
        convert(sliced(x, (whole[0], (i, x.shape[1], groups), *whole[2:])),
                sliced(out, (whole[0], (i * count, (i + 1) * count, 1), *whole[2:])))


@kernel
def reversed_kernel(x, out, begin, total, shape: Sizes, x_steps, out_steps):
    """out = x read from element `begin` on, with steps that may be negative."""
    for i in grid_stride(total):
        out[offset(i, shape, out_steps)] = x[begin + offset(i, shape, x_steps)]


@implements
def flip(x, axes, out):
    begin = sum((x.shape[a] - 1) * x.steps[a] for a in axes)
    steps = tuple([-s if a in axes else s for a, s in enumerate(x.steps)])
    shape, out_steps, x_steps = merged(out.shape, out.steps, steps)
    launch(reversed_kernel, out.size, x, out, begin, out.size, shape, x_steps, out_steps)


@implements
def reorder(x, order, out):
    convert(x, out)


@kernel
def arange_kernel(out, start, step, total, out_step):
    for i in grid_stride(total):
        out[i * out_step] = start + step * i


@implements
def arange(start, step, count, dtype, out):
    number = np.int64 if isinstance(start, int) and isinstance(step, int) else np.float64
    launch(arange_kernel, count, out, number(start), number(step), count, out.steps[0])
