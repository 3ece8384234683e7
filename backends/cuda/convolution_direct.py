"""Convolution as its formula says: a thread computes one element, whatever stride, padding, dilation, groups and strides in memory.

    y[n, k, oh, ow] = bias[k] + sum over c, r, s of
        x[n, g(k) * C/G + c, oh * stride + r * dilation - padding, ow * stride + s * dilation - padding] * weight[k, c, r, s]

x (N, C, H, W), weight (K, C/G, R, S), bias (K,), y (N, K, OH, OW), G groups; `walk` is (stride, padding before, dilation) of the rows,
then of the columns. Neighbouring threads compute neighbouring channels, which are neighbours in channels-last memory: reads of maps are
one access a warp, or the same address for all of it.

The gradient with respect to x gathers: of each tap at most one window reads a given pixel, so nothing is added from two threads. The
gradient with respect to weight sums over rows of y in parts, whose number comes from the shapes alone, and adds up the parts in order.
"""

from __future__ import annotations

from math import prod

import numpy as np

from numbanet.backends.cuda.compile import Sizes, kernel
from numbanet.backends.cuda.index import extent, grid_stride, split
from numbanet.backends.cuda.launch import launch, number
from numbanet.backends.cuda.mathematics import larger, smaller
from numbanet.backends.cuda.reduction import PARALLEL, sum_of
from numbanet.backends.cuda.windows import first_window, last_window, map_shape, optional, place, tap_at, walk_of

LONGEST = 1 << 12           # pixels of y that one thread sums; beyond that sums lose digits
LARGEST = 1 << 24           # elements of all parts together: what splitting may cost in memory


@kernel
def conv2d_forward_direct(x, weight, bias, residual, out, low, high, total, shape: Sizes, size, taps, walk, x_steps, weight_steps,
                          bias_steps, residual_steps, out_steps, has_bias, has_residual):
    stride_h, padding_h, dilation_h, stride_w, padding_w, dilation_w = walk
    channels = taps[0]                                                      # of a group
    for i in grid_stride(total):
        n, oh, ow, g, f = place(i, shape)
        k = g * extent(shape[4]) + f
        value = bias[k * bias_steps[0]] if has_bias else 0.0
        for r in range(taps[1]):
            h = oh * stride_h + r * dilation_h - padding_h
            if 0 <= h < size[0]:
                for s in range(taps[2]):
                    w = ow * stride_w + s * dilation_w - padding_w
                    if 0 <= w < size[1]:
                        at = n * x_steps[0] + g * channels * x_steps[1] + h * x_steps[2] + w * x_steps[3]
                        tap = k * weight_steps[0] + r * weight_steps[2] + s * weight_steps[3]
                        for c in range(channels):
                            value += x[at + c * x_steps[1]] * weight[tap + c * weight_steps[1]]
        if has_residual:
            value += residual[n * residual_steps[0] + k * residual_steps[1] + oh * residual_steps[2] + ow * residual_steps[3]]
        out[n * out_steps[0] + k * out_steps[1] + oh * out_steps[2] + ow * out_steps[3]] = smaller(larger(value, low), high)


@kernel
def conv2d_backward_input_direct(grad_y, weight, added, out, total, shape: Sizes, size, taps, strides: Sizes, walk, grad_steps,
                                 weight_steps, added_steps, out_steps, has_added):
    _, padding_h, dilation_h, _, padding_w, dilation_w = walk
    filters = taps[0]                                                       # of a group
    for i in grid_stride(total):
        n, h, w, g, c = place(i, shape)
        value, first = 0.0, first_window(w, taps[2], strides[1], padding_w, dilation_w)
        last = last_window(w, strides[1], padding_w, size[1])
        for oh in range(first_window(h, taps[1], strides[0], padding_h, dilation_h), last_window(h, strides[0], padding_h, size[0]) + 1):
            r = tap_at(h, oh, strides[0], padding_h, dilation_h)
            if r >= 0:
                for ow in range(first, last + 1):
                    s = tap_at(w, ow, strides[1], padding_w, dilation_w)
                    if s >= 0:
                        k = g * filters
                        at = n * grad_steps[0] + k * grad_steps[1] + oh * grad_steps[2] + ow * grad_steps[3]
                        tap = k * weight_steps[0] + c * weight_steps[1] + r * weight_steps[2] + s * weight_steps[3]
                        for f in range(filters):
                            value += grad_y[at + f * grad_steps[1]] * weight[tap + f * weight_steps[0]]
        channel = g * extent(shape[4]) + c
        if has_added:
            value += added[n * added_steps[0] + channel * added_steps[1] + h * added_steps[2] + w * added_steps[3]]
        out[n * out_steps[0] + channel * out_steps[1] + h * out_steps[2] + w * out_steps[3]] = value


