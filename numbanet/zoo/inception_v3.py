"""Inception v3.

Szegedy et al.: Rethinking the Inception Architecture for Computer Vision, CVPR 2016, arXiv:1512.00567: table 1, figures 5 to 7
and 10, section 4 for the auxiliary head behind the last 17 x 17 maps. Parameter names are torchvision's.
"""

from __future__ import annotations

from typing import NamedTuple

from numbanet import nn
from numbanet._tensor import Tensor
from numbanet.nn import functional as F
from numbanet.nn import init
from numbanet.ops.rearrange import cat
from numbanet.zoo.googlenet import BasicConv2d, FromImagenetStatistics, loss_with_heads
from numbanet.zoo.network import Network, Stage
from numbanet.zoo.registry import register_model

# Branches of a block: chains of (filters, kernel) or, at stride 2 without padding, (filters, kernel, 2). Beside them stands a
# pooling: 3 x 3 means and a projection to so many channels, or (None) 3 x 3 maxima at stride 2.
_SPLIT = ((384, (1, 3)), (384, (3, 1)))     # two convolutions of the same maps side by side: figure 7


def _figure_5(projection: int):
    return {"branch1x1": ((64, 1),), "branch5x5": ((48, 1), (64, 5)), "branch3x3dbl": ((64, 1), (96, 3), (96, 3))}, projection


def _figure_6(width: int):
    return {"branch1x1": ((192, 1),), "branch7x7": ((width, 1), (width, (1, 7)), (192, (7, 1))),
            "branch7x7dbl": ((width, 1), (width, (7, 1)), (width, (1, 7)), (width, (7, 1)), (192, (1, 7)))}, 192


_FIGURE_7 = {"branch1x1": ((320, 1),), "branch3x3": ((384, 1), _SPLIT), "branch3x3dbl": ((448, 1), (384, 3), _SPLIT)}, 192
_TO_17 = {"branch3x3": ((384, 3, 2),), "branch3x3dbl": ((64, 1), (96, 3), (96, 3, 2))}, None
_TO_8 = {"branch3x3": ((192, 1), (320, 3, 2)), "branch7x7x3": ((192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2))}, None

BLOCKS = {
    "Mixed_5b": _figure_5(32),      # (N, 256, 35, 35)
    "Mixed_5c": _figure_5(64),      # (N, 288, 35, 35)
    "Mixed_5d": _figure_5(64),      # (N, 288, 35, 35)
    "Mixed_6a": _TO_17,             # (N, 768, 17, 17)
    "Mixed_6b": _figure_6(128),     # (N, 768, 17, 17)
    "Mixed_6c": _figure_6(160),     # (N, 768, 17, 17)
    "Mixed_6d": _figure_6(160),     # (N, 768, 17, 17)
    "Mixed_6e": _figure_6(192),     # (N, 768, 17, 17)
    "Mixed_7a": _TO_8,              # (N, 1280, 8, 8)
    "Mixed_7b": _FIGURE_7,          # (N, 2048, 8, 8)
    "Mixed_7c": _FIGURE_7,          # (N, 2048, 8, 8)
}


class InceptionOutputs(NamedTuple):
    """Logits (N, num_classes) in training: of the network and of the auxiliary head."""

    logits: Tensor
    aux_logits: Tensor


class Mixed(nn.Module):
    """Branches of one input, concatenated by channels.

    Parameters
    ----------
    channels : int
        Of the input.
    branches : dict
        Chains of convolutions by name, as in :data:`BLOCKS`.
    projection : int or None
    """

    def __init__(self, channels: int, branches: dict, projection: int | None):
        super().__init__()
        self.chains: list[list[tuple[str, ...]]] = []       # for each branch its steps, each the names of parallel layers
        self.out_channels = channels if projection is None else projection
        for name, chain in branches.items():
            steps, width = [], channels
            for position, row in enumerate(chain, 1):
                rows = row if isinstance(row[0], tuple) else (row,)
                number = f"_{position}" if len(chain) > 1 else ""
                names = tuple(f"{name}{number}{letter}" for letter in ("ab" if len(rows) > 1 else ("",)))
                for layer, parallel in zip(names, rows, strict=True):
                    self.register_module(layer, _convolution(width, *parallel))
                width = sum(parallel[0] for parallel in rows)
                steps.append(names)
            self.chains.append(steps)
            self.out_channels += width
        self.branch_pool = None if projection is None else BasicConv2d(channels, projection, 1)

    def forward(self, x):
        outputs = []
        for chain in self.chains:
            y = x
            for names in chain:
                parallel = [self.get_submodule(name)(y) for name in names]
                y = parallel[0] if len(parallel) == 1 else cat(parallel, 1)
            outputs.append(y)
        outputs.append(F.max_pool2d(x, 3, 2) if self.branch_pool is None else self.branch_pool(F.avg_pool2d(x, 3, 1, 1)))
        return cat(outputs, 1)


