"""What training fuses: batch norm and what follows it element by element, gradients that are added up, convolutions with pooling.

Each primitive has a composition of plain ones, which also says what it computes. Limits are those of `fused.py`: the result lies in
[minimum, maximum], None being no limit, and a gradient passes where it lies strictly inside of them (or is a NaN).
"""

from __future__ import annotations

from numbanet.backends.contract.checks import check_float, check_shape
from numbanet.backends.contract.convolution import conv2d_backward_bias, conv2d_backward_input, conv2d_backward_weight
from numbanet.backends.contract.fused import check_limits, conv2d_fused, limited
from numbanet.backends.contract.linear import linear_backward_bias, linear_backward_input, linear_backward_weight
from numbanet.backends.contract.normalization import batch_norm_backward, batch_norm_forward, batch_norm_inference_forward, of_channels
from numbanet.backends.contract.pooling import max_pool2d_backward_input, max_pool2d_forward
from numbanet.backends.interface import Array, ArraySpec, channels_last, primitive
from numbanet.errors import UsageError
from numbanet.geometry import ConvGeometry, PoolGeometry


def _inside(backend, grad_y, y, minimum, maximum):
    """The gradient where y lies inside of the limits, else 0."""
    if minimum is not None:
        grad_y = backend.where(backend.less_equal(y, minimum), 0.0, grad_y)
    if maximum is not None:
        grad_y = backend.where(backend.greater_equal(y, maximum), 0.0, grad_y)
    return grad_y


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
def batch_norm_given_forward(x: Array, weight: Array | None, bias: Array | None, residual: Array | None, mean: Array, variance: Array,
                             epsilon: float, minimum: float | None, maximum: float | None):
    """y of `batch_norm_fused_forward`, whose statistics are known: those of `conv2d_with_statistics`, which made x."""
    spec = batch_norm_inference_forward.specification(x, weight, bias, mean, variance, epsilon)
    check_float("batch_norm", x=x, residual=residual)
    check_shape("batch_norm", "residual", residual, x.shape)
    check_limits("batch_norm", minimum, maximum)
    return spec


@batch_norm_given_forward.composed
def _batch_norm_given_forward(backend, x, weight, bias, residual, mean, variance, epsilon, minimum, maximum):
    y = backend.batch_norm_inference_forward(x, weight, bias, mean, variance, epsilon)
    if residual is not None:
        y = backend.add(y, residual)
    return limited(backend, y, minimum, maximum)


@primitive(may_overwrite=("grad_y",))
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
    passed = _inside(backend, grad_y, limited, minimum, maximum)
    of_residual = None if y is None else backend.copy(passed) if passed is grad_y else passed      # grad_x may take the place of grad_y
    return *backend.batch_norm_backward(passed, x, weight, mean, variance, epsilon), of_residual


@primitive(may_overwrite=("residual",))
def conv2d_with_statistics(x: Array, weight: Array, bias: Array | None, residual: Array | None, geometry: ConvGeometry,
                           minimum: float | None, maximum: float | None):
    """(y, mean (K,), variance (K,)): y of `conv2d_fused`, and what `batch_norm_forward` says of it."""
    spec = conv2d_fused.specification(x, weight, bias, residual, geometry, minimum, maximum)
    return spec, of_channels(spec), of_channels(spec)


@conv2d_with_statistics.composed
def _conv2d_with_statistics(backend, x, weight, bias, residual, geometry, minimum, maximum):
    y = backend.conv2d_fused(x, weight, bias, residual, geometry, minimum, maximum)
    return y, *backend.batch_norm_forward(y, None, None, 0.0)[1:]


@primitive(may_overwrite=("added",))
def conv2d_backward_input_added(grad_y: Array, weight: Array, added: Array, geometry: ConvGeometry):
    """`conv2d_backward_input` plus `added`, of its shape: the gradient of a map that others have read as well."""
    spec = conv2d_backward_input.specification(grad_y, weight, geometry)
    check_float("conv2d_backward_input", grad_y=grad_y, added=added)
    check_shape("conv2d_backward_input", "added", added, spec.shape)
    return spec


@conv2d_backward_input_added.composed
def _conv2d_backward_input_added(backend, grad_y, weight, added, geometry):
    return backend.add(backend.conv2d_backward_input(grad_y, weight, geometry), added)


