"""Softmax and its logarithm along one axis; the maximum is subtracted first, so that exp does not overflow.

    softmax(x)_i = exp(x_i - max x) / sum_j exp(x_j - max x)
"""

from __future__ import annotations

from numbanet.backends.contract.checks import check_axis, check_float, check_shape
from numbanet.backends.interface import Array, like, primitive


def _forward(operation: str, x, axis: int):
    check_float(operation, x=x)
    check_axis(operation, axis, len(x.shape))
    return like(x)


def _backward(operation: str, grad_y, y, axis: int):
    check_float(operation, grad_y=grad_y, y=y)
    check_shape(operation, "grad_y", grad_y, y.shape)
    check_axis(operation, axis, len(y.shape))
    return like(y)


@primitive(may_overwrite=("x",))
def softmax_forward(x: Array, axis: int):
    """y = softmax(x) along `axis`; a slice of -inf only gives NaN."""
    return _forward("softmax", x, axis)


@primitive(may_overwrite=("grad_y",))
def softmax_backward_input(grad_y: Array, y: Array, axis: int):
    """(grad_y - sum(grad_y * y)) * y."""
    return _backward("softmax_backward_input", grad_y, y, axis)


@primitive(may_overwrite=("x",))
def log_softmax_forward(x: Array, axis: int):
    """y = x - max x - log(sum exp(x - max x)) along `axis`."""
    return _forward("log_softmax", x, axis)


@primitive(may_overwrite=("grad_y",))
def log_softmax_backward_input(grad_y: Array, y: Array, axis: int):
    """grad_y - exp(y) * sum(grad_y)."""
    return _backward("log_softmax_backward_input", grad_y, y, axis)
