"""Activations: float32 in the SIMD kernels of `pointwise.py`; what is plain arithmetic in the kernel of `elementwise.py`.

float64 serves to check gradients and goes through NumPy.
"""

from __future__ import annotations

from numbanet.backends.cpu import pointwise
from numbanet.backends.cpu.elementwise import RELU, RELU_BACKWARD, SIGMOID_BACKWARD, TANH_BACKWARD, run_binary
from numbanet.backends.cpu.registry import implements
from numbanet.backends.reference import activation as numpy


def _forward(function, in_numpy, x, parameters, out):
    if x.dtype.char == "f":
        pointwise.run_forward(function, x, out, *parameters)
    else:
        in_numpy(x, *parameters, out)


def _backward(function, in_numpy, grad_y, saved, parameters, out):
    if saved.dtype.char == "f":
        pointwise.run_backward(function, grad_y, saved, out, *parameters)
    else:
        in_numpy(grad_y, saved, *parameters, out)


def _binary(function, in_numpy, a, b, out):
    if a.dtype.char == "f":
        run_binary(function, a, b, out)
    else:
        in_numpy(a, b, out)


@implements
def relu_forward(x, out):
    if x.dtype.char == "f":
        run_binary(RELU, x, x, out)
    else:
        numpy.relu_forward(x, out)


@implements
def relu_backward_input(grad_y, y, out):
    _binary(RELU_BACKWARD, numpy.relu_backward_input, grad_y, y, out)


@implements
def hardtanh_forward(x, minimum, maximum, out):
    _forward(pointwise.HARDTANH, numpy.hardtanh_forward, x, (minimum, maximum), out)


@implements
def hardtanh_backward_input(grad_y, y, minimum, maximum, out):
    _backward(pointwise.HARDTANH, numpy.hardtanh_backward_input, grad_y, y, (minimum, maximum), out)


@implements
def leaky_relu_forward(x, slope, out):
    _forward(pointwise.LEAKY_RELU, numpy.leaky_relu_forward, x, (slope,), out)


@implements
def leaky_relu_backward_input(grad_y, x, slope, out):
    _backward(pointwise.LEAKY_RELU, numpy.leaky_relu_backward_input, grad_y, x, (slope,), out)


@implements
def elu_forward(x, alpha, scale, out):
    _forward(pointwise.ELU, numpy.elu_forward, x, (alpha, scale), out)


@implements
def elu_backward_input(grad_y, x, alpha, scale, out):
    _backward(pointwise.ELU, numpy.elu_backward_input, grad_y, x, (alpha, scale), out)


@implements
def sigmoid_forward(x, out):
    _forward(pointwise.SIGMOID, numpy.sigmoid_forward, x, (), out)


@implements
def sigmoid_backward_input(grad_y, y, out):
    _binary(SIGMOID_BACKWARD, numpy.sigmoid_backward_input, grad_y, y, out)


@implements
def tanh_forward(x, out):
    _forward(pointwise.TANH, numpy.tanh_forward, x, (), out)


@implements
def tanh_backward_input(grad_y, y, out):
    _binary(TANH_BACKWARD, numpy.tanh_backward_input, grad_y, y, out)


@implements
def silu_forward(x, out):
    _forward(pointwise.SILU, numpy.silu_forward, x, (), out)


@implements
def silu_backward_input(grad_y, x, out):
    _backward(pointwise.SILU, numpy.silu_backward_input, grad_y, x, (), out)


@implements
def gelu_forward(x, approximate, out):
    if x.dtype.char == "f":
        pointwise.run_forward(pointwise.GELU if approximate == "none" else pointwise.GELU_TANH, x, out)
    else:
        numpy.gelu_forward(x, approximate, out)


@implements
def gelu_backward_input(grad_y, x, approximate, out):
    if x.dtype.char == "f":
        pointwise.run_backward(pointwise.GELU if approximate == "none" else pointwise.GELU_TANH, grad_y, x, out)
    else:
        numpy.gelu_backward_input(grad_y, x, approximate, out)


@implements
def hardsigmoid_forward(x, out):
    _forward(pointwise.HARDSIGMOID, numpy.hardsigmoid_forward, x, (), out)


@implements
def hardsigmoid_backward_input(grad_y, x, out):
    _backward(pointwise.HARDSIGMOID, numpy.hardsigmoid_backward_input, grad_y, x, (), out)


@implements
def hardswish_forward(x, out):
    _forward(pointwise.HARDSWISH, numpy.hardswish_forward, x, (), out)


@implements
def hardswish_backward_input(grad_y, x, out):
    _backward(pointwise.HARDSWISH, numpy.hardswish_backward_input, grad_y, x, (), out)


@implements
def softplus_forward(x, beta, threshold, out):
    _forward(pointwise.SOFTPLUS, numpy.softplus_forward, x, (beta, threshold), out)


@implements
def softplus_backward_input(grad_y, x, beta, threshold, out):
    _backward(pointwise.SOFTPLUS, numpy.softplus_backward_input, grad_y, x, (beta, threshold), out)


@implements
def mish_forward(x, out):
    _forward(pointwise.MISH, numpy.mish_forward, x, (), out)


@implements
def mish_backward_input(grad_y, x, out):
    _backward(pointwise.MISH, numpy.mish_backward_input, grad_y, x, (), out)


@implements
def log_sigmoid_forward(x, out):
    _forward(pointwise.LOG_SIGMOID, numpy.log_sigmoid_forward, x, (), out)


@implements
def log_sigmoid_backward_input(grad_y, x, out):
    _backward(pointwise.LOG_SIGMOID, numpy.log_sigmoid_backward_input, grad_y, x, (), out)


@implements
def softsign_forward(x, out):
    _forward(pointwise.SOFTSIGN, numpy.softsign_forward, x, (), out)


@implements
def softsign_backward_input(grad_y, x, out):
    _backward(pointwise.SOFTSIGN, numpy.softsign_backward_input, grad_y, x, (), out)
