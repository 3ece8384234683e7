"""Layers that networks of several papers are made of; children are named as torchvision names them."""

from __future__ import annotations

from collections.abc import Iterable

from numbanet import nn
from numbanet.errors import UsageError
from numbanet.nn import functional as F
from numbanet.nn import init
from numbanet.ops.dropout import ChannelDropout
from numbanet.random import next_key
from numbanet.zoo.network import Stage


def make_divisible(value: float, divisor: int = 8, minimum: int | None = None) -> int:
    """The multiple of `divisor` nearest to `value`, at least `minimum` (by default `divisor`) and 90% of `value`."""
    rounded = max(divisor if minimum is None else minimum, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def last_of_each_resolution(layers: Iterable[tuple[str, int, int]]) -> tuple[Stage, ...]:
    """The stages of a chain of layers, each given as (path, output channels, stride)."""
    stages, reduction = {}, 1
    for path, channels, stride in layers:
        reduction *= stride
        stages[reduction] = Stage(path, channels, reduction)
    return tuple(stages.values())


def initialize_he(module: nn.Module) -> None:
    """Weights of convolutions N(0, 2 / fan_out), so that gradients keep their size (He et al. 2015, section 2.2); biases 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            init.kaiming_normal_(layer.weight, mode="fan_out")
            if layer.bias is not None:
                init.zeros_(layer.bias)


def initialize_linear(layer: nn.Linear | nn.Conv2d, std: float) -> nn.Linear | nn.Conv2d:
    """Weights N(0, std^2), biases 0."""
    init.normal_(layer.weight, 0.0, std)
    init.zeros_(layer.bias)
    return layer


class Conv2dSame(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME: (N, C, H, W) to (N, K, ceil(H / stride), ceil(W / stride)).

    What is missing for that is added evenly, an odd row or column at the far side, so the padding depends on the input's size.
    """

    def forward(self, x):
        padding = []
        for size, kernel, stride, dilation in zip(x.shape[2:], self.kernel_size, self.stride, self.dilation):
            missing = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
            padding.append((missing // 2, missing - missing // 2))
        return F.conv2d(x, self.weight, self.bias, self.stride, tuple(padding), self.dilation, self.groups)


class ConvNormActivation(nn.Sequential):
    """A convolution (0), its normalisation (1) and its activation (2); a part that is None is left out.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, groups, dilation : int
    padding : int, optional
        By default as much as keeps the size at stride 1.
    norm : callable, optional
        Makes the normalisation from its number of channels; without one the convolution has a bias.
    activation : callable, optional
        Makes the activation.
    bias : bool, optional
    """

    def __init__(self, in_channels, out_channels, kernel_size=3, stride=1, padding=None, groups=1, norm=nn.BatchNorm2d, activation=nn.ReLU,
                 dilation=1, bias=None):
        if padding is None:
            padding = (kernel_size - 1) // 2 * dilation
        bias = norm is None if bias is None else bias
        layers = [nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=bias)]
        if norm is not None:
            layers.append(norm(out_channels))
        if activation is not None:
            layers.append(activation())
        super().__init__(*layers)
        self.out_channels = out_channels


class SqueezeExcitation(nn.Module):
    """Each channel times a factor computed from the means of all of them (Hu et al. 2018, Squeeze-and-Excitation Networks).

    (N, C, H, W) to the same shape; `squeeze_channels` between two 1x1 convolutions.
    """

    def __init__(self, channels: int, squeeze_channels: int, activation=nn.ReLU, scale_activation=nn.Sigmoid):
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeeze_channels, 1)
        self.fc2 = nn.Conv2d(squeeze_channels, channels, 1)
        self.activation, self.scale_activation = activation(), scale_activation()

    def forward(self, x):
        squeezed = self.activation(self.fc1(self.avgpool(x)))               # (N, squeeze_channels, 1, 1)
        return x * self.scale_activation(self.fc2(squeezed))


class LayerNorm2d(nn.LayerNorm):
    """Normalisation over the channels of each position of (N, C, H, W)."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def stochastic_depth(x, p: float, mode: str = "row", training: bool = True, *, generator=None):
    """Drop the branch of a residual block with probability `p` and scale it by 1 / (1 - p) otherwise, while training.

    Parameters
    ----------
    x : Tensor (N, ...)
    mode : "row" or "batch"
        One draw for each sample, or one for all.
    generator : Generator, optional

    Raises
    ------
    UsageError
        `p` is not from 0 to 1, or `mode` is neither.

    References
    ----------
    Huang et al. (2016), Deep Networks with Stochastic Depth, arXiv:1603.09382.
    """
    _check_stochastic_depth(p, mode)
    if not training or p == 0:
        return x
    return ChannelDropout.apply(x, float(p), next_key(generator), {"row": 1, "batch": 0}[mode])


def _check_stochastic_depth(p: float, mode: str) -> None:
    if not 0 <= p <= 1:
        raise UsageError(f"stochastic_depth: p expects a probability from 0 to 1, received {p}")
    if mode not in ("row", "batch"):
        raise UsageError(f"stochastic_depth: mode expects 'row' or 'batch', received {mode!r}")


class StochasticDepth(nn.Module):
    """:func:`stochastic_depth` of its input, in training mode only."""

    def __init__(self, p: float, mode: str = "row"):
        super().__init__()
        _check_stochastic_depth(p, mode)
        self.p, self.mode = p, mode

    def forward(self, x):
        return stochastic_depth(x, self.p, self.mode, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}, mode={self.mode}"
