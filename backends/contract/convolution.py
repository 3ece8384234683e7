"""Convolution over two spatial axes: cross-correlation, as in every framework.

    y[n, k, oh, ow] = bias[k] + sum over c, r, s of
        x[n, g(k) * C/G + c, oh * stride + r * dilation - padding, ow * stride + s * dilation - padding] * weight[k, c, r, s]

x (N, C, H, W), weight (K, C/G, R, S), bias (K,), y (N, K, OH, OW); G groups. Transposed convolution is the same three
primitives with other roles.
"""

from __future__ import annotations

from numbanet.backends.contract.checks import check_float, check_rank, check_shape
from numbanet.backends.interface import Array, ArraySpec, channels_last, primitive
from numbanet.geometry import ConvGeometry

NHWC = channels_last(4)


@primitive
def conv2d_forward(x: Array, weight: Array, bias: Array | None, geometry: ConvGeometry):
    """y (N, K, OH, OW); `bias` None adds nothing."""
    check_float("conv2d", x=x, weight=weight, bias=bias)
    check_rank("conv2d", "x", x, 4, "(N, C, H, W)")
    check_shape("conv2d", "x", x, (x.shape[0], geometry.channels, *geometry.input_size))
    check_shape("conv2d", "weight", weight, geometry.weight_shape)
    check_shape("conv2d", "bias", bias, (geometry.filters,))
    return ArraySpec((x.shape[0], geometry.filters, *geometry.output_size), x.dtype, NHWC)


@primitive
def conv2d_backward_input(grad_y: Array, weight: Array, geometry: ConvGeometry):
    """Gradient with respect to x, (N, C, H, W); also the forward pass of a transposed convolution."""
    check_float("conv2d_backward_input", grad_y=grad_y, weight=weight)
    check_shape("conv2d_backward_input", "grad_y", grad_y, (grad_y.shape[0], geometry.filters, *geometry.output_size))
    check_shape("conv2d_backward_input", "weight", weight, geometry.weight_shape)
    return ArraySpec((grad_y.shape[0], geometry.channels, *geometry.input_size), grad_y.dtype, NHWC)


@primitive
def conv2d_backward_weight(grad_y: Array, x: Array, geometry: ConvGeometry):
    """Gradient with respect to weight, (K, C/G, R, S), summed over the batch and all pixels in a fixed order."""
    check_float("conv2d_backward_weight", grad_y=grad_y, x=x)
    check_shape("conv2d_backward_weight", "grad_y", grad_y, (grad_y.shape[0], geometry.filters, *geometry.output_size))
    check_shape("conv2d_backward_weight", "x", x, (grad_y.shape[0], geometry.channels, *geometry.input_size))
    return ArraySpec(geometry.weight_shape, x.dtype)


@primitive
def conv2d_backward_bias(grad_y: Array):
    """Gradient with respect to bias, (K,): the sum of grad_y (N, K, OH, OW) over the batch and all pixels."""
    check_float("conv2d_backward_bias", grad_y=grad_y)
    check_rank("conv2d_backward_bias", "grad_y", grad_y, 4, "(N, K, OH, OW)")
    return ArraySpec((grad_y.shape[1],), grad_y.dtype)
