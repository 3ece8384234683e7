"""Activations, with the names, defaults and `inplace` of `torch.nn.functional`. See `backends/contract/activation.py`."""

from __future__ import annotations

from numbanet._tensor import Tensor
from numbanet.autograd.in_place import apply_in_place
from numbanet.autograd.operation import Operation
from numbanet.backends.contract.activation import SELU_ALPHA, SELU_SCALE
from numbanet.errors import UsageError
from numbanet.ops.reduction import norm

__all__ = ["celu", "elu", "elu_", "gelu", "glu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "hardtanh_", "leaky_relu",
           "leaky_relu_", "log_sigmoid", "logsigmoid", "mish", "normalize", "prelu", "relu", "relu6", "relu_", "selu", "selu_", "sigmoid",
           "silu", "softplus", "softshrink", "softsign", "tanh", "tanhshrink", "threshold"]


class _OfOutput(Operation):
    """Base of activations whose backward reads y alone: an in-place call loses nothing."""

    @classmethod
    def keeps_input(cls, *arguments):
        return False


class ReLU(_OfOutput):
    """max(x, 0) (Nair and Hinton, 2010)."""

    operation_name = "relu"
    overwrites_gradient = True

    def forward(self, backend, x):
        y = backend.relu_forward(x, out=self.out)
        self.save(y)                            # not x: where y is 0 is all that backward needs
        return y

    def backward(self, backend, grad_y, needs):
        y, = self.saved
        return backend.relu_backward_input(grad_y, y, out=self.out)


class Hardtanh(_OfOutput):
    """x limited to [minimum, maximum]."""

    operation_name = "hardtanh"
    overwrites_gradient = True

    def forward(self, backend, x, minimum, maximum):
        y = backend.hardtanh_forward(x, minimum, maximum, out=self.out)
        self.save(y, minimum, maximum)
        return y

    def backward(self, backend, grad_y, needs):
        y, minimum, maximum = self.saved
        return backend.hardtanh_backward_input(grad_y, y, minimum, maximum, out=self.out)


class LeakyReLU(Operation):
    """x where x > 0, else slope * x."""

    operation_name = "leaky_relu"

    def forward(self, backend, x, slope):
        self.save(x, slope)
        return backend.leaky_relu_forward(x, slope, out=self.out)

    def backward(self, backend, grad_y, needs):
        x, slope = self.saved
        return backend.leaky_relu_backward_input(grad_y, x, slope)


class PReLU(Operation):
    """Leaky ReLU with a learned slope for all channels or for each."""

    operation_name = "prelu"

    def forward(self, backend, x, weight):
        self.save(x, weight)
        return backend.prelu_forward(x, weight)

    def backward(self, backend, grad_y, needs):
        x, weight = self.saved
        return backend.prelu_backward(grad_y, x, weight)


class ELU(Operation):
    """scale * x where x > 0, else scale * alpha * (exp(x) - 1)."""

    operation_name = "elu"

    def forward(self, backend, x, alpha, scale):
        self.save(x, alpha, scale)
        return backend.elu_forward(x, alpha, scale, out=self.out)

    def backward(self, backend, grad_y, needs):
        x, alpha, scale = self.saved
        return backend.elu_backward_input(grad_y, x, alpha, scale)


class Sigmoid(_OfOutput):
    """1 / (1 + exp(-x))."""

    operation_name = "sigmoid"

    def forward(self, backend, x):
        y = backend.sigmoid_forward(x, out=self.out)
        self.save(y)
        return y

    def backward(self, backend, grad_y, needs):
        y, = self.saved
        return backend.sigmoid_backward_input(grad_y, y)


class Tanh(_OfOutput):
    """The hyperbolic tangent."""

    operation_name = "tanh"

    def forward(self, backend, x):
        y = backend.tanh_forward(x, out=self.out)
        self.save(y)
        return y

    def backward(self, backend, grad_y, needs):
        y, = self.saved
        return backend.tanh_backward_input(grad_y, y)


