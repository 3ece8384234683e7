"""Residual networks for the 32 x 32 pictures of CIFAR-10.

He, Zhang, Ren and Sun: Deep Residual Learning for Image Recognition, CVPR 2016, arXiv:1512.03385; section 4.2, table 6.
6 n + 2 layers: a 3x3 convolution, then 2 n layers each of 16, 32 and 64 maps on 32 x 32, 16 x 16 and 8 x 8 positions.
Every shortcut is free of parameters (the paper's option A).
"""

from __future__ import annotations

from numbanet import nn
from numbanet.nn import functional as F
from numbanet.nn import init
from numbanet.zoo.network import Network, Stage
from numbanet.zoo.registry import register_model
from numbanet.zoo.resnet import PAPER, BasicBlock

# Of the pixels of CIFAR-10's training set, scaled to 0..1.
CIFAR10 = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)}
WIDTHS = (16, 32, 64)


class PaddedShortcut(nn.Module):
    """Every `stride`-th position, and channels of zeros behind those of the input: (N, C, H, W) to (N, K, OH, OW)."""

    def __init__(self, added_channels: int, stride: int):
        super().__init__()
        self.added_channels, self.stride = added_channels, stride

    def forward(self, x):
        return F.pad(x[:, :, ::self.stride, ::self.stride], (0, 0, 0, 0, 0, self.added_channels))

    def extra_repr(self) -> str:
        return f"added_channels={self.added_channels}, stride={self.stride}"


class CifarResNet(Network):
    """A residual network of basic blocks in three stages.

    Parameters
    ----------
    blocks : int
        n, in each stage.
    num_classes, in_chans : int
    """

    classifier_path = "fc"
    stages = (Stage("layer1", 16, 1), Stage("layer2", 32, 2), Stage("layer3", 64, 4))
    num_features = WIDTHS[-1]

    def __init__(self, blocks: int, num_classes: int = 10, in_chans: int = 3):
        super().__init__()
        self.in_chans = in_chans
        self.conv1 = nn.Conv2d(in_chans, 16, 3, padding=1, bias=False)      # (N, C, 32, 32) -> (N, 16, 32, 32)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = _stage(16, 16, blocks)                                # (N, 16, 32, 32)
        self.layer2 = _stage(16, 32, blocks)                                # (N, 32, 16, 16)
        self.layer3 = _stage(32, 64, blocks)                                # (N, 64, 8, 8)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Identity()
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                init.kaiming_normal_(layer.weight, nonlinearity="relu")
        self.reset_classifier(num_classes)

    def forward_features(self, x):
        """(N, C, H, W) to the maps of the last stage, at 1/4 of the resolution."""
        self.check_input(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.layer3(self.layer2(self.layer1(x)))

    def forward_head(self, features):
        """Maps to logits (N, num_classes)."""
        return self.fc(self.avgpool(features).flatten(1))


def _stage(in_channels: int, width: int, blocks: int) -> nn.Sequential:
    if in_channels == width:
        first = BasicBlock(width, width)
    else:
        first = BasicBlock(in_channels, width, 2, PaddedShortcut(width - in_channels, 2))
    return nn.Sequential(first, *(BasicBlock(width, width) for _ in range(blocks - 1)))


@register_model(input_size=(3, 32, 32), num_classes=10, paper=PAPER, **CIFAR10, parameters=269_722, multiply_adds=40_551_040)
def resnet20_cifar(num_classes: int = 10, in_chans: int = 3) -> CifarResNet:
    """ResNet with 20 layers for CIFAR-10 (n = 3)."""
    return CifarResNet(3, num_classes, in_chans)


@register_model(input_size=(3, 32, 32), num_classes=10, paper=PAPER, **CIFAR10, parameters=853_018, multiply_adds=125_485_696)
def resnet56_cifar(num_classes: int = 10, in_chans: int = 3) -> CifarResNet:
    """ResNet with 56 layers for CIFAR-10 (n = 9)."""
    return CifarResNet(9, num_classes, in_chans)
