"""Optimiser updates. See `contract/optimizer.py` for the formulas."""

from __future__ import annotations

import math

import numpy as np

from numbanet.backends.reference.registry import implements


@implements
def sgd_update(parameter, grad, momentum_buffer, lr, momentum, dampening, weight_decay, nesterov, scale):
    g = scale * grad + weight_decay * parameter
    if momentum_buffer is not None:
        momentum_buffer[...] = momentum * momentum_buffer + (1 - dampening) * g
        g = g + momentum * momentum_buffer if nesterov else momentum_buffer
    parameter -= lr * g


@implements
def rmsprop_update(parameter, grad, square_avg, grad_avg, momentum_buffer, lr, alpha, eps, weight_decay, momentum,
                   scale):
    g = scale * grad + weight_decay * parameter
    square_avg[...] = alpha * square_avg + (1 - alpha) * g * g
    variance = square_avg
    if grad_avg is not None:
        grad_avg += (1 - alpha) * (g - grad_avg)
        variance = square_avg - grad_avg * grad_avg
    update = g / (np.sqrt(variance) + eps)
    if momentum_buffer is not None:
        momentum_buffer[...] = momentum * momentum_buffer + update
        update = momentum_buffer
    parameter -= lr * update


@implements
def adam_update(parameter, grad, exp_avg, exp_avg_sq, max_exp_avg_sq, lr, beta1, beta2, eps, weight_decay, decoupled,
                step, scale):
    g = scale * grad
    if decoupled:
        parameter *= 1 - lr * weight_decay
    else:
        g = g + weight_decay * parameter
    exp_avg += (1 - beta1) * (g - exp_avg)
    exp_avg_sq[...] = beta2 * exp_avg_sq + (1 - beta2) * g * g
    largest = exp_avg_sq
    if max_exp_avg_sq is not None:
        np.maximum(max_exp_avg_sq, exp_avg_sq, out=max_exp_avg_sq)
        largest = max_exp_avg_sq
    denominator = np.sqrt(largest) / math.sqrt(1 - beta2 ** step) + eps
    parameter -= lr / (1 - beta1 ** step) * exp_avg / denominator
