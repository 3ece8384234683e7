"""Batch norm: each channel by its own statistics over batch and pixels, or by given ones.

    y = (x - mean) * scale + shift            scale = weight / sqrt(variance + epsilon),  shift = bias
    grad_x = a * (grad_y - b - (x - mean) * d)
        a = scale,  b = grad_bias / count,  d = grad_weight / sqrt(variance + epsilon) / count
        b = d = 0 where the statistics are constants

A small kernel computes what is the same for a channel, kept row by row in one array; then a thread computes an element, or a piece of
neighbouring channels or pixels (`wide.py`).
"""

from __future__ import annotations

import math

import numpy as np

from numbanet.backends.cuda.compile import device, kernel, lanewise
from numbanet.backends.cuda.index import offset, thread, threads
from numbanet.backends.cuda.launch import launch, number
from numbanet.backends.cuda.layout import merged
from numbanet.backends.cuda.limits import NO_LIMITS
from numbanet.backends.cuda.mathematics import clamped
from numbanet.backends.cuda.memory import DeviceArray
from numbanet.backends.cuda.normalization.gradients import affine, scale_of
from numbanet.backends.cuda.normalization.moments import moments
from numbanet.backends.cuda.registry import implements
from numbanet.backends.cuda.wide import pieces
from numbanet.backends.cuda.windows import optional


@kernel
def batch_norm_coefficients(mean, variance, weight, bias, out, epsilon, channels, steps, has_weight, has_bias):
    """out (3, C): mean, scale, shift."""
    for c in range(thread(), channels, threads()):
        scale = 1.0 / math.sqrt(variance[c * steps[1]] + epsilon)
        out[c] = mean[c * steps[0]]
        out[channels + c] = scale * weight[c * steps[2]] if has_weight else scale
        out[2 * channels + c] = bias[c * steps[3]] if has_bias else 0.0


@device
def normalized(x, coefficients, c, channels):
    """(x - mean) * scale + shift of channel c."""
    return (x - coefficients[c]) * coefficients[channels + c] + coefficients[2 * channels + c]


@kernel
def batch_norm_apply(x, residual, coefficients, out, low, high, total, channels, shape, x_steps, channel_steps, residual_steps, out_steps,
                     has_residual):
    for i in range(thread(), total, threads()):
        value = normalized(x[offset(i, shape, x_steps)], coefficients, offset(i, shape, channel_steps), channels)
        if has_residual:
            value += residual[offset(i, shape, residual_steps)]
        out[offset(i, shape, out_steps)] = clamped(value, low, high)


def along_channels(rank: int) -> tuple[int, ...]:
    """Steps along the axes of a map (N, C, ...) that lead to the number of the channel."""
    return (0, 1, *(0,) * (rank - 2))


def coefficients_of(mean, variance, weight, bias, epsilon) -> DeviceArray:
    """(3, C): see `batch_norm_coefficients`."""
    out = mean.lease.allocator.empty((3, mean.size), mean.dtype)
    weight, (weight_step,), has_weight = optional(weight, mean)
    bias, (bias_step,), has_bias = optional(bias, mean)
    launch(batch_norm_coefficients, mean.size, mean, variance, weight, bias, out, number(epsilon, out.dtype), mean.size,
           (mean.steps[0], variance.steps[0], weight_step, bias_step), has_weight, has_bias)
    return out


def apply(x, residual, coefficients, low, high, out) -> None:
    """y from `coefficients_of`, plus residual unless that is None, limited."""
    residual, residual_steps, has_residual = optional(residual, x)
    channels, low, high = x.shape[1], number(low, out.dtype), number(high, out.dtype)
    places = merged(out.shape, out.steps, x.steps, along_channels(x.ndim), residual_steps)
    total, (shape, out_steps, *steps), (out, x, coefficients, residual) = pieces(places, out, x, coefficients, residual)
    launch(batch_norm_apply, total, x, residual, coefficients, out, low, high, total, channels, shape, *steps, out_steps, has_residual)


@implements
def batch_norm_forward(x, weight, bias, epsilon, out):
    y, mean, variance = out
    moments(x, mean, variance)
    apply(x, None, coefficients_of(mean, variance, weight, bias, epsilon), *NO_LIMITS, y)


@implements
def batch_norm_inference_forward(x, weight, bias, mean, variance, epsilon, out):
    apply(x, None, coefficients_of(mean, variance, weight, bias, epsilon), *NO_LIMITS, out)


