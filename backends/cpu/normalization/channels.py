"""Group and instance norm, and batch norm in float64 or by given statistics: one pair of kernels.

Batch norm is group norm of one part with a group a channel; in training, in float32, it has `batch.py`.

    y = (x - mean[p, g]) * scale[p, g] * weight[c] + bias[c],   scale = 1 / sqrt(variance + epsilon)

    grad_x = scale * (w * g - mean over the group of (w * g) - n * mean over the group of (w * g * n)),
    grad_weight[c] = sum of g * n,  grad_bias[c] = sum of g,    n = (x - mean) * scale, g = grad_y, w = weight

x, y (P, S, V): see `moments.py` for the letters. C channels in G groups; mean, variance (P, G). Partial results of the
blocks are (P, B, 2, V) in float64.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import prange

from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.layout import finish_pixels, pixels
from numbanet.backends.cpu.normalization.moments import (
    block_combine,
    block_gradient_sums,
    block_moments,
    block_normalize,
    block_rows,
    block_scale,
    fold_rows,
)
from numbanet.backends.cpu.registry import implements


@worker
def merge_moments(partial, S, rows, C, p, g, mean, variance):
    """Mean and variance of group g of part p from those of the blocks' columns."""
    B, V = partial.shape[1], partial.shape[3]
    size = C // mean.shape[1]
    elements = S * (V // C) * size
    total, m2 = 0.0, 0.0
    for b in range(B):
        count = min(rows, S - b * rows)
        for fold in range(0, V, C):
            for v in range(fold + g * size, fold + (g + 1) * size):
                total += count * partial[p, b, 0, v]
    center = total / elements
    for b in range(B):
        count = min(rows, S - b * rows)
        for fold in range(0, V, C):
            for v in range(fold + g * size, fold + (g + 1) * size):
                distance = partial[p, b, 0, v] - center
                m2 += partial[p, b, 1, v] + count * distance * distance
    mean[p, g], variance[p, g] = center, m2 / elements


@worker
def fill_group(columns, g, size, C, value):
    """Write a value to all columns of group g."""
    for fold in range(g * size, len(columns), C):
        for v in range(fold, fold + size):
            columns[v] = value


@worker
def fill_channels(columns, g, size, C, values, factor):
    """Write values[c] * factor to the columns of the channels c of group g."""
    for c in range(g * size, (g + 1) * size):
        for v in range(c, len(columns), C):
            columns[v] = values[c] * factor


@worker
def forward_coefficients(weight, bias, mean, variance, epsilon, p, g, coefficients):
    """The rows of coefficients (3, V) are center, scale and shift of `block_normalize`; fill the columns of group g."""
    C = len(weight)
    size = C // mean.shape[1]
    fill_group(coefficients[0], g, size, C, mean[p, g])
    fill_channels(coefficients[1], g, size, C, weight, 1 / np.sqrt(np.float64(variance[p, g]) + epsilon))
    fill_channels(coefficients[2], g, size, C, bias, 1.0)


@kernel("void(const T[:,:,::1], const T[:], const T[:], f8, i8, b1, T[:,:], T[:,:], f8[:,:,:,::1], T[:,:,::1], "
        "T[:,:,::1])", dtypes=("float32", "float64"), parallel=True)
def channel_norm_forward(x, weight, bias, epsilon, rows, given, mean, variance, partial, coefficients, y):
    """Fill y; mean and variance too, unless they are given. `rows` is the height of a block."""
    P, S, _ = x.shape
    B, C, G = (S + rows - 1) // rows, len(weight), mean.shape[1]
    if not given:
        for task in prange(P * B):
            p, b = task // B, task % B
            block_moments(x[p], b * rows, min((b + 1) * rows, S), partial[p, b, 0], partial[p, b, 1])
    for task in prange(P * G):
        p, g = task // G, task % G
        if not given:
            merge_moments(partial, S, rows, C, p, g, mean, variance)
        forward_coefficients(weight, bias, mean, variance, epsilon, p, g, coefficients[p])
    for task in prange(P * B):
        p, b = task // B, task % B
        center, scale, shift = coefficients[p, 0], coefficients[p, 1], coefficients[p, 2]
        block_normalize(x[p], b * rows, min((b + 1) * rows, S), center, scale, shift, y[p])


@worker
def spread_means(mean, p, C, center):
    """The mean of every column."""
    size = C // mean.shape[1]
    for g in range(mean.shape[1]):
        for c in range(g * size, (g + 1) * size):
            center[c] = mean[p, g]
    for v in range(C, len(center)):
        center[v] = center[v - C]


@worker
def channel_sums(partial, p, c, C):
    """Of channel c in part p: the sums of g and of g * (x - mean)."""
    sums, products = 0.0, 0.0
    for b in range(partial.shape[1]):
        for v in range(c, partial.shape[3], C):
            sums += partial[p, b, 0, v]
            products += partial[p, b, 1, v]
    return sums, products


@worker
def backward_coefficients(partial, weight, mean, variance, epsilon, elements, g, coefficients, grad_weight, grad_bias):
    """For group g of all parts: the gradients of its weights and biases, and its columns of coefficients (P, 4, V).

    Those are center, of_gradient, of_deviation and constant of `block_combine`; a group has `elements` of each part.
    """
    C = len(weight)
    size = C // mean.shape[1]
    begin, end = g * size, (g + 1) * size
    all_sums, all_products = np.zeros(size), np.zeros(size)
    for p in range(partial.shape[0]):
        scale = 1 / np.sqrt(np.float64(variance[p, g]) + epsilon)
        group_sum, group_product = 0.0, 0.0
        for c in range(begin, end):
            sums, products = channel_sums(partial, p, c, C)
            group_sum += weight[c] * sums
            group_product += weight[c] * products * scale
            all_sums[c - begin] += sums
            all_products[c - begin] += products * scale
        fill_group(coefficients[p, 0], g, size, C, mean[p, g])
        fill_channels(coefficients[p, 1], g, size, C, weight, scale)
        fill_group(coefficients[p, 2], g, size, C, -scale * scale * group_product / elements)
        fill_group(coefficients[p, 3], g, size, C, -scale * group_sum / elements)
    for j in range(size):
        grad_weight[begin + j], grad_bias[begin + j] = all_products[j], all_sums[j]


@kernel("void(const T[:,:,::1], const T[:,:,::1], const T[:], const T[:,:], const T[:,:], f8, i8, b1, "
        "f8[:,:,:,::1], T[:,:,::1], T[:,:,::1], T[:], T[:])", dtypes=("float32", "float64"), parallel=True)
def channel_norm_backward(grad_y, x, weight, mean, variance, epsilon, rows, given, partial, coefficients,
                          grad_x, grad_weight, grad_bias):
    """Fill the three gradients; where mean and variance were given, they are constants."""
    P, S, V = x.shape
    B, C, G = (S + rows - 1) // rows, len(weight), mean.shape[1]
    for task in prange(P * B):
        p, b = task // B, task % B
        center = np.empty(V, x.dtype)
        spread_means(mean, p, C, center)
        block_gradient_sums(grad_y[p], x[p], center, b * rows, min((b + 1) * rows, S),
                            partial[p, b, 0], partial[p, b, 1])
    elements = S * (V // C) * (C // G)
    for g in prange(G):
        backward_coefficients(partial, weight, mean, variance, epsilon, elements, g, coefficients,
                              grad_weight, grad_bias)
    for task in prange(P * B):
        p, b = task // B, task % B
        center, of_gradient = coefficients[p, 0], coefficients[p, 1]
        begin, end = b * rows, min((b + 1) * rows, S)
        if given:
            block_scale(grad_y[p], begin, end, of_gradient, grad_x[p])
        else:
            block_combine(grad_y[p], x[p], begin, end, center, of_gradient, coefficients[p, 2], coefficients[p, 3],
                          grad_x[p])


@lru_cache(maxsize=256)
def constant_vector(size: int, value: float, dtype) -> np.ndarray:
    """What a weight or bias of None stands for."""
    return np.full(size, value, dtype)


def vector_or_constant(values, size: int, default: float, dtype) -> np.ndarray:
    return constant_vector(size, default, dtype) if values is None else values


def _folded(x, parts: int) -> np.ndarray:
    """x (N, C, ...) as (P, S, V), contiguous: see `moments.py`."""
    C = x.shape[1]
    rows = x.size // (parts * C)
    fold = fold_rows(rows, C)
    return np.ascontiguousarray(pixels(x)).reshape(parts, rows // fold, fold * C)


def _unfolded(out):
    """`out` as contiguous pixels to fill; a copy where its memory has another order."""
    filled = pixels(out)
    return filled if filled.flags.c_contiguous else np.empty(filled.shape, out.dtype)


def forward(x, weight, bias, epsilon, parts, given, mean, variance, out):
    C = x.shape[1]
    if not x.size:
        if not given:
            mean.fill(np.nan)
            variance.fill(np.nan)
        return
    folded, filled = _folded(x, parts), _unfolded(out)
    P, S, V = folded.shape
    rows = block_rows(S, V)
    partial = np.empty((P, 0 if given else -(-S // rows), 2, V))
    channel_norm_forward(folded, vector_or_constant(weight, C, 1, x.dtype), vector_or_constant(bias, C, 0, x.dtype), epsilon, rows, given,
                         mean, variance, partial, np.empty((P, 3, V), x.dtype), filled.reshape(P, S, V))
    finish_pixels(filled, out)


def backward(grad_y, x, weight, mean, variance, epsilon, parts, given, out):
    grad_x, grad_weight, grad_bias = out
    C = x.shape[1]
    if not x.size:
        grad_weight.fill(0)
        grad_bias.fill(0)
        return
    folded, filled = _folded(x, parts), _unfolded(grad_x)
    P, S, V = folded.shape
    rows = block_rows(S, V)
    partial, coefficients = np.empty((P, -(-S // rows), 2, V)), np.empty((P, 4, V), x.dtype)
    channel_norm_backward(_folded(grad_y, parts), folded, vector_or_constant(weight, C, 1, x.dtype), mean, variance, epsilon, rows,
                          given, partial, coefficients, filled.reshape(P, S, V), grad_weight, grad_bias)
    finish_pixels(filled, grad_x)


@implements
def batch_norm_inference_forward(x, weight, bias, mean, variance, epsilon, out):
    forward(x, weight, bias, epsilon, 1, True, mean[None], variance[None], out)


@implements
def batch_norm_inference_backward(grad_y, x, weight, mean, variance, epsilon, out):
    backward(grad_y, x, weight, mean[None], variance[None], epsilon, 1, True, out)


@implements
def running_average_update(running, value, momentum, scale):
    running *= 1 - momentum          # a few hundred numbers: no kernel
    running += momentum * scale * value


@implements
def group_norm_forward(x, groups, weight, bias, epsilon, out):
    y, mean, variance = out
    forward(x, weight, bias, epsilon, x.shape[0], False, mean, variance, y)


@implements
def group_norm_backward(grad_y, x, weight, mean, variance, groups, epsilon, out):
    backward(grad_y, x, weight, mean, variance, epsilon, x.shape[0], False, out)
