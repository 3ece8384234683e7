"""Pooling: a thread computes one element of the result, or a piece of neighbouring channels (`wide.py`); windows are found from its
position (see `contract/pooling.py`).

Gradients gather: a thread walks through the windows that hold its element, in their order, so nothing is added from two threads. `walk` is
(stride, padding before, dilation) of the rows, then of the columns; adaptive window i of n over an axis of `size` elements is
floor(i * size / n) ... ceil((i + 1) * size / n) - 1.
"""

from __future__ import annotations

from numbanet.backends.cuda.block import REAL
from numbanet.backends.cuda.compile import Sizes, device, int32, kernel, lanewise
from numbanet.backends.cuda.index import extent, grid_stride, quotient
from numbanet.backends.cuda.launch import launch
from numbanet.backends.cuda.limits import INFINITY
from numbanet.backends.cuda.registry import implements
from numbanet.backends.cuda.wide import maps
from numbanet.backends.cuda.windows import first_window, last_window, place, tap_at, walk_of


@device
def at(n, c, h, w, steps):
    """Elements from the first to (n, c, h, w)."""
    return n * steps[0] + c * steps[1] + h * steps[2] + w * steps[3]


@device
def counts_more(value, best, position):
    """Whether a value takes the place of the best so far: the first of equals stays, the first NaN counts most, -1 is no position."""
    return (value > best) | ((value != value) & (best == best)) | (position < 0)


@lanewise
def best_of(value, here, best, position):
    """(the larger value, its position)."""
    return (value, here) if counts_more(value, best, position) else (best, position)


@lanewise
def larger_of(value, best):
    """The larger value; NaN where one is."""
    return value if counts_more(value, best, 0) else best


@lanewise
def with_gradient(value, grad, argmax, position):
    """value, and grad where the maximum was at this position."""
    return value + grad if argmax == position else value


@device
def begin_of(i, size, windows):
    """Where adaptive window i begins."""
    return quotient(i * extent(size), windows)


@device
def end_of(i, size, windows):
    """One past the last element of adaptive window i."""
    return quotient((i + 1) * extent(size) + extent(windows) - 1, windows)


@kernel
def max_pool2d(x, out, argmax, total, shape: Sizes, size, taps, walk, x_steps, out_steps, argmax_steps):
    stride_h, padding_h, dilation_h, stride_w, padding_w, dilation_w = walk
    for i in grid_stride(total):
        n, oh, ow, _, c = place(i, shape)
        best, position = -INFINITY, int32(-1)
        for r in range(taps[0]):
            h = oh * stride_h + r * dilation_h - padding_h
            if 0 <= h < size[0]:
                for s in range(taps[1]):
                    w = ow * stride_w + s * dilation_w - padding_w
                    if 0 <= w < size[1]:
                        best, position = best_of(x[at(n, c, h, w, x_steps)], int32(h * size[1] + w), best, position)
        out[at(n, c, oh, ow, out_steps)] = best
        argmax[at(n, c, oh, ow, argmax_steps)] = position


@kernel
def max_pool2d_without_positions(x, out, total, shape: Sizes, size, taps, walk, x_steps, out_steps):
    stride_h, padding_h, dilation_h, stride_w, padding_w, dilation_w = walk
    for i in grid_stride(total):
        n, oh, ow, _, c = place(i, shape)
        best = -INFINITY
        for r in range(taps[0]):
            h = oh * stride_h + r * dilation_h - padding_h
            if 0 <= h < size[0]:
                for s in range(taps[1]):
                    w = ow * stride_w + s * dilation_w - padding_w
                    if 0 <= w < size[1]:
                        best = larger_of(x[at(n, c, h, w, x_steps)], best)
        out[at(n, c, oh, ow, out_steps)] = best


@kernel(few_turns=True)
def max_pool2d_backward(grad_y, argmax, out, total, shape: Sizes, size, taps, strides: Sizes, walk, grad_steps, argmax_steps, out_steps):
    _, padding_h, dilation_h, _, padding_w, dilation_w = walk
    for i in grid_stride(total):
        n, h, w, _, c = place(i, shape)
        position, value = h * extent(shape[2]) + w, 0.0
        first, last = first_window(w, taps[1], strides[1], padding_w, dilation_w), last_window(w, strides[1], padding_w, size[1])
        for oh in range(first_window(h, taps[0], strides[0], padding_h, dilation_h), last_window(h, strides[0], padding_h, size[0]) + 1):
            for ow in range(first, last + 1):                   # one without a tap here has its maximum elsewhere
                of_window = argmax[at(n, c, oh, ow, argmax_steps)]
                value = with_gradient(value, grad_y[at(n, c, oh, ow, grad_steps)], of_window, position)
        out[at(n, c, h, w, out_steps)] = value


