"""ConvNeXt: convolutional networks with the proportions of vision transformers.

Liu, Mao, Wu, Feichtenhofer, Darrell and Xie: A ConvNet for the 2020s, CVPR 2022, arXiv:2201.03545; section 3, figure 4.
"""

from __future__ import annotations

from functools import partial

from numbanet import nn
from numbanet.ops.factories import full
from numbanet.zoo.layers import ConvNormActivation, LayerNorm2d, StochasticDepth, initialize_linear
from numbanet.zoo.network import Network, Stage
from numbanet.zoo.registry import IMAGENET, register_model

PAPER = "Liu et al. 2022, A ConvNet for the 2020s"

WIDTHS = (96, 192, 384, 768)
# Section 3: blocks in each stage.
BLOCKS = {"tiny": (3, 3, 9, 3), "small": (3, 3, 27, 3)}
EPS = 1e-6
# Of all weights (appendix A.1). There the normal distribution is cut at -2 and 2, which are 100 deviations away.
INITIAL_STD = 0.02


class Permute(nn.Module):
    """The axes in another order; no element moves."""

    def __init__(self, *axes: int):
        super().__init__()
        self.axes = axes

    def forward(self, x):
        return x.permute(*self.axes)

    def extra_repr(self) -> str:
        return str(self.axes)


class CNBlock(nn.Module):
    """A 7x7 layer of each channel, then two linear layers of each position, beside the identity (figure 4).

    Parameters
    ----------
    channels : int
        Of the input and output, (N, channels, H, W).
    layer_scale : float
        What the branch is multiplied with at first, a trainable factor for each channel.
    drop_probability : float
        Of the branch, by stochastic depth.
    """

    def __init__(self, channels: int, layer_scale: float, drop_probability: float):
        super().__init__()
        self.layer_scale = nn.Parameter(full((channels, 1, 1), layer_scale))
        self.block = nn.Sequential(
            nn.Conv2d(channels, channels, 7, padding=3, groups=channels),
            Permute(0, 2, 3, 1),                                            # (N, H, W, C)
            nn.LayerNorm(channels, EPS),
            nn.Linear(channels, 4 * channels),
            nn.GELU(),
            nn.Linear(4 * channels, channels),
            Permute(0, 3, 1, 2),                                            # (N, C, H, W)
        )
        self.stochastic_depth = StochasticDepth(drop_probability, "row")

    def forward(self, x):
        return x + self.stochastic_depth(self.layer_scale * self.block(x))


class ConvNeXt(Network):
    """A ConvNeXt with the keys of torchvision's.

    Parameters
    ----------
    blocks : tuple of four ints
        In each stage.
    num_classes, in_chans : int
    stochastic_depth_prob : float
        Of the last block's branch to be dropped in training; it grows from 0 at the first.
    layer_scale : float
        See :class:`CNBlock`.
    """

    classifier_path = "classifier.2"
    stages = tuple(Stage(f"features.{2 * i + 1}", width, 4 << i) for i, width in enumerate(WIDTHS))
    num_features = WIDTHS[-1]
    minimum_size = 32

    def __init__(self, blocks: tuple[int, ...], num_classes: int = 1000, in_chans: int = 3, *, stochastic_depth_prob: float = 0.1,
                 layer_scale: float = 1e-6):
        super().__init__()
        self.in_chans = in_chans
        norm = partial(LayerNorm2d, eps=EPS)
        # (N, C, 224, 224) -> (N, 96, 56, 56)
        layers = [ConvNormActivation(in_chans, WIDTHS[0], 4, 4, 0, norm=norm, activation=None, bias=True)]
        done, last = 0, sum(blocks) - 1
        for i, (width, count) in enumerate(zip(WIDTHS, blocks)):            # sides 56, 28, 14, 7
            if i:
                layers.append(nn.Sequential(norm(WIDTHS[i - 1]), nn.Conv2d(WIDTHS[i - 1], width, 2, 2)))
            layers.append(nn.Sequential(*(CNBlock(width, layer_scale, stochastic_depth_prob * (done + j) / last) for j in range(count))))
            done += count
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(norm(self.num_features), nn.Flatten(), nn.Identity())
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                initialize_linear(layer, INITIAL_STD)
        self.reset_classifier(num_classes)

    def make_classifier(self, num_classes: int) -> nn.Module:
        return initialize_linear(nn.Linear(self.num_features, num_classes), INITIAL_STD)

    def forward_features(self, x):
        """(N, C, H, W) to the maps of the last stage, at 1/32 of the resolution."""
        self.check_input(x)
        return self.features(x)

    def forward_head(self, features):
        """Maps to logits (N, num_classes)."""
        return self.classifier(self.avgpool(features))


@register_model(paper=PAPER, **IMAGENET, crop_pct=224 / 236, parameters=28_589_128, multiply_adds=4_455_531_264)
def convnext_tiny(num_classes: int = 1000, in_chans: int = 3, stochastic_depth_prob: float = 0.1, **options) -> ConvNeXt:
    """ConvNeXt-T: 3, 3, 9 and 3 blocks of 96 to 768 channels."""
    return ConvNeXt(BLOCKS["tiny"], num_classes, in_chans, stochastic_depth_prob=stochastic_depth_prob, **options)


@register_model(paper=PAPER, **IMAGENET, crop_pct=224 / 230, parameters=50_223_688, multiply_adds=8_683_712_256)
def convnext_small(num_classes: int = 1000, in_chans: int = 3, stochastic_depth_prob: float = 0.4, **options) -> ConvNeXt:
    """ConvNeXt-S: 3, 3, 27 and 3 blocks of 96 to 768 channels."""
    return ConvNeXt(BLOCKS["small"], num_classes, in_chans, stochastic_depth_prob=stochastic_depth_prob, **options)