class SiLU(Operation):
    """x * sigmoid(x)."""

    operation_name = "silu"

    def forward(self, backend, x):
        self.save(x)
        return backend.silu_forward(x, out=self.out)

    def backward(self, backend, grad_y, needs):
        x, = self.saved
        return backend.silu_backward_input(grad_y, x)


class GELU(Operation):
    """x * Phi(x)."""

    operation_name = "gelu"

    def forward(self, backend, x, approximate):
        self.save(x, approximate)
        return backend.gelu_forward(x, approximate, out=self.out)

    def backward(self, backend, grad_y, needs):
        x, approximate = self.saved
        return backend.gelu_backward_input(grad_y, x, approximate)


class Hardsigmoid(Operation):
    """x / 6 + 1 / 2, limited to [0, 1]."""

    operation_name = "hardsigmoid"

    def forward(self, backend, x):
        self.save(x)
        return backend.hardsigmoid_forward(x, out=self.out)

    def backward(self, backend, grad_y, needs):
        x, = self.saved
        return backend.hardsigmoid_backward_input(grad_y, x)


class Hardswish(Operation):
    """x * hardsigmoid(x)."""

    operation_name = "hardswish"

    def forward(self, backend, x):
        self.save(x)
        return backend.hardswish_forward(x, out=self.out)

    def backward(self, backend, grad_y, needs):
        x, = self.saved
        return backend.hardswish_backward_input(grad_y, x)


class Softplus(Operation):
    """log(1 + exp(beta * x)) / beta."""

    operation_name = "softplus"

    def forward(self, backend, x, beta, threshold):
        self.save(x, beta, threshold)
        return backend.softplus_forward(x, beta, threshold, out=self.out)

    def backward(self, backend, grad_y, needs):
        x, beta, threshold = self.saved
        return backend.softplus_backward_input(grad_y, x, beta, threshold)


class Mish(Operation):
    """x * tanh(softplus(x))."""

    operation_name = "mish"

    def forward(self, backend, x):
        self.save(x)
        return backend.mish_forward(x, out=self.out)

    def backward(self, backend, grad_y, needs):
        x, = self.saved
        return backend.mish_backward_input(grad_y, x)


class LogSigmoid(Operation):
    """log(sigmoid(x))."""

    operation_name = "logsigmoid"

    def forward(self, backend, x):
        self.save(x)
        return backend.log_sigmoid_forward(x, out=self.out)

    def backward(self, backend, grad_y, needs):
        x, = self.saved
        return backend.log_sigmoid_backward_input(grad_y, x)


class Softsign(Operation):
    """x / (1 + |x|)."""

    operation_name = "softsign"

    def forward(self, backend, x):
        self.save(x)
        return backend.softsign_forward(x, out=self.out)

    def backward(self, backend, grad_y, needs):
        x, = self.saved
        return backend.softsign_backward_input(grad_y, x)


def _apply(operation, inplace: bool, x, *arguments):
    return apply_in_place(operation, x, *arguments) if inplace else operation.apply(x, *arguments)


def relu(x, inplace=False):
    """max(x, 0), elementwise."""
    return _apply(ReLU, inplace, x)


def relu6(x, inplace=False):
    """x limited to [0, 6]."""
    return _apply(Hardtanh, inplace, x, 0.0, 6.0)


def hardtanh(x, min_val=-1.0, max_val=1.0, inplace=False):
    """x limited to [min_val, max_val]."""
    return _apply(Hardtanh, inplace, x, float(min_val), float(max_val))


def leaky_relu(x, negative_slope=0.01, inplace=False):
    """x where x > 0, else negative_slope * x."""
    return _apply(LeakyReLU, inplace, x, float(negative_slope))


def prelu(x, weight):
    """x where x > 0, else weight * x; `weight` has one element, or one for each channel (dimension 1).

    Raises
    ------
    ShapeError
        `weight` has another number of elements.
    """
    weight = weight.reshape(-1) if weight.ndim == 0 else weight
    return PReLU.apply(x, weight) if x.ndim else PReLU.apply(x.reshape(1), weight).reshape(())


def elu(x, alpha=1.0, inplace=False):
    """x where x > 0, else alpha * (exp(x) - 1)."""
    return _apply(ELU, inplace, x, float(alpha), 1.0)


