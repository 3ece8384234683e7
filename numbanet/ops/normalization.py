"""Normalization: batch, layer, group, instance, and local response."""

from __future__ import annotations

from math import prod

from numbanet.autograd.operation import Operation
from numbanet.errors import ShapeError, UsageError

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm", "local_response_norm"]


class BatchNorm(Operation):
    """Each channel by its statistics over batch and pixels (Ioffe and Szegedy, 2015); moves the running statistics."""

    operation_name = "batch_norm"

    def forward(self, backend, x, weight, bias, running_mean, running_var, momentum, epsilon):
        y, mean, variance = backend.batch_norm_forward(x, weight, bias, epsilon)
        count = x.shape[0] * prod(x.shape[2:])
        if running_mean is not None and count:
            backend.running_average_update(running_mean, mean, momentum, 1.0)
            backend.running_average_update(running_var, variance, momentum, count / (count - 1))       # unbiased
        self.save(x, weight, mean, variance, epsilon, bias is not None, running_mean is not None)
        return y

    def backward(self, backend, grad_y, needs):
        x, weight, mean, variance, epsilon, has_bias, has_running = self.saved
        gradients = backend.batch_norm_backward(grad_y, x, weight, mean, variance, epsilon)
        return _of_tensors(gradients, weight is not None, has_bias) + (None, None) * has_running


class BatchNormInference(Operation):
    """Each channel by given statistics."""

    operation_name = "batch_norm"

    def forward(self, backend, x, weight, bias, mean, variance, epsilon):
        self.save(x, weight, mean, variance, epsilon, bias is not None)
        return backend.batch_norm_inference_forward(x, weight, bias, mean, variance, epsilon)

    def backward(self, backend, grad_y, needs):
        x, weight, mean, variance, epsilon, has_bias = self.saved
        gradients = backend.batch_norm_inference_backward(grad_y, x, weight, mean, variance, epsilon)
        return _of_tensors(gradients, weight is not None, has_bias) + (None, None)


class SyncBatchNorm(Operation):
    """Each channel by its statistics over the batches of all processes of `group`; moves the running statistics.

    x, y and the gradients are this process's. Its loss is the mean over its own samples, and gradients are averaged afterwards with each
    process's share of the samples, as data-parallel training does.
    """

    operation_name = "sync_batch_norm"

    def forward(self, backend, x, weight, bias, running_mean, running_var, momentum, epsilon, group):
        count = x.shape[0] * prod(x.shape[2:])
        _, mean, variance = backend.batch_norm_forward(x, None, None, epsilon)
        mean, variance, unbiased = backend.batch_norm_gather_forward(mean, variance, count, group)
        if running_mean is not None:
            backend.running_average_update(running_mean, mean, momentum, 1.0)
            backend.running_average_update(running_var, unbiased, momentum, 1.0)
        self.save(x, weight, mean, variance, epsilon, count, group, bias is not None, running_mean is not None)
        return backend.batch_norm_inference_forward(x, weight, bias, mean, variance, epsilon)

    def backward(self, backend, grad_y, needs):
        x, weight, mean, variance, epsilon, count, group, has_bias, has_running = self.saved
        grad_x, grad_weight, grad_bias = backend.batch_norm_inference_backward(grad_y, x, weight, mean, variance, epsilon)
        scale, shift = backend.batch_norm_gather_backward(grad_weight, grad_bias, weight, variance, epsilon, count, group)
        grad_x = backend.add(grad_x, backend.batch_norm_inference_forward(x, scale, shift, mean, variance, epsilon))
        return _of_tensors((grad_x, grad_weight, grad_bias), weight is not None, has_bias) + (None, None) * has_running


class GroupNorm(Operation):
    """Groups of channels of each sample by their statistics (Wu and He, 2018)."""

    operation_name = "group_norm"

    def forward(self, backend, x, weight, bias, groups, epsilon):
        y, mean, variance = backend.group_norm_forward(x, groups, weight, bias, epsilon)
        self.save(x, weight, mean, variance, groups, epsilon, bias is not None)
        return y

    def backward(self, backend, grad_y, needs):
        x, weight, mean, variance, groups, epsilon, has_bias = self.saved
        gradients = backend.group_norm_backward(grad_y, x, weight, mean, variance, groups, epsilon)
        return _of_tensors(gradients, weight is not None, has_bias)


