"""Batch norm: each channel by its own statistics over batch and pixels, or by given ones.

    y = (x - mean) * scale + shift            scale = weight / sqrt(variance + epsilon),  shift = bias
    grad_x = a * (grad_y - b - (x - mean) * d)
        a = scale,  b = grad_bias / count,  d = grad_weight / sqrt(variance + epsilon) / count
        b = d = 0 where the statistics are constants

What is the same for a channel is computed once, by the step that merges the last parts of statistics or of gradients, and kept row by row
in one array; then a thread computes an element, or a piece of neighbouring channels or pixels (`wide.py`). Maps are read and written as
often as that needs: twice and once forward, and backward, with the limits of what is fused, four times and once.

    backward                sums of grad_y and x, then grad_x from grad_y and x
    with y (a residual)     sums of grad_y, y and x, which write what passes of grad_y, then grad_x from that and x
"""

from __future__ import annotations

import math
from math import prod

import numpy as np

from numbanet.backends.cuda.compile import Sizes, device, kernel, lanewise
from numbanet.backends.cuda.constants import on_device
from numbanet.backends.cuda.elementwise import add
from numbanet.backends.cuda.index import grid_stride, offset, quotient
from numbanet.backends.cuda.launch import launch, number
from numbanet.backends.cuda.layout import merged
from numbanet.backends.cuda.limits import NO_LIMITS
from numbanet.backends.cuda.lists import element_of, together
from numbanet.backends.cuda.mathematics import clamped
from numbanet.backends.cuda.memory import DeviceArray
from numbanet.backends.cuda.normalization.moments import MERGED, merged_moments, merged_parts, moments, rows_of
from numbanet.backends.cuda.reduction import parts_of
from numbanet.backends.cuda.registry import implements
from numbanet.backends.cuda.wide import pieces, pieces_of_rows
from numbanet.backends.cuda.windows import optional


@device
def set_coefficients(out, c, channels, mean, variance, epsilon, weight, bias):
    """Of a channel: mean, scale * weight, shift, scale, in rows of out."""
    scale = 1.0 / math.sqrt(variance + epsilon)
    out[c], out[channels + c], out[2 * channels + c], out[3 * channels + c] = mean, scale * weight, bias, scale


@kernel
def batch_norm_coefficients(mean, variance, weight, bias, out, epsilon, channels, steps, has_weight, has_bias):
    """out (4, C) or more rows."""
    for c in grid_stride(channels):
        set_coefficients(out, c, channels, mean[c * steps[0]], variance[c * steps[1]], epsilon, weight[c * steps[2]] if has_weight else 1.0,
                         bias[c * steps[3]] if has_bias else 0.0)


@kernel
def batch_norm_statistics(moments, parts, mean, variance, weight, bias, out, epsilon, channels, steps, has_weight, has_bias):
    """Mean and variance from the last parts of moments (4, parts, C), and with them what `batch_norm_coefficients` writes."""
    for c in grid_stride(channels):
        count, center, rest, m2 = merged_parts(moments, 0, parts, parts, channels, c)
        center, spread = center + rest if count > 0.0 else count / count, m2 / count           # of nothing: NaN
        mean[c * steps[0]], variance[c * steps[1]] = center, spread
        set_coefficients(out, c, channels, center, spread, epsilon, weight[c * steps[2]] if has_weight else 1.0,
                         bias[c * steps[3]] if has_bias else 0.0)


@kernel
def batch_norm_apply(x, residual, coefficients, out, low, high, total, channels, shape: Sizes, x_steps, channel_steps, residual_steps,
                     out_steps, has_residual):
    for i in grid_stride(total):
        c = offset(i, shape, channel_steps)
        value = (x[offset(i, shape, x_steps)] - coefficients[c]) * coefficients[channels + c] + coefficients[2 * channels + c]
        if has_residual:
            value += residual[offset(i, shape, residual_steps)]
        out[offset(i, shape, out_steps)] = clamped(value, low, high)


