"""Activations. See `backends/contract/activation.py` for the formulas."""

from __future__ import annotations

import math

import numpy as np

from numbanet.backends.contract.activation import SELU_ALPHA, SELU_SCALE
from numbanet.onnx.export.registry import translates
from numbanet.onnx.export.shape import reshape


def _scalar(value: float, like) -> np.ndarray:
    return np.asarray(value, like.dtype)


def _register(primitive: str, op_type: str, **attributes) -> None:
    @translates(primitive)
    def translation(b, x):
        return b.node(op_type, x, **attributes)


_register("relu_forward", "Relu")
_register("sigmoid_forward", "Sigmoid")
_register("tanh_forward", "Tanh")
_register("softsign_forward", "Softsign")
_register("mish_forward", "Mish")
_register("hardswish_forward", "HardSwish")
_register("hardsigmoid_forward", "HardSigmoid", alpha=1 / 6, beta=0.5)


@translates("hardtanh_forward")
def hardtanh(b, x, minimum, maximum):
    return b.node("Clip", x, _scalar(minimum, x), _scalar(maximum, x))


@translates("leaky_relu_forward")
def leaky_relu(b, x, slope):
    return b.node("LeakyRelu", x, alpha=float(slope))


@translates("prelu_forward")
def prelu(b, x, weight):
    axes = len(x.shape) - 2
    if weight.shape != (1,) and axes > 0:
        weight = reshape(b, weight, (*weight.shape, *(1,) * axes))          # (C,) along axis 1 of x
    return b.node("PRelu", x, weight)


@translates("elu_forward")
def elu(b, x, alpha, scale):
    if (alpha, scale) == (SELU_ALPHA, SELU_SCALE):
        return b.node("Selu", x, alpha=alpha, gamma=scale)
    y = b.node("Elu", x, alpha=float(alpha))
    return y if scale == 1 else b.node("Mul", y, _scalar(scale, x))


@translates("silu_forward")
def silu(b, x):
    return b.node("Mul", x, b.node("Sigmoid", x))


@translates("gelu_forward")
def gelu(b, x, approximate):
    half_x = b.node("Mul", x, _scalar(0.5, x))
    if approximate == "none":
        bell = b.node("Erf", b.node("Mul", x, _scalar(math.sqrt(0.5), x)))
    else:
        cubed = b.node("Mul", b.node("Mul", x, x), x)
        inner = b.node("Add", x, b.node("Mul", cubed, _scalar(0.044715, x)))
        bell = b.node("Tanh", b.node("Mul", inner, _scalar(math.sqrt(2 / math.pi), x)))
    return b.node("Mul", half_x, b.node("Add", bell, _scalar(1, x)))


@translates("softplus_forward")
def softplus(b, x, beta, threshold):
    scaled = x if beta == 1 else b.node("Mul", x, _scalar(beta, x))
    y = b.node("Softplus", scaled)
    y = y if beta == 1 else b.node("Div", y, _scalar(beta, x))
    return b.node("Where", b.node("Greater", scaled, _scalar(threshold, x)), x, y)


@translates("log_sigmoid_forward")
def log_sigmoid(b, x):
    return b.node("Neg", b.node("Softplus", b.node("Neg", x)))
