"""Batch norm in float32, with what follows it: a residual that is added, and limits.

    y = limited((x - mean[c]) * scale[c] + bias[c] + residual),     scale = weight / sqrt(variance + epsilon)

Backward, g is grad_y where y lies inside of the limits and 0 elsewhere:

    grad_x = scale[c] * (g - mean over the pixels of g - n * mean over the pixels of (g * n)),   n = (x - mean) / deviation

Both directions are as fast as memory: forward reads x twice and writes y, backward reads g and x twice and writes grad_x. What was
limited is told by x itself, computed as forward did, bit by bit, unless a residual was added: then y tells, and the first pass writes g,
which is the residual's gradient. Results too large for the caches are written past them.

Maps are (S, V): S rows of V columns, a row being a pixel or, in memory without gaps, several of them (`fold_rows`); column v is channel
v % C. Blocks, and how they are merged: `moments.py`, `channels.py`.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.hardware import cache_sizes
from numbanet.backends.cpu.layout import finish_pixels, pixels
from numbanet.backends.cpu.limits import limited, limits
from numbanet.backends.cpu.normalization import channels
from numbanet.backends.cpu.normalization.channels import (
    backward_coefficients,
    forward_coefficients,
    vector_or_constant,
)
from numbanet.backends.cpu.normalization.moments import block_counts, block_rows, fold_rows, merge_block_moments
from numbanet.backends.cpu.out_of_line import out_of_line
from numbanet.backends.cpu.registry import implements
from numbanet.backends.cpu.simd import L, fma, load, load_partial, select, store, store_partial, store_streamed

F32 = np.dtype(np.float32)
NO_ROWS = np.empty((0, 0), F32)
CENTER, SCALE, SHIFT, OF_GRADIENT, OF_DEVIATION, CONSTANT = 0, 1, 2, 4, 5, 6       # rows of the coefficients of a column; 3 is CENTER again
FROM_X, FROM_Y = 1, 2       # what tells where the result was limited


@worker(inline=True)
def _read(array, at, left):
    if left >= L:
        return load(array, at)
    return load_partial(array, at, left)


@worker
def _moments(x, begin, end, moments):
    """Fill the rows (3, V) of a block, see `merge_block_moments`: the center is the rounded mean."""
    out_of_line()
    V, row = x.shape[1], x.strides[0] // 4
    center, first, second = np.zeros(V + L, np.float32), np.zeros(V + L, np.float32), np.zeros(V + L, np.float32)
    for s in range(begin, end):
        for v in range(0, V, L):
            store(center, v, load(center, v) + _read(x, s * row + v, V - v))
    for v in range(V):
        center[v] /= np.float32(end - begin)
    for s in range(begin, end):
        for v in range(0, V, L):
            deviation = _read(x, s * row + v, V - v) - load(center, v)
            store(first, v, load(first, v) + deviation)
            store(second, v, fma(deviation, deviation, load(second, v)))
    for v in range(V):
        moments[0, v], moments[1, v], moments[2, v] = center[v], first[v], second[v]


@worker(inline=True)
def _write(y, at, value, left, streamed):
    if left >= L:
        if streamed:
            store_streamed(y, at, value)
        else:
            store(y, at, value)
    else:
        store_partial(y, at, value, left)


@worker
def _normalize(x, begin, end, coefficients, residual, low, high, streamed, y):
    out_of_line()
    V, row, y_row = x.shape[1], x.strides[0] // 4, y.strides[0] // 4
    r_row, pitch = residual.strides[0] // 4, coefficients.shape[2]
    for s in range(begin, end):
        for v in range(0, V, L):
            deviation = _read(x, s * row + v, V - v) - load(coefficients, v)
            value = fma(deviation, load(coefficients, SCALE * pitch + v), load(coefficients, SHIFT * pitch + v))
            if residual.size:
                value = value + _read(residual, s * r_row + v, V - v)
            _write(y, s * y_row + v, limited(value, low, high), V - v, streamed)


@kernel("void(const T[:,:], i8, T[:,:,::1])", parallel=True)
def batch_moments_rows(x, rows, moments):
    """Fill moments (B, 3, V) of the blocks of x (S, V), for `merge_block_moments`."""
    B = len(moments)
    for i in prange(B):                 # backwards: the layer before wrote the last block last, and what follows begins with the first
        b = B - 1 - np.int64(i)
        _moments(x, b * rows, min((b + 1) * rows, x.shape[0]), moments[b])


@kernel("void(const T[:,:], const T[::1], const T[::1], const T[:,:], T[:,::1], T[:,::1], f8, i8, f4, f4, b1, b1, T[:,:,::1], T[:,:])",
        parallel=True)
def batch_norm_forward_rows(x, weight, bias, residual, mean, variance, epsilon, rows, low, high, streamed, backwards, coefficients, y):
    """Fill y by mean and variance (1, C). x, y and residual (S, V), coefficients (1, 3, V or more)."""
    S, C = x.shape[0], len(weight)
    B = (S + rows - 1) // rows
    for c in prange(C):
        forward_coefficients(weight, bias, mean, variance, epsilon, 0, np.int64(c), coefficients[0])
    for i in prange(B):
        b = B - 1 - np.int64(i) if backwards else np.int64(i)
        _normalize(x, b * rows, min((b + 1) * rows, S), coefficients, residual, low, high, streamed, y)


@worker(inline=True)
def _passed(gradient, value, low, high):
    """The gradient where the value lies inside of the limits or is a NaN."""
    gradient = select(value <= low, np.float32(0), gradient)
    return select(value >= high, np.float32(0), gradient)


@worker(inline=True)
def _gradient(grad_y, g, x, a, v, left, coefficients, pitch, low, high, told_by):
    """(g, x - mean) of a vector; where y tells, grad_y holds g already."""
    deviation, gradient = _read(x, a, left) - load(coefficients, v), _read(grad_y, g, left)
    if told_by == FROM_X:
        value = fma(deviation, load(coefficients, SCALE * pitch + v), load(coefficients, SHIFT * pitch + v))
        gradient = _passed(gradient, value, low, high)
    return gradient, deviation


@worker
def _gradient_sums(grad_y, y, x, begin, end, coefficients, low, high, told_by, grad_residual, sums, products):
    """Of every column: the sums of g and of g * (x - mean), in float64; g itself where y tells."""
    out_of_line()
    V, row, g_row, pitch = x.shape[1], x.strides[0] // 4, grad_y.strides[0] // 4, coefficients.shape[2]
    y_row, r_row = y.strides[0] // 4, grad_residual.strides[0] // 4
    first, second = np.zeros(V + L, np.float32), np.zeros(V + L, np.float32)
    for s in range(begin, end):
        for v in range(0, V, L):
            left = V - v
            gradient, deviation = _gradient(grad_y, s * g_row + v, x, s * row + v, v, left, coefficients, pitch, low, high, told_by)
            if told_by == FROM_Y:
                gradient = _passed(gradient, _read(y, s * y_row + v, left), low, high)
                _write(grad_residual, s * r_row + v, gradient, left, False)
            store(first, v, load(first, v) + gradient)
            store(second, v, fma(gradient, deviation, load(second, v)))
    for v in range(V):
        sums[v], products[v] = first[v], second[v]


@worker
def _combine(grad_y, x, begin, end, coefficients, low, high, told_by, streamed, grad_x):
    """grad_x = g * of_gradient + (x - mean) * of_deviation + constant; grad_y is g where y told."""
    out_of_line()
    V, row, g_row, target, pitch = x.shape[1], x.strides[0] // 4, grad_y.strides[0] // 4, grad_x.strides[0] // 4, coefficients.shape[2]
    for s in range(begin, end):
        for v in range(0, V, L):
            left = V - v
            gradient, deviation = _gradient(grad_y, s * g_row + v, x, s * row + v, v, left, coefficients, pitch, low, high, told_by)
            rest = fma(deviation, load(coefficients, OF_DEVIATION * pitch + v), load(coefficients, CONSTANT * pitch + v))
            _write(grad_x, s * target + v, fma(gradient, load(coefficients, OF_GRADIENT * pitch + v), rest), left, streamed)


@kernel("void(const T[:,:], const T[:,:], const T[:,:], const T[::1], const T[::1], const T[:,::1], const T[:,::1], f8, i8, f4, f4, i8, "
        "b1, f8[:,:,:,::1], T[:,:,::1], T[:,:], T[::1], T[::1], T[:,:])", parallel=True)
def batch_norm_backward_rows(grad_y, y, x, weight, bias, mean, variance, epsilon, rows, low, high, told_by, streamed, partial, coefficients,
                             grad_x, grad_weight, grad_bias, grad_residual):
    """Fill the gradients; coefficients (1, 7, V or more)."""
    S, V = x.shape
    B, C = partial.shape[1], len(weight)
    for c in prange(C):
        forward_coefficients(weight, bias, mean, variance, epsilon, 0, np.int64(c), coefficients[0, :3])
    for i in prange(B):                 # backwards, as above
        b = B - 1 - np.int64(i)
        _gradient_sums(grad_y, y, x, b * rows, min((b + 1) * rows, S), coefficients, low, high, told_by, grad_residual, partial[0, b, 0],
                       partial[0, b, 1])
    for c in prange(C):
        backward_coefficients(partial, weight, mean, variance, epsilon, S * (V // C), np.int64(c), coefficients[:, 3:], grad_weight,
                              grad_bias)
    masked = grad_residual if told_by == FROM_Y else grad_y
    for b in prange(B):
        _combine(masked, x, np.int64(b) * rows, min((np.int64(b) + 1) * rows, S), coefficients, low, high, told_by, streamed, grad_x)


def _rows(*maps) -> list[np.ndarray]:
    """Each map (N, C, ...) as (S, V), all with the same rows: a view where pixels are evenly far apart, else a copy."""
    last = [pixels(m) for m in maps]
    C = last[0].shape[-1]
    pixel_count = last[0].size // C
    fold = fold_rows(pixel_count, C) if all(m.flags.c_contiguous for m in last) else 1
    return [m.reshape(pixel_count // fold, fold * C) for m in last]


def _finish(rows, out) -> None:
    """Bring rows into `out` where they are a copy of it."""
    if not np.may_share_memory(rows, out):
        filled = pixels(out)
        np.copyto(filled, rows.reshape(filled.shape))
        finish_pixels(filled, out)


def _is_streamed(rows) -> bool:
    """Whether a result is larger than caches, and aligned."""
    width = 4 * L
    return rows.nbytes > cache_sizes().l3 // 2 and rows.ctypes.data % width == 0 and rows.strides[0] % width == 0


def moments_of_map(x, mean, variance) -> None:
    """Fill mean and variance (C,)."""
    if not x.size:
        mean.fill(np.nan)
        variance.fill(np.nan)
        return
    x_rows, = _rows(x)
    S, V = x_rows.shape
    rows = block_rows(S, V)
    counts = block_counts(S, rows)
    moments = np.empty((len(counts), 3, V), F32)
    batch_moments_rows(x_rows, rows, moments)
    merge_block_moments(moments, counts, mean, variance)


def normalize(x, weight, bias, residual, mean, variance, epsilon, low, high, out, backwards: bool) -> None:
    """Fill `out` by mean and variance; `backwards` where the end of x was written or read last, and is in a cache."""
    if not x.size:
        return
    x_rows, y_rows, *added = _rows(x, out, *(() if residual is None else (residual,)))
    S, V = x_rows.shape
    batch_norm_forward_rows(x_rows, *_affine(weight, bias, x.shape[1]), added[0] if added else NO_ROWS, mean[None], variance[None], epsilon,
                            block_rows(S, V), low, high, _is_streamed(y_rows), backwards, _coefficients(3, V), y_rows)
    _finish(y_rows, out)


def backward(grad_y, y, x, weight, bias, mean, variance, epsilon, low, high, out) -> None:
    """`out`: grad_x, grad_weight, grad_bias, grad_residual, the last None where y is."""
    grad_x, grad_weight, grad_bias, grad_residual = out
    C = x.shape[1]
    if not x.size:
        grad_weight.fill(0)
        grad_bias.fill(0)
        return
    told_by = FROM_Y if y is not None else FROM_X if low > -np.inf or high < np.inf else 0
    x_rows, g_rows, out_rows, *told = _rows(x, grad_y, grad_x, *(() if y is None else (y, grad_residual)))
    S, V = x_rows.shape
    rows = block_rows(S, V)
    y_rows, residual_rows = told or (NO_ROWS, NO_ROWS)
    partial = np.empty((1, -(-S // rows), 2, V))
    batch_norm_backward_rows(g_rows, y_rows, x_rows, *_affine(weight, bias, C), mean[None], variance[None], epsilon, rows, low, high,
                             told_by, _is_streamed(out_rows), partial, _coefficients(7, V), out_rows, grad_weight, grad_bias,
                             residual_rows)
    _finish(out_rows, grad_x)
    if grad_residual is not None:
        _finish(residual_rows, grad_residual)


def _affine(weight, bias, channels: int) -> tuple[np.ndarray, np.ndarray]:
    return (np.ascontiguousarray(vector_or_constant(weight, channels, 1, F32)),
            np.ascontiguousarray(vector_or_constant(bias, channels, 0, F32)))


def _coefficients(count: int, V: int) -> np.ndarray:
    """Whole vectors of columns; those beyond V are of channels too."""
    return np.empty((1, count, -(-V // L) * L), F32)


@implements
def batch_norm_forward(x, weight, bias, epsilon, out):
    batch_norm_fused_forward(x, weight, bias, None, epsilon, None, None, out)


@implements
def batch_norm_fused_forward(x, weight, bias, residual, epsilon, minimum, maximum, out):
    y, mean, variance = out
    if x.dtype == F32:
        moments_of_map(x, mean, variance)
        normalize(x, weight, bias, residual, mean, variance, epsilon, *limits(minimum, maximum), y, backwards=False)
        return
    channels.forward(x, weight, bias, epsilon, 1, False, mean[None], variance[None], y)
    _finish_plain(y, residual, minimum, maximum)


@implements
def batch_norm_given_forward(x, weight, bias, residual, mean, variance, epsilon, minimum, maximum, out):
    if x.dtype == F32:
        normalize(x, weight, bias, residual, mean, variance, epsilon, *limits(minimum, maximum), out, backwards=True)
        return
    channels.forward(x, weight, bias, epsilon, 1, True, mean[None], variance[None], out)
    _finish_plain(out, residual, minimum, maximum)


def _finish_plain(y, residual, minimum, maximum) -> None:
    if residual is not None:
        np.add(y, residual, out=y)
    np.clip(y, minimum, maximum, out=y)


@implements
def batch_norm_backward(grad_y, x, weight, mean, variance, epsilon, out):
    batch_norm_fused_backward(grad_y, None, x, weight, None, mean, variance, epsilon, None, None, (*out, None))


@implements
def batch_norm_fused_backward(grad_y, y, x, weight, bias, mean, variance, epsilon, minimum, maximum, out):
    low, high = limits(minimum, maximum)
    if x.dtype == F32:
        backward(grad_y, y, x, weight, bias, mean, variance, epsilon, low, high, out)
        return
    *gradients, grad_residual = out
    if (minimum, maximum) != (None, None):
        told = y
        if told is None:
            told = np.empty_like(x)
            channels.forward(x, weight, bias, epsilon, 1, True, mean[None], variance[None], told)
        grad_y = np.where((told <= low) | (told >= high), 0, grad_y)
    if grad_residual is not None:
        grad_residual[...] = grad_y
    channels.backward(grad_y, x, weight, mean[None], variance[None], epsilon, 1, False, gradients)