@primitive
def conv2d_max_pool_forward(x: Array, weight: Array, bias: Array | None, geometry: ConvGeometry, pooling: PoolGeometry,
                            minimum: float | None, maximum: float | None):
    """(y, argmax) of `max_pool2d_forward` over `conv2d_fused` of x without a residual."""
    return max_pool2d_forward.specification(conv2d_fused.specification(x, weight, bias, None, geometry, minimum, maximum), pooling)


@conv2d_max_pool_forward.composed
def _conv2d_max_pool_forward(backend, x, weight, bias, geometry, pooling, minimum, maximum):
    return backend.max_pool2d_forward(backend.conv2d_fused(x, weight, bias, None, geometry, minimum, maximum), pooling)


def _gradient_of_map(operation: str, grad_y, y, argmax, geometry, pooling, minimum, maximum):
    """What the convolution's gradients are specified by: the gradient of its map."""
    spec = max_pool2d_backward_input.specification(grad_y, argmax, pooling)
    check_float(operation, grad_y=grad_y, y=y)
    check_shape(operation, "y", y, grad_y.shape)
    check_limits(operation, minimum, maximum)
    return spec


def _unpooled(backend, grad_y, y, argmax, pooling, minimum, maximum):
    return backend.max_pool2d_backward_input(_inside(backend, grad_y, y, minimum, maximum), argmax, pooling)


@primitive
def conv2d_max_pool_backward_input(grad_y: Array, y: Array, argmax: Array, weight: Array, geometry: ConvGeometry, pooling: PoolGeometry,
                                   minimum: float | None, maximum: float | None):
    """Gradient of `conv2d_max_pool_forward` for x.

    A product with a gradient of 0 may be left out, so that inf and NaN count for nothing.
    """
    spec = _gradient_of_map("conv2d_max_pool_backward_input", grad_y, y, argmax, geometry, pooling, minimum, maximum)
    return conv2d_backward_input.specification(spec, weight, geometry)


@conv2d_max_pool_backward_input.composed
def _conv2d_max_pool_backward_input(backend, grad_y, y, argmax, weight, geometry, pooling, minimum, maximum):
    return backend.conv2d_backward_input(_unpooled(backend, grad_y, y, argmax, pooling, minimum, maximum), weight, geometry)


@primitive
def conv2d_max_pool_backward_weight(grad_y: Array, y: Array, argmax: Array, x: Array, geometry: ConvGeometry, pooling: PoolGeometry,
                                    minimum: float | None, maximum: float | None):
    """(grad_weight, grad_bias (K,)) of `conv2d_max_pool_forward`; products with gradients of 0 as in the gradient for x."""
    spec = _gradient_of_map("conv2d_max_pool_backward_weight", grad_y, y, argmax, geometry, pooling, minimum, maximum)
    return conv2d_backward_weight.specification(spec, x, geometry), conv2d_backward_bias.specification(spec)


@conv2d_max_pool_backward_weight.composed
def _conv2d_max_pool_backward_weight(backend, grad_y, y, argmax, x, geometry, pooling, minimum, maximum):
    grad_m = _unpooled(backend, grad_y, y, argmax, pooling, minimum, maximum)
    return backend.conv2d_backward_weight(grad_m, x, geometry), backend.conv2d_backward_bias(grad_m)


@primitive
def linear_fused_backward(grad_y: Array, y: Array | None, x: Array, weight: Array | None, minimum: float | None, maximum: float | None):
    """(grad_x, grad_weight, grad_bias (O,)) of `linear_fused`, whose result was `y`, None without limits; `weight` None: no grad_x."""
    check_limits("linear_backward", minimum, maximum)
    if y is None and (minimum, maximum) != (None, None):
        raise UsageError("linear_backward: y expects the limited result, received None")
    check_shape("linear_backward", "y", y, grad_y.shape)
    return (None if weight is None else linear_backward_input.specification(grad_y, weight),
            linear_backward_weight.specification(grad_y, x), linear_backward_bias.specification(grad_y))


@linear_fused_backward.composed
def _linear_fused_backward(backend, grad_y, y, x, weight, minimum, maximum):
    passed = _inside(backend, grad_y, y, minimum, maximum)
    return (None if weight is None else backend.linear_backward_input(passed, weight), backend.linear_backward_weight(passed, x),
            backend.linear_backward_bias(passed))
