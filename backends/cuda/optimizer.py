"""Optimiser updates in place, one launch for all parameters (see `contract/optimizer.py` for the formulas).

The elements of all parameters are counted through (`lists.py`). Arrays of a parameter are read in memory order, so all of them have to lie
alike; a gradient or state that does not is brought into the parameter's order for the launch.
"""

from __future__ import annotations

import math

from numbanet.backends.cuda.compile import kernel
from numbanet.backends.cuda.index import grid_stride
from numbanet.backends.cuda.launch import launch
from numbanet.backends.cuda.lists import element_of, together
from numbanet.backends.cuda.mathematics import larger, square_root
from numbanet.backends.cuda.memory import DeviceArray
from numbanet.backends.cuda.pointwise import convert, new_like, numbers
from numbanet.backends.cuda.registry import implements


@kernel
def sgd_kernel(parameters, grads, buffers, starts, count, step, has_buffers, nesterov, scalars, total):
    lr, momentum, gain, weight_decay, scale = scalars
    for i in grid_stride(total):
        k, e = element_of(i, starts, count, step)
        p = parameters[k][e]
        g = scale * grads[k][e] + weight_decay * p
        if has_buffers:
            m = momentum * buffers[k][e] + gain * g
            buffers[k][e] = m
            g = g + momentum * m if nesterov else m
        parameters[k][e] = p - lr * g


@kernel
def rmsprop_kernel(parameters, grads, square_avgs, grad_avgs, buffers, starts, count, step, is_centered, has_buffers, scalars,
                   total):
    lr, alpha, gain, eps, weight_decay, momentum, scale = scalars
    for i in grid_stride(total):
        k, e = element_of(i, starts, count, step)
        p = parameters[k][e]
        g = scale * grads[k][e] + weight_decay * p
        variance = alpha * square_avgs[k][e] + gain * g * g
        square_avgs[k][e] = variance
        if is_centered:
            mean = grad_avgs[k][e] + gain * (g - grad_avgs[k][e])
            grad_avgs[k][e] = mean
            variance = variance - mean * mean
        update = g / (square_root(variance) + eps)
        if has_buffers:
            update = momentum * buffers[k][e] + update
            buffers[k][e] = update
        parameters[k][e] = p - lr * update


@kernel
def adam_kernel(parameters, grads, exp_avgs, exp_avg_sqs, highest, starts, count, step, has_highest, scalars, total):
    kept, l2, scale, gain1, beta2, gain2, correction2, eps, rate = scalars
    for i in grid_stride(total):
        k, e = element_of(i, starts, count, step)
        p = parameters[k][e] * kept                     # decoupled weight decay; else kept is 1 and l2 the decay
        g = scale * grads[k][e] + l2 * p
        m = exp_avgs[k][e] + gain1 * (g - exp_avgs[k][e])
        v = beta2 * exp_avg_sqs[k][e] + gain2 * g * g
        exp_avgs[k][e] = m
        exp_avg_sqs[k][e] = v
        if has_highest:
            v = larger(highest[k][e], v)
            highest[k][e] = v
        parameters[k][e] = p - rate * m / (square_root(v) / correction2 + eps)


def _update(kernel_of, flags: tuple[int, ...], scalars, parameters, grads, *states) -> None:
    """Launch for all parameters; state that there is not is the parameters themselves, which the kernel then does not touch."""
    chosen = [k for k, parameter in enumerate(parameters) if parameter.size]
    if not chosen:
        return
    own = [parameters[k] for k in chosen]
    aligned = [p if p.is_dense else _in_order(p, new_like(p)) for p in own]
    lists, changed = [aligned], list(zip(own, aligned))
    for is_state, arrays in ((False, grads), *[(True, state) for state in states]):
        if not arrays:
            lists.append(aligned)
            continue
        arrays = [arrays[k] for k in chosen]
        lists.append([x if x.strides == a.strides else _in_order(x, new_like(a)) for x, a in zip(arrays, aligned)])
        changed += zip(arrays, lists[-1]) if is_state else ()
    for members, step, arrays, starts, total in together(lists):
        launch(kernel_of, total, *arrays, starts, len(members), step, *flags, numbers(scalars, own[0].dtype), total)
    for given, written in changed:
        if given is not written:
            convert(written, given)


def _in_order(x: DeviceArray, like: DeviceArray) -> DeviceArray:
    convert(x, like)
    return like


@implements
def sgd_update(parameters, grads, momentum_buffers, lr, momentum, dampening, weight_decay, nesterov, scale):
    _update(sgd_kernel, (int(bool(momentum_buffers)), int(nesterov)), (lr, momentum, 1 - dampening, weight_decay, scale), parameters, grads,
            momentum_buffers)


@implements
def rmsprop_update(parameters, grads, square_avgs, grad_avgs, momentum_buffers, lr, alpha, eps, weight_decay, momentum, scale):
    _update(rmsprop_kernel, (int(bool(grad_avgs)), int(bool(momentum_buffers))), (lr, alpha, 1 - alpha, eps, weight_decay, momentum, scale),
            parameters, grads, square_avgs, grad_avgs, momentum_buffers)


@implements
def adam_update(parameters, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, lr, beta1, beta2, eps, weight_decay, decoupled, step, scale):
    kept, l2 = (1 - lr * weight_decay, 0.0) if decoupled else (1.0, weight_decay)
    scalars = (kept, l2, scale, 1 - beta1, beta2, 1 - beta2, math.sqrt(1 - beta2 ** step), eps, lr / (1 - beta1 ** step))
    _update(adam_kernel, (int(bool(max_exp_avg_sqs)),), scalars, parameters, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs)
