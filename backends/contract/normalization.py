"""Normalization: subtract a mean, divide by a standard deviation, scale and shift.

    y = (x - mean) / sqrt(variance + epsilon) * weight + bias

Variances are biased (divided by the number of elements) and are computed from deviations, so that they survive a mean
that is many times the deviation. `weight` None counts as 1, `bias` None as 0. Feature maps are (N, C) or (N, C, ...).
"""

from __future__ import annotations

import numpy as np

from numbanet.backends.contract.checks import check_float, check_shape, is_16_bit
from numbanet.backends.interface import Array, Arrays, ArraySpec, channels_last, primitive
from numbanet.errors import DTypeError, ShapeError


def _check_map(operation: str, x, **per_channel) -> None:
    check_float(operation, x=x, **per_channel)
    _check_channels(operation, x, per_channel)


def _check_channels(operation: str, x, per_channel: dict) -> None:
    if len(x.shape) < 2:
        raise ShapeError(f"{operation}: x expects (N, C) or (N, C, ...), received shape {x.shape}")
    for name, values in per_channel.items():
        check_shape(operation, name, values, x.shape[1:2])


def _check_batch(operation: str, x, **per_channel) -> None:
    """As `_check_map`; 16-bit maps have float32 statistics, weights and biases."""
    if not is_16_bit(x):
        return _check_map(operation, x, **per_channel)
    for name, values in per_channel.items():
        if values is not None and values.dtype != np.float32:
            raise DTypeError(f"{operation}: {name} expects float32 beside x of {x.dtype}, received {values.dtype}; use .float()")
    return _check_channels(operation, x, per_channel)


def _map_like(x) -> ArraySpec:
    return ArraySpec(x.shape, x.dtype, channels_last(len(x.shape)))


def of_channels(x) -> ArraySpec:
    """Statistics and their like, a number a channel of x: float32 beside maps of 16 bits."""
    return ArraySpec(x.shape[1:2], np.dtype(np.float32) if x.dtype.itemsize == 2 else x.dtype)


def _gradients(x) -> tuple[ArraySpec, ArraySpec, ArraySpec]:
    per_channel = ArraySpec(x.shape[1:2], x.dtype)
    return _map_like(x), per_channel, per_channel


@primitive
def batch_norm_forward(x: Array, weight: Array | None, bias: Array | None, epsilon: float):
    """(y, mean (C,), variance (C,)): each channel by its own statistics over batch and pixels."""
    _check_batch("batch_norm", x, weight=weight, bias=bias)
    statistics = of_channels(x)
    return _map_like(x), statistics, statistics


@primitive(may_overwrite=("grad_y",))
def batch_norm_backward(grad_y: Array, x: Array, weight: Array | None, mean: Array, variance: Array, epsilon: float):
    """(grad_x, grad_weight (C,), grad_bias (C,)) where mean and variance are those of x."""
    _check_batch("batch_norm_backward", x, weight=weight, mean=mean, variance=variance)
    check_shape("batch_norm_backward", "grad_y", grad_y, x.shape)
    return _map_like(x), of_channels(x), of_channels(x)


@primitive(may_overwrite=("x",))
def batch_norm_inference_forward(x: Array, weight: Array | None, bias: Array | None, mean: Array, variance: Array,
                                 epsilon: float):
    """y: each channel by the given mean (C,) and variance (C,)."""
    _check_batch("batch_norm", x, weight=weight, bias=bias, mean=mean, variance=variance)
    return _map_like(x)


@primitive(may_overwrite=("grad_y",))
def batch_norm_inference_backward(grad_y: Array, x: Array, weight: Array | None, mean: Array, variance: Array,
                                  epsilon: float):
    """(grad_x, grad_weight (C,), grad_bias (C,)) where mean and variance are constants."""
    _check_batch("batch_norm_inference_backward", x, weight=weight, mean=mean, variance=variance)
    check_shape("batch_norm_inference_backward", "grad_y", grad_y, x.shape)
    return _map_like(x), of_channels(x), of_channels(x)


@primitive(mutates=("running",))
def running_average_update(running: Array, value: Array, momentum: float, scale: float) -> None:
    """running = (1 - momentum) * running + momentum * scale * value, in place."""
    check_float("running_average_update", running=running, value=value)
    check_shape("running_average_update", "value", value, running.shape)


