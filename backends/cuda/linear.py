"""Matrix products and the linear layer; `choose.py` says which kernel computes them. See `contract/linear.py` for the letters."""

from __future__ import annotations

from numbanet.backends.cuda import choose
from numbanet.backends.cuda.limits import NO_LIMITS
from numbanet.backends.cuda.memory import DeviceArray
from numbanet.backends.cuda.reduction import sum_of
from numbanet.backends.cuda.registry import implements


def multiply(a: DeviceArray, b: DeviceArray, bias: DeviceArray | None, out: DeviceArray, low: float = NO_LIMITS[0],
             high: float = NO_LIMITS[1]) -> None:
    """out = a times b plus bias, limited to [low, high], by the kernel that is chosen."""
    choose.matrix_product(a, b, out)(a, b, bias, out, low, high)


def transposed(x: DeviceArray) -> DeviceArray:
    """A view of a matrix with its axes exchanged."""
    return x.view(x.shape[::-1], x.strides[::-1])


@implements
def matmul(a, b, out):
    multiply(a, b, None, out)


@implements
def linear_forward(x, weight, bias, out):
    multiply(x, transposed(weight), bias, out)


@implements
def linear_backward_input(grad_y, weight, out):
    multiply(grad_y, weight, None, out)


@implements
def linear_backward_weight(grad_y, x, out):
    multiply(transposed(grad_y), x, None, out)


@implements
def linear_backward_bias(grad_y, out):
    sum_of(grad_y, (0,), 0, out)
