"""Matrix products and the linear layer. See `contract/linear.py`."""

from __future__ import annotations

import numpy as np

from numbanet.backends.reference.registry import implements


@implements
def matmul(a, b, out):
    np.matmul(a, b, out=out)


@implements
def linear_forward(x, weight, bias, out):
    np.matmul(x, weight.T, out=out)
    if bias is not None:
        out += bias


@implements
def linear_backward_input(grad_y, weight, out):
    np.matmul(grad_y, weight, out=out)


@implements
def linear_backward_weight(grad_y, x, out):
    np.matmul(grad_y.T, x, out=out)


@implements
def linear_backward_bias(grad_y, out):
    grad_y.sum(0, out=out)
