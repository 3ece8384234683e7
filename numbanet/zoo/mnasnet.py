"""MnasNet-B1: a network for telephones, found by a search that measured their latency.

Tan et al. (2019), MnasNet: Platform-Aware Neural Architecture Search for Mobile, arXiv:1807.11626.
"""

from __future__ import annotations

from functools import partial

from numbanet import nn
from numbanet.nn import functional as F
from numbanet.nn import init
from numbanet.zoo.layers import initialize_he, last_of_each_resolution, make_divisible
from numbanet.zoo.network import Network
from numbanet.zoo.registry import IMAGENET, register_model

PAPER = "Tan et al. 2019, MnasNet: Platform-Aware Neural Architecture Search for Mobile"

STEM, SEPARABLE, LAST = 32, 16, 1280    # the first convolution (3x3, stride 2), the separable one after it, the last (1x1)
# The variant B1, found by the search of section 3 without squeeze and excitation: (kernel, stride, expansion, channels, repetitions),
# with the size of the maps at 224 x 224.
STACKS = (
    (3, 2, 3, 24, 3),       # 56
    (5, 2, 3, 40, 3),       # 28
    (5, 2, 6, 80, 3),       # 14
    (3, 1, 6, 96, 2),       # 14
    (5, 2, 6, 192, 4),      # 7
    (3, 1, 6, 320, 1),      # 7
)
BatchNorm2d = partial(nn.BatchNorm2d, momentum=0.0003)      # the paper's 0.9997 weighs the past


def _conv(in_channels, out_channels, kernel=1, stride=1, groups=1, activation=True) -> list[nn.Module]:
    layers = [nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False), BatchNorm2d(out_channels)]
    return [*layers, nn.ReLU()] if activation else layers


class InvertedResidual(nn.Module):
    """1x1 to `expansion` times the channels, depthwise, 1x1 without activation; the input is added where shapes allow."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        hidden = in_channels * expansion
        self.layers = nn.Sequential(
            *_conv(in_channels, hidden),
            *_conv(hidden, hidden, kernel, stride, groups=hidden),
            *_conv(hidden, out_channels, activation=False),
        )
        self.shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x):
        return self.layers(x) + x if self.shortcut else self.layers(x)


class MNASNet(Network):
    """The paper's MnasNet-B1; `alpha` scales all filters but the last convolution's.

    Parameters
    ----------
    alpha : float
    num_classes, in_chans : int
    dropout : float
        Before the classifier.
    """

    classifier_path = "classifier.1"

    def __init__(self, alpha: float, num_classes: int = 1000, in_chans: int = 3, dropout: float = 0.2):
        super().__init__()
        stem, channels = make_divisible(STEM * alpha), make_divisible(SEPARABLE * alpha)
        layers = [*_conv(in_chans, stem, 3, 2), *_conv(stem, stem, 3, groups=stem), *_conv(stem, channels, activation=False)]
        chain = [(f"layers.{len(layers) - 1}", channels, 2)]
        for kernel, stride, expansion, filters, repetitions in STACKS:
            filters = make_divisible(filters * alpha)
            chain.append((f"layers.{len(layers)}", filters, stride))
            layers.append(nn.Sequential(
                InvertedResidual(channels, filters, kernel, stride, expansion),
                *(InvertedResidual(filters, filters, kernel, 1, expansion) for _ in range(repetitions - 1)),
            ))
            channels = filters
        self.stages = last_of_each_resolution(chain)
        self.in_chans, self.num_features = in_chans, LAST
        self.layers = nn.Sequential(*layers, *_conv(channels, LAST))
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Identity())
        initialize_he(self.layers)
        self.reset_classifier(num_classes)

    def make_classifier(self, num_classes: int) -> nn.Linear:
        layer = nn.Linear(self.num_features, num_classes)
        init.kaiming_uniform_(layer.weight, mode="fan_out", nonlinearity="sigmoid")
        init.zeros_(layer.bias)
        return layer

    def forward_features(self, x):
        """(N, C, H, W) to (N, 1280, H / 32, W / 32), sizes rounded up."""
        self.check_input(x)
        return self.layers(x)

    def forward_head(self, features):
        """Maps to logits (N, num_classes)."""
        return self.classifier(F.adaptive_avg_pool2d(features, 1).flatten(1))


@register_model(paper=PAPER, parameters=2_218_512, multiply_adds=104_455_968, crop_pct=0.875, **IMAGENET)
def mnasnet0_5(num_classes: int = 1000, in_chans: int = 3, **options) -> MNASNet:
    """MnasNet-B1 of half the width."""
    return MNASNet(0.5, num_classes, in_chans, **options)


@register_model(paper=PAPER, parameters=3_170_208, multiply_adds=215_493_104, crop_pct=0.875, **IMAGENET)
def mnasnet0_75(num_classes: int = 1000, in_chans: int = 3, **options) -> MNASNet:
    """MnasNet-B1 of 0.75 times the width."""
    return MNASNet(0.75, num_classes, in_chans, **options)


@register_model(paper=PAPER, parameters=4_383_312, multiply_adds=314_415_872, crop_pct=0.875, **IMAGENET)
def mnasnet1_0(num_classes: int = 1000, in_chans: int = 3, **options) -> MNASNet:
    """MnasNet-B1: found by a search that measured latency."""
    return MNASNet(1.0, num_classes, in_chans, **options)


@register_model(paper=PAPER, parameters=6_282_256, multiply_adds=526_362_432, crop_pct=0.875, **IMAGENET)
def mnasnet1_3(num_classes: int = 1000, in_chans: int = 3, **options) -> MNASNet:
    """MnasNet-B1 of 1.3 times the width."""
    return MNASNet(1.3, num_classes, in_chans, **options)