@device
def divisor_of(oh, ow, bounds, taps, walk, divisor):
    """What the sum over window (oh, ow) is divided by: `divisor` unless that is 0, else its elements within `bounds`."""
    if divisor:
        return divisor
    stride_h, padding_h, _, stride_w, padding_w, _ = walk
    h, w = oh * stride_h - padding_h, ow * stride_w - padding_w
    return (min(h + taps[0], bounds[1]) - max(h, bounds[0])) * (min(w + taps[1], bounds[3]) - max(w, bounds[2]))


@kernel
def avg_pool2d(x, out, total, shape: Sizes, size, taps, walk, bounds, divisor, x_steps, out_steps):
    stride_h, padding_h, dilation_h, stride_w, padding_w, dilation_w = walk
    for i in grid_stride(total):
        n, oh, ow, _, c = place(i, shape)
        value = 0.0
        for r in range(taps[0]):
            h = oh * stride_h + r * dilation_h - padding_h
            if 0 <= h < size[0]:
                for s in range(taps[1]):
                    w = ow * stride_w + s * dilation_w - padding_w
                    if 0 <= w < size[1]:
                        value += x[at(n, c, h, w, x_steps)]
        out[at(n, c, oh, ow, out_steps)] = value / REAL(divisor_of(oh, ow, bounds, taps, walk, divisor))


@kernel(few_turns=True)
def avg_pool2d_backward(grad_y, out, total, shape: Sizes, size, taps, strides: Sizes, walk, bounds, divisor, grad_steps, out_steps):
    _, padding_h, dilation_h, _, padding_w, dilation_w = walk
    for i in grid_stride(total):
        n, h, w, _, c = place(i, shape)
        value, first = 0.0, first_window(w, taps[1], strides[1], padding_w, dilation_w)
        last = last_window(w, strides[1], padding_w, size[1])
        for oh in range(first_window(h, taps[0], strides[0], padding_h, dilation_h), last_window(h, strides[0], padding_h, size[0]) + 1):
            if tap_at(h, oh, strides[0], padding_h, dilation_h) >= 0:
                for ow in range(first, last + 1):
                    if tap_at(w, ow, strides[1], padding_w, dilation_w) >= 0:
                        grad = grad_y[at(n, c, oh, ow, grad_steps)]
                        value += grad if divisor else grad / REAL(divisor_of(oh, ow, bounds, taps, walk, 0))
        out[at(n, c, h, w, out_steps)] = value / REAL(divisor) if divisor else value


@kernel
def adaptive_max_pool2d(x, out, argmax, total, shape: Sizes, size: Sizes, products, x_steps, out_steps, argmax_steps):
    for i in grid_stride(total):
        n, oh, ow, _, c = place(i, shape)
        best, position = -INFINITY, int32(-1)
        for h in range(begin_of(oh, size[0], shape[1]), end_of(oh, size[0], shape[1])):
            for w in range(begin_of(ow, size[1], shape[2]), end_of(ow, size[1], shape[2])):
                best, position = best_of(x[at(n, c, h, w, x_steps)], int32(h * extent(size[1]) + w), best, position)
        out[at(n, c, oh, ow, out_steps)] = best
        argmax[at(n, c, oh, ow, argmax_steps)] = position


@kernel(few_turns=True)
def adaptive_max_pool2d_backward(grad_y, argmax, out, total, shape: Sizes, size: Sizes, products, grad_steps, argmax_steps, out_steps):
    for i in grid_stride(total):
        n, h, w, _, c = place(i, shape)
        position, value = h * extent(shape[2]) + w, 0.0
        for oh in range(begin_of(h, size[0], shape[1]), end_of(h, size[0], shape[1])):     # those that hold row h
            for ow in range(begin_of(w, size[1], shape[2]), end_of(w, size[1], shape[2])):
                of_window = argmax[at(n, c, oh, ow, argmax_steps)]
                value = with_gradient(value, grad_y[at(n, c, oh, ow, grad_steps)], of_window, position)
        out[at(n, c, h, w, out_steps)] = value


@kernel
def adaptive_avg_pool2d(x, out, total, shape: Sizes, size: Sizes, products, x_steps, out_steps):
    for i in grid_stride(total):
        n, oh, ow, _, c = place(i, shape)
        top, bottom = begin_of(oh, size[0], shape[1]), end_of(oh, size[0], shape[1])
        left, right = begin_of(ow, size[1], shape[2]), end_of(ow, size[1], shape[2])
        value = 0.0
        for h in range(top, bottom):
            for w in range(left, right):
                value += x[at(n, c, h, w, x_steps)]
        out[at(n, c, oh, ow, out_steps)] = value / REAL((bottom - top) * (right - left))


