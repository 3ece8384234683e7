"""Losses between two arrays of one shape: one kernel a direction, the formula chosen chunk by chunk.

x (E,) input, t (E,) target, d = x - t, p the loss's parameter, w and v weights (E,) or empty; E elements in chunks of
CHUNK. A chunk's losses stay in the first-level cache until they are summed, in double precision; the sums of the chunks
are added in order, so that the result does not depend on the number of threads.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange
from numbanet.backends.contract.loss import ELEMENTWISE_LOSSES, probability_error
from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.registry import implements

CHUNK = 4096
MSE, L1, SMOOTH_L1, HUBER, BCE, BCE_WITH_LOGITS, KL_DIV, KL_DIV_LOG = range(len(ELEMENTWISE_LOSSES))


@worker
def losses_of(x, t, v, kind, p, y):
    """y = the losses of a chunk."""
    half, one = y.dtype.type(0.5), y.dtype.type(1)
    if kind == MSE:
        for i in range(x.size):
            y[i] = (x[i] - t[i]) * (x[i] - t[i])
    elif kind == L1 or (kind == SMOOTH_L1 and p == 0):
        for i in range(x.size):
            y[i] = abs(x[i] - t[i])
    elif kind == SMOOTH_L1:
        for i in range(x.size):
            d = abs(x[i] - t[i])
            y[i] = half * d * d / p if d < p else d - half * p
    elif kind == HUBER:
        for i in range(x.size):
            d = abs(x[i] - t[i])
            y[i] = half * d * d if d < p else p * (d - half * p)
    elif kind == BCE:
        lowest = y.dtype.type(-100)
        for i in range(x.size):
            y[i] = -(t[i] * max(math.log(x[i]), lowest) + (one - t[i]) * max(math.log(one - x[i]), lowest))
    elif kind == BCE_WITH_LOGITS:
        for i in range(x.size):
            softplus = math.log1p(math.exp(-abs(x[i]))) + (-x[i] if x[i] < 0 else 0 * one)     # log(1 + exp(-x))
            positive = one + (v[i] - one) * t[i] if v.size else one
            y[i] = (one - t[i]) * x[i] + positive * softplus
    elif kind == KL_DIV:
        for i in range(x.size):
            y[i] = (t[i] * math.log(t[i]) if t[i] != 0 else 0 * one) - t[i] * x[i]
    else:
        for i in range(x.size):
            y[i] = math.exp(t[i]) * (t[i] - x[i])


@worker
def derivatives_of(x, t, v, kind, p, y):
    """y = the derivatives of a chunk's losses with respect to x."""
    zero, one = y.dtype.type(0), y.dtype.type(1)
    if kind == MSE:
        for i in range(x.size):
            y[i] = (x[i] - t[i]) + (x[i] - t[i])
    elif kind == L1 or (kind == SMOOTH_L1 and p == 0):
        for i in range(x.size):
            d = x[i] - t[i]
            y[i] = one if d > 0 else -one if d < 0 else d
    elif kind == SMOOTH_L1 or kind == HUBER:
        bound = one if kind == SMOOTH_L1 else p
        scale = p if kind == SMOOTH_L1 else one
        for i in range(x.size):
            d = (x[i] - t[i]) / scale
            y[i] = bound if d > bound else -bound if d < -bound else d
    elif kind == BCE:
        smallest = y.dtype.type(1e-12)
        for i in range(x.size):
            y[i] = (x[i] - t[i]) / max((one - x[i]) * x[i], smallest)
    elif kind == BCE_WITH_LOGITS:
        for i in range(x.size):
            positive = one + (v[i] - one) * t[i] if v.size else one
            y[i] = (one - t[i]) - positive / (one + math.exp(x[i]))
    elif kind == KL_DIV:
        for i in range(x.size):
            y[i] = zero - t[i]
    else:
        for i in range(x.size):
            y[i] = -math.exp(t[i])


