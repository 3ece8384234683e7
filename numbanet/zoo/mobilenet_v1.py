"""MobileNet: depthwise separable convolutions, and one number that makes all layers thinner.

Howard et al. (2017), MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications, arXiv:1704.04861.
"""

from __future__ import annotations

from numbanet import nn
from numbanet.nn import functional as F
from numbanet.zoo.layers import ConvNormActivation, initialize_he, last_of_each_resolution
from numbanet.zoo.network import Network
from numbanet.zoo.registry import IMAGENET, register_model

PAPER = "Howard et al. 2017, MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications"

STEM = 32                   # filters of the first convolution, 3x3, stride 2: (N, 3, 224, 224) -> (N, 32, 112, 112)
# Table 1: (filters, stride) of each pair of a depthwise 3x3 and a pointwise convolution, with the size of its maps.
BLOCKS = (
    (64, 1),                                                                    # 112
    (128, 2), (128, 1),                                                         # 56
    (256, 2), (256, 1),                                                         # 28
    (512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1),                 # 14
    (1024, 2), (1024, 1),                                                       # 7; the table's last stride of 2 keeps 7 x 7, so it is 1
)


class DepthwiseSeparable(nn.Sequential):
    """A 3x3 filter for each channel, then a 1x1 convolution over the channels, each with batch norm and ReLU (figure 3)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__(ConvNormActivation(in_channels, in_channels, 3, stride, groups=in_channels),
                         ConvNormActivation(in_channels, out_channels, 1))


class MobileNetV1(Network):
    """Table 1 of the paper; `width_mult` is its width multiplier alpha.

    Parameters
    ----------
    num_classes, in_chans : int
    width_mult : float
        Of every layer's filters; the paper has 1, 0.75, 0.5 and 0.25.
    dropout : float
        Before the classifier.
    """

    classifier_path = "classifier.1"

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, width_mult: float = 1.0, dropout: float = 0.0):
        super().__init__()
        channels = int(STEM * width_mult)
        layers = [ConvNormActivation(in_chans, channels, 3, 2)]
        chain = [("features.0", channels, 2)]
        for filters, stride in BLOCKS:
            filters = int(filters * width_mult)
            chain.append((f"features.{len(layers)}", filters, stride))
            layers.append(DepthwiseSeparable(channels, filters, stride))
            channels = filters
        self.stages = last_of_each_resolution(chain)
        self.in_chans, self.num_features = in_chans, channels
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Identity())
        initialize_he(self.features)
        self.reset_classifier(num_classes)

    def forward_features(self, x):
        """(N, C, H, W) to (N, 1024, H / 32, W / 32), sizes rounded up."""
        self.check_input(x)
        return self.features(x)

    def forward_head(self, features):
        """Maps to logits (N, num_classes)."""
        return self.classifier(F.adaptive_avg_pool2d(features, 1).flatten(1))


@register_model(paper=PAPER, parameters=4_231_976, multiply_adds=568_740_352, crop_pct=0.875, **IMAGENET)
def mobilenet_v1(num_classes: int = 1000, in_chans: int = 3, **options) -> MobileNetV1:
    """MobileNet: depthwise separable convolutions; `width_mult` makes it thinner."""
    return MobileNetV1(num_classes, in_chans, **options)