@kernel
def batch_norm_gradient_coefficients(mean, scale, weight, grad_weight, grad_bias, out, count, channels, steps, has_weight, is_constant):
    """out (4, C): mean, a, b, d."""
    for c in range(thread(), channels, threads()):
        factor = scale[c]
        out[c] = mean[c * steps[0]]
        out[channels + c] = factor * weight[c * steps[1]] if has_weight else factor
        out[2 * channels + c] = 0.0 if is_constant else grad_bias[c * steps[3]] / count
        out[3 * channels + c] = 0.0 if is_constant else grad_weight[c * steps[2]] * factor / count


@kernel
def batch_norm_gradient(grad_y, x, coefficients, out, total, channels, shape, grad_steps, x_steps, channel_steps, out_steps):
    for i in range(thread(), total, threads()):
        c = offset(i, shape, channel_steps)
        deviation = x[offset(i, shape, x_steps)] - coefficients[c]
        rest = grad_y[offset(i, shape, grad_steps)] - coefficients[2 * channels + c] - deviation * coefficients[3 * channels + c]
        out[offset(i, shape, out_steps)] = coefficients[channels + c] * rest


def _backward(grad_y, x, weight, mean, variance, epsilon, is_constant, out) -> None:
    grad_x, grad_weight, grad_bias = out
    channels, rest, scale = x.shape[1], (0,) * (x.ndim - 2), scale_of(variance, epsilon)
    affine(grad_y, x, mean, scale, (1,), (0, mean.steps[0], *rest), (0, 1, *rest), grad_weight, grad_bias)
    coefficients = x.lease.allocator.empty((4, channels), mean.dtype)
    weight, (weight_step,), has_weight = optional(weight, mean)
    launch(batch_norm_gradient_coefficients, channels, mean, scale, weight, grad_weight, grad_bias, coefficients,
           number(x.size // max(channels, 1), mean.dtype), channels,
           (mean.steps[0], weight_step, grad_weight.steps[0], grad_bias.steps[0]), has_weight, int(is_constant))
    places = merged(grad_x.shape, grad_x.steps, grad_y.steps, x.steps, along_channels(x.ndim))
    total, (shape, out_steps, *steps), (grad_x, *given) = pieces(places, grad_x, grad_y, x, coefficients)
    launch(batch_norm_gradient, total, *given, grad_x, total, channels, shape, *steps, out_steps)


@implements
def batch_norm_backward(grad_y, x, weight, mean, variance, epsilon, out):
    _backward(grad_y, x, weight, mean, variance, epsilon, False, out)


@implements
def batch_norm_inference_backward(grad_y, x, weight, mean, variance, epsilon, out):
    _backward(grad_y, x, weight, mean, variance, epsilon, True, out)


@lanewise
def _where_inside(grad, value, low, high):
    return 0.0 if value <= low or value >= high else grad


@kernel
def batch_norm_passed(grad_y, y, x, coefficients, out, low, high, total, channels, shape, grad_steps, y_steps, x_steps, channel_steps,
                      out_steps, has_y):
    """The gradient where the result lies strictly inside of the limits or is NaN, else 0; a limit of NaN is none."""
    for i in range(thread(), total, threads()):
        if has_y:
            value = y[offset(i, shape, y_steps)]
        else:
            value = normalized(x[offset(i, shape, x_steps)], coefficients, offset(i, shape, channel_steps), channels)
        out[offset(i, shape, out_steps)] = _where_inside(grad_y[offset(i, shape, grad_steps)], value, low, high)


def passed(grad_y, y, x, coefficients, minimum, maximum, out) -> None:
    """What of grad_y passes the limits of y, which is computed again from x and `coefficients` where it is None."""
    low, high = (number(np.nan if limit is None else limit, x.dtype) for limit in (minimum, maximum))
    channels, (y, y_steps, has_y) = x.shape[1], optional(y, x)
    places = merged(out.shape, out.steps, grad_y.steps, y_steps, x.steps, along_channels(x.ndim))
    total, (shape, out_steps, *steps), (out, *given) = pieces(places, out, grad_y, y, x, coefficients)
    launch(batch_norm_passed, total, *given, out, low, high, total, channels, shape, *steps, out_steps, has_y)


@kernel
def running_average(running, value, kept, added, total, shape, running_steps, value_steps):
    for i in range(thread(), total, threads()):
        at = offset(i, shape, running_steps)
        running[at] = kept * running[at] + added * value[offset(i, shape, value_steps)]


@implements
def running_average_update(running, value, momentum, scale):
    shape, running_steps, value_steps = merged(running.shape, running.steps, value.steps)
    launch(running_average, running.size, running, value, number(1 - momentum, running.dtype), number(momentum * scale, running.dtype),
           running.size, shape, running_steps, value_steps)
