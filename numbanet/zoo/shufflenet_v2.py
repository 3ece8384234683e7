"""ShuffleNet V2: half of the channels pass each block unchanged, and a shuffle mixes the halves.

Ma et al. (2018), ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design, arXiv:1807.11164.
"""

from __future__ import annotations

from numbanet import nn
from numbanet.nn import functional as F
from numbanet.ops.rearrange import cat
from numbanet.zoo.layers import ConvNormActivation
from numbanet.zoo.network import Network, Stage
from numbanet.zoo.registry import IMAGENET, register_model

PAPER = "Ma et al. 2018, ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design"

# Table 5. Sizes of the maps at 224 x 224: conv1 112, max pooling 56, stages 2 to 4 28, 14 and 7.
REPETITIONS = (4, 8, 4)                             # blocks of stages 2, 3 and 4, the first of stride 2
CHANNELS = {                                        # conv1, stages 2, 3 and 4, conv5
    "0.5": (24, 48, 96, 192, 1024),
    "1.0": (24, 116, 232, 464, 1024),
    "1.5": (24, 176, 352, 704, 1024),
    "2.0": (24, 244, 488, 976, 2048),
}


def _depthwise(channels: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False), nn.BatchNorm2d(channels)]


def _pointwise(in_channels: int, out_channels: int) -> list[nn.Module]:
    return [nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU()]


class ShuffleUnit(nn.Module):
    """Two branches of `out_channels` / 2 channels, concatenated and shuffled (figure 3, c and d).

    At stride 1 the channels are split between them and the first branch is empty; at stride 2 each sees all of them.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        half = out_channels // 2
        self.splits = stride == 1
        self.branch1 = nn.Sequential() if self.splits else nn.Sequential(*_depthwise(in_channels, stride), *_pointwise(in_channels, half))
        self.branch2 = nn.Sequential(*_pointwise(half if self.splits else in_channels, half), *_depthwise(half, stride),
                                     *_pointwise(half, half))

    def forward(self, x):
        first, second = x.chunk(2, dim=1) if self.splits else (x, x)
        return F.channel_shuffle(cat([self.branch1(first), self.branch2(second)], 1), 2)


class ShuffleNetV2(Network):
    """Table 5 of the paper.

    Parameters
    ----------
    channels : tuple of 5 ints
        A row of `CHANNELS`.
    num_classes, in_chans : int
    """

    classifier_path = "fc"

    def __init__(self, channels: tuple[int, ...], num_classes: int = 1000, in_chans: int = 3):
        super().__init__()
        stem, *wide, last = channels
        self.in_chans, self.num_features = in_chans, last
        self.conv1 = ConvNormActivation(in_chans, stem, 3, 2)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        stages, before = [Stage("conv1", stem, 2), Stage("maxpool", stem, 4)], stem
        for number, (filters, repetitions) in enumerate(zip(wide, REPETITIONS), 2):
            units = [ShuffleUnit(before, filters, 2), *(ShuffleUnit(filters, filters, 1) for _ in range(repetitions - 1))]
            setattr(self, f"stage{number}", nn.Sequential(*units))
            stages.append(Stage(f"stage{number}", filters, 2 ** (number + 1)))
            before = filters
        self.stages = tuple(stages)
        self.conv5 = ConvNormActivation(before, last, 1)
        self.fc = nn.Identity()
        self.reset_classifier(num_classes)

    def forward_features(self, x):
        """(N, C, H, W) to (N, 1024 or 2048, H / 32, W / 32), sizes rounded up."""
        self.check_input(x)
        x = self.maxpool(self.conv1(x))
        return self.conv5(self.stage4(self.stage3(self.stage2(x))))

    def forward_head(self, features):
        """Maps to logits (N, num_classes)."""
        return self.fc(F.adaptive_avg_pool2d(features, 1).flatten(1))


@register_model(paper=PAPER, parameters=1_366_792, multiply_adds=40_476_448, crop_pct=0.875, **IMAGENET)
def shufflenet_v2_x0_5(num_classes: int = 1000, in_chans: int = 3) -> ShuffleNetV2:
    """ShuffleNet V2 of half the width."""
    return ShuffleNetV2(CHANNELS["0.5"], num_classes, in_chans)


@register_model(paper=PAPER, parameters=2_278_604, multiply_adds=144_907_992, crop_pct=0.875, **IMAGENET)
def shufflenet_v2_x1_0(num_classes: int = 1000, in_chans: int = 3) -> ShuffleNetV2:
    """ShuffleNet V2: split, transform half, concatenate, shuffle."""
    return ShuffleNetV2(CHANNELS["1.0"], num_classes, in_chans)


@register_model(paper=PAPER, parameters=3_503_624, multiply_adds=295_759_392, crop_pct=0.875, **IMAGENET)
def shufflenet_v2_x1_5(num_classes: int = 1000, in_chans: int = 3) -> ShuffleNetV2:
    """ShuffleNet V2 of 1.5 times the width."""
    return ShuffleNetV2(CHANNELS["1.5"], num_classes, in_chans)


@register_model(paper=PAPER, parameters=7_393_996, multiply_adds=583_253_464, crop_pct=0.875, **IMAGENET)
def shufflenet_v2_x2_0(num_classes: int = 1000, in_chans: int = 3) -> ShuffleNetV2:
    """ShuffleNet V2 of twice the width."""
    return ShuffleNetV2(CHANNELS["2.0"], num_classes, in_chans)
