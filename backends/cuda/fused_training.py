"""What training fuses (see `contract/fused_training.py`): batch norm with what follows it and with the convolution before it, and
gradients that are added up."""

from __future__ import annotations

from numbanet.backends.cuda import choose, convolution_tiles
from numbanet.backends.cuda.limits import limits
from numbanet.backends.cuda.normalization import batch
from numbanet.backends.cuda.normalization.moments import moments
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
def conv2d_with_statistics(x, weight, bias, residual, geometry, minimum, maximum, out):
    y, mean, variance = out
    kernels, low_and_high = choose.convolution("forward", geometry, x, weight, y), limits(minimum, maximum)
    if y.size and kernels is convolution_tiles and convolution_tiles.is_whole(geometry, x.shape[0], x.dtype, y.device):
        found = convolution_tiles.room_for_sums(geometry, x, y)
        kernels.forward(x, weight, bias, residual, geometry, *low_and_high, y, found)
    else:
        kernels.forward(x, weight, bias, residual, geometry, *low_and_high, y)
        found = moments(y, mean.dtype)
    batch.statistics_of(found, mean, variance)


@implements
def conv2d_backward_input_added(grad_y, weight, added, geometry, out):
    choose.convolution("backward_input", geometry, grad_y, weight, out).backward_input(grad_y, weight, added, geometry, out)
