"""Activations, elementwise."""

from __future__ import annotations

from numbanet.backends.contract.checks import check_float, check_shape
from numbanet.backends.interface import Array, like, primitive


@primitive(may_overwrite=("x",))
def relu_forward(x: Array):
    """max(x, 0); NaN stays NaN."""
    check_float("relu", x=x)
    return like(x)


@primitive(may_overwrite=("grad_y",))
def relu_backward_input(grad_y: Array, y: Array):
    """grad_y where y > 0, else 0."""
    check_float("relu_backward_input", grad_y=grad_y, y=y)
    check_shape("relu_backward_input", "grad_y", grad_y, y.shape)
    return like(y)
