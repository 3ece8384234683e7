"""RegNet: networks whose widths follow a quantised straight line.

Radosavovic, Kosaraju, Girshick, He and Dollár: Designing Network Design Spaces, CVPR 2020, arXiv:2003.13678; sections 3.2 to 3.4.
RegNetY is RegNetX with squeeze-and-excitation in each block.
"""

from __future__ import annotations

from itertools import groupby
from math import log

from numbanet import nn
from numbanet.zoo.layers import ConvNormActivation, SqueezeExcitation, initialize_he, initialize_linear, make_divisible
from numbanet.zoo.network import Network, Stage
from numbanet.zoo.registry import IMAGENET, register_model

PAPER = "Radosavovic et al. 2020, Designing Network Design Spaces"

STEM_CHANNELS = 32
# Figures 16 (X) and 17 (Y): blocks in all, w_0, w_a, w_m, channels of a group.
DESIGNS = {
    "x_400mf": (22, 24, 24.48, 2.54, 16),
    "x_1_6gf": (18, 80, 34.01, 2.25, 24),
    "y_400mf": (16, 48, 27.89, 2.09, 8),
    "y_1_6gf": (27, 48, 20.71, 2.65, 24),
}


def regnet_stages(depth: int, w_0: int, w_a: float, w_m: float, group_width: int) -> list[tuple[int, int, int]]:
    """(blocks, width, channels of a group) of each stage.

    Block j wants the width u_j = w_0 + w_a j (equation 2). It gets the nearest w_0 w_m^s of a whole power s (equations 3
    and 4), as a multiple of 8; blocks of one width are a stage. Then widths become multiples of the groups' channels.
    """
    powers = [round(log((w_0 + w_a * j) / w_0) / log(w_m)) for j in range(depth)]
    widths = [round(w_0 * w_m ** s / 8) * 8 for s in powers]
    stages = []
    for width, blocks in groupby(widths):
        group = min(group_width, width)
        stages.append((len(list(blocks)), make_divisible(width, group), group))
    return stages


class ResBottleneckBlock(nn.Module):
    """1x1, grouped 3x3 and 1x1 layers beside a shortcut: (N, C, H, W) to (N, width, H / stride, W / stride).

    Parameters
    ----------
    in_channels, width, stride, group_width : int
    se_ratio : float
        Channels between the two layers of the excitation, of each input channel; 0 leaves it out.
    """

    def __init__(self, in_channels: int, width: int, stride: int, group_width: int, se_ratio: float):
        super().__init__()
        self.proj = None
        if in_channels != width or stride != 1:
            self.proj = ConvNormActivation(in_channels, width, 1, stride, activation=None)
        layers = {"a": ConvNormActivation(in_channels, width, 1),
                  "b": ConvNormActivation(width, width, 3, stride, groups=width // group_width)}
        if se_ratio:
            layers["se"] = SqueezeExcitation(width, round(se_ratio * in_channels))
        layers["c"] = ConvNormActivation(width, width, 1, activation=None)
        self.f = nn.Sequential(layers)
        self.activation = nn.ReLU()

    def forward(self, x):
        return self.activation((x if self.proj is None else self.proj(x)) + self.f(x))


class RegNet(Network):
    """A network of a design with the keys of torchvision's.

    Parameters
    ----------
    design : tuple
        Of :func:`regnet_stages`.
    num_classes, in_chans : int
    se_ratio : float
        Of :class:`ResBottleneckBlock`.
    """

    classifier_path = "fc"

    def __init__(self, design: tuple, num_classes: int = 1000, in_chans: int = 3, *, se_ratio: float = 0.0):
        super().__init__()
        self.in_chans = in_chans
        self.stem = ConvNormActivation(in_chans, STEM_CHANNELS, 3, 2)       # (N, C, 224, 224) -> (N, 32, 112, 112)
        self.trunk_output = nn.Sequential()
        stages, channels = [Stage("stem", STEM_CHANNELS, 2)], STEM_CHANNELS
        for number, (blocks, width, group_width) in enumerate(regnet_stages(*design), 1):       # sides 56, 28, 14, 7
            stage = nn.Sequential()
            for i in range(blocks):
                stage.register_module(f"block{number}-{i}", ResBottleneckBlock(channels, width, 1 if i else 2, group_width, se_ratio))
                channels = width
            self.trunk_output.register_module(f"block{number}", stage)
            stages.append(Stage(f"trunk_output.block{number}", width, 2 * stages[-1].reduction))
        self.stages, self.num_features = tuple(stages), channels
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Identity()
        initialize_he(self)
        self.reset_classifier(num_classes)

    def make_classifier(self, num_classes: int) -> nn.Module:
        return initialize_linear(nn.Linear(self.num_features, num_classes), 0.01)

    def forward_features(self, x):
        """(N, C, H, W) to the maps of the last stage, at 1/32 of the resolution."""
        self.check_input(x)
        return self.trunk_output(self.stem(x))

    def forward_head(self, features):
        """Maps to logits (N, num_classes)."""
        return self.fc(self.avgpool(features).flatten(1))


@register_model(paper=PAPER, **IMAGENET, crop_pct=0.875, parameters=5_495_976, multiply_adds=413_812_608)
def regnet_x_400mf(num_classes: int = 1000, in_chans: int = 3) -> RegNet:
    """RegNetX of 0.4 billion multiply-adds."""
    return RegNet(DESIGNS["x_400mf"], num_classes, in_chans)


@register_model(paper=PAPER, **IMAGENET, crop_pct=0.875, parameters=9_190_136, multiply_adds=1_602_849_792)
def regnet_x_1_6gf(num_classes: int = 1000, in_chans: int = 3) -> RegNet:
    """RegNetX of 1.6 billion multiply-adds."""
    return RegNet(DESIGNS["x_1_6gf"], num_classes, in_chans)


@register_model(paper=PAPER, **IMAGENET, crop_pct=0.875, parameters=4_344_144, multiply_adds=401_842_848)
def regnet_y_400mf(num_classes: int = 1000, in_chans: int = 3) -> RegNet:
    """RegNetY of 0.4 billion multiply-adds."""
    return RegNet(DESIGNS["y_400mf"], num_classes, in_chans, se_ratio=0.25)


@register_model(paper=PAPER, **IMAGENET, crop_pct=0.875, parameters=11_202_430, multiply_adds=1_612_076_160)
def regnet_y_1_6gf(num_classes: int = 1000, in_chans: int = 3) -> RegNet:
    """RegNetY of 1.6 billion multiply-adds."""
    return RegNet(DESIGNS["y_1_6gf"], num_classes, in_chans, se_ratio=0.25)