class InstanceNorm(Operation):
    """Each channel of each sample by its statistics (Ulyanov et al., 2016): group norm, a group for a channel."""

    operation_name = "instance_norm"

    def forward(self, backend, x, weight, bias, running_mean, running_var, momentum, epsilon):
        y, mean, variance = backend.group_norm_forward(x, x.shape[1], weight, bias, epsilon)     # mean, variance (N, C)
        count = prod(x.shape[2:])
        if running_mean is not None and count and x.shape[0]:
            mean_of_means, mean_variance = (backend.mean(values, (0,), False) for values in (mean, variance))
            backend.running_average_update(running_mean, mean_of_means, momentum, 1.0)
            backend.running_average_update(running_var, mean_variance, momentum, count / (count - 1))
        self.save(x, weight, mean, variance, epsilon, bias is not None, running_mean is not None)
        return y

    def backward(self, backend, grad_y, needs):
        x, weight, mean, variance, epsilon, has_bias, has_running = self.saved
        gradients = backend.group_norm_backward(grad_y, x, weight, mean, variance, x.shape[1], epsilon)
        return _of_tensors(gradients, weight is not None, has_bias) + (None, None) * has_running


class LayerNorm(Operation):
    """The last axes of each element by their statistics (Ba, Kiros and Hinton, 2016)."""

    operation_name = "layer_norm"

    def forward(self, backend, x, weight, bias, axes, epsilon):
        y, mean, variance = backend.layer_norm_forward(x, axes, weight, bias, epsilon)
        self.save(x, weight, mean, variance, axes, epsilon, bias is not None)
        return y

    def backward(self, backend, grad_y, needs):
        x, weight, mean, variance, axes, epsilon, has_bias = self.saved
        gradients = backend.layer_norm_backward(grad_y, x, weight, mean, variance, axes, epsilon)
        return _of_tensors(gradients, weight is not None, has_bias)


class LocalResponseNorm(Operation):
    """Each element by its neighbours in other channels (Krizhevsky, Sutskever and Hinton, 2012)."""

    operation_name = "local_response_norm"

    def forward(self, backend, x, size, alpha, beta, k):
        self.save(x, size, alpha, beta, k)
        return backend.local_response_norm_forward(x, size, alpha, beta, k)

    def backward(self, backend, grad_y, needs):
        return backend.local_response_norm_backward_input(grad_y, *self.saved)


def _of_tensors(gradients, has_weight: bool, has_bias: bool) -> tuple:
    """(grad_x, grad_weight, grad_bias) without those of operands that are None."""
    grad_x, grad_weight, grad_bias = gradients
    return (grad_x, *(grad_weight,) * has_weight, *(grad_bias,) * has_bias)


def _check_channels(operation: str, x, **per_channel) -> None:
    if x.ndim < 2:
        raise ShapeError(f"{operation}: expected x (N, C) or (N, C, ...), received shape {x.shape}")
    for name, values in per_channel.items():
        if values is not None and values.shape != x.shape[1:2]:
            raise ShapeError(f"{operation}: {name} expects one element for each of {x.shape[1]} channels, received "
                             f"shape {values.shape} (x {x.shape})")


def _check_running(operation: str, running_mean, running_var, needed: bool) -> None:
    if (running_mean is None) != (running_var is None):
        raise UsageError(f"{operation}: expected running_mean and running_var both or neither, received one of them")
    if needed and running_mean is None:
        raise UsageError(f"{operation}: running_mean and running_var are needed where batch statistics are not used")


def _raise_versions(*running) -> None:
    """What an update changed in place is newer now."""
    for tensor in running:
        if tensor is not None:
            tensor.storage.version += 1


