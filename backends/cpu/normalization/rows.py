"""Layer norm: rows of x (M, D) by their own statistics.

    y = n * weight + bias,   n = (x - mean) * scale,   scale = 1 / sqrt(variance + epsilon)
    grad_x = scale * (w * g - mean of (w * g) - n * mean of (w * g * n)),  grad_weight = sum over rows of g * n,
    grad_bias = sum over rows of g

Rows are tasks; the sums over rows are taken within blocks of rows that the shape alone determines, merged in order.
"""

from __future__ import annotations

from math import prod

import numpy as np
from numba import prange

from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.normalization.channels import constant_vector
from numbanet.backends.cpu.registry import implements

BLOCKS = 32         # of rows, for the gradients of weight and bias

# reassoc: sums along a row are spread over the lanes of a vector; their order is fixed by the compiled code.
SUMS = ("contract", "reassoc")


@worker(fastmath=SUMS)
def row_sum(row):
    """The sum."""
    total = row.dtype.type(0)
    for d in range(len(row)):
        total += row[d]
    return total


@worker(fastmath=SUMS)
def row_deviations(row, center):
    """The sums of deviations from `center` and of their squares."""
    first, second = row.dtype.type(0), row.dtype.type(0)
    for d in range(len(row)):
        deviation = row[d] - center
        first += deviation
        second += deviation * deviation
    return first, second


@worker(fastmath=SUMS)
def row_products(gradients, weight, row, center):
    """The sums of w * g and of w * g * (x - center)."""
    sums, products = row.dtype.type(0), row.dtype.type(0)
    for d in range(len(row)):
        weighted = gradients[d] * weight[d]
        sums += weighted
        products += weighted * (row[d] - center)
    return sums, products


@worker
def layer_norm_forward_row(x, weight, bias, epsilon, mean, variance, m, y):
    D = x.shape[1]
    row, result = x[m], y[m]
    rounded = x.dtype.type(row_sum(row) / D)
    first, second = row_deviations(row, rounded)      # the first corrects the mean, as in `moments.block_moments`
    correction = np.float64(first) / D
    mean[m], variance[m] = rounded + correction, second / D - correction * correction
    center, scale = mean[m], x.dtype.type(1 / np.sqrt(np.float64(variance[m]) + epsilon))
    for d in range(D):
        result[d] = (row[d] - center) * scale * weight[d] + bias[d]


@kernel("void(const T[:,::1], const T[::1], const T[::1], f8, T[::1], T[::1], T[:,::1])",
        dtypes=("float32", "float64"), parallel=True)
def layer_norm_rows_forward(x, weight, bias, epsilon, mean, variance, y):
    for m in prange(x.shape[0]):
        layer_norm_forward_row(x, weight, bias, epsilon, mean, variance, m, y)


@worker
def layer_norm_backward_row(gradients, row, weight, center, scale, result, sums):
    """One row of grad_x; what it adds to grad_weight and grad_bias goes to sums (2, D)."""
    D = len(row)
    total, products = row_products(gradients, weight, row, center)
    of_deviation, constant = row.dtype.type(-scale * scale * scale * products / D), row.dtype.type(-scale * total / D)
    for d in range(D):
        result[d] = gradients[d] * weight[d] * scale + ((row[d] - center) * of_deviation + constant)
    of_weight, of_bias = sums[0], sums[1]
    for d in range(D):
        of_weight[d] += gradients[d] * (row[d] - center) * scale
        of_bias[d] += gradients[d]


@kernel("void(const T[:,::1], const T[:,::1], const T[::1], const T[::1], const T[::1], f8, T[:,:,::1], T[:,::1], "
        "T[::1], T[::1])", dtypes=("float32", "float64"), parallel=True)
def layer_norm_rows_backward(grad_y, x, weight, mean, variance, epsilon, partial, grad_x, grad_weight, grad_bias):
    M, D = x.shape
    blocks = partial.shape[0]
    rows = (M + blocks - 1) // blocks
    for block in prange(blocks):
        partial[block] = 0
        for m in range(block * rows, min((block + 1) * rows, M)):
            scale = x.dtype.type(1 / np.sqrt(np.float64(variance[m]) + epsilon))
            layer_norm_backward_row(grad_y[m], x[m], weight, mean[m], scale, grad_x[m], partial[block])
    for d in prange(D):
        of_weight, of_bias = 0.0, 0.0
        for block in range(blocks):
            of_weight += partial[block, 0, d]
            of_bias += partial[block, 1, d]
        grad_weight[d], grad_bias[d] = of_weight, of_bias


def _rows(x, axes: int) -> np.ndarray:
    """x as contiguous rows of the last `axes` axes."""
    D = prod(x.shape[x.ndim - axes:])
    return np.ascontiguousarray(x).reshape(x.size // D, D)


def _fill(out, filled) -> None:
    if not np.may_share_memory(out, filled):
        np.copyto(out, filled.reshape(out.shape))


def _writable(out) -> np.ndarray:
    return out if out.flags.c_contiguous else np.empty(out.shape, out.dtype)


def _elements(values, size: int, default: float, dtype) -> np.ndarray:
    return constant_vector(size, default, dtype) if values is None else np.ascontiguousarray(values).reshape(-1)


@implements
def layer_norm_forward(x, axes, weight, bias, epsilon, out):
    if not x.size:
        out[1].fill(np.nan)
        out[2].fill(np.nan)
        return
    filled = [_writable(o) for o in out]
    layer_norm_rows_forward(*_forward_arguments(_rows(x, axes), weight, bias, epsilon, filled))
    for target, values in zip(out, filled):
        _fill(target, values)


def _forward_arguments(rows, weight, bias, epsilon, out) -> tuple:
    D = rows.shape[1]
    return (rows, _elements(weight, D, 1, rows.dtype), _elements(bias, D, 0, rows.dtype), epsilon, out[1].reshape(-1), out[2].reshape(-1),
            out[0].reshape(rows.shape))


def _forward_kernels(x, axes, weight, bias, epsilon, out) -> list | None:
    """What `layer_norm_forward` runs where that needs no copies: see `program.joined`."""
    if x.dtype != np.float32 or not x.size or not all(a.flags.c_contiguous for a in (x, *out)):
        return None
    return [(layer_norm_rows_forward, _forward_arguments(_rows(x, axes), weight, bias, epsilon, out), True)]


layer_norm_forward.kernels = _forward_kernels


@implements
def layer_norm_backward(grad_y, x, weight, mean, variance, axes, epsilon, out):
    if not x.size:
        out[1].fill(0)
        out[2].fill(0)
        return
    rows, filled = _rows(x, axes), [_writable(o) for o in out]
    M, D = rows.shape
    layer_norm_rows_backward(
        _rows(grad_y, axes), rows, _elements(weight, D, 1, x.dtype), np.ascontiguousarray(mean).reshape(-1),
        np.ascontiguousarray(variance).reshape(-1), epsilon, np.empty((min(M, BLOCKS), 2, D), x.dtype),
        filled[0].reshape(M, D), filled[1].reshape(-1), filled[2].reshape(-1))
    for target, values in zip(out, filled):
        _fill(target, values)
