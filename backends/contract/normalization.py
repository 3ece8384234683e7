"""Normalization: subtract a mean, divide by a standard deviation, scale and shift.

    y = (x - mean) / sqrt(variance + epsilon) * weight + bias

Variances are biased (divided by the number of elements) and are computed from deviations, so that they survive a mean
that is many times the deviation. `weight` None counts as 1, `bias` None as 0. Feature maps are (N, C) or (N, C, ...).
"""

from __future__ import annotations

from numbanet.backends.contract.checks import check_float, check_shape
from numbanet.backends.interface import Array, ArraySpec, channels_last, primitive
from numbanet.errors import ShapeError


def _check_map(operation: str, x, **per_channel) -> None:
    check_float(operation, x=x, **per_channel)
    if len(x.shape) < 2:
        raise ShapeError(f"{operation}: x expects (N, C) or (N, C, ...), received shape {x.shape}")
    for name, values in per_channel.items():
        check_shape(operation, name, values, x.shape[1:2])


def _map_like(x) -> ArraySpec:
    return ArraySpec(x.shape, x.dtype, channels_last(len(x.shape)))


def _gradients(x) -> tuple[ArraySpec, ArraySpec, ArraySpec]:
    per_channel = ArraySpec(x.shape[1:2], x.dtype)
    return _map_like(x), per_channel, per_channel


@primitive
def batch_norm_forward(x: Array, weight: Array | None, bias: Array | None, epsilon: float):
    """(y, mean (C,), variance (C,)): each channel by its own statistics over batch and pixels."""
    _check_map("batch_norm", x, weight=weight, bias=bias)
    statistics = ArraySpec(x.shape[1:2], x.dtype)
    return _map_like(x), statistics, statistics


@primitive
def batch_norm_backward(grad_y: Array, x: Array, weight: Array | None, mean: Array, variance: Array, epsilon: float):
    """(grad_x, grad_weight (C,), grad_bias (C,)) where mean and variance are those of x."""
    _check_map("batch_norm_backward", x, weight=weight, mean=mean, variance=variance)
    check_shape("batch_norm_backward", "grad_y", grad_y, x.shape)
    return _gradients(x)


@primitive
def batch_norm_inference_forward(x: Array, weight: Array | None, bias: Array | None, mean: Array, variance: Array,
                                 epsilon: float):
    """y: each channel by the given mean (C,) and variance (C,)."""
    _check_map("batch_norm", x, weight=weight, bias=bias, mean=mean, variance=variance)
    return _map_like(x)


@primitive
def batch_norm_inference_backward(grad_y: Array, x: Array, weight: Array | None, mean: Array, variance: Array,
                                  epsilon: float):
    """(grad_x, grad_weight (C,), grad_bias (C,)) where mean and variance are constants."""
    _check_map("batch_norm_inference_backward", x, weight=weight, mean=mean, variance=variance)
    check_shape("batch_norm_inference_backward", "grad_y", grad_y, x.shape)
    return _gradients(x)


@primitive(mutates=("running",))
def running_average_update(running: Array, value: Array, momentum: float, scale: float) -> None:
    """running = (1 - momentum) * running + momentum * scale * value, in place."""
    check_float("running_average_update", running=running, value=value)
    check_shape("running_average_update", "value", value, running.shape)


def _check_groups(operation: str, x, groups: int) -> None:
    if not isinstance(groups, int) or groups < 1 or x.shape[1] % groups:
        raise ShapeError(f"{operation}: groups expects a divisor of {x.shape[1]} channels, received {groups!r}")


@primitive
def group_norm_forward(x: Array, groups: int, weight: Array | None, bias: Array | None, epsilon: float):
    """(y, mean (N, G), variance (N, G)): each group of C/G channels of a sample by its own statistics."""
    _check_map("group_norm", x, weight=weight, bias=bias)
    _check_groups("group_norm", x, groups)
    statistics = ArraySpec((x.shape[0], groups), x.dtype)
    return _map_like(x), statistics, statistics


@primitive
def group_norm_backward(grad_y: Array, x: Array, weight: Array | None, mean: Array, variance: Array, groups: int,
                        epsilon: float):
    """(grad_x, grad_weight (C,), grad_bias (C,))."""
    _check_map("group_norm_backward", x, weight=weight)
    _check_groups("group_norm_backward", x, groups)
    check_float("group_norm_backward", x=x, grad_y=grad_y, mean=mean, variance=variance)
    check_shape("group_norm_backward", "grad_y", grad_y, x.shape)
    check_shape("group_norm_backward", "mean", mean, (x.shape[0], groups))
    check_shape("group_norm_backward", "variance", variance, (x.shape[0], groups))
    return _gradients(x)


def _check_rows(operation: str, x, axes: int, **per_element) -> None:
    check_float(operation, x=x, **per_element)
    if not 1 <= axes <= len(x.shape):
        raise ShapeError(f"{operation}: axes expects a number from 1 to {len(x.shape)}, received {axes}")
    for name, values in per_element.items():
        check_shape(operation, name, values, x.shape[-axes:])


@primitive
def layer_norm_forward(x: Array, axes: int, weight: Array | None, bias: Array | None, epsilon: float):
    """(y, mean, variance): the last `axes` axes together by their own statistics, which have the shape of the others.

    weight and bias have the shape of the last axes.
    """
    _check_rows("layer_norm", x, axes, weight=weight, bias=bias)
    statistics = ArraySpec(x.shape[:-axes], x.dtype)
    return ArraySpec(x.shape, x.dtype), statistics, statistics


@primitive
def layer_norm_backward(grad_y: Array, x: Array, weight: Array | None, mean: Array, variance: Array, axes: int,
                        epsilon: float):
    """(grad_x, grad_weight, grad_bias), the latter two of the shape of the last `axes` axes."""
    _check_rows("layer_norm_backward", x, axes, weight=weight)
    check_float("layer_norm_backward", x=x, grad_y=grad_y, mean=mean, variance=variance)
    check_shape("layer_norm_backward", "grad_y", grad_y, x.shape)
    check_shape("layer_norm_backward", "mean", mean, x.shape[:-axes])
    check_shape("layer_norm_backward", "variance", variance, x.shape[:-axes])
    per_element = ArraySpec(x.shape[-axes:], x.dtype)
    return ArraySpec(x.shape, x.dtype), per_element, per_element


@primitive
def local_response_norm_forward(x: Array, size: int, alpha: float, beta: float, k: float):
    """x / (k + alpha / size * sum of x**2 over `size` neighbouring channels)**beta.

    The neighbours of channel c are c - size // 2 ... c + (size - 1) // 2, those that exist.
    """
    _check_map("local_response_norm", x)
    if size < 1:
        raise ShapeError(f"local_response_norm: size expects at least 1, received {size}")
    return _map_like(x)


@primitive
def local_response_norm_backward_input(grad_y: Array, x: Array, size: int, alpha: float, beta: float, k: float):
    """Gradient with respect to x."""
    check_float("local_response_norm_backward_input", grad_y=grad_y, x=x)
    check_shape("local_response_norm_backward_input", "grad_y", grad_y, x.shape)
    return _map_like(x)