@worker
def total_of(y):
    """The sum of a chunk, in four interleaved parts."""
    a, b, c, d = 0.0, 0.0, 0.0, 0.0
    whole = y.size // 4 * 4
    for i in range(0, whole, 4):
        a += y[i]
        b += y[i + 1]
        c += y[i + 2]
        d += y[i + 3]
    for i in range(whole, y.size):
        a += y[i]
    return (a + b) + (c + d)


@kernel("f8(const T[::1], const T[::1], const T[::1], const T[::1], i8, T, T[::1])", dtypes=("float32", "float64"),
        parallel=True)
def elementwise_loss_forward_chunks(x, t, w, v, kind, p, losses):
    """Returns the sum; fills `losses` unless it is empty."""
    tasks = (x.size + CHUNK - 1) // CHUNK
    sums = np.zeros(tasks)
    for task in prange(tasks):
        begin, end = task * CHUNK, min(x.size, (task + 1) * CHUNK)
        y = losses[begin:end] if losses.size else np.empty_like(x[begin:end])
        losses_of(x[begin:end], t[begin:end], v[begin:end], kind, p, y)
        if w.size:
            for i in range(begin, end):
                y[i - begin] *= w[i]
        sums[task] = total_of(y)
    total = 0.0
    for task in range(tasks):
        total += sums[task]
    return total


@kernel("void(const T[::1], const T[::1], const T[::1], const T[::1], const T[::1], i8, T, T[::1])",
        dtypes=("float32", "float64"), parallel=True)
def elementwise_loss_backward_chunks(g, x, t, w, v, kind, p, grad_x):
    """`g` holds one number for all elements, or one each."""
    for task in prange((x.size + CHUNK - 1) // CHUNK):
        begin, end = task * CHUNK, min(x.size, (task + 1) * CHUNK)
        derivatives_of(x[begin:end], t[begin:end], v[begin:end], kind, p, grad_x[begin:end])
        if w.size:
            for i in range(begin, end):
                grad_x[i] *= w[i]
        if g.size == 1:
            for i in range(begin, end):
                grad_x[i] *= g[0]
        else:
            for i in range(begin, end):
                grad_x[i] *= g[i]


def _flat(array, order, shape, dtype):
    """The elements in the given memory order; none for None."""
    if array is None:
        return np.empty(0, dtype)
    return np.ascontiguousarray(np.broadcast_to(array, shape).transpose(order)).reshape(-1)


def _memory_order(x):
    return sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis]))


@implements
def elementwise_loss_forward(x, target, weight, pos_weight, kind, parameter, reduction, out):
    if kind == "bce" and x.size and not (x.min() >= 0 and x.max() <= 1) and not np.isnan(x).any():
        raise probability_error(x.min() if x.min() < 0 else x.max())
    order = _memory_order(x)
    flat = [_flat(a, order, x.shape, x.dtype) for a in (x, target, weight, pos_weight)]
    losses = np.empty(x.size if reduction == "none" else 0, x.dtype)
    total = elementwise_loss_forward_chunks(*flat, ELEMENTWISE_LOSSES.index(kind), parameter, losses)
    if reduction == "none":
        np.copyto(out.transpose(order), losses.reshape([x.shape[a] for a in order]))
    else:
        out[...] = total if reduction == "sum" else total / x.size if x.size else math.nan


@implements
def elementwise_loss_backward_input(grad_loss, x, target, weight, pos_weight, kind, parameter, reduction, out):
    order = _memory_order(out)
    flat = [_flat(a, order, x.shape, x.dtype) for a in (x, target, weight, pos_weight)]
    if reduction == "none":
        g = _flat(grad_loss, order, x.shape, x.dtype)
    else:
        g = np.asarray(grad_loss / max(x.size, 1) if reduction == "mean" else grad_loss, x.dtype).reshape(1)
    target_order = out.transpose(order)
    contiguous = target_order.flags.c_contiguous
    grad_x = target_order.reshape(-1) if contiguous else np.empty(x.size, x.dtype)
    elementwise_loss_backward_chunks(g, *flat, ELEMENTWISE_LOSSES.index(kind), parameter, grad_x)
    if not contiguous:
        np.copyto(target_order, grad_x.reshape(target_order.shape))
