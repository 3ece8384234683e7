"""Losses between two arrays of one shape: one kernel a direction, the formula chosen chunk by chunk.

x (E,) input, t (E,) target, d = x - t, p the loss's parameter, w and v weights (E,) or empty; E elements in chunks of
CHUNK. A chunk's losses stay in the first-level cache until they are summed; the sums of the chunks are added in order,
in double precision, so that the result does not depend on the number of threads. Losses of d are plain loops that LLVM
vectorises; those with logarithms are written over SIMD vectors in float32.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from numbanet.backends.contract.loss import ELEMENTWISE_LOSSES, probability_error
from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.registry import implements
from numbanet.backends.cpu.simd import (
    L,
    absolute,
    exp,
    load,
    load_partial,
    log,
    log1p,
    maximum,
    reduce_add,
    select,
    sigmoid,
    splat,
    store_partial,
)

CHUNK = 2048        # 8 KB of float32
MSE, L1, SMOOTH_L1, HUBER, BCE, BCE_WITH_LOGITS, KL_DIV, KL_DIV_LOG = range(len(ELEMENTWISE_LOSSES))


# --- losses of d = x - t, either dtype ------------------------------------------------------------------------------

@worker
def difference_losses(x, t, kind, p, y):
    """y = the losses of a chunk."""
    half = y.dtype.type(0.5)
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
    else:
        for i in range(x.size):
            d = abs(x[i] - t[i])
            y[i] = half * d * d if d < p else p * (d - half * p)


@worker
def difference_derivatives(x, t, kind, p, y):
    """y = the derivatives of a chunk's losses with respect to x."""
    one = y.dtype.type(1)
    if kind == MSE:
        for i in range(x.size):
            y[i] = (x[i] - t[i]) + (x[i] - t[i])
    elif kind == L1 or (kind == SMOOTH_L1 and p == 0):
        for i in range(x.size):
            d = x[i] - t[i]
            y[i] = one if d > 0 else -one if d < 0 else d
    else:
        bound, scale = (one, p) if kind == SMOOTH_L1 else (p, one)
        for i in range(x.size):
            d = (x[i] - t[i]) / scale
            y[i] = bound if d > bound else -bound if d < -bound else d


# --- losses with logarithms, float32 --------------------------------------------------------------------------------

@worker
def positive_weights(t, v, i, count):
    """1 + (v - 1) t: what multiplies log(1 + exp(-x)) in the binary cross-entropy."""
    if v.size == 0:
        return splat(1.0)
    return (load_partial(v, i, count) - 1.0) * t + 1.0


@worker
def logarithm_losses(x, t, v, kind, y):
    """y = the losses of a chunk."""
    E = y.size
    if kind == BCE:
        for i in range(0, E, L):
            count = min(L, E - i)
            xs, ts = load_partial(x, i, count), load_partial(t, i, count)
            one_minus = splat(1.0) - ts
            both = ts * maximum(log(xs), -100.0) + one_minus * maximum(log(splat(1.0) - xs), -100.0)
            store_partial(y, i, -both, count)
    elif kind == BCE_WITH_LOGITS:
        for i in range(0, E, L):
            count = min(L, E - i)
            xs, ts = load_partial(x, i, count), load_partial(t, i, count)
            softplus = log1p(exp(-absolute(xs))) + maximum(-xs, 0.0)               # log(1 + exp(-x))
            store_partial(y, i, (splat(1.0) - ts) * xs + positive_weights(ts, v, i, count) * softplus, count)
    elif kind == KL_DIV:
        for i in range(0, E, L):
            count = min(L, E - i)
            ts = load_partial(t, i, count)
            entropy = select(ts == 0.0, splat(0.0), ts * log(ts))
            store_partial(y, i, entropy - ts * load_partial(x, i, count), count)
    else:
        for i in range(0, E, L):
            count = min(L, E - i)
            ts = load_partial(t, i, count)
            store_partial(y, i, exp(ts) * (ts - load_partial(x, i, count)), count)


@worker
def logarithm_derivatives(x, t, v, kind, y):
    """y = the derivatives of a chunk's losses with respect to x."""
    E = y.size
    if kind == BCE:
        for i in range(0, E, L):
            count = min(L, E - i)
            xs = load_partial(x, i, count)
            slope = maximum((splat(1.0) - xs) * xs, 1e-12)
            store_partial(y, i, (xs - load_partial(t, i, count)) / slope, count)
    elif kind == BCE_WITH_LOGITS:
        for i in range(0, E, L):
            count = min(L, E - i)
            xs, ts = load_partial(x, i, count), load_partial(t, i, count)
            store_partial(y, i, (splat(1.0) - ts) - positive_weights(ts, v, i, count) * sigmoid(-xs), count)
    elif kind == KL_DIV:
        for i in range(0, E, L):
            count = min(L, E - i)
            store_partial(y, i, -load_partial(t, i, count), count)
    else:
        for i in range(0, E, L):
            count = min(L, E - i)
            store_partial(y, i, -exp(load_partial(t, i, count)), count)


@worker
def total_of(y):
    """The sum of a chunk: four vectors, then the lanes, in a fixed order."""
    E = y.size
    a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    whole = E - E % (4 * L)
    for i in range(0, whole, 4 * L):
        a = a + load(y, i)
        b = b + load(y, i + L)
        c = c + load(y, i + 2 * L)
        d = d + load(y, i + 3 * L)
    for i in range(whole, E, L):
        a = a + load_partial(y, i, min(L, E - i))
    return reduce_add((a + b) + (c + d))


