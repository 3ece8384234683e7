"""EfficientNet-Lite0: EfficientNet-B0 for small devices, with ReLU6 and without squeeze and excitation.

Liu (2020), Higher accuracy on vision models with EfficientNet-Lite, TensorFlow blog; the table is that of Tan and Le (2019),
EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, arXiv:1905.11946, table 1. Convolutions are padded as
TensorFlow's SAME, and the names of the parameters are those of the PyTorch port whose weights circulate.
"""

from __future__ import annotations

from numbanet import nn
from numbanet.nn import functional as F
from numbanet.zoo.efficientnet import STAGES, STEM, Row
from numbanet.zoo.layers import Conv2dSame, StochasticDepth, initialize_he, initialize_linear, last_of_each_resolution
from numbanet.zoo.network import Network
from numbanet.zoo.registry import register_model

PAPER = "Liu 2020, Higher accuracy on vision models with EfficientNet-Lite"
LAST = 1280                 # filters of the last convolution, 1x1


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class MBConvLite(nn.Module):
    """Expand, filter each channel, project; the input is added where shapes allow, the rest sometimes dropped."""

    def __init__(self, in_channels: int, row: Row, stride: int, drop_probability: float):
        super().__init__()
        hidden = in_channels * row.expansion
        self.expands = row.expansion != 1
        if self.expands:
            self._expand_conv = nn.Conv2d(in_channels, hidden, 1, bias=False)
            self._bn0 = _norm(hidden)
        self._depthwise_conv = Conv2dSame(hidden, hidden, row.kernel, stride, groups=hidden, bias=False)
        self._bn1 = _norm(hidden)
        self._project_conv = nn.Conv2d(hidden, row.channels, 1, bias=False)
        self._bn2 = _norm(row.channels)
        self._drop = StochasticDepth(drop_probability, "row")
        self.shortcut = stride == 1 and in_channels == row.channels

    def forward(self, x):
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return self._drop(y) + x if self.shortcut else y


class EfficientNetLite(Network):
    """EfficientNet-Lite0.

    Parameters
    ----------
    num_classes, in_chans : int
    dropout : float
        Before the classifier.
    stochastic_depth_prob : float
        That a sample skips a block: 0 for the first, growing evenly towards this value.
    """

    classifier_path = "_fc"

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, dropout: float = 0.2, stochastic_depth_prob: float = 0.2):
        super().__init__()
        self.in_chans, self.num_features = in_chans, LAST
        self._conv_stem = Conv2dSame(in_chans, STEM, 3, 2, bias=False)
        self._bn0 = _norm(STEM)
        self._stem_activation = nn.ReLU6()
        blocks, channels, chain = [], STEM, [("_stem_activation", STEM, 2)]
        total = sum(row.repetitions for row in STAGES)
        for row in STAGES:
            for stride in (row.stride, *(1,) * (row.repetitions - 1)):
                chain.append((f"_blocks.{len(blocks)}", row.channels, stride))
                blocks.append(MBConvLite(channels, row, stride, stochastic_depth_prob * len(blocks) / total))
                channels = row.channels
        self.stages = last_of_each_resolution(chain)
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = nn.Conv2d(channels, LAST, 1, bias=False)
        self._bn1 = _norm(LAST)
        self._dropout = nn.Dropout(dropout)
        self._fc = nn.Identity()
        initialize_he(self)
        self.reset_classifier(num_classes)

    def make_classifier(self, num_classes: int) -> nn.Linear:
        return initialize_linear(nn.Linear(self.num_features, num_classes), 0.01)

    def forward_features(self, x):
        """(N, C, H, W) to (N, 1280, H / 32, W / 32), sizes rounded up."""
        self.check_input(x)
        x = self._stem_activation(self._bn0(self._conv_stem(x)))
        return F.relu6(self._bn1(self._conv_head(self._blocks(x))))

    def forward_head(self, features):
        """Maps to logits (N, num_classes)."""
        return self._fc(self._dropout(F.adaptive_avg_pool2d(features, 1).flatten(1)))


@register_model(paper=PAPER, parameters=4_652_008, multiply_adds=385_187_552, mean=(127 / 255,) * 3, std=(128 / 255,) * 3,
                interpolation="bicubic", crop_pct=0.875)
def efficientnet_lite0(num_classes: int = 1000, in_chans: int = 3, **options) -> EfficientNetLite:
    """EfficientNet-Lite0: EfficientNet-B0 with ReLU6, without squeeze and excitation."""
    return EfficientNetLite(num_classes, in_chans, **options)
