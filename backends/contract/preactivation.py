"""Convolutions of a map that is normalised and limited as it is read, so that what they convolve is never written to memory.

    z = limited((x - center) * scale + shift)  a channel,      y = conv2d(z, weight, bias)

That is batch norm and ReLU before a convolution (He et al., 2016, "Identity mappings in deep residual networks", arXiv:1603.05027):
center is the mean, shift the bias. `center` None counts as 0, `shift` None as 0; z lies in [lowest, highest], None being no limit. What
surrounds a map is zeros of z. Each primitive has a composition of plain ones, which also says what it computes.
"""

from __future__ import annotations

import numpy as np

from numbanet.backends.contract.checks import check_float, check_shape
from numbanet.backends.contract.convolution import conv2d_backward_weight
from numbanet.backends.contract.fused import channel_affine, conv2d_fused, limited
from numbanet.backends.contract.fused_training import conv2d_with_statistics
from numbanet.backends.contract.normalization import batch_norm_forward
from numbanet.backends.interface import Array, ArraySpec, primitive
from numbanet.errors import ShapeError
from numbanet.geometry import ConvGeometry


def _check_preactivation(operation: str, x, center, scale, shift, lowest, highest) -> None:
    channel_affine.specification(x, scale, scale if shift is None else shift, lowest, highest)
    check_float(operation, x=x, center=center)
    check_shape(operation, "center", center, x.shape[1:2])


def _preactivated(backend, x, center, scale, shift, lowest, highest):
    per_channel = (scale.shape[0], *[1] * (len(x.shape) - 2))
    if center is not None:
        x = backend.subtract(x, backend.reshape(center, per_channel))
    z = backend.multiply(x, backend.reshape(scale, per_channel))
    if shift is not None:
        z = backend.add(z, backend.reshape(shift, per_channel))
    return limited(backend, z, lowest, highest)


@primitive(may_overwrite=("residual",))
def conv2d_preactivated(x: Array, weight: Array, bias: Array | None, residual: Array | None, geometry: ConvGeometry,
                        minimum: float | None, maximum: float | None, center: Array | None, scale: Array, shift: Array | None,
                        lowest: float | None, highest: float | None):
    """y of `conv2d_fused` of z."""
    _check_preactivation("conv2d", x, center, scale, shift, lowest, highest)
    return conv2d_fused.specification(x, weight, bias, residual, geometry, minimum, maximum)


@conv2d_preactivated.composed
def _conv2d_preactivated(backend, x, weight, bias, residual, geometry, minimum, maximum, center, scale, shift, lowest, highest):
    z = _preactivated(backend, x, center, scale, shift, lowest, highest)
    return backend.conv2d_fused(z, weight, bias, residual, geometry, minimum, maximum)


@primitive(may_overwrite=("residual",))
def conv2d_preactivated_with_statistics(x: Array, weight: Array, bias: Array | None, residual: Array | None, geometry: ConvGeometry,
                                        minimum: float | None, maximum: float | None, center: Array | None, scale: Array,
                                        shift: Array | None, lowest: float | None, highest: float | None):
    """(y, mean (K,), variance (K,)) of `conv2d_with_statistics` of z."""
    _check_preactivation("conv2d", x, center, scale, shift, lowest, highest)
    return conv2d_with_statistics.specification(x, weight, bias, residual, geometry, minimum, maximum)


@conv2d_preactivated_with_statistics.composed
def _conv2d_preactivated_with_statistics(backend, x, weight, bias, residual, geometry, minimum, maximum, center, scale, shift, lowest,
                                         highest):
    z = _preactivated(backend, x, center, scale, shift, lowest, highest)
    return backend.conv2d_with_statistics(z, weight, bias, residual, geometry, minimum, maximum)


@primitive
def conv2d_preactivated_backward_weight(grad_y: Array, x: Array, geometry: ConvGeometry, center: Array | None, scale: Array,
                                        shift: Array | None, lowest: float | None, highest: float | None):
    """`conv2d_backward_weight` of z."""
    _check_preactivation("conv2d_backward_weight", x, center, scale, shift, lowest, highest)
    return conv2d_backward_weight.specification(grad_y, x, geometry)


@conv2d_preactivated_backward_weight.composed
def _conv2d_preactivated_backward_weight(backend, grad_y, x, geometry, center, scale, shift, lowest, highest):
    return backend.conv2d_backward_weight(grad_y, _preactivated(backend, x, center, scale, shift, lowest, highest), geometry)


@primitive
def batch_norm_statistics(x: Array):
    """(mean (C,), variance (C,)) of `batch_norm_forward`."""
    return batch_norm_forward.specification(x, None, None, 0.0)[1:]


@batch_norm_statistics.composed
def _batch_norm_statistics(backend, x):
    return backend.batch_norm_forward(x, None, None, 0.0)[1:]


@primitive
def batch_norm_scale(weight: Array | None, variance: Array, epsilon: float):
    """weight / sqrt(variance + epsilon) (C,); `weight` None counts as 1."""
    check_float("batch_norm_scale", variance=variance, weight=weight)
    if len(variance.shape) != 1:
        raise ShapeError(f"batch_norm_scale: variance expects shape (C,), received {variance.shape}")
    check_shape("batch_norm_scale", "weight", weight, variance.shape)
    return ArraySpec(variance.shape, np.dtype(variance.dtype))


@batch_norm_scale.composed
def _batch_norm_scale(backend, weight, variance, epsilon):
    scale = backend.rsqrt(backend.add(variance, epsilon))
    return scale if weight is None else backend.multiply(scale, weight)