@kernel
def conv2d_backward_weight_direct(grad_y, x, out, total, shape: Sizes, parts, rows, size: Sizes, walk, grad_steps, x_steps, out_steps,
                                  part_step):
    """`shape` is (R, S, G, K/G, C/G), `size` (OH, OW, H, W), `rows` N * OH: part p sums rows p, p + parts, ..."""
    stride_h, padding_h, dilation_h, stride_w, padding_w, dilation_w = walk
    for i in grid_stride(total):
        rest, c = split(i, shape[4])
        group, f = split(rest, shape[3])
        tap, g = split(group, shape[2])
        tap_row, s = split(tap, shape[1])
        part, r = split(tap_row, shape[0])
        k = g * extent(shape[3]) + f
        value = 0.0
        for row in range(part, rows, parts):
            n, oh = split(row, size[0])
            h = oh * stride_h + r * dilation_h - padding_h
            if 0 <= h < extent(size[2]):
                at_grad = n * grad_steps[0] + k * grad_steps[1] + oh * grad_steps[2]
                at_x = n * x_steps[0] + (g * extent(shape[4]) + c) * x_steps[1] + h * x_steps[2]
                of_row = 0.0
                for ow in range(extent(size[1])):
                    w = ow * stride_w + s * dilation_w - padding_w
                    if 0 <= w < extent(size[3]):
                        of_row += grad_y[at_grad + ow * grad_steps[3]] * x[at_x + w * x_steps[3]]
                value += of_row
        out[part * part_step + k * out_steps[0] + c * out_steps[1] + r * out_steps[2] + s * out_steps[3]] = value


def forward(x, weight, bias, residual, geometry, low, high, out) -> None:
    """y = convolution + bias + residual, limited; bias and residual may be None."""
    bias, bias_steps, has_bias = optional(bias, weight)
    residual, residual_steps, has_residual = optional(residual, x)
    launch(conv2d_forward_direct, out.size, x, weight, bias, residual, out, number(low, out.dtype), number(high, out.dtype), out.size,
           map_shape(out, geometry.groups), geometry.input_size, (geometry.channels_per_group, *geometry.kernel_size), walk_of(geometry),
           x.steps, weight.steps, bias_steps, residual_steps, out.steps, has_bias, has_residual)


def backward_input(grad_y, weight, added, geometry, out) -> None:
    """The gradient with respect to x, plus `added` unless it is None."""
    added, added_steps, has_added = optional(added, grad_y)
    launch(conv2d_backward_input_direct, out.size, grad_y, weight, added, out, out.size, map_shape(out, geometry.groups),
           geometry.output_size, (geometry.filters_per_group, *geometry.kernel_size), geometry.stride, walk_of(geometry), grad_y.steps,
           weight.steps, added_steps, out.steps, has_added)


def parts_of_rows(size: int, rows: int, columns: int) -> int:
    """In how many parts the gradients of `size` weights are summed over rows of y with so many columns.

    Examples
    --------
    >>> parts_of_rows(64 * 3 * 7 * 7, 32 * 112, 112), parts_of_rows(512 * 512 * 9, 32 * 7, 7), parts_of_rows(10, 3, 5)
    (98, 1, 3)
    """
    wanted = max(-(-rows * columns // LONGEST), -(-PARALLEL // max(size, 1)))
    return max(1, min(wanted, rows, LARGEST // max(size, 1)))


def backward_weight(grad_y, x, geometry, out) -> None:
    """The gradient with respect to weight."""
    (OH, OW), rows = geometry.output_size, grad_y.shape[0] * geometry.output_size[0]
    parts = parts_of_rows(out.size, rows, OW)
    partial, part_step = out, 0
    if parts > 1:
        dtype = out.dtype if out.dtype.itemsize != 2 else np.dtype(np.float32)
        partial, part_step = out.lease.allocator.empty((parts, *out.shape), dtype), out.size
    shape = (*geometry.kernel_size, geometry.groups, geometry.filters_per_group, geometry.channels_per_group)
    launch(conv2d_backward_weight_direct, parts * prod(shape), grad_y, x, partial, parts * prod(shape), shape, parts, rows,
           (OH, OW, *geometry.input_size), walk_of(geometry), grad_y.steps, x.steps, partial.steps[-4:], part_step)
    if parts > 1:
        sum_of(partial, (0,), 0, out)