def selu(x, inplace=False):
    """The self-normalising ELU (Klambauer et al., 2017)."""
    return _apply(ELU, inplace, x, SELU_ALPHA, SELU_SCALE)


def celu(x, alpha=1.0, inplace=False):
    """x where x > 0, else alpha * (exp(x / alpha) - 1) (Barron, 2017)."""
    y = ELU.apply(x / alpha, 1.0, float(alpha))
    return x.copy_(y) if inplace else y


def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return Sigmoid.apply(x)


def tanh(x):
    """The hyperbolic tangent."""
    return Tanh.apply(x)


def silu(x, inplace=False):
    """x * sigmoid(x), also called swish."""
    return _apply(SiLU, inplace, x)


def gelu(x, approximate="none"):
    """x * Phi(x), Phi the normal distribution; `approximate` "tanh" for its approximation.

    Raises
    ------
    UsageError
        `approximate` is neither "none" nor "tanh".
    """
    return GELU.apply(x, approximate)


def hardsigmoid(x, inplace=False):
    """x / 6 + 1 / 2, limited to [0, 1]."""
    return _apply(Hardsigmoid, inplace, x)


def hardswish(x, inplace=False):
    """x * hardsigmoid(x)."""
    return _apply(Hardswish, inplace, x)


def softplus(x, beta=1.0, threshold=20.0):
    """log(1 + exp(beta * x)) / beta; x itself where beta * x > threshold."""
    return Softplus.apply(x, float(beta), float(threshold))


def mish(x, inplace=False):
    """x * tanh(softplus(x))."""
    return _apply(Mish, inplace, x)


def logsigmoid(x):
    """log(sigmoid(x)), accurate for all x."""
    return LogSigmoid.apply(x)


def softsign(x):
    """x / (1 + |x|)."""
    return Softsign.apply(x)


def threshold(x, threshold, value, inplace=False):
    """x where x > threshold, else value."""
    return _masked(x, x <= threshold, value, inplace)


def hardshrink(x, lambd=0.5):
    """x where |x| > lambd, else 0."""
    return _masked(x, x.abs() <= lambd, 0.0, False)


def _masked(x, mask, value, inplace):
    return x.masked_fill_(mask, value) if inplace else x.masked_fill(mask, value)


def softshrink(x, lambd=0.5):
    """x moved towards 0 by lambd, and 0 where |x| <= lambd."""
    if lambd < 0:
        raise UsageError(f"softshrink: lambd expects a number of at least 0, received {lambd}")
    return x - x.clamp(-lambd, lambd)


def tanhshrink(x):
    """x - tanh(x)."""
    return x - Tanh.apply(x)


def glu(x, dim=-1):
    """a * sigmoid(b), a and b the halves of x along `dim` (Dauphin et al., 2016)."""
    a, b = x.chunk(2, dim)
    return a * Sigmoid.apply(b)


def normalize(x, p=2.0, dim=1, eps=1e-12):
    """x divided by its norm along `dim`, or by `eps` where that is larger."""
    return x / norm(x, p, dim, True).clamp(min=eps)


log_sigmoid = logsigmoid


def _in_place(operation, name, *defaults):
    def method(x, *arguments):
        return apply_in_place(operation, x, *arguments, *defaults[len(arguments):])
    method.__name__, method.__doc__ = name, f"In place: {operation.__doc__}"
    return method


relu_, elu_, selu_ = _in_place(ReLU, "relu_"), _in_place(ELU, "elu_", 1.0, 1.0), _in_place(ELU, "selu_", SELU_ALPHA, SELU_SCALE)
hardtanh_, leaky_relu_ = _in_place(Hardtanh, "hardtanh_", -1.0, 1.0), _in_place(LeakyReLU, "leaky_relu_", 0.01)

Tensor.relu, Tensor.sigmoid, Tensor.tanh = relu, sigmoid, tanh
Tensor.relu_ = relu_
Tensor.sigmoid_, Tensor.tanh_ = _in_place(Sigmoid, "sigmoid_"), _in_place(Tanh, "tanh_")