def along_channels(rank: int) -> tuple[int, ...]:
    """Steps along the axes of a map (N, C, ...) that lead to the number of the channel."""
    return (0, 1, *(0,) * (rank - 2))


def coefficients_of(mean, variance, weight, bias, epsilon, rows: int = 4, found: DeviceArray | None = None) -> DeviceArray:
    """(rows, C), of which four are written, see `set_coefficients`; mean and variance are filled first where moments were `found`."""
    out = mean.lease.allocator.empty((rows, mean.size), mean.dtype)
    weight, (weight_step,), has_weight = optional(weight, mean)
    bias, (bias_step,), has_bias = optional(bias, mean)
    of, given = batch_norm_coefficients, ()
    if found is not None:
        found = merged_moments(found)
        of, given = batch_norm_statistics, (found, found.shape[1])
    launch(of, mean.size, *given, mean, variance, weight, bias, out, number(epsilon, out.dtype), mean.size,
           (mean.steps[0], variance.steps[0], weight_step, bias_step), has_weight, has_bias)
    return out


def apply(x, residual, coefficients, low, high, out) -> None:
    """y from `coefficients_of`, plus residual unless that is None, limited."""
    residual, residual_steps, has_residual = optional(residual, x)
    channels, low, high = x.shape[1], number(low, out.dtype), number(high, out.dtype)
    places = merged(out.shape, out.steps, x.steps, along_channels(x.ndim), residual_steps)
    total, (shape, out_steps, *steps), (out, x, coefficients, residual) = pieces(places, out, x, coefficients, residual)
    launch(batch_norm_apply, total, x, residual, coefficients, out, low, high, total, channels, shape, *steps, out_steps, has_residual)


def statistics_of(found: DeviceArray, mean, variance) -> None:
    """Fill mean and variance where nothing is known yet of what is computed with them."""
    coefficients_of(mean, variance, None, None, 1.0, found=found)


def forward(x, weight, bias, residual, epsilon, low, high, out) -> None:
    """(y, mean, variance) of x's own statistics; see `apply`."""
    y, mean, variance = out
    apply(x, residual, coefficients_of(mean, variance, weight, bias, epsilon, found=moments(x, mean.dtype)), low, high, y)


@implements
def batch_norm_forward(x, weight, bias, epsilon, out):
    forward(x, weight, bias, None, epsilon, *NO_LIMITS, out)


@implements
def batch_norm_inference_forward(x, weight, bias, mean, variance, epsilon, out):
    apply(x, None, coefficients_of(mean, variance, weight, bias, epsilon), *NO_LIMITS, out)


@lanewise
def where_inside(grad, value, low, high):
    """The gradient where the value lies strictly inside of the limits or is NaN, else 0; a limit of NaN is none."""
    return 0.0 if value <= low or value >= high else grad


@kernel
def batch_norm_gradient_sums(grad_y, y, x, coefficients, passed, out, low, high, total, pieces, parts, count, width, steps, rows: Sizes,
                             grad_rows, y_rows, x_rows, passed_rows, has_y):
    """out (2, parts, C): over the rows p, p + parts, ... of each channel the sums of what passes of grad_y, and of that times x - mean.

    With y, its limits are what grad_y passes, and what passes is written. `pieces` are those of the channels, of `width` elements each.
    """
    for i in grid_stride(total):
        p = quotient(i, pieces)
        piece = i - p * pieces
        c, channels = piece * width, pieces * width
        mean, scale, shift = coefficients[c], coefficients[channels + c], coefficients[2 * channels + c]
        grad_first, y_first, x_first, passed_first = piece * steps[0], piece * steps[1], piece * steps[2], piece * steps[3]
        of_bias, of_weight = 0.0, 0.0
        for row in range(p, count, parts):
            deviation = x[x_first + offset(row, rows, x_rows)] - mean
            grad = grad_y[grad_first + offset(row, rows, grad_rows)]
            if has_y:
                grad = where_inside(grad, y[y_first + offset(row, rows, y_rows)], low, high)
                passed[passed_first + offset(row, rows, passed_rows)] = grad
            else:
                grad = where_inside(grad, deviation * scale + shift, low, high)
            of_bias += grad
            of_weight += grad * deviation
        out[i * width], out[(total + i) * width] = of_bias, of_weight