@primitive(mutates=("running",))
def running_averages_update(running: Arrays, values: Arrays, momenta: tuple[float, ...], scales: tuple[float, ...]) -> None:
    """`running_average_update` of each array, all of one dtype."""
    for name, given in (("values", values), ("momenta", momenta), ("scales", scales)):
        if len(given) != len(running):
            raise ShapeError(f"running_averages_update: {name} expects {len(running)}, one an average, received {len(given)}")
    for one, value in zip(running, values):
        check_float("running_averages_update", first=running[0], running=one, value=value)
        check_shape("running_averages_update", "value", value, one.shape)


@running_averages_update.composed
def _update_averages(backend, running, values, momenta, scales):
    for of_one in zip(running, values, momenta, scales):
        backend.running_average_update(*of_one)


@primitive(mutates=("counters",))
def counters_update(counters: Arrays, amount: int) -> None:
    """counters += amount, in place, of integers of one dtype: how many batches batch norms have seen."""
    for one in counters:
        if one.dtype != counters[0].dtype or one.dtype.kind not in "iu":
            raise DTypeError(f"counters_update: expected integers of one dtype, received {one.dtype} beside {counters[0].dtype}")


@counters_update.composed
def _count(backend, counters, amount):
    for one in counters:
        backend.add(one, amount, out=one)


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


# Over several processes that train one model. `group` stands for them: group.gather(values) gives the float64 vectors of all,
# (processes, len(values)), in the same order everywhere, so that all go on with the same bits. All call in the same order.

def _check_vectors(operation: str, first: str, values, **others) -> ArraySpec:
    check_float(operation, **{first: values}, **others)
    if len(values.shape) != 1:
        raise ShapeError(f"{operation}: {first} expects shape (C,), received {values.shape}")
    for name, other in others.items():
        check_shape(operation, name, other, values.shape)
    return ArraySpec(values.shape, values.dtype)


@primitive
def batch_norm_gather_forward(mean: Array, variance: Array, count: int, group: object):
    """(mean, variance, unbiased variance (C,)) of the batch of all processes, of which this one has `count` elements a channel."""
    spec = _check_vectors("batch_norm_gather_forward", "mean", mean, variance=variance)
    return spec, spec, spec


@batch_norm_gather_forward.composed
def _batch_norm_gather_forward(backend, mean, variance, count, group):
    own = np.concatenate([[count], backend.to_numpy(mean), backend.to_numpy(variance)]).astype(np.float64)
    counts, means, variances = np.split(group.gather(own), [1, 1 + mean.shape[0]], 1)       # (R, 1), (R, C), (R, C)
    total = counts.sum()
    whole = (counts * means).sum(0) / total
    squares = (counts * (variances + (means - whole) ** 2)).sum(0)
    if total < 2:
        raise ShapeError("batch_norm: expected more than 1 value per channel when training, received 1 on all processes together; "
                         "enlarge the batch, or use eval()")
    return tuple(backend.from_numpy(a.astype(mean.dtype)) for a in (whole, squares / total, squares / (total - 1)))


@primitive
def batch_norm_gather_backward(grad_weight: Array, grad_bias: Array, weight: Array | None, variance: Array, epsilon: float, count: int,
                               group: object):
    """(scale, shift (C,)): the batch's statistics add ``scale * (x - mean) / sqrt(variance + epsilon) + shift`` to the gradient of x.

    `grad_weight` and `grad_bias` are this process's sums of grad_y * xhat and grad_y, of a loss that is the mean over its own samples.
    """
    spec = _check_vectors("batch_norm_gather_backward", "grad_weight", grad_weight, grad_bias=grad_bias, weight=weight, variance=variance)
    return spec, spec


@batch_norm_gather_backward.composed
def _batch_norm_gather_backward(backend, grad_weight, grad_bias, weight, variance, epsilon, count, group):
    own = np.concatenate([[count], backend.to_numpy(grad_weight), backend.to_numpy(grad_bias)]).astype(np.float64)
    counts, *sums = np.split(group.gather(own), [1, 1 + grad_weight.shape[0]], 1)
    factor = -1.0 / np.sqrt(backend.to_numpy(variance).astype(np.float64) + epsilon)
    if weight is not None:
        factor = factor * backend.to_numpy(weight)
    # The loss of all is the sum of each one's, weighed by its share of the batch; its gradient here is divided by this one's again.
    shares = counts / counts.sum()
    return tuple(backend.from_numpy((factor * (shares * s).sum(0) / count).astype(variance.dtype)) for s in sums)
