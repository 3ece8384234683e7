"""Convolution over two spatial axes; `choose.py` says which kernel computes it. See `contract/convolution.py` for the letters."""

from __future__ import annotations

from numbanet.backends.cuda import choose
from numbanet.backends.cuda.limits import NO_LIMITS
from numbanet.backends.cuda.reduction import sum_of
from numbanet.backends.cuda.registry import implements


@implements
def conv2d_forward(x, weight, bias, geometry, out):
    choose.convolution("forward", geometry, x, weight, out).forward(x, weight, bias, None, geometry, *NO_LIMITS, out)


@implements
def conv2d_backward_input(grad_y, weight, geometry, out):
    choose.convolution("backward_input", geometry, grad_y, weight, out).backward_input(grad_y, weight, None, geometry, out)


@implements
def conv2d_backward_weight(grad_y, x, geometry, out):
    choose.convolution("backward_weight", geometry, grad_y, x, out).backward_weight(grad_y, x, geometry, out)


@implements
def conv2d_backward_bias(grad_y, out):
    sum_of(grad_y, (0, 2, 3), 0, out)