@kernel("f8(const T[::1], const T[::1], const T[::1], const T[::1], i8, T, T[::1])", parallel=True)
def elementwise_loss_forward_chunks(x, t, w, v, kind, p, losses):
    """Returns the sum; fills `losses` unless it is empty."""
    E = x.size
    tasks = (E + CHUNK - 1) // CHUNK
    sums = np.zeros(tasks)
    for task in prange(tasks):
        begin, end = task * CHUNK, min(E, (task + 1) * CHUNK)
        y = losses[begin:end] if losses.size else np.empty_like(x[begin:end])
        if kind < BCE:
            difference_losses(x[begin:end], t[begin:end], kind, p, y)
        else:
            logarithm_losses(x[begin:end], t[begin:end], v[begin:end], kind, y)
        if w.size:
            for i in range(begin, end):
                y[i - begin] *= w[i]
        sums[task] = total_of(y)
    total = 0.0
    for task in range(tasks):
        total += sums[task]
    return total


@kernel("void(const T[::1], const T[::1], const T[::1], const T[::1], const T[::1], i8, T, T[::1])", parallel=True)
def elementwise_loss_backward_chunks(g, x, t, w, v, kind, p, grad_x):
    """`g` holds one number for all elements, or one each."""
    E = x.size
    for task in prange((E + CHUNK - 1) // CHUNK):
        begin, end = task * CHUNK, min(E, (task + 1) * CHUNK)
        y = grad_x[begin:end]
        if kind < BCE:
            difference_derivatives(x[begin:end], t[begin:end], kind, p, y)
        else:
            logarithm_derivatives(x[begin:end], t[begin:end], v[begin:end], kind, y)
        if w.size:
            for i in range(begin, end):
                grad_x[i] *= w[i]
        if g.size == 1:
            for i in range(begin, end):
                grad_x[i] *= g[0]
        else:
            for i in range(begin, end):
                grad_x[i] *= g[i]


# --- float64 --------------------------------------------------------------------------------------------------------

@kernel("f8(const T[::1], const T[::1], const T[::1], const T[::1], i8, T, T[::1])", dtypes=("float64",))
def elementwise_loss_forward_double(x, t, w, v, kind, p, losses):
    """The same in plain loops, for float64."""
    y = losses if losses.size else np.empty_like(x)
    if kind < BCE:
        difference_losses(x, t, kind, p, y)
    total = 0.0
    for i in range(x.size):
        if kind == BCE:
            y[i] = -(t[i] * np.maximum(np.log(x[i]), -100.0) + (1 - t[i]) * np.maximum(np.log(1 - x[i]), -100.0))
        elif kind == BCE_WITH_LOGITS:
            softplus = math.log1p(math.exp(-abs(x[i]))) + np.maximum(-x[i], 0.0)
            y[i] = (1 - t[i]) * x[i] + (1 + (v[i] - 1) * t[i] if v.size else 1.0) * softplus
        elif kind == KL_DIV:
            y[i] = (t[i] * np.log(t[i]) if t[i] != 0 else 0.0) - t[i] * x[i]
        elif kind == KL_DIV_LOG:
            y[i] = math.exp(t[i]) * (t[i] - x[i])
        if w.size:
            y[i] *= w[i]
        total += y[i]
    return total


@kernel("void(const T[::1], const T[::1], const T[::1], const T[::1], const T[::1], i8, T, T[::1])",
        dtypes=("float64",))
def elementwise_loss_backward_double(g, x, t, w, v, kind, p, grad_x):
    """The same in plain loops, for float64."""
    if kind < BCE:
        difference_derivatives(x, t, kind, p, grad_x)
    for i in range(x.size):
        if kind == BCE:
            grad_x[i] = (x[i] - t[i]) / np.maximum((1 - x[i]) * x[i], 1e-12)
        elif kind == BCE_WITH_LOGITS:
            grad_x[i] = (1 - t[i]) - (1 + (v[i] - 1) * t[i] if v.size else 1.0) / (1 + math.exp(x[i]))
        elif kind == KL_DIV:
            grad_x[i] = -t[i]
        elif kind == KL_DIV_LOG:
            grad_x[i] = -math.exp(t[i])
        if w.size:
            grad_x[i] *= w[i]
        grad_x[i] *= g[i if g.size > 1 else 0]


def _flat(array, order, shape, dtype):
    """The elements in the given memory order; none for None."""
    if array is None:
        return np.empty(0, dtype)
    return np.ascontiguousarray(np.broadcast_to(array, shape).transpose(order)).reshape(-1)


def _memory_order(x):
    return sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis]))


@implements
def elementwise_loss_forward(x, target, weight, pos_weight, kind, parameter, reduction, out):
    if kind == "bce" and (wrong := (x < 0) | (x > 1)).any():
        raise probability_error(x[wrong][0])
    order = _memory_order(x)
    flat = [_flat(a, order, x.shape, x.dtype) for a in (x, target, weight, pos_weight)]
    losses = np.empty(x.size if reduction == "none" else 0, x.dtype)
    run = elementwise_loss_forward_chunks if x.dtype == np.float32 else elementwise_loss_forward_double
    total = run(*flat, ELEMENTWISE_LOSSES.index(kind), parameter, losses)
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
    run = elementwise_loss_backward_chunks if x.dtype == np.float32 else elementwise_loss_backward_double
    run(g, *flat, ELEMENTWISE_LOSSES.index(kind), parameter, grad_x)
    if not contiguous:
        np.copyto(target_order, grad_x.reshape(target_order.shape))
