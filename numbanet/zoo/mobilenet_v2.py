"""MobileNetV2: residual blocks that are wide inside and thin between, without activation at the thin end.

Sandler et al. (2018), MobileNetV2: Inverted Residuals and Linear Bottlenecks, arXiv:1801.04381.
"""

from __future__ import annotations

from numbanet import nn
from numbanet.nn import functional as F
from numbanet.zoo.layers import ConvNormActivation, initialize_he, initialize_linear, last_of_each_resolution, make_divisible
from numbanet.zoo.network import Network
from numbanet.zoo.registry import IMAGENET, register_model

PAPER = "Sandler et al. 2018, MobileNetV2: Inverted Residuals and Linear Bottlenecks"

STEM, LAST = 32, 1280       # filters of the first convolution (3x3, stride 2) and of the last (1x1)
# Table 2: (expansion t, channels c, repetitions n, stride s of the first), with the size of the maps at 224 x 224.
BLOCKS = (
    (1, 16, 1, 1),          # 112
    (6, 24, 2, 2),          # 56
    (6, 32, 3, 2),          # 28
    (6, 64, 4, 2),          # 14
    (6, 96, 3, 1),          # 14
    (6, 160, 3, 2),         # 7
    (6, 320, 1, 1),         # 7
)


class InvertedResidual(nn.Module):
    """1x1 to `expansion` times the channels, 3x3 depthwise, 1x1 back; the input is added where shapes allow (table 1)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int):
        super().__init__()
        hidden = in_channels * expansion
        layers = [] if expansion == 1 else [ConvNormActivation(in_channels, hidden, 1, activation=nn.ReLU6)]
        self.conv = nn.Sequential(
            *layers,
            ConvNormActivation(hidden, hidden, 3, stride, groups=hidden, activation=nn.ReLU6),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x):
        return x + self.conv(x) if self.shortcut else self.conv(x)


class MobileNetV2(Network):
    """Table 2 of the paper; `width_mult` scales every layer's filters, those of the last convolution upwards only.

    Parameters
    ----------
    num_classes, in_chans : int
    width_mult : float
    dropout : float
        Before the classifier.
    """

    classifier_path = "classifier.1"

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, width_mult: float = 1.0, dropout: float = 0.2):
        super().__init__()
        channels = make_divisible(STEM * width_mult)
        layers = [ConvNormActivation(in_chans, channels, 3, 2, activation=nn.ReLU6)]
        chain = [("features.0", channels, 2)]
        for expansion, filters, repetitions, stride in BLOCKS:
            filters = make_divisible(filters * width_mult)
            for stride_here in (stride, *(1,) * (repetitions - 1)):
                chain.append((f"features.{len(layers)}", filters, stride_here))
                layers.append(InvertedResidual(channels, filters, stride_here, expansion))
                channels = filters
        self.stages = last_of_each_resolution(chain)
        self.in_chans, self.num_features = in_chans, make_divisible(LAST * max(1.0, width_mult))
        layers.append(ConvNormActivation(channels, self.num_features, 1, activation=nn.ReLU6))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Identity())
        initialize_he(self.features)
        self.reset_classifier(num_classes)

    def make_classifier(self, num_classes: int) -> nn.Linear:
        return initialize_linear(nn.Linear(self.num_features, num_classes), 0.01)

    def forward_features(self, x):
        """(N, C, H, W) to (N, 1280, H / 32, W / 32), sizes rounded up."""
        self.check_input(x)
        return self.features(x)

    def forward_head(self, features):
        """Maps to logits (N, num_classes)."""
        return self.classifier(F.adaptive_avg_pool2d(features, 1).flatten(1))


@register_model(paper=PAPER, parameters=3_504_872, multiply_adds=300_774_272, crop_pct=0.875, **IMAGENET)
def mobilenet_v2(num_classes: int = 1000, in_chans: int = 3, **options) -> MobileNetV2:
    """MobileNetV2: inverted residuals with linear bottlenecks."""
    return MobileNetV2(num_classes, in_chans, **options)
