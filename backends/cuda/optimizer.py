"""Optimiser updates, one thread an element, in place (see `contract/optimizer.py` for the formulas)."""

from __future__ import annotations

import math

from numbanet.backends.cuda.compile import kernel
from numbanet.backends.cuda.index import offset, thread, threads
from numbanet.backends.cuda.launch import launch
from numbanet.backends.cuda.layout import merged
from numbanet.backends.cuda.mathematics import larger
from numbanet.backends.cuda.pointwise import numbers
from numbanet.backends.cuda.registry import implements


@kernel
def sgd_kernel(parameter, grad, buffer, has_buffer, nesterov, scalars, total, shape, steps, grad_steps, buffer_steps):
    lr, momentum, gain, weight_decay, scale = scalars
    for i in range(thread(), total, threads()):
        place = offset(i, shape, steps)
        p = parameter[place]
        g = scale * grad[offset(i, shape, grad_steps)] + weight_decay * p
        if has_buffer:
            at = offset(i, shape, buffer_steps)
            m = momentum * buffer[at] + gain * g
            buffer[at] = m
            g = g + momentum * m if nesterov else m
        parameter[place] = p - lr * g


@kernel
def rmsprop_kernel(parameter, grad, square_avg, grad_avg, buffer, is_centered, has_buffer, scalars, total, shape, steps, grad_steps,
                   square_steps, avg_steps, buffer_steps):
    lr, alpha, gain, eps, weight_decay, momentum, scale = scalars
    for i in range(thread(), total, threads()):
        place, square_place = offset(i, shape, steps), offset(i, shape, square_steps)
        p = parameter[place]
        g = scale * grad[offset(i, shape, grad_steps)] + weight_decay * p
        variance = alpha * square_avg[square_place] + gain * g * g
        square_avg[square_place] = variance
        if is_centered:
            at = offset(i, shape, avg_steps)
            mean = grad_avg[at] + gain * (g - grad_avg[at])
            grad_avg[at] = mean
            variance = variance - mean * mean
        update = g / (math.sqrt(variance) + eps)
        if has_buffer:
            at = offset(i, shape, buffer_steps)
            update = momentum * buffer[at] + update
            buffer[at] = update
        parameter[place] = p - lr * update


@kernel
def adam_kernel(parameter, grad, exp_avg, exp_avg_sq, highest, has_highest, scalars, total, shape, steps, grad_steps, avg_steps,
                square_steps, highest_steps):
    kept, l2, scale, gain1, beta2, gain2, correction2, eps, rate = scalars
    for i in range(thread(), total, threads()):
        place, avg_place, square_place = offset(i, shape, steps), offset(i, shape, avg_steps), offset(i, shape, square_steps)
        p = parameter[place] * kept                     # decoupled weight decay; else kept is 1 and l2 the decay
        g = scale * grad[offset(i, shape, grad_steps)] + l2 * p
        m = exp_avg[avg_place] + gain1 * (g - exp_avg[avg_place])
        v = beta2 * exp_avg_sq[square_place] + gain2 * g * g
        exp_avg[avg_place], exp_avg_sq[square_place] = m, v
        if has_highest:
            at = offset(i, shape, highest_steps)
            v = larger(highest[at], v)
            highest[at] = v
        parameter[place] = p - rate * m / (math.sqrt(v) / correction2 + eps)


def _launch_each(kernel_of, flags, scalars, parameters, *states) -> None:
    """A launch a parameter; state that there is not is the parameter itself, which the kernel then does not touch."""
    for position, parameter in enumerate(parameters):
        arrays = [parameter, *[state[position] if state else parameter for state in states]]
        shape, *steps = merged(parameter.shape, *[x.steps for x in arrays])
        launch(kernel_of, parameter.size, *arrays, *flags, numbers(scalars, parameter.dtype), parameter.size, shape, *steps)


@implements
def sgd_update(parameters, grads, momentum_buffers, lr, momentum, dampening, weight_decay, nesterov, scale):
    _launch_each(sgd_kernel, (int(bool(momentum_buffers)), int(nesterov)), (lr, momentum, 1 - dampening, weight_decay, scale), parameters,
                 grads, momentum_buffers)


@implements
def rmsprop_update(parameters, grads, square_avgs, grad_avgs, momentum_buffers, lr, alpha, eps, weight_decay, momentum, scale):
    _launch_each(rmsprop_kernel, (int(bool(grad_avgs)), int(bool(momentum_buffers))),
                 (lr, alpha, 1 - alpha, eps, weight_decay, momentum, scale), parameters, grads, square_avgs, grad_avgs, momentum_buffers)


@implements
def adam_update(parameters, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, lr, beta1, beta2, eps, weight_decay, decoupled, step, scale):
    kept, l2 = (1 - lr * weight_decay, 0.0) if decoupled else (1.0, weight_decay)
    scalars = (kept, l2, scale, 1 - beta1, beta2, 1 - beta2, math.sqrt(1 - beta2 ** step), eps, lr / (1 - beta1 ** step))
    _launch_each(adam_kernel, (int(bool(max_exp_avg_sqs)),), scalars, parameters, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs)