@device
def sum_of_parts(sums, first, last, step, at):
    """sums[at + p * step] for the parts p from first to last, in order."""
    total = 0.0
    for p in range(first, last):
        total += sums[at + p * step]
    return total


@kernel
def batch_norm_gradient_merged(sums, out, total, channels, parts):
    """out (2, total / C, C): each from MERGED parts of sums (2, parts, C)."""
    for i in grid_stride(total):
        q = quotient(i, channels)
        c, first, last = i - q * channels, q * MERGED, min((q + 1) * MERGED, parts)
        out[i] = sum_of_parts(sums, first, last, channels, c)
        out[total + i] = sum_of_parts(sums, first, last, channels, parts * channels + c)


@kernel
def batch_norm_gradient_coefficients(sums, coefficients, grad_weight, grad_bias, count, channels, parts, steps, is_constant):
    """The gradients of weight and bias from the last parts of sums (2, parts, C); rows 4 and 5 of coefficients (6, C): b, d."""
    for c in grid_stride(channels):
        scale = coefficients[3 * channels + c]
        of_bias = sum_of_parts(sums, 0, parts, channels, c)
        of_weight = sum_of_parts(sums, 0, parts, channels, parts * channels + c) * scale
        grad_weight[c * steps[0]], grad_bias[c * steps[1]] = of_weight, of_bias
        coefficients[4 * channels + c] = 0.0 if is_constant else of_bias / count
        coefficients[5 * channels + c] = 0.0 if is_constant else of_weight * scale / count


@kernel
def batch_norm_gradient(grad_y, x, coefficients, out, low, high, total, channels, shape: Sizes, grad_steps, x_steps, channel_steps,
                        out_steps):
    for i in grid_stride(total):
        c = offset(i, shape, channel_steps)
        deviation, scale = x[offset(i, shape, x_steps)] - coefficients[c], coefficients[channels + c]
        grad = where_inside(grad_y[offset(i, shape, grad_steps)], deviation * scale + coefficients[2 * channels + c], low, high)
        rest = grad - coefficients[4 * channels + c] - deviation * coefficients[5 * channels + c]
        out[offset(i, shape, out_steps)] = scale * rest


def backward(grad_y, y, x, weight, bias, mean, variance, epsilon, minimum, maximum, is_constant, out) -> None:
    """The gradients of what was limited to [minimum, maximum]; see `batch_norm_fused_backward` of the contract.

    Where y is None, what was limited is computed again from x, by the sums and by the gradient: that costs less than a map in between.
    """
    grad_x, grad_weight, grad_bias, grad_residual = out
    low, high = (number(np.nan if limit is None else limit, x.dtype) for limit in (minimum, maximum))
    channels, count = x.shape[1], x.shape[0] * prod(x.shape[2:])
    coefficients = coefficients_of(mean, variance, weight, bias, epsilon, rows=6)
    sums = _gradient_sums(grad_y, y, x, coefficients, grad_residual, low, high)
    launch(batch_norm_gradient_coefficients, channels, sums, coefficients, grad_weight, grad_bias, number(count, mean.dtype), channels,
           sums.shape[1], (grad_weight.steps[0], grad_bias.steps[0]), int(is_constant))
    if y is not None:
        grad_y, low, high = grad_residual, *[number(np.nan, x.dtype)] * 2
    places = merged(grad_x.shape, grad_x.steps, grad_y.steps, x.steps, along_channels(x.ndim))
    total, (shape, out_steps, *steps), (grad_x, *given) = pieces(places, grad_x, grad_y, x, coefficients)
    launch(batch_norm_gradient, total, *given, grad_x, low, high, total, channels, shape, *steps, out_steps)