def sync_batch_norm(x, running_mean, running_var, weight, bias, momentum, eps, group):
    """:func:`batch_norm` in training, with the statistics of the batches of all processes of `group`."""
    _check_channels("sync_batch_norm", x, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    _check_running("sync_batch_norm", running_mean, running_var, needed=False)
    if not x.shape[0] * prod(x.shape[2:]):
        raise ShapeError(f"sync_batch_norm: expected values on every process, received x {x.shape}")
    y = SyncBatchNorm.apply(x, weight, bias, running_mean, running_var, float(momentum), float(eps), group)
    _raise_versions(running_mean, running_var)
    return y


def batch_norm(x, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    """Normalize each channel, as in `torch.nn.functional.batch_norm`.

    Parameters
    ----------
    x : Tensor (N, C) or (N, C, ...)
    running_mean, running_var : Tensor (C,) or None
        Used where `training` is False; otherwise moved towards the batch's by `momentum` (the variance's unbiased).
    weight, bias : Tensor (C,), optional
    training : bool
        Use the statistics of the batch.
    momentum : float
    eps : float
        Added to the variance.

    Returns
    -------
    Tensor of x's shape

    Raises
    ------
    ShapeError
        A parameter does not have one element per channel, or a channel has fewer than two values to learn from.
    UsageError
        Running statistics are missing where they are needed.
    """
    _check_channels("batch_norm", x, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    _check_running("batch_norm", running_mean, running_var, needed=not training)
    if not training:
        return BatchNormInference.apply(x, weight, bias, running_mean, running_var, float(eps))
    if x.shape[0] * prod(x.shape[2:]) == 1:
        raise ShapeError(f"batch_norm: expected more than 1 value per channel when training, received x {x.shape}; "
                         "enlarge the batch, or use eval()")
    y = BatchNorm.apply(x, weight, bias, running_mean, running_var, float(momentum), float(eps))
    _raise_versions(running_mean, running_var)
    return y


def instance_norm(x, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True, momentum=0.1,
                  eps=1e-5):
    """Normalize each channel of each sample, as in `torch.nn.functional.instance_norm`.

    Parameters
    ----------
    x : Tensor (N, C, ...)
    running_mean, running_var : Tensor (C,), optional
        Used where `use_input_stats` is False; otherwise moved towards the batch's mean statistics by `momentum`.
    weight, bias, momentum, eps : see :func:`batch_norm`
    """
    _check_channels("instance_norm", x, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    _check_running("instance_norm", running_mean, running_var, needed=not use_input_stats)
    if not use_input_stats:
        return BatchNormInference.apply(x, weight, bias, running_mean, running_var, float(eps))
    if prod(x.shape[2:]) == 1:
        raise ShapeError(f"instance_norm: expected more than 1 spatial element when training, received x {x.shape}")
    y = InstanceNorm.apply(x, weight, bias, running_mean, running_var, float(momentum), float(eps))
    _raise_versions(running_mean, running_var)
    return y


def group_norm(x, num_groups, weight=None, bias=None, eps=1e-5):
    """Normalize groups of channels of each sample, as in `torch.nn.functional.group_norm`.

    Parameters
    ----------
    x : Tensor (N, C) or (N, C, ...)
    num_groups : int
        A divisor of C.
    weight, bias : Tensor (C,), optional
    eps : float
        Added to the variance.

    Raises
    ------
    ShapeError
        `num_groups` does not divide C, or there is one value for a group in all.
    """
    _check_channels("group_norm", x, weight=weight, bias=bias)
    if not isinstance(num_groups, int) or num_groups < 1 or x.shape[1] % num_groups:
        raise ShapeError(f"group_norm: num_groups expects a divisor of {x.shape[1]} channels, received {num_groups!r} "
                         f"(x {x.shape})")
    if x.shape[0] * x.shape[1] // num_groups * prod(x.shape[2:]) == 1:
        raise ShapeError(f"group_norm: expected more than 1 value per group, received x {x.shape}, {num_groups} groups")
    return GroupNorm.apply(x, weight, bias, num_groups, float(eps))


def layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    """Normalize over the last axes, as in `torch.nn.functional.layer_norm`.

    Parameters
    ----------
    x : Tensor (..., *normalized_shape)
    normalized_shape : int or sequence of ints
    weight, bias : Tensor of `normalized_shape`, optional
    eps : float
        Added to the variance.

    Raises
    ------
    ShapeError
        x does not end in `normalized_shape`, or weight or bias have another shape.
    """
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or x.shape[-len(shape):] != shape:
        raise ShapeError(f"layer_norm: expected x to end in normalized_shape {shape}, received {x.shape}")
    for name, values in (("weight", weight), ("bias", bias)):
        if values is not None and values.shape != shape:
            raise ShapeError(f"layer_norm: {name} expects normalized_shape {shape}, received {values.shape}")
    return LayerNorm.apply(x, weight, bias, len(shape), float(eps))


def local_response_norm(x, size, alpha=1e-4, beta=0.75, k=1.0):
    """x / (k + alpha / size * sum of squares over `size` neighbouring channels)**beta, as in PyTorch.

    Parameters
    ----------
    x : Tensor (N, C, ...), at least 3 dimensions
    size : int
        Number of neighbouring channels; channel c - size // 2 is the first one.
    alpha, beta, k : float
    """
    if x.ndim < 3:
        raise ShapeError(f"local_response_norm: expected x (N, C, ...) of at least 3 dimensions, received {x.shape}")
    if not isinstance(size, int) or size < 1:
        raise ShapeError(f"local_response_norm: size expects a positive int, received {size!r}")
    return LocalResponseNorm.apply(x, size, float(alpha), float(beta), float(k))
