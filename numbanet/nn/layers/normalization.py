"""Normalisation layers."""

from __future__ import annotations

from numbanet._tensor import tensor
from numbanet.errors import ShapeError, UsageError
from numbanet.nn import functional as F
from numbanet.nn import init
from numbanet.nn.module import Module
from numbanet.nn.parameter import Parameter
from numbanet.ops.factories import empty
from numbanet.ops.normalization import sync_batch_norm


def _register_affine(module: Module, shape, scale: bool, shift: bool, placement: dict) -> None:
    """Give a module `weight` and `bias`, None where they are not wanted."""
    for name, wanted in (("weight", scale), ("bias", shift)):
        module.register_parameter(name, Parameter(empty(shape, **placement)) if wanted else None)


def _reset_affine(module: Module) -> None:
    if module.weight is not None:
        init.ones_(module.weight)
    if module.bias is not None:
        init.zeros_(module.bias)


class _ChannelNorm(Module):
    """Scale, shift and running statistics of each channel: what batch and instance norm share."""

    ranks: tuple[int, ...]                  # of the inputs that it takes
    _may_be_missing = frozenset({"num_batches_tracked"})

    def __init__(self, num_features, eps, momentum, affine, track_running_stats, bias, device, dtype):
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        placement = {"device": device, "dtype": dtype}
        _register_affine(self, num_features, affine, affine and bias, placement)
        for name in ("running_mean", "running_var"):
            self.register_buffer(name, empty((num_features,), **placement) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", tensor(0, device=device) if track_running_stats else None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Mean 0, variance 1, no batch seen."""
        if self.track_running_stats:
            init.zeros_(self.running_mean)
            init.ones_(self.running_var)
            init.zeros_(self.num_batches_tracked)

    def reset_parameters(self) -> None:
        self.reset_running_stats()
        _reset_affine(self)

    def _check(self, x) -> None:
        if x.ndim not in self.ranks:
            raise ShapeError(f"{type(self).__name__}: expected x of {' or '.join(map(str, self.ranks))} dimensions, "
                             f"received shape {tuple(x.shape)}")

    def extra_repr(self) -> str:
        return (f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
                f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}")


class _BatchNorm(_ChannelNorm):
    def __init__(self, num_features, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True, device=None,
                 dtype=None, *, bias=True):
        super().__init__(num_features, eps, momentum, affine, track_running_stats, bias, device, dtype)

    def forward(self, x):
        self._check(x)
        mean, variance, momentum = self.running_mean, self.running_var, self.momentum
        if self.training and not self.track_running_stats:      # switched off after construction: the buffers stay
            mean = variance = None
        elif self.training:
            self.num_batches_tracked.add_(1)
            if momentum is None:            # the plain average of all batches so far
                momentum = 1.0 / self.num_batches_tracked.item()
        return self._normalized(x, mean, variance, 0.0 if momentum is None else momentum)

    def _normalized(self, x, mean, variance, momentum):
        return F.batch_norm(x, mean, variance, self.weight, self.bias, self.training or mean is None, momentum, self.eps)


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of (N, C) or (N, C, L) (Ioffe and Szegedy, 2015)."""

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of (N, C, H, W) (Ioffe and Szegedy, 2015).

    Parameters
    ----------
    num_features : int
        C.
    eps : float
        Added to the variance.
    momentum : float or None
        Weight of the newest batch in the running statistics; None averages all batches alike.
    affine : bool
        Learn scale and shift; with ``bias=False`` scale only.
    track_running_stats : bool
        False: evaluation uses the batch's statistics too.
    """

    ranks = (4,)


class BatchNorm3d(_BatchNorm):
    """Batch normalisation of (N, C, D, H, W) (Ioffe and Szegedy, 2015)."""

    ranks = (5,)


class SyncBatchNorm(_BatchNorm):
    """Batch normalisation of (N, C, ...) over the batches of several processes that train together.

    Parameters
    ----------
    num_features, eps, momentum, affine, track_running_stats
        As of :class:`BatchNorm2d`.
    process_group : optional
        The processes; by default those of the ``Replicas`` that a Trainer is given. Without any, and in evaluation, this is batch norm.
    """

    ranks = (2, 3, 4, 5)

    def __init__(self, num_features, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True, process_group=None, device=None,
                 dtype=None, *, bias=True):
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)
        self.process_group = process_group

    def _normalized(self, x, mean, variance, momentum):
        if not self.training or self.process_group is None:
            return super()._normalized(x, mean, variance, momentum)
        return sync_batch_norm(x, mean, variance, self.weight, self.bias, momentum, self.eps, self.process_group)

    @classmethod
    def convert_sync_batchnorm(cls, module: Module, process_group=None) -> Module:
        """`module` with every BatchNorm1d, 2d and 3d replaced by one that is synchronised, of the same parameters and statistics.

        Returns `module` itself, changed, or, where it is a batch norm, what replaces it.
        """
        if isinstance(module, _BatchNorm) and not isinstance(module, cls):
            made = cls(module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats, process_group,
                       bias=module.bias is not None)
            for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
                setattr(made, name, getattr(module, name))
            made.train(module.training)
            return made
        for name, child in module.named_children():
            replaced = cls.convert_sync_batchnorm(child, process_group)
            if replaced is not child:
                setattr(module, name, replaced)
        return module


