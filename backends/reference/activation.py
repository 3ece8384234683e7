"""Activations. See `contract/activation.py` for the formulas."""

from __future__ import annotations

import math

import numpy as np

from numbanet.backends.reference.registry import implements

_erf = np.vectorize(math.erf, otypes=[np.float64])
TANH_GELU = math.sqrt(2 / math.pi), 0.044715


def _sigmoid(x):
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


def _softplus(x):
    with np.errstate(invalid="ignore"):
        return np.logaddexp(x, 0, dtype=x.dtype)


@implements
def relu_forward(x, out):
    np.maximum(x, 0, out=out)


@implements
def relu_backward_input(grad_y, y, out):
    out[...] = np.where(y <= 0, 0, grad_y)           # so NaN lets the gradient pass, as in PyTorch


@implements
def hardtanh_forward(x, minimum, maximum, out):
    out[...] = np.minimum(np.maximum(x, minimum), maximum)


@implements
def hardtanh_backward_input(grad_y, y, minimum, maximum, out):
    out[...] = np.where((y > minimum) & (y < maximum), grad_y, 0)


@implements
def leaky_relu_forward(x, slope, out):
    out[...] = np.where(x > 0, x, slope * x)


@implements
def leaky_relu_backward_input(grad_y, x, slope, out):
    out[...] = np.where(x > 0, grad_y, slope * grad_y)


@implements
def elu_forward(x, alpha, scale, out):
    out[...] = np.where(x > 0, scale * x, scale * alpha * np.expm1(np.minimum(x, 0)))


@implements
def elu_backward_input(grad_y, x, alpha, scale, out):
    out[...] = np.where(x > 0, scale * grad_y, scale * alpha * np.exp(np.minimum(x, 0)) * grad_y)


@implements
def sigmoid_forward(x, out):
    out[...] = _sigmoid(x)


@implements
def sigmoid_backward_input(grad_y, y, out):
    out[...] = grad_y * y * (1 - y)


@implements
def tanh_forward(x, out):
    np.tanh(x, out=out)


@implements
def tanh_backward_input(grad_y, y, out):
    out[...] = grad_y * (1 - y * y)


@implements
def silu_forward(x, out):
    with np.errstate(invalid="ignore"):
        out[...] = x * _sigmoid(x)


@implements
def silu_backward_input(grad_y, x, out):
    s = _sigmoid(x)
    with np.errstate(invalid="ignore"):
        out[...] = grad_y * s * (1 + x * (1 - s))


def _gelu_tanh(x):
    a, b = TANH_GELU
    return np.tanh(a * (x + b * x**3))


@implements
def gelu_forward(x, approximate, out):
    with np.errstate(invalid="ignore"):
        out[...] = x * 0.5 * (1 + (_erf(x / math.sqrt(2)) if approximate == "none" else _gelu_tanh(x)))


@implements
def gelu_backward_input(grad_y, x, approximate, out):
    if approximate == "none":
        phi, slope = 0.5 * (1 + _erf(x / math.sqrt(2))), np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    else:
        (a, b), t = TANH_GELU, _gelu_tanh(x)
        phi, slope = 0.5 * (1 + t), 0.5 * (1 - t * t) * a * (1 + 3 * b * x * x)
    with np.errstate(invalid="ignore"):
        out[...] = grad_y * (phi + x * slope)


@implements
def hardsigmoid_forward(x, out):
    out[...] = np.minimum(np.maximum(x / 6 + 0.5, 0), 1)


@implements
def hardsigmoid_backward_input(grad_y, x, out):
    out[...] = np.where((x > -3) & (x < 3), grad_y / 6, 0)


@implements
def hardswish_forward(x, out):
    with np.errstate(invalid="ignore"):
        out[...] = x * np.minimum(np.maximum(x / 6 + 0.5, 0), 1)


@implements
def hardswish_backward_input(grad_y, x, out):
    out[...] = np.where(x <= -3, 0, np.where(x >= 3, grad_y, grad_y * (x / 3 + 0.5)))


@implements
def softplus_forward(x, beta, threshold, out):
    out[...] = np.where(beta * x > threshold, x, _softplus(beta * x) / beta)


@implements
def softplus_backward_input(grad_y, x, beta, threshold, out):
    out[...] = np.where(beta * x > threshold, grad_y, grad_y * _sigmoid(beta * x))


@implements
def mish_forward(x, out):
    with np.errstate(invalid="ignore"):
        out[...] = x * np.tanh(_softplus(x))


@implements
def mish_backward_input(grad_y, x, out):
    t = np.tanh(_softplus(x))
    with np.errstate(invalid="ignore"):
        out[...] = grad_y * (t + x * _sigmoid(x) * (1 - t * t))


@implements
def log_sigmoid_forward(x, out):
    out[...] = -_softplus(-x)


@implements
def log_sigmoid_backward_input(grad_y, x, out):
    out[...] = grad_y * _sigmoid(-x)


@implements
def softsign_forward(x, out):
    with np.errstate(invalid="ignore"):
        out[...] = x / (1 + np.abs(x))


@implements
def softsign_backward_input(grad_y, x, out):
    out[...] = grad_y / (1 + np.abs(x))**2