def _convolution(channels: int, filters: int, kernel, stride: int = 1) -> BasicConv2d:
    kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
    return BasicConv2d(channels, filters, kernel, stride, tuple(n // 2 for n in kernel) if stride == 1 else 0)


class InceptionAux(nn.Module):
    """A classifier of the last 17 x 17 maps: (N, C, 17, 17) to logits; larger maps are averaged at the end."""

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.conv0 = BasicConv2d(channels, 128, 1)
        self.conv1 = BasicConv2d(128, 768, 5)
        self.fc = nn.Linear(768, num_classes) if num_classes else nn.Identity()

    def forward(self, x):
        x = self.conv1(self.conv0(F.avg_pool2d(x, 5, 3)))           # (N, 128, 5, 5), then (N, 768, 1, 1)
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Inception3(Network):
    """In training it returns :class:`InceptionOutputs`, in evaluation the logits. A picture has 299 x 299 pixels.

    Parameters
    ----------
    num_classes : int
        0 leaves the last layers out: the network then gives 2048 features.
    in_chans : int
    aux_logits : bool
        With the auxiliary head, which needs 299 x 299 pixels or more.
    transform_input : bool
        Take pictures normalised by ImageNet's means and deviations, rather than by 0.5 and 0.5.
    dropout : float
        Before the last layer.
    """

    classifier_path = "fc"
    stages = (Stage("Conv2d_2b_3x3", 64, 2), Stage("Conv2d_4a_3x3", 192, 4), Stage("Mixed_5d", 288, 8), Stage("Mixed_6e", 768, 16),
              Stage("Mixed_7c", 2048, 32))
    num_features = 2048

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, aux_logits: bool = True, transform_input: bool = False,
                 dropout: float = 0.5):
        super().__init__()
        self.num_classes, self.in_chans, self.aux_logits = num_classes, in_chans, aux_logits
        self.transform = FromImagenetStatistics() if transform_input else nn.Identity()
        self.Conv2d_1a_3x3 = BasicConv2d(in_chans, 32, 3, 2)        # (N, 32, 149, 149)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, 3)                 # (N, 32, 147, 147)
        self.Conv2d_2b_3x3 = BasicConv2d(32, 64, 3, 1, 1)           # (N, 64, 147, 147)
        self.maxpool1 = nn.MaxPool2d(3, 2)                          # (N, 64, 73, 73)
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80, 1)                 # (N, 80, 73, 73)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, 3)                # (N, 192, 71, 71)
        self.maxpool2 = nn.MaxPool2d(3, 2)                          # (N, 192, 35, 35)
        channels = 192
        for name, (branches, projection) in BLOCKS.items():
            block = Mixed(channels, branches, projection)
            self.register_module(name, block)
            channels = block.out_channels
            if name == "Mixed_6e" and aux_logits:
                self.AuxLogits = InceptionAux(channels, num_classes)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(2048, num_classes) if num_classes else nn.Identity()
        self.reset_parameters()

    @property
    def minimum_size(self) -> int:
        return 299 if self.training and self.aux_logits else 75

    def reset_parameters(self) -> None:
        """Weights N(0, 0.1^2); in the auxiliary head 0.01 for its 5 x 5 convolution and 0.001 for its logits."""
        deviations = {"AuxLogits.conv1.conv": 0.01, "AuxLogits.fc": 0.001}
        for name, layer in self.named_modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                init.normal_(layer.weight, std=deviations.get(name, 0.1))

    def reset_classifier(self, num_classes: int) -> None:
        """New last layers, of the auxiliary head too, for another number of classes; 0 takes them away."""
        super().reset_classifier(num_classes)
        if self.aux_logits:
            self._replace("AuxLogits.fc", nn.Linear(768, num_classes) if num_classes else nn.Identity())

    def _maps(self, x):
        """The last maps, and those that the auxiliary head reads."""
        self.check_input(x)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(self.transform(x))))
        x = self.maxpool2(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(self.maxpool1(x))))
        for name in BLOCKS:
            x = self.get_submodule(name)(x)
            if name == "Mixed_6e":
                maps_6e = x
        return x, maps_6e

    def forward_features(self, x):
        """(N, C, H, W) to (N, 2048, 8, 8) of 299 x 299."""
        return self._maps(x)[0]

    def forward_head(self, features):
        return self.fc(self.dropout(self.avgpool(features)).flatten(1))

    def forward(self, x):
        features, maps_6e = self._maps(x)
        logits = self.forward_head(features)
        return InceptionOutputs(logits, self.AuxLogits(maps_6e)) if self.training and self.aux_logits else logits

    def loss_function(self, outputs, target):
        """Cross-entropy; in training that of the auxiliary head is added with weight 0.4."""
        return loss_with_heads(outputs, target, 0.4)


@register_model(input_size=(3, 299, 299), mean=(0.5,) * 3, std=(0.5,) * 3, parameters=27_161_264, multiply_adds=5_713_216_096,
                crop_pct=0.875, paper="Szegedy et al. 2016, Rethinking the Inception Architecture for Computer Vision")
def inception_v3(num_classes: int = 1000, in_chans: int = 3, **options) -> Inception3:
    """Inception v3 with its auxiliary head; 23,834,568 parameters with aux_logits=False."""
    return Inception3(num_classes, in_chans, **options)