def _gradient_sums(grad_y, y, x, coefficients, grad_residual, low, high) -> DeviceArray:
    """(2, parts, C), of MERGED parts at most; fills grad_residual."""
    has_y, channels, empty = y is not None, x.shape[1], x.lease.allocator.empty
    maps = (grad_y, y, x, grad_residual) if has_y else (grad_y, x, x, x)             # x stands in for what is not used
    rows, *row_steps = rows_of(*maps)
    count, none = prod(rows), (0,) * len(rows)
    parts = parts_of(channels, count)
    found = empty((2, parts, channels), coefficients.dtype)
    width, (_, _, *steps), (written, *maps, given) = pieces_of_rows(
        (rows, none, *row_steps, none), ((channels,), (1,), *[(a.steps[1],) for a in maps], (1,)), found, *maps, coefficients)
    total = parts * channels // width
    launch(batch_norm_gradient_sums, total, *maps[:3], given, maps[3], written, low, high, total, channels // width, parts, count, width,
           tuple([s[-1] for s in steps[:-1]]), rows, *row_steps, int(has_y))
    while parts > MERGED:
        fewer = -(-parts // MERGED)
        sums = empty((2, fewer, channels), found.dtype)
        launch(batch_norm_gradient_merged, fewer * channels, found, sums, fewer * channels, channels, parts)
        found, parts = sums, fewer
    return found


@implements
def batch_norm_backward(grad_y, x, weight, mean, variance, epsilon, out):
    backward(grad_y, None, x, weight, None, mean, variance, epsilon, None, None, False, (*out, None))


@implements
def batch_norm_inference_backward(grad_y, x, weight, mean, variance, epsilon, out):
    backward(grad_y, None, x, weight, None, mean, variance, epsilon, None, None, True, (*out, None))


@kernel
def running_average(running, value, kept, added, total, shape: Sizes, running_steps, value_steps):
    for i in grid_stride(total):
        at = offset(i, shape, running_steps)
        running[at] = kept * running[at] + added * value[offset(i, shape, value_steps)]


@kernel
def running_averages(running, values, starts, kept, added, count, step, total):
    for i in grid_stride(total):
        k, e = element_of(i, starts, count, step)
        running[k][e] = kept[k] * running[k][e] + added[k] * values[k][e]


@implements
def running_averages_update(running, values, momenta, scales):
    chosen = [k for k, x in enumerate(running) if x.size]
    if not all(running[k].is_dense and running[k].strides == values[k].strides for k in chosen):
        for of_one in zip(running, values, momenta, scales):
            running_average_update(*of_one)
        return
    if not chosen:
        return
    lists, dtype = [[of[k] for k in chosen] for of in (running, values)], running[chosen[0]].dtype
    for members, step, arrays, starts, total in together(lists):
        factors = [(1 - momenta[chosen[k]], momenta[chosen[k]] * scales[chosen[k]]) for k in members]
        kept, added = (on_device(running[0].lease.allocator, np.array(of, dtype)) for of in zip(*factors))
        launch(running_averages, total, *arrays, starts, kept, added, len(members), step, total)


@kernel
def count_on(counters, amount, total):
    for i in grid_stride(total):
        counters[i][0] = counters[i][0] + amount


@implements
def counters_update(counters, amount):
    own = [x for x in counters if x.size]
    if any(x.size > 1 for x in own):
        for x in own:
            add(x, amount, x)
    elif own:
        launch(count_on, len(own), own, number(amount, own[0].dtype), len(own))


@implements
def running_average_update(running, value, momentum, scale):
    shape, running_steps, value_steps = merged(running.shape, running.steps, value.steps)
    launch(running_average, running.size, running, value, number(1 - momentum, running.dtype), number(momentum * scale, running.dtype),
           running.size, shape, running_steps, value_steps)
