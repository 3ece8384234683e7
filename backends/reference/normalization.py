"""Normalization: means over axes, by NumPy."""

from __future__ import annotations

from math import prod

import numpy as np

from numbanet.backends.reference.registry import implements


def _broadcastable(values, x):
    """Values per channel, shaped to broadcast against (N, C, ...)."""
    return values.reshape(-1, *[1] * (x.ndim - 2))


def _standardized(x, mean, variance, epsilon):
    """(x - mean) and 1 / sqrt(variance + epsilon)."""
    return x - mean, 1 / np.sqrt(variance + epsilon)


def _affine(x, weight, bias, shape=None):
    """x * weight + bias, either of which may be None."""
    weight = 1 if weight is None else weight if shape is None else weight.reshape(shape)
    bias = 0 if bias is None else bias if shape is None else bias.reshape(shape)
    return x * weight + bias


def _backward_input(grad_normal, deviation, scale, axes):
    """Gradient with respect to x where mean and variance over `axes` depend on it, given that of the standardized x."""
    normal = deviation * scale
    return scale * (grad_normal - grad_normal.mean(axes, keepdims=True)
                    - normal * (grad_normal * normal).mean(axes, keepdims=True))


def _pixels(x):
    """The axes of batch and pixels."""
    return (0, *range(2, x.ndim))


@implements
def batch_norm_forward(x, weight, bias, epsilon, out):
    y, mean, variance = out
    mean[...], variance[...] = x.mean(_pixels(x)), x.var(_pixels(x))
    batch_norm_inference_forward(x, weight, bias, mean, variance, epsilon, y)


@implements
def batch_norm_inference_forward(x, weight, bias, mean, variance, epsilon, out):
    deviation, scale = _standardized(x, _broadcastable(mean, x), _broadcastable(variance, x), epsilon)
    out[...] = _affine(deviation * scale, weight, bias, (-1, *[1] * (x.ndim - 2)))


@implements
def batch_norm_backward(grad_y, x, weight, mean, variance, epsilon, out):
    deviation, scale = _standardized(x, _broadcastable(mean, x), _broadcastable(variance, x), epsilon)
    weighted = grad_y if weight is None else grad_y * _broadcastable(weight, x)
    out[1][...], out[2][...] = (grad_y * deviation * scale).sum(_pixels(x)), grad_y.sum(_pixels(x))
    out[0][...] = _backward_input(weighted, deviation, scale, _pixels(x))


@implements
def batch_norm_inference_backward(grad_y, x, weight, mean, variance, epsilon, out):
    deviation, scale = _standardized(x, _broadcastable(mean, x), _broadcastable(variance, x), epsilon)
    out[1][...], out[2][...] = (grad_y * deviation * scale).sum(_pixels(x)), grad_y.sum(_pixels(x))
    out[0][...] = grad_y * scale * (1 if weight is None else _broadcastable(weight, x))


@implements
def running_average_update(running, value, momentum, scale):
    running[...] = (1 - momentum) * running + momentum * scale * value


def _grouped_shape(x, groups):
    return x.shape[0], groups, x.shape[1] // groups, prod(x.shape[2:])


@implements
def group_norm_forward(x, groups, weight, bias, epsilon, out):
    y, mean, variance = out
    grouped = x.reshape(_grouped_shape(x, groups))
    mean[...], variance[...] = grouped.mean((2, 3)), grouped.var((2, 3))
    deviation, scale = _standardized(grouped, mean[..., None, None], variance[..., None, None], epsilon)
    y[...] = _affine((deviation * scale).reshape(x.shape), weight, bias, (-1, *[1] * (x.ndim - 2)))


@implements
def group_norm_backward(grad_y, x, weight, mean, variance, groups, epsilon, out):
    shape = _grouped_shape(x, groups)
    deviation, scale = _standardized(x.reshape(shape), mean[..., None, None], variance[..., None, None], epsilon)
    weighted = grad_y if weight is None else grad_y * _broadcastable(weight, x)
    out[0][...] = _backward_input(weighted.reshape(shape), deviation, scale, (2, 3)).reshape(x.shape)
    normal = (deviation * scale).reshape(x.shape)
    out[1][...], out[2][...] = (grad_y * normal).sum(_pixels(x)), grad_y.sum(_pixels(x))


@implements
def layer_norm_forward(x, axes, weight, bias, epsilon, out):
    y, mean, variance = out
    last, expand = tuple(range(-axes, 0)), (..., *[None] * axes)
    mean[...], variance[...] = x.mean(last), x.var(last)
    deviation, scale = _standardized(x, mean[expand], variance[expand], epsilon)
    y[...] = _affine(deviation * scale, weight, bias)


@implements
def layer_norm_backward(grad_y, x, weight, mean, variance, axes, epsilon, out):
    last, expand, others = tuple(range(-axes, 0)), (..., *[None] * axes), tuple(range(x.ndim - axes))
    deviation, scale = _standardized(x, mean[expand], variance[expand], epsilon)
    out[0][...] = _backward_input(grad_y if weight is None else grad_y * weight, deviation, scale, last)
    out[1][...], out[2][...] = (grad_y * deviation * scale).sum(others), grad_y.sum(others)


def _neighbour_sums(values, before, after):
    """For each channel c: the sum over channels c - before ... c + after."""
    C = values.shape[1]
    return np.stack([values[:, max(c - before, 0):min(c + after, C - 1) + 1].sum(1) for c in range(C)], axis=1)


@implements
def local_response_norm_forward(x, size, alpha, beta, k, out):
    base = k + alpha / size * _neighbour_sums(x * x, size // 2, (size - 1) // 2) if x.size else x
    out[...] = x / base ** beta


@implements
def local_response_norm_backward_input(grad_y, x, size, alpha, beta, k, out):
    if not x.size:
        return
    base = k + alpha / size * _neighbour_sums(x * x, size // 2, (size - 1) // 2)
    through_base = _neighbour_sums(grad_y * x * base ** (-beta - 1), (size - 1) // 2, size // 2)
    out[...] = grad_y * base ** -beta - 2 * alpha * beta / size * x * through_base
