"""Activations, elementwise; a NaN stays NaN. Backward reads y where that is enough (it is kept anyway), else x."""

from __future__ import annotations

from numbanet.backends.contract.checks import check_float, check_shape
from numbanet.backends.interface import Array, ArraySpec, like, primitive
from numbanet.errors import ShapeError, UsageError

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805     # Klambauer et al., 2017: the fixed point 0, 1


def _forward(operation: str, x) -> ArraySpec:
    check_float(operation, x=x)
    return like(x)


def _backward(operation: str, grad_y, saved) -> ArraySpec:
    operation += "_backward_input"
    check_float(operation, grad_y=grad_y, saved=saved)
    check_shape(operation, "grad_y", grad_y, saved.shape)
    return like(saved)


@primitive(may_overwrite=("x",))
def relu_forward(x: Array):
    """max(x, 0)."""
    return _forward("relu", x)


@primitive(may_overwrite=("grad_y",))
def relu_backward_input(grad_y: Array, y: Array):
    """grad_y, but 0 where y <= 0 (a NaN lets it pass)."""
    return _backward("relu", grad_y, y)


@primitive(may_overwrite=("x",))
def hardtanh_forward(x: Array, minimum: float, maximum: float):
    """x limited to [minimum, maximum]; ReLU6 is [0, 6]."""
    if minimum > maximum:
        raise UsageError(f"hardtanh: min_val expects at most max_val, received {minimum} and {maximum}")
    return _forward("hardtanh", x)


@primitive(may_overwrite=("grad_y",))
def hardtanh_backward_input(grad_y: Array, y: Array, minimum: float, maximum: float):
    """grad_y where minimum < y < maximum, else 0."""
    return _backward("hardtanh", grad_y, y)


@primitive(may_overwrite=("x",))
def leaky_relu_forward(x: Array, slope: float):
    """x where x > 0, else slope * x (Maas et al., 2013)."""
    return _forward("leaky_relu", x)


@primitive(may_overwrite=("grad_y",))
def leaky_relu_backward_input(grad_y: Array, x: Array, slope: float):
    """grad_y where x > 0, else slope * grad_y."""
    return _backward("leaky_relu", grad_y, x)


@primitive
def prelu_forward(x: Array, weight: Array):
    """x where x > 0, else weight * x (He et al., 2015); weight (1,), or (C,) for axis 1 of x."""
    check_float("prelu", x=x, weight=weight)
    channels = x.shape[1] if len(x.shape) > 1 else 1
    if weight.shape not in ((1,), (channels,)):
        raise ShapeError(f"prelu: weight expects shape (1,) or ({channels},), one slope per channel of x {x.shape}, received "
                         f"{weight.shape}")
    return like(x)


@primitive
def prelu_backward(grad_y: Array, x: Array, weight: Array):
    """(grad_x, grad_weight): grad_y or weight * grad_y as in leaky ReLU; the sum of grad_y * x over the elements x <= 0."""
    check_float("prelu_backward", grad_y=grad_y, x=x, weight=weight)
    check_shape("prelu_backward", "grad_y", grad_y, x.shape)
    return like(x), like(weight)


@prelu_forward.composed
def _prelu_forward(backend, x, weight):
    slope = backend.reshape(weight, _along_channels(x, weight))
    return backend.where(backend.greater(x, 0), x, backend.multiply(x, slope))


@prelu_backward.composed
def _prelu_backward(backend, grad_y, x, weight):
    slope, positive = backend.reshape(weight, _along_channels(x, weight)), backend.greater(x, 0)
    grad_x = backend.where(positive, grad_y, backend.multiply(grad_y, slope))
    products = backend.where(positive, 0.0, backend.multiply(grad_y, x))
    axes = tuple([a for a in range(len(x.shape)) if a != 1 or weight.shape == (1,)])
    return grad_x, backend.reshape(backend.sum(products, axes, False), weight.shape)


def _along_channels(x, weight) -> tuple[int, ...]:
    return (1,) * len(x.shape) if weight.shape == (1,) else (1, weight.shape[0], *(1,) * (len(x.shape) - 2))


@primitive(may_overwrite=("x",))
def elu_forward(x: Array, alpha: float, scale: float):
    """scale * x where x > 0, else scale * alpha * (exp(x) - 1) (Clevert et al., 2015); SELU with its two constants."""
    return _forward("elu", x)


@primitive(may_overwrite=("grad_y",))
def elu_backward_input(grad_y: Array, x: Array, alpha: float, scale: float):
    """scale * grad_y where x > 0, else scale * alpha * exp(x) * grad_y."""
    return _backward("elu", grad_y, x)


