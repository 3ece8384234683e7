"""EfficientNet: depth, width and input size grown together, in a fixed proportion.

Tan and Le (2019), EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, arXiv:1905.11946.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from numbanet import nn
from numbanet.nn import functional as F
from numbanet.nn import init
from numbanet.zoo.layers import (
    ConvNormActivation,
    SqueezeExcitation,
    StochasticDepth,
    initialize_he,
    last_of_each_resolution,
    make_divisible,
)
from numbanet.zoo.network import Network
from numbanet.zoo.registry import IMAGENET, register_model

PAPER = "Tan and Le 2019, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks"


class Row(NamedTuple):
    """A stage of MBConv blocks."""

    expansion: int
    kernel: int
    stride: int             # of the first block
    channels: int
    repetitions: int


STEM = 32                   # filters of the first convolution, 3x3, stride 2
# Table 1: EfficientNet-B0, with the size of the maps at 224 x 224.
STAGES = (
    Row(1, 3, 1, 16, 1),    # 112
    Row(6, 3, 2, 24, 2),    # 56
    Row(6, 5, 2, 40, 2),    # 28
    Row(6, 3, 2, 80, 3),    # 14
    Row(6, 5, 1, 112, 3),   # 14
    Row(6, 5, 2, 192, 4),   # 7
    Row(6, 3, 1, 320, 1),   # 7
)


class MBConv(nn.Module):
    """Expand, filter each channel, squeeze and excite, project; the input is added where shapes allow, the rest sometimes dropped."""

    def __init__(self, in_channels: int, row: Row, stride: int, drop_probability: float):
        super().__init__()
        hidden = make_divisible(in_channels * row.expansion)
        layers = [] if hidden == in_channels else [ConvNormActivation(in_channels, hidden, 1, activation=nn.SiLU)]
        self.block = nn.Sequential(
            *layers,
            ConvNormActivation(hidden, hidden, row.kernel, stride, groups=hidden, activation=nn.SiLU),
            SqueezeExcitation(hidden, max(1, in_channels // 4), activation=nn.SiLU),
            ConvNormActivation(hidden, row.channels, 1, activation=None),
        )
        self.stochastic_depth = StochasticDepth(drop_probability, "row")
        self.shortcut = stride == 1 and in_channels == row.channels

    def forward(self, x):
        return self.stochastic_depth(self.block(x)) + x if self.shortcut else self.block(x)


class EfficientNet(Network):
    """Table 1 of the paper, scaled.

    Parameters
    ----------
    width_mult, depth_mult : float
        Of the channels of every layer and of the blocks of every stage (equation 3).
    num_classes, in_chans : int
    dropout : float
        Before the classifier.
    stochastic_depth_prob : float
        That a sample skips a block: 0 for the first, growing evenly towards this value.
    """

    classifier_path = "classifier.1"

    def __init__(self, width_mult: float, depth_mult: float, num_classes: int = 1000, in_chans: int = 3, dropout: float = 0.2,
                 stochastic_depth_prob: float = 0.2):
        super().__init__()
        rows = [row._replace(channels=make_divisible(row.channels * width_mult), repetitions=math.ceil(row.repetitions * depth_mult))
                for row in STAGES]
        channels = make_divisible(STEM * width_mult)
        layers = [ConvNormActivation(in_chans, channels, 3, 2, activation=nn.SiLU)]
        chain = [("features.0", channels, 2)]
        total, built = sum(row.repetitions for row in rows), 0
        for row in rows:
            blocks = []
            for position in range(row.repetitions):
                blocks.append(MBConv(channels, row, row.stride if position == 0 else 1, stochastic_depth_prob * built / total))
                channels, built = row.channels, built + 1
            chain.append((f"features.{len(layers)}", channels, row.stride))
            layers.append(nn.Sequential(*blocks))
        self.stages = last_of_each_resolution(chain)
        self.in_chans, self.num_features = in_chans, 4 * channels
        layers.append(ConvNormActivation(channels, self.num_features, 1, activation=nn.SiLU))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Identity())
        initialize_he(self.features)
        self.reset_classifier(num_classes)

    def make_classifier(self, num_classes: int) -> nn.Linear:
        layer = nn.Linear(self.num_features, num_classes)
        bound = 1 / math.sqrt(num_classes)
        init.uniform_(layer.weight, -bound, bound)
        init.zeros_(layer.bias)
        return layer

    def forward_features(self, x):
        """(N, C, H, W) to (N, 1280 or more, H / 32, W / 32), sizes rounded up."""
        self.check_input(x)
        return self.features(x)

    def forward_head(self, features):
        """Maps to logits (N, num_classes)."""
        return self.classifier(F.adaptive_avg_pool2d(features, 1).flatten(1))


# Width, depth, input size and dropout of each are the published ones.
@register_model(paper=PAPER, parameters=5_288_548, multiply_adds=385_814_752, interpolation="bicubic", crop_pct=224 / 256, **IMAGENET)
def efficientnet_b0(num_classes: int = 1000, in_chans: int = 3, dropout: float = 0.2, **options) -> EfficientNet:
    """EfficientNet-B0: the searched network that the others scale."""
    return EfficientNet(1.0, 1.0, num_classes, in_chans, dropout, **options)


@register_model(input_size=(3, 240, 240), paper=PAPER, parameters=7_794_184, multiply_adds=686_802_832, interpolation="bicubic",
                crop_pct=240 / 256, **IMAGENET)
def efficientnet_b1(num_classes: int = 1000, in_chans: int = 3, dropout: float = 0.2, **options) -> EfficientNet:
    """EfficientNet-B1."""
    return EfficientNet(1.0, 1.1, num_classes, in_chans, dropout, **options)


@register_model(input_size=(3, 288, 288), paper=PAPER, parameters=9_109_994, multiply_adds=1_087_529_456, interpolation="bicubic",
                **IMAGENET)
def efficientnet_b2(num_classes: int = 1000, in_chans: int = 3, dropout: float = 0.3, **options) -> EfficientNet:
    """EfficientNet-B2, at torchvision's input size."""
    return EfficientNet(1.1, 1.2, num_classes, in_chans, dropout, **options)


@register_model(input_size=(3, 300, 300), paper=PAPER, parameters=12_233_232, multiply_adds=1_827_141_392, interpolation="bicubic",
                crop_pct=300 / 320, **IMAGENET)
def efficientnet_b3(num_classes: int = 1000, in_chans: int = 3, dropout: float = 0.3, **options) -> EfficientNet:
    """EfficientNet-B3."""
    return EfficientNet(1.2, 1.4, num_classes, in_chans, dropout, **options)


@register_model(input_size=(3, 380, 380), paper=PAPER, parameters=19_341_616, multiply_adds=4_393_771_024, interpolation="bicubic",
                crop_pct=380 / 384, **IMAGENET)
def efficientnet_b4(num_classes: int = 1000, in_chans: int = 3, dropout: float = 0.4, **options) -> EfficientNet:
    """EfficientNet-B4."""
    return EfficientNet(1.4, 1.8, num_classes, in_chans, dropout, **options)
