"""Activations: functions of elements (see `contract/activation.py` for the formulas), and the kernels around them."""

from __future__ import annotations

import math

from numbanet.backends.cuda.compile import device
from numbanet.backends.cuda.mathematics import larger, smaller
from numbanet.backends.cuda.pointwise import Binary, BinaryWith, Unary, UnaryWith
from numbanet.backends.cuda.registry import implements

ROOT_OF_HALF, PEAK_OF_NORMAL = math.sqrt(0.5), 1 / math.sqrt(2 * math.pi)
TANH_GELU_A, TANH_GELU_B = math.sqrt(2 / math.pi), 0.044715


@device
def sigmoid(x):
    return 1.0 / (1.0 + math.exp(-x))


@device
def softplus(x):
    """log(1 + exp(x)), without overflow."""
    return larger(x, 0.0) + math.log1p(math.exp(-abs(x)))


@device
def _relu(x):
    return 0.0 if x < 0.0 else x


@device
def _relu_backward(grad, y):
    return 0.0 if y <= 0.0 else grad                    # a NaN lets the gradient pass, as in PyTorch


@device
def _hardtanh(x, limits):
    return smaller(larger(x, limits[0]), limits[1])


@device
def _hardtanh_backward(grad, y, limits):
    return grad if limits[0] < y < limits[1] else 0.0


@device
def _leaky_relu(x, slope):
    return x if x > 0.0 else slope[0] * x


@device
def _leaky_relu_backward(grad, x, slope):
    return grad if x > 0.0 else slope[0] * grad


@device
def _elu(x, parameters):
    alpha, scale = parameters
    return scale * x if x > 0.0 else scale * alpha * math.expm1(x)


@device
def _elu_backward(grad, x, parameters):
    alpha, scale = parameters
    return scale * grad if x > 0.0 else scale * alpha * math.exp(x) * grad


@device
def _sigmoid_backward(grad, y):
    return grad * y * (1.0 - y)


@device
def _tanh(x):
    return math.tanh(x)


@device
def _tanh_backward(grad, y):
    return grad * (1.0 - y * y)


@device
def _silu(x):
    return x * sigmoid(x)


@device
def _silu_backward(grad, x):
    s = sigmoid(x)
    return grad * s * (1.0 + x * (1.0 - s))


@device
def _gelu(x):
    return x * 0.5 * (1.0 + math.erf(x * ROOT_OF_HALF))


@device
def _gelu_backward(grad, x):
    phi, slope = 0.5 * (1.0 + math.erf(x * ROOT_OF_HALF)), math.exp(-0.5 * x * x) * PEAK_OF_NORMAL
    return grad * (phi + x * slope)


@device
def _tanh_of_gelu(x):
    return math.tanh(TANH_GELU_A * (x + TANH_GELU_B * x * x * x))


@device
def _gelu_tanh(x):
    return x * 0.5 * (1.0 + _tanh_of_gelu(x))


@device
def _gelu_tanh_backward(grad, x):
    t = _tanh_of_gelu(x)
    slope = 0.5 * (1.0 - t * t) * TANH_GELU_A * (1.0 + 3.0 * TANH_GELU_B * x * x)
    return grad * (0.5 * (1.0 + t) + x * slope)


@device
def _hardsigmoid(x):
    return smaller(larger(x / 6.0 + 0.5, 0.0), 1.0)


@device
def _hardsigmoid_backward(grad, x):
    return grad / 6.0 if -3.0 < x < 3.0 else 0.0


@device
def _hardswish(x):
    return x * _hardsigmoid(x)


@device
def _hardswish_backward(grad, x):
    return 0.0 if x <= -3.0 else grad if x >= 3.0 else grad * (x / 3.0 + 0.5)


@device
def _softplus(x, parameters):
    beta, threshold = parameters
    return x if beta * x > threshold else softplus(beta * x) / beta


@device
def _softplus_backward(grad, x, parameters):
    beta, threshold = parameters
    return grad if beta * x > threshold else grad * sigmoid(beta * x)


@device
def _mish(x):
    return x * math.tanh(softplus(x))


@device
def _mish_backward(grad, x):
    t = math.tanh(softplus(x))
    return grad * (t + x * sigmoid(x) * (1.0 - t * t))


@device
def _log_sigmoid(x):
    return -softplus(-x)


@device
def _log_sigmoid_backward(grad, x):
    return grad * sigmoid(-x)


@device
def _softsign(x):
    return x / (1.0 + abs(x))


@device
def _softsign_backward(grad, x):
    d = 1.0 + abs(x)
    return grad / (d * d)


# Primitives. Their parameters are part of the contract, so those with numbers are written out.

def _implement(name: str, forward, backward, saved: str) -> None:
    """Both passes of an activation without numbers; backward reads y or x."""
    unary, binary = Unary(forward), Binary(backward)

    def run_forward(x, out):
        unary(x, out)

    def from_y(grad_y, y, out):
        binary(grad_y, y, out)

    def from_x(grad_y, x, out):
        binary(grad_y, x, out)
    implements(run_forward, f"{name}_forward")
    implements(from_y if saved == "y" else from_x, f"{name}_backward_input")


for _row in (("relu", _relu, _relu_backward, "y"), ("sigmoid", sigmoid, _sigmoid_backward, "y"), ("tanh", _tanh, _tanh_backward, "y"),
             ("silu", _silu, _silu_backward, "x"), ("hardsigmoid", _hardsigmoid, _hardsigmoid_backward, "x"),
             ("hardswish", _hardswish, _hardswish_backward, "x"), ("mish", _mish, _mish_backward, "x"),
             ("log_sigmoid", _log_sigmoid, _log_sigmoid_backward, "x"), ("softsign", _softsign, _softsign_backward, "x")):
    _implement(*_row)

hardtanh, hardtanh_backward = UnaryWith(_hardtanh), BinaryWith(_hardtanh_backward)
leaky_relu, leaky_relu_backward = UnaryWith(_leaky_relu), BinaryWith(_leaky_relu_backward)
elu, elu_backward = UnaryWith(_elu), BinaryWith(_elu_backward)
gelu = {"none": Unary(_gelu), "tanh": Unary(_gelu_tanh)}
gelu_backward = {"none": Binary(_gelu_backward), "tanh": Binary(_gelu_tanh_backward)}
softplus_of, softplus_backward = UnaryWith(_softplus), BinaryWith(_softplus_backward)


@implements
def hardtanh_forward(x, minimum, maximum, out):
    hardtanh(x, out, minimum, maximum)


@implements
def hardtanh_backward_input(grad_y, y, minimum, maximum, out):
    hardtanh_backward(grad_y, y, out, minimum, maximum)


@implements
def leaky_relu_forward(x, slope, out):
    leaky_relu(x, out, slope)


@implements
def leaky_relu_backward_input(grad_y, x, slope, out):
    leaky_relu_backward(grad_y, x, out, slope)


@implements
def elu_forward(x, alpha, scale, out):
    elu(x, out, alpha, scale)


@implements
def elu_backward_input(grad_y, x, alpha, scale, out):
    elu_backward(grad_y, x, out, alpha, scale)


@implements
def gelu_forward(x, approximate, out):
    gelu[approximate](x, out)


@implements
def gelu_backward_input(grad_y, x, approximate, out):
    gelu_backward[approximate](grad_y, x, out)


@implements
def softplus_forward(x, beta, threshold, out):
    softplus_of(x, out, beta, threshold)


@implements
def softplus_backward_input(grad_y, x, beta, threshold, out):
    softplus_backward(grad_y, x, out, beta, threshold)
