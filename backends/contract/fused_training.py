"""What training fuses: batch norm and what follows it element by element, and gradients that are added up.

Each primitive has a composition of plain ones, which also says what it computes. Limits are those of `fused.py`: the result lies in
[minimum, maximum], None being no limit, and a gradient passes where it lies strictly inside of them (or is a NaN).
"""

from __future__ import annotations

from numbanet.backends.contract.checks import check_float, check_shape
from numbanet.backends.contract.convolution import conv2d_backward_input
from numbanet.backends.contract.fused import check_limits, limited
from numbanet.backends.contract.normalization import batch_norm_backward, batch_norm_forward
from numbanet.backends.interface import Array, ArraySpec, channels_last, primitive
from numbanet.geometry import ConvGeometry


@primitive
def batch_norm_fused_forward(x: Array, weight: Array | None, bias: Array | None, residual: Array | None, epsilon: float,
                             minimum: float | None, maximum: float | None):
    """(y, mean (C,), variance (C,)): y of `batch_norm_forward` plus `residual`, of x's shape, limited to [minimum, maximum]."""
    spec = batch_norm_forward.specification(x, weight, bias, epsilon)
    check_float("batch_norm", x=x, residual=residual)
    check_shape("batch_norm", "residual", residual, x.shape)
    check_limits("batch_norm", minimum, maximum)
    return spec


@batch_norm_fused_forward.composed
def _batch_norm_fused_forward(backend, x, weight, bias, residual, epsilon, minimum, maximum):
    y, mean, variance = backend.batch_norm_forward(x, weight, bias, epsilon)
    if residual is not None:
        y = backend.add(y, residual)
    return limited(backend, y, minimum, maximum), mean, variance


@primitive
def batch_norm_fused_backward(grad_y: Array, y: Array | None, x: Array, weight: Array | None, bias: Array | None, mean: Array,
                              variance: Array, epsilon: float, minimum: float | None, maximum: float | None):
    """(grad_x, grad_weight (C,), grad_bias (C,), grad_residual) of `batch_norm_fused_forward`.

    Without a residual `y` is None, what was limited is computed again from x, and the last gradient is None. With one, y is the result.
    """
    grads = batch_norm_backward.specification(grad_y, x, weight, mean, variance, epsilon)
    check_shape("batch_norm_backward", "y", y, x.shape)
    check_shape("batch_norm_backward", "bias", bias, x.shape[1:2])
    check_limits("batch_norm_backward", minimum, maximum)
    return *grads, None if y is None else ArraySpec(x.shape, x.dtype, channels_last(len(x.shape)))


@batch_norm_fused_backward.composed
def _batch_norm_fused_backward(backend, grad_y, y, x, weight, bias, mean, variance, epsilon, minimum, maximum):
    limited = y if y is not None else backend.batch_norm_inference_forward(x, weight, bias, mean, variance, epsilon)
    passed = grad_y
    if minimum is not None:
        passed = backend.where(backend.less_equal(limited, minimum), 0.0, passed)
    if maximum is not None:
        passed = backend.where(backend.greater_equal(limited, maximum), 0.0, passed)
    return *backend.batch_norm_backward(passed, x, weight, mean, variance, epsilon), None if y is None else passed


@primitive
def conv2d_backward_input_added(grad_y: Array, weight: Array, added: Array, geometry: ConvGeometry):
    """`conv2d_backward_input` plus `added`, of its shape: the gradient of a map that others have read as well."""
    spec = conv2d_backward_input.specification(grad_y, weight, geometry)
    check_float("conv2d_backward_input", grad_y=grad_y, added=added)
    check_shape("conv2d_backward_input", "added", added, spec.shape)
    return spec


@conv2d_backward_input_added.composed
def _conv2d_backward_input_added(backend, grad_y, weight, added, geometry):
    return backend.add(backend.conv2d_backward_input(grad_y, weight, geometry), added)