@primitive(may_overwrite=("x",))
def sigmoid_forward(x: Array):
    """1 / (1 + exp(-x))."""
    return _forward("sigmoid", x)


@primitive(may_overwrite=("grad_y",))
def sigmoid_backward_input(grad_y: Array, y: Array):
    """grad_y * y * (1 - y)."""
    return _backward("sigmoid", grad_y, y)


@primitive(may_overwrite=("x",))
def tanh_forward(x: Array):
    """The hyperbolic tangent."""
    return _forward("tanh", x)


@primitive(may_overwrite=("grad_y",))
def tanh_backward_input(grad_y: Array, y: Array):
    """grad_y * (1 - y * y)."""
    return _backward("tanh", grad_y, y)


@primitive(may_overwrite=("x",))
def silu_forward(x: Array):
    """x * sigmoid(x) (Elfwing et al., 2017), also called swish."""
    return _forward("silu", x)


@primitive(may_overwrite=("grad_y",))
def silu_backward_input(grad_y: Array, x: Array):
    """grad_y * s * (1 + x * (1 - s)) with s = sigmoid(x)."""
    return _backward("silu", grad_y, x)


@primitive(may_overwrite=("x",))
def gelu_forward(x: Array, approximate: str):
    """x * Phi(x), Phi the normal distribution (Hendrycks and Gimpel, 2016).

    approximate "none": Phi(x) = (1 + erf(x / sqrt 2)) / 2; "tanh": (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))) / 2.
    """
    if approximate not in ("none", "tanh"):
        raise UsageError(f'gelu: approximate expects "none" or "tanh", received {approximate!r}')
    return _forward("gelu", x)


@primitive(may_overwrite=("grad_y",))
def gelu_backward_input(grad_y: Array, x: Array, approximate: str):
    """grad_y * (Phi(x) + x * Phi'(x))."""
    return _backward("gelu", grad_y, x)


@primitive(may_overwrite=("x",))
def hardsigmoid_forward(x: Array):
    """x / 6 + 1 / 2, limited to [0, 1]."""
    return _forward("hardsigmoid", x)


@primitive(may_overwrite=("grad_y",))
def hardsigmoid_backward_input(grad_y: Array, x: Array):
    """grad_y / 6 where -3 < x < 3, else 0."""
    return _backward("hardsigmoid", grad_y, x)


@primitive(may_overwrite=("x",))
def hardswish_forward(x: Array):
    """x * hardsigmoid(x) (Howard et al., 2019)."""
    return _forward("hardswish", x)


@primitive(may_overwrite=("grad_y",))
def hardswish_backward_input(grad_y: Array, x: Array):
    """0 where x <= -3, grad_y where x >= 3, else grad_y * (x / 3 + 1 / 2)."""
    return _backward("hardswish", grad_y, x)


@primitive(may_overwrite=("x",))
def softplus_forward(x: Array, beta: float, threshold: float):
    """log(1 + exp(beta * x)) / beta; x itself where beta * x > threshold."""
    return _forward("softplus", x)


@primitive(may_overwrite=("grad_y",))
def softplus_backward_input(grad_y: Array, x: Array, beta: float, threshold: float):
    """grad_y * sigmoid(beta * x); grad_y itself where beta * x > threshold."""
    return _backward("softplus", grad_y, x)


@primitive(may_overwrite=("x",))
def mish_forward(x: Array):
    """x * tanh(log(1 + exp(x))) (Misra, 2019)."""
    return _forward("mish", x)


@primitive(may_overwrite=("grad_y",))
def mish_backward_input(grad_y: Array, x: Array):
    """grad_y * (t + x * sigmoid(x) * (1 - t * t)) with t = tanh(log(1 + exp(x)))."""
    return _backward("mish", grad_y, x)


@primitive(may_overwrite=("x",))
def log_sigmoid_forward(x: Array):
    """log(sigmoid(x)) = min(x, 0) - log(1 + exp(-|x|))."""
    return _forward("log_sigmoid", x)


@primitive(may_overwrite=("grad_y",))
def log_sigmoid_backward_input(grad_y: Array, x: Array):
    """grad_y * sigmoid(-x)."""
    return _backward("log_sigmoid", grad_y, x)


@primitive(may_overwrite=("x",))
def softsign_forward(x: Array):
    """x / (1 + |x|)."""
    return _forward("softsign", x)


@primitive(may_overwrite=("grad_y",))
def softsign_backward_input(grad_y: Array, x: Array):
    """grad_y / (1 + |x|)**2."""
    return _backward("softsign", grad_y, x)
