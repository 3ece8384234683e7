"""Fully convolutional networks: labels for every pixel, from the trunk of any classifier.

Long, Shelhamer and Darrell: Fully Convolutional Networks for Semantic Segmentation, CVPR 2015, arXiv:1411.4038; sections 4.2, 4.3.
"""

from __future__ import annotations

from typing import NamedTuple

from numbanet import nn
from numbanet._tensor import Tensor, tensor
from numbanet.autograd.grad_mode import no_grad
from numbanet.errors import UsageError
from numbanet.nn import functional as F
from numbanet.nn import init
from numbanet.zoo.network import FeatureExtractor, Network
from numbanet.zoo.registry import create_model
from numbanet.zoo.resnet import BLOCKS, Bottleneck, ResNet


class BilinearUpsampling(nn.ConvTranspose2d):
    """(N, K, H, W) to (N, K, factor H, factor W) by a transposed convolution of each map, at first bilinear interpolation.

    Parameters
    ----------
    channels, factor : int
    """

    def __init__(self, channels: int, factor: int):
        super().__init__(channels, channels, 2 * factor - factor % 2, factor, factor // 2, groups=channels, bias=False)

    @no_grad()
    def reset_parameters(self) -> None:
        """Each map the product of two hat functions that reach from one input pixel to its neighbours."""
        taps, factor = self.kernel_size[0], self.stride[0]
        hat = tensor([1 - abs(i - (taps - 1) / 2) / factor for i in range(taps)])
        self.weight.copy_((hat.reshape(taps, 1) * hat).expand(self.weight.shape))


class FCN(nn.Module):
    """Class scores of the trunk's coarse maps, upsampled step by step to the input's size and added to those of finer maps.

    (N, C, H, W) to (N, num_classes, H, W). Scores of each tapped map come from a 1x1 convolution, 0 at first. Upsampling
    starts as bilinear and is trained, the last one excepted; so there is one for each map. Upsampled maps and finer ones
    are aligned at their middle: what a trunk's borders add is cut off, and what they take away is repeated.

    Parameters
    ----------
    trunk : Network
    num_classes : int
    stride : int
        Input pixels per pixel of the finest map that is used, the reduction of one of the trunk's stages: 32, 16 and 8 give FCN-32s,
        FCN-16s and FCN-8s.

    Raises
    ------
    UsageError
        The trunk has no stage of that reduction.
    """

    def __init__(self, trunk: Network, num_classes: int = 21, stride: int = 8):
        super().__init__()
        reductions = [stage.reduction for stage in trunk.stages]
        if stride not in reductions:
            raise UsageError(f"FCN: stride expects the reduction of a stage of {type(trunk).__name__}, one of {reductions}, "
                             f"received {stride!r}")
        self.num_classes = num_classes
        setattr(trunk, trunk.classifier_path.partition(".")[0], nn.Identity())      # hidden layers of the head as well
        self.trunk = FeatureExtractor(trunk, range(reductions.index(stride), len(reductions)))
        stages = self.trunk.stages
        self.scores = nn.ModuleList(nn.Conv2d(stage.channels, num_classes, 1) for stage in stages)
        for layer in self.scores:
            init.zeros_(layer.weight)
            init.zeros_(layer.bias)
        # From finer maps to coarser: upsampling[i] leads to the map before stage i, the first of them to the input.
        finer = (1, *(stage.reduction for stage in stages))
        self.upsampling = nn.ModuleList(BilinearUpsampling(num_classes, stage.reduction // before) for stage, before in zip(stages, finer))
        self.upsampling[0].requires_grad_(False)

    def forward(self, x):
        scores = [score(maps) for score, maps in zip(self.scores, self.trunk(x))]
        y = scores.pop()
        for upsample in list(self.upsampling)[:0:-1]:
            finer = scores.pop()
            y = _fit(upsample(y), finer.shape[2:]) + finer
        return _fit(self.upsampling[0](y), x.shape[2:])


def _fit(x, size):
    """(N, K, H, W) of another size, with the same middle: cropped, or its border repeated."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    (rows, columns) = (wanted - n for wanted, n in zip(size, x.shape[2:]))
    return F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2), "replicate")


def fcn(trunk: str, num_classes: int = 21, stride: int = 8, *, in_chans: int = 3, **trunk_options) -> FCN:
    """:class:`FCN` on the trunk of a model of the zoo, by its name.

    Parameters
    ----------
    trunk : str
        One of :func:`numbanet.list_models` whose networks have stages.
    num_classes, stride, in_chans : int
        See :class:`FCN`.
    trunk_options
        Passed to the model's function.
    """
    network = create_model(trunk, in_chans=in_chans, **trunk_options)
    if not isinstance(network, Network):
        raise UsageError(f"fcn: trunk expects the name of a network with stages, {trunk} has none")
    return FCN(network, num_classes, stride)


class FCNHead(nn.Sequential):
    """torchvision's head: a 3x3 convolution to a quarter of the maps, normalisation, ReLU, dropout, and a 1x1 convolution.

    (N, in_channels, H, W) to (N, num_classes, H, W).
    """

    def __init__(self, in_channels: int, num_classes: int):
        inner = in_channels // 4
        super().__init__(nn.Conv2d(in_channels, inner, 3, padding=1, bias=False), nn.BatchNorm2d(inner), nn.ReLU(), nn.Dropout(0.1),
                         nn.Conv2d(inner, num_classes, 1))


class FCNOutputs(NamedTuple):
    """Logits (N, num_classes, H, W) of the last stage, and of the one before it."""

    out: Tensor
    aux: Tensor


class FCNResNet(nn.Module):
    """A ResNet of bottlenecks with dilation instead of its last two strides, and :class:`FCNHead`; torchvision's keys.

    (N, C, H, W) to (N, num_classes, H, W), or to :class:`FCNOutputs` with `aux_loss`.
    """

    def __init__(self, blocks: tuple[int, ...], num_classes: int = 21, in_chans: int = 3, aux_loss: bool = False):
        super().__init__()
        self.num_classes, self.in_chans = num_classes, in_chans
        self.backbone = ResNet(Bottleneck, blocks, 0, in_chans, replace_stride_with_dilation=(False, True, True))
        self.classifier = FCNHead(2048, num_classes)
        self.aux_classifier = FCNHead(1024, num_classes) if aux_loss else None

    def forward(self, x):
        before_last, last = FeatureExtractor(self.backbone, (-2, -1))(x)       # made here: as a child it would change the keys
        out = F.interpolate(self.classifier(last), tuple(x.shape[2:]), mode="bilinear")
        if self.aux_classifier is None:
            return out
        return FCNOutputs(out, F.interpolate(self.aux_classifier(before_last), tuple(x.shape[2:]), mode="bilinear"))


def fcn_resnet50(num_classes: int = 21, in_chans: int = 3, aux_loss: bool = False) -> FCNResNet:
    """torchvision's fully convolutional network on a ResNet with 50 layers."""
    return FCNResNet(BLOCKS[50], num_classes, in_chans, aux_loss)


def fcn_resnet101(num_classes: int = 21, in_chans: int = 3, aux_loss: bool = False) -> FCNResNet:
    """torchvision's fully convolutional network on a ResNet with 101 layers."""
    return FCNResNet(BLOCKS[101], num_classes, in_chans, aux_loss)
