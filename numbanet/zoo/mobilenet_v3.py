"""MobileNetV3: blocks found by search, with squeeze and excitation and a piecewise swish.

Howard et al. (2019), Searching for MobileNetV3, arXiv:1905.02244.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from numbanet import nn
from numbanet.nn import functional as F
from numbanet.zoo.layers import (
    ConvNormActivation,
    SqueezeExcitation,
    initialize_he,
    initialize_linear,
    last_of_each_resolution,
    make_divisible,
)
from numbanet.zoo.network import Network
from numbanet.zoo.registry import IMAGENET, register_model

PAPER = "Howard et al. 2019, Searching for MobileNetV3"

STEM = 16                   # filters of the first convolution, 3x3, stride 2, hard swish
ACTIVATIONS = {"RE": nn.ReLU, "HS": nn.Hardswish}
BatchNorm2d = partial(nn.BatchNorm2d, eps=0.001, momentum=0.01)


class Row(NamedTuple):
    """A bottleneck of the paper's tables."""

    kernel: int
    expanded: int           # channels inside
    out: int
    squeeze: bool           # squeeze and excitation
    activation: str         # RE: ReLU, HS: hard swish
    stride: int


class Variant(NamedTuple):
    rows: tuple[Row, ...]
    last_channel: int       # units of the layer before the classifier


# Tables 1 and 2, with the size of the maps at 224 x 224.
LARGE = Variant((
    Row(3, 16, 16, False, "RE", 1),         # 112
    Row(3, 64, 24, False, "RE", 2),         # 56
    Row(3, 72, 24, False, "RE", 1),
    Row(5, 72, 40, True, "RE", 2),          # 28
    Row(5, 120, 40, True, "RE", 1),
    Row(5, 120, 40, True, "RE", 1),
    Row(3, 240, 80, False, "HS", 2),        # 14
    Row(3, 200, 80, False, "HS", 1),
    Row(3, 184, 80, False, "HS", 1),
    Row(3, 184, 80, False, "HS", 1),
    Row(3, 480, 112, True, "HS", 1),
    Row(3, 672, 112, True, "HS", 1),
    Row(5, 672, 160, True, "HS", 2),        # 7
    Row(5, 960, 160, True, "HS", 1),
    Row(5, 960, 160, True, "HS", 1),
), 1280)
SMALL = Variant((
    Row(3, 16, 16, True, "RE", 2),          # 56
    Row(3, 72, 24, False, "RE", 2),         # 28
    Row(3, 88, 24, False, "RE", 1),
    Row(5, 96, 40, True, "HS", 2),          # 14
    Row(5, 240, 40, True, "HS", 1),
    Row(5, 240, 40, True, "HS", 1),
    Row(5, 120, 48, True, "HS", 1),
    Row(5, 144, 48, True, "HS", 1),
    Row(5, 288, 96, True, "HS", 2),         # 7
    Row(5, 576, 96, True, "HS", 1),
    Row(5, 576, 96, True, "HS", 1),
), 1024)


class Bottleneck(nn.Module):
    """Expand, filter each channel, squeeze and excite, project; the input is added where shapes allow (figure 4)."""

    def __init__(self, in_channels: int, row: Row):
        super().__init__()
        activation = ACTIVATIONS[row.activation]
        layers = []
        if row.expanded != in_channels:
            layers.append(ConvNormActivation(in_channels, row.expanded, 1, norm=BatchNorm2d, activation=activation))
        layers.append(ConvNormActivation(row.expanded, row.expanded, row.kernel, row.stride, groups=row.expanded, norm=BatchNorm2d,
                                         activation=activation))
        if row.squeeze:
            layers.append(SqueezeExcitation(row.expanded, make_divisible(row.expanded // 4), scale_activation=nn.Hardsigmoid))
        layers.append(ConvNormActivation(row.expanded, row.out, 1, norm=BatchNorm2d, activation=None))
        self.block = nn.Sequential(*layers)
        self.shortcut = row.stride == 1 and in_channels == row.out

    def forward(self, x):
        return x + self.block(x) if self.shortcut else self.block(x)


class MobileNetV3(Network):
    """Table 1 (large) or 2 (small) of the paper; `width_mult` scales every layer's filters.

    Parameters
    ----------
    variant : Variant
    num_classes, in_chans : int
    width_mult : float
    dropout : float
        Before the classifier.
    """

    classifier_path = "classifier.3"

    def __init__(self, variant: Variant, num_classes: int = 1000, in_chans: int = 3, width_mult: float = 1.0, dropout: float = 0.2):
        super().__init__()
        channels = make_divisible(STEM * width_mult)
        layers = [ConvNormActivation(in_chans, channels, 3, 2, norm=BatchNorm2d, activation=nn.Hardswish)]
        chain = [("features.0", channels, 2)]
        for row in variant.rows:
            row = row._replace(expanded=make_divisible(row.expanded * width_mult), out=make_divisible(row.out * width_mult))
            chain.append((f"features.{len(layers)}", row.out, row.stride))
            layers.append(Bottleneck(channels, row))
            channels = row.out
        self.stages = last_of_each_resolution(chain)
        layers.append(ConvNormActivation(channels, 6 * channels, 1, norm=BatchNorm2d, activation=nn.Hardswish))
        self.in_chans, self.num_features = in_chans, make_divisible(variant.last_channel * width_mult)
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            initialize_linear(nn.Linear(6 * channels, self.num_features), 0.01),
            nn.Hardswish(),
            nn.Dropout(dropout),
            nn.Identity(),
        )
        initialize_he(self.features)
        self.reset_classifier(num_classes)

    def make_classifier(self, num_classes: int) -> nn.Linear:
        return initialize_linear(nn.Linear(self.num_features, num_classes), 0.01)

    def forward_features(self, x):
        """(N, C, H, W) to (N, 960 or 576, H / 32, W / 32), sizes rounded up."""
        self.check_input(x)
        return self.features(x)

    def forward_head(self, features):
        """Maps to logits (N, num_classes)."""
        return self.classifier(F.adaptive_avg_pool2d(features, 1).flatten(1))


@register_model(paper=PAPER, parameters=5_483_032, multiply_adds=216_589_760, crop_pct=0.875, **IMAGENET)
def mobilenet_v3_large(num_classes: int = 1000, in_chans: int = 3, **options) -> MobileNetV3:
    """MobileNetV3, large: blocks found by search."""
    return MobileNetV3(LARGE, num_classes, in_chans, **options)


@register_model(paper=PAPER, parameters=2_542_856, multiply_adds=56_510_400, crop_pct=0.875, **IMAGENET)
def mobilenet_v3_small(num_classes: int = 1000, in_chans: int = 3, **options) -> MobileNetV3:
    """MobileNetV3, small: blocks found by search."""
    return MobileNetV3(SMALL, num_classes, in_chans, **options)
