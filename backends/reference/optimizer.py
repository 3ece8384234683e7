"""Optimiser updates. See `contract/optimizer.py` for the formulas."""

from __future__ import annotations

import math

import numpy as np

from numbanet.backends.reference.registry import implements


def _each(parameters, *states):
    """(parameter, its state...) of each parameter; None for state that there is not."""
    return zip(parameters, *[state or [None] * len(parameters) for state in states])


@implements
def sgd_update(parameters, grads, momentum_buffers, lr, momentum, dampening, weight_decay, nesterov, scale):
    for parameter, grad, buffer in _each(parameters, grads, momentum_buffers):
        g = scale * grad + weight_decay * parameter
        if buffer is not None:
            buffer[...] = momentum * buffer + (1 - dampening) * g
            g = g + momentum * buffer if nesterov else buffer
        parameter -= lr * g


@implements
def rmsprop_update(parameters, grads, square_avgs, grad_avgs, momentum_buffers, lr, alpha, eps, weight_decay, momentum, scale):
    for parameter, grad, square_avg, grad_avg, buffer in _each(parameters, grads, square_avgs, grad_avgs, momentum_buffers):
        g = scale * grad + weight_decay * parameter
        square_avg[...] = alpha * square_avg + (1 - alpha) * g * g
        variance = square_avg
        if grad_avg is not None:
            grad_avg += (1 - alpha) * (g - grad_avg)
            variance = square_avg - grad_avg * grad_avg
        update = g / (np.sqrt(variance) + eps)
        if buffer is not None:
            buffer[...] = momentum * buffer + update
            update = buffer
        parameter -= lr * update


@implements
def adam_update(parameters, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, lr, beta1, beta2, eps, weight_decay, decoupled, step, scale):
    for parameter, grad, exp_avg, exp_avg_sq, highest in _each(parameters, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs):
        g = scale * grad
        if decoupled:
            parameter *= 1 - lr * weight_decay
        else:
            g = g + weight_decay * parameter
        exp_avg += (1 - beta1) * (g - exp_avg)
        exp_avg_sq[...] = beta2 * exp_avg_sq + (1 - beta2) * g * g
        if highest is not None:
            np.maximum(highest, exp_avg_sq, out=highest)
        denominator = np.sqrt(exp_avg_sq if highest is None else highest) / math.sqrt(1 - beta2 ** step) + eps
        parameter -= lr / (1 - beta1 ** step) * exp_avg / denominator
