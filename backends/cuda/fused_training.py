"""What training fuses (see `contract/fused_training.py`): batch norm with what follows it, and gradients that are added up."""

from __future__ import annotations

from numbanet.backends.cuda import choose
from numbanet.backends.cuda.limits import limits
from numbanet.backends.cuda.normalization import batch
from numbanet.backends.cuda.normalization.moments import moments
from numbanet.backends.cuda.pointwise import new_like
from numbanet.backends.cuda.registry import implements


@implements
def batch_norm_fused_forward(x, weight, bias, residual, epsilon, minimum, maximum, out):
    y, mean, variance = out
    moments(x, mean, variance)
    batch.apply(x, residual, batch.coefficients_of(mean, variance, weight, bias, epsilon), *limits(minimum, maximum), y)


@implements
def batch_norm_fused_backward(grad_y, y, x, weight, bias, mean, variance, epsilon, minimum, maximum, out):
    *grads, grad_residual = out
    passed = grad_y
    if grad_residual is not None or minimum is not None or maximum is not None:
        passed = new_like(x) if grad_residual is None else grad_residual
        batch.passed(grad_y, y, x, batch.coefficients_of(mean, variance, weight, bias, epsilon), minimum, maximum, passed)
    batch.batch_norm_backward(passed, x, weight, mean, variance, epsilon, grads)


@implements
def conv2d_backward_input_added(grad_y, weight, added, geometry, out):
    choose.convolution("backward_input", geometry, grad_y, weight, out).backward_input(grad_y, weight, added, geometry, out)