class _InstanceNorm(_ChannelNorm):
    def __init__(self, num_features, eps=1e-5, momentum=0.1, affine=False, track_running_stats=False, device=None,
                 dtype=None, *, bias=True):
        super().__init__(num_features, eps, momentum, affine, track_running_stats, bias, device, dtype)

    def forward(self, x):
        self._check(x)
        single = x.ndim == self.ranks[0]            # (C, ...) without a batch
        y = F.instance_norm(x.unsqueeze(0) if single else x, self.running_mean, self.running_var, self.weight,
                            self.bias, self.training or not self.track_running_stats, self.momentum, self.eps)
        return y.squeeze(0) if single else y


class InstanceNorm1d(_InstanceNorm):
    """Each channel of each sample of (N, C, L) normalised by itself (Ulyanov et al., 2016)."""

    ranks = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """Each channel of each sample of (N, C, H, W) normalised by itself (Ulyanov et al., 2016)."""

    ranks = (3, 4)


class LayerNorm(Module):
    """Normalisation over the last `normalized_shape` axes (Ba et al., 2016)."""

    def __init__(self, normalized_shape, eps=1e-5, elementwise_affine=True, bias=True, device=None, dtype=None):
        super().__init__()
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        _register_affine(self, self.normalized_shape, elementwise_affine, elementwise_affine and bias,
                         {"device": device, "dtype": dtype})
        self.reset_parameters()

    def reset_parameters(self) -> None:
        _reset_affine(self)

    def forward(self, x):
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
                f"bias={self.bias is not None}")


class GroupNorm(Module):
    """Normalisation over groups of channels of each sample (Wu and He, 2018)."""

    def __init__(self, num_groups, num_channels, eps=1e-5, affine=True, device=None, dtype=None, *, bias=True):
        super().__init__()
        if num_channels % num_groups:
            raise UsageError(f"GroupNorm: num_groups expects a divisor of num_channels={num_channels}, "
                             f"received {num_groups}")
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        _register_affine(self, num_channels, affine, affine and bias, {"device": device, "dtype": dtype})
        self.reset_parameters()

    def reset_parameters(self) -> None:
        _reset_affine(self)

    def forward(self, x):
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
                f"bias={self.bias is not None}")


class LocalResponseNorm(Module):
    """x / (k + alpha / size * sum of squares over `size` neighbouring channels)^beta (Krizhevsky et al., 2012)."""

    def __init__(self, size, alpha=1e-4, beta=0.75, k=1.0):
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x):
        return F.local_response_norm(x, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
