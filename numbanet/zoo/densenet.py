"""Densely connected networks, with bottlenecks and compression (DenseNet-BC).

Huang, Liu, van der Maaten and Weinberger: Densely Connected Convolutional Networks, CVPR 2017, arXiv:1608.06993; table 1.
Every layer of a block reads the maps of all layers before it, and adds `growth_rate` maps to them.
"""

from __future__ import annotations

from numbanet import nn
from numbanet.nn import functional as F
from numbanet.nn import init
from numbanet.ops.rearrange import cat
from numbanet.zoo.network import Network, Stage
from numbanet.zoo.registry import IMAGENET, register_model

PAPER = "Huang et al. 2017, Densely Connected Convolutional Networks"

# Table 1: layers of each block, maps that a layer adds, maps of the first convolution.
DENSENETS = {
    121: ((6, 12, 24, 16), 32, 64),
    161: ((6, 12, 36, 24), 48, 96),
    169: ((6, 12, 32, 32), 32, 64),
    201: ((6, 12, 48, 32), 32, 64),
}


class DenseLayer(nn.Module):
    """Normalisation, ReLU and a 1x1 layer, then again with a 3x3 layer: (N, C, H, W) to (N, growth_rate, H, W)."""

    def __init__(self, in_channels: int, growth_rate: int, bottleneck: int, drop_rate: float):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(in_channels, bottleneck * growth_rate, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(bottleneck * growth_rate)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(bottleneck * growth_rate, growth_rate, 3, padding=1, bias=False)
        self.drop_rate = drop_rate

    def forward(self, x):
        x = self.conv1(self.relu1(self.norm1(x)))
        return F.dropout(self.conv2(self.relu2(self.norm2(x))), self.drop_rate, self.training)


class DenseBlock(nn.Module):
    """Dense layers of one resolution: (N, C, H, W) to (N, C + layers * growth_rate, H, W), the input's maps first."""

    def __init__(self, layers: int, in_channels: int, growth_rate: int, bottleneck: int, drop_rate: float):
        super().__init__()
        for i in range(layers):
            self.register_module(f"denselayer{i + 1}", DenseLayer(in_channels + i * growth_rate, growth_rate, bottleneck, drop_rate))

    def forward(self, x):
        for layer in self.children():
            x = cat([x, layer(x)], 1)
        return x


class DenseNet(Network):
    """A densely connected network with the keys of torchvision's.

    Parameters
    ----------
    blocks : tuple of ints
        The layers of each dense block.
    growth_rate : int
        k, the maps that each layer adds.
    first_channels : int
        Of the first convolution.
    num_classes, in_chans : int
    bn_size : int
        A layer's 1x1 convolution has bn_size * growth_rate maps.
    drop_rate : float
        Probability of dropout after every layer.
    """

    classifier_path = "classifier"
    minimum_size = 29           # three transitions halve 1/4 of it, which has to leave one row

    def __init__(self, blocks: tuple[int, ...], growth_rate: int, first_channels: int, num_classes: int = 1000, in_chans: int = 3, *,
                 bn_size: int = 4, drop_rate: float = 0.0):
        super().__init__()
        self.in_chans = in_chans
        self.features = nn.Sequential({
            "conv0": nn.Conv2d(in_chans, first_channels, 7, 2, 3, bias=False),      # (N, C, 224, 224) -> (N, K, 112, 112)
            "norm0": nn.BatchNorm2d(first_channels),
            "relu0": nn.ReLU(),
            "pool0": nn.MaxPool2d(3, 2, 1),                                         # (N, K, 56, 56)
        })
        stages, channels, reduction = [Stage("features.relu0", first_channels, 2)], first_channels, 4
        for number, layers in enumerate(blocks, 1):                                 # sides 56, 28, 14, 7
            self.features.register_module(f"denseblock{number}", DenseBlock(layers, channels, growth_rate, bn_size, drop_rate))
            channels += layers * growth_rate
            if number < len(blocks):
                # The transition's convolution is at this resolution too, but it only drops maps.
                stages.append(Stage(f"features.denseblock{number}", channels, reduction))
                self.features.register_module(f"transition{number}", nn.Sequential({
                    "norm": nn.BatchNorm2d(channels),
                    "relu": nn.ReLU(),
                    "conv": nn.Conv2d(channels, channels // 2, 1, bias=False),
                    "pool": nn.AvgPool2d(2),
                }))
                channels, reduction = channels // 2, reduction * 2
        self.features.register_module("norm5", nn.BatchNorm2d(channels))
        self.relu = nn.ReLU()
        self.stages = (*stages, Stage("relu", channels, reduction))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.num_features = channels
        self.classifier = nn.Identity()
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                init.kaiming_normal_(layer.weight, nonlinearity="relu")
        self.reset_classifier(num_classes)

    def make_classifier(self, num_classes: int) -> nn.Module:
        layer = nn.Linear(self.num_features, num_classes)
        init.zeros_(layer.bias)
        return layer

    def forward_features(self, x):
        """(N, C, H, W) to all maps of the last block, at 1/32 of the resolution."""
        self.check_input(x)
        return self.relu(self.features(x))

    def forward_head(self, features):
        """Maps to logits (N, num_classes)."""
        return self.classifier(self.avgpool(features).flatten(1))


@register_model(paper=PAPER, **IMAGENET, crop_pct=0.875, parameters=7_978_856, multiply_adds=2_834_161_664)
def densenet121(num_classes: int = 1000, in_chans: int = 3, **options) -> DenseNet:
    """DenseNet-BC with 121 layers."""
    return DenseNet(*DENSENETS[121], num_classes, in_chans, **options)


@register_model(paper=PAPER, **IMAGENET, crop_pct=0.875, parameters=28_681_000, multiply_adds=7_727_907_072)
def densenet161(num_classes: int = 1000, in_chans: int = 3, **options) -> DenseNet:
    """DenseNet-BC with 161 layers."""
    return DenseNet(*DENSENETS[161], num_classes, in_chans, **options)


@register_model(paper=PAPER, **IMAGENET, crop_pct=0.875, parameters=14_149_480, multiply_adds=3_359_843_328)
def densenet169(num_classes: int = 1000, in_chans: int = 3, **options) -> DenseNet:
    """DenseNet-BC with 169 layers."""
    return DenseNet(*DENSENETS[169], num_classes, in_chans, **options)


@register_model(paper=PAPER, **IMAGENET, crop_pct=0.875, parameters=20_013_928, multiply_adds=4_291_365_888)
def densenet201(num_classes: int = 1000, in_chans: int = 3, **options) -> DenseNet:
    """DenseNet-BC with 201 layers."""
    return DenseNet(*DENSENETS[201], num_classes, in_chans, **options)
