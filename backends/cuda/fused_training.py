"""What training fuses (see `contract/fused_training.py`): batch norm with what follows it, and gradients that are added up."""

from __future__ import annotations

from numbanet.backends.cuda import choose
from numbanet.backends.cuda.limits import limits
from numbanet.backends.cuda.normalization import batch
from numbanet.backends.cuda.registry import implements


@implements
def batch_norm_fused_forward(x, weight, bias, residual, epsilon, minimum, maximum, out):
    batch.forward(x, weight, bias, residual, epsilon, *limits(minimum, maximum), out)


@implements
def batch_norm_given_forward(x, weight, bias, residual, mean, variance, epsilon, minimum, maximum, out):
    batch.apply(x, residual, batch.coefficients_of(mean, variance, weight, bias, epsilon), *limits(minimum, maximum), out)


@implements
def batch_norm_fused_backward(grad_y, y, x, weight, bias, mean, variance, epsilon, minimum, maximum, out):
    batch.backward(grad_y, y, x, weight, bias, mean, variance, epsilon, minimum, maximum, False, out)


@implements
def conv2d_backward_input_added(grad_y, weight, added, geometry, out):
    choose.convolution("backward_input", geometry, grad_y, weight, out).backward_input(grad_y, weight, added, geometry, out)
