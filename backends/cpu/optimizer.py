"""Optimiser updates: every array is read and written once. See `contract/optimizer.py` for the formulas.

p parameter, g gradient, m first moment or momentum, v second moment, all (E,) and contiguous; absent ones are empty.
Elements are independent, so large arrays go to the threads in chunks, in any order. The loops are plain: LLVM
vectorises them.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.registry import implements
from numbanet.backends.interface import order_of

CHUNK = 32768       # elements of a task
SERIAL = 65536      # elements up to which one thread is as fast: its arrays lie in its second-level cache
DTYPES = ("float32", "float64")
ABSENT = {np.dtype(name): np.empty(0, name) for name in DTYPES}


@worker
def sgd_chunk(p, g, m, lr, momentum, kept, weight_decay, nesterov, scale, begin, end):
    """`kept` = 1 - dampening."""
    if m.size:
        for i in range(begin, end):
            gradient = scale * g[i] + weight_decay * p[i]
            m[i] = momentum * m[i] + kept * gradient
            p[i] -= lr * (gradient + momentum * m[i] if nesterov else m[i])
    else:
        for i in range(begin, end):
            p[i] -= lr * (scale * g[i] + weight_decay * p[i])


@kernel("void(T[::1], const T[::1], T[::1], T, T, T, T, b1, T)", dtypes=DTYPES, parallel=True)
def sgd_update_chunks(p, g, m, lr, momentum, kept, weight_decay, nesterov, scale):
    if p.size <= SERIAL:
        sgd_chunk(p, g, m, lr, momentum, kept, weight_decay, nesterov, scale, 0, p.size)
    else:
        for task in prange((p.size + CHUNK - 1) // CHUNK):
            begin, end = task * CHUNK, min(p.size, (task + 1) * CHUNK)
            sgd_chunk(p, g, m, lr, momentum, kept, weight_decay, nesterov, scale, begin, end)


@worker
def rmsprop_chunk(p, g, v, a, m, lr, alpha, rest, eps, weight_decay, momentum, scale, begin, end):
    """`rest` = 1 - alpha; `a` is the gradient's average."""
    for i in range(begin, end):
        gradient = scale * g[i] + weight_decay * p[i]
        v[i] = alpha * v[i] + rest * gradient * gradient
        variance = v[i]
        if a.size:
            a[i] += rest * (gradient - a[i])
            variance -= a[i] * a[i]
        update = gradient / (math.sqrt(variance) + eps)
        if m.size:
            m[i] = momentum * m[i] + update
            update = m[i]
        p[i] -= lr * update


@kernel("void(T[::1], const T[::1], T[::1], T[::1], T[::1], T, T, T, T, T, T, T)", dtypes=DTYPES, parallel=True)
def rmsprop_update_chunks(p, g, v, a, m, lr, alpha, rest, eps, weight_decay, momentum, scale):
    if p.size <= SERIAL:
        rmsprop_chunk(p, g, v, a, m, lr, alpha, rest, eps, weight_decay, momentum, scale, 0, p.size)
    else:
        for task in prange((p.size + CHUNK - 1) // CHUNK):
            begin, end = task * CHUNK, min(p.size, (task + 1) * CHUNK)
            rmsprop_chunk(p, g, v, a, m, lr, alpha, rest, eps, weight_decay, momentum, scale, begin, end)


@worker
def adam_chunk(p, g, m, v, highest, keep, weight_decay, rest1, beta2, rest2, root, eps, step_size, scale, begin, end):
    """`keep` = 1 - lr * (decoupled decay), rest = 1 - beta; `root`, `step_size` carry the corrections of the bias."""
    if highest.size:
        for i in range(begin, end):
            gradient = scale * g[i] + weight_decay * p[i]
            m[i] += rest1 * (gradient - m[i])
            v[i] = beta2 * v[i] + rest2 * gradient * gradient
            highest[i] = highest[i] if highest[i] > v[i] else v[i]
            p[i] = keep * p[i] - step_size * m[i] / (math.sqrt(highest[i]) / root + eps)
    else:
        for i in range(begin, end):
            gradient = scale * g[i] + weight_decay * p[i]
            m[i] += rest1 * (gradient - m[i])
            v[i] = beta2 * v[i] + rest2 * gradient * gradient
            p[i] = keep * p[i] - step_size * m[i] / (math.sqrt(v[i]) / root + eps)


@kernel("void(T[::1], const T[::1], T[::1], T[::1], T[::1], T, T, T, T, T, T, T, T, T)", dtypes=DTYPES, parallel=True)
def adam_update_chunks(p, g, m, v, highest, keep, weight_decay, rest1, beta2, rest2, root, eps, step_size, scale):
    if p.size <= SERIAL:
        adam_chunk(p, g, m, v, highest, keep, weight_decay, rest1, beta2, rest2, root, eps, step_size, scale, 0, p.size)
    else:
        for task in prange((p.size + CHUNK - 1) // CHUNK):
            begin, end = task * CHUNK, min(p.size, (task + 1) * CHUNK)
            adam_chunk(p, g, m, v, highest, keep, weight_decay, rest1, beta2, rest2, root, eps, step_size, scale, begin,
                       end)


def _update(run, operands, *scalars):
    """Run over the elements of each parameter in its memory order; arrays that lie otherwise are copied, and back.

    `operands`: lists with one array per parameter, the parameters' first and the gradients' second, or empty ones.
    """
    parameters = operands[0]
    if not parameters:
        return
    absent = [ABSENT[parameters[0].dtype]] * len(parameters)
    for arrays in zip(*[arrays or absent for arrays in operands]):
        flat = [x.ravel() for x in arrays if x.flags.c_contiguous]
        if len(flat) == len(arrays):
            run(*flat, *scalars)
        else:
            _update_in_order(run, arrays, *scalars)


def _update_in_order(run, arrays, *scalars):
    """As `_update`, for one parameter whose arrays are not all contiguous."""
    order = order_of(arrays[0]) or range(arrays[0].ndim)
    views = [x.transpose(order) if x.ndim == len(order) and x.shape == arrays[0].shape else x for x in arrays]
    dense = [np.ascontiguousarray(x) for x in views]
    run(*[x.reshape(-1) for x in dense], *scalars)
    for position, (view, copy) in enumerate(zip(views, dense)):
        if position != 1 and not np.may_share_memory(view, copy):       # 1: the gradient is only read
            view[...] = copy


@implements
def sgd_update(parameters, grads, momentum_buffers, lr, momentum, dampening, weight_decay, nesterov, scale):
    _update(sgd_update_chunks, (parameters, grads, momentum_buffers), lr, momentum, 1 - dampening, weight_decay, nesterov, scale)


@implements
def rmsprop_update(parameters, grads, square_avgs, grad_avgs, momentum_buffers, lr, alpha, eps, weight_decay, momentum, scale):
    _update(rmsprop_update_chunks, (parameters, grads, square_avgs, grad_avgs, momentum_buffers), lr, alpha, 1 - alpha, eps,
            weight_decay, momentum, scale)


@implements
def adam_update(parameters, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, lr, beta1, beta2, eps, weight_decay, decoupled, step, scale):
    keep, decay = (1 - lr * weight_decay, 0.0) if decoupled else (1.0, weight_decay)
    _update(adam_update_chunks, (parameters, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs), keep, decay, 1 - beta1, beta2,
            1 - beta2, math.sqrt(1 - beta2 ** step), eps, lr / (1 - beta1 ** step), scale)