@kernel(few_turns=True)
def adaptive_avg_pool2d_backward(grad_y, out, total, shape: Sizes, size: Sizes, products, grad_steps, out_steps):
    for i in grid_stride(total):
        n, h, w, _, c = place(i, shape)
        value = 0.0
        for oh in range(begin_of(h, size[0], shape[1]), end_of(h, size[0], shape[1])):
            rows = end_of(oh, shape[1], size[0]) - begin_of(oh, shape[1], size[0])
            for ow in range(begin_of(w, size[1], shape[2]), end_of(w, size[1], shape[2])):
                columns = end_of(ow, shape[2], size[1]) - begin_of(ow, shape[2], size[1])
                value += grad_y[at(n, c, oh, ow, grad_steps)] / REAL(rows * columns)
        out[at(n, c, h, w, out_steps)] = value


def _pool(kernel_of, written: tuple, read: tuple, *sizes) -> None:
    """Launch for each position of the first array, whose channels are innermost in memory; `sizes` are what the kernel takes more."""
    total, shape, arrays, steps = maps(*written, *read)
    outputs = len(written)
    launch(kernel_of, total, *arrays[outputs:], *arrays[:outputs], total, shape, *sizes, *steps[outputs:], *steps[:outputs])


@implements
def max_pool2d_forward(x, geometry, out):
    _pool(max_pool2d, out, (x,), geometry.input_size, geometry.kernel_size, walk_of(geometry))


@implements
def max_pool2d_values(x, geometry, out):
    _pool(max_pool2d_without_positions, (out,), (x,), geometry.input_size, geometry.kernel_size, walk_of(geometry))


@implements
def max_pool2d_backward_input(grad_y, argmax, geometry, out):
    _pool(max_pool2d_backward, (out,), (grad_y, argmax), geometry.output_size, geometry.kernel_size, geometry.stride, walk_of(geometry))


def _counted(geometry, count_include_pad: bool, divisor: int | None) -> tuple[tuple[int, ...], int]:
    """What counts in windows: first row, one past the last, the same of columns, what `ceil_mode` adds being outside; and the divisor of
    all windows, 0 where some are cut off."""
    pads = geometry.padding if count_include_pad else ((0, 0), (0, 0))
    bounds = [(-before, n + after) for n, (before, after) in zip(geometry.input_size, pads)]
    starts = [(-before, (o - 1) * s - before) for (before, _), o, s in zip(geometry.padding, geometry.output_size, geometry.stride)]
    whole = [low <= first and last + k <= high for (low, high), (first, last), k in zip(bounds, starts, geometry.kernel_size)]
    if not divisor and all(whole):
        divisor = geometry.kernel_size[0] * geometry.kernel_size[1]
    return (*bounds[0], *bounds[1]), divisor or 0


@implements
def avg_pool2d_forward(x, geometry, count_include_pad, divisor_override, out):
    _pool(avg_pool2d, (out,), (x,), geometry.input_size, geometry.kernel_size, walk_of(geometry),
          *_counted(geometry, count_include_pad, divisor_override))


@implements
def avg_pool2d_backward_input(grad_y, geometry, count_include_pad, divisor_override, out):
    _pool(avg_pool2d_backward, (out,), (grad_y,), geometry.output_size, geometry.kernel_size, geometry.stride, walk_of(geometry),
          *_counted(geometry, count_include_pad, divisor_override))


def _products(x, y) -> int:
    """The largest number that adaptive windows are found with: an argument that makes integers wide where that needs it."""
    return max((windows + 1) * (size + 1) for size, windows in zip(x.shape[2:], y.shape[2:]))


@implements
def adaptive_max_pool2d_forward(x, output_size, out):
    _pool(adaptive_max_pool2d, out, (x,), x.shape[2:], _products(x, out[0]))


@implements
def adaptive_max_pool2d_backward_input(grad_y, argmax, input_size, out):
    _pool(adaptive_max_pool2d_backward, (out,), (grad_y, argmax), grad_y.shape[2:], _products(out, grad_y))


@implements
def adaptive_avg_pool2d_forward(x, output_size, out):
    _pool(adaptive_avg_pool2d, (out,), (x,), x.shape[2:], _products(x, out))


@implements
def adaptive_avg_pool2d_backward_input(grad_y, input_size, out):
    _pool(adaptive_avg_pool2d_backward, (out,), (grad_y,), grad_y.shape[2:], _products(out, grad_y))
