"""SqueezeNet 1.0 and 1.1.

Iandola et al.: SqueezeNet: AlexNet-Level Accuracy with 50x Fewer Parameters and < 0.5 MB Model Size, arXiv:1602.07360, 2016,
table 1; 1.1 is the authors' later release (github.com/forresti/SqueezeNet): smaller first filters and earlier pooling for 2.4
times less computation. Parameter names are torchvision's.
"""

from __future__ import annotations

from numbanet import nn
from numbanet.nn import init
from numbanet.ops.rearrange import cat
from numbanet.zoo.layers import Conv2dSame, initialize_linear
from numbanet.zoo.network import Network, Stage
from numbanet.zoo.registry import IMAGENET, register_model

PAPER = "Iandola et al. 2016, SqueezeNet"

POOL = "pool"       # 3 x 3 windows at stride 2, the last one may reach over the border
# The first filters, then fire modules (squeeze, expand) with both halves of the expansion of one size, and poolings.
_VERSION_1_0 = (96, 7), (POOL, (16, 64), (16, 64), (32, 128), POOL, (32, 128), (48, 192), (48, 192), (64, 256), POOL, (64, 256))
_VERSION_1_1 = (64, 3), (POOL, (16, 64), (16, 64), POOL, (32, 128), (32, 128), POOL, (48, 192), (48, 192), (64, 256), (64, 256))


class Fire(nn.Module):
    """1 x 1 filters squeeze the channels; 1 x 1 and 3 x 3 filters side by side expand them: (N, C, H, W) to (N, 2 expand, H, W)."""

    def __init__(self, channels: int, squeeze: int, expand: int):
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeeze, 1)
        self.squeeze_activation = nn.ReLU()
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand1x1_activation = nn.ReLU()
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)
        self.expand3x3_activation = nn.ReLU()

    def forward(self, x):
        x = self.squeeze_activation(self.squeeze(x))
        return cat([self.expand1x1_activation(self.expand1x1(x)), self.expand3x3_activation(self.expand3x3(x))], 1)


class SqueezeNet(Network):
    """A chain of fire modules whose last convolution gives one map for each class.

    Parameters
    ----------
    version : ((filters, kernel), rows)
        The first convolution, and the rows after it.
    num_classes : int
        0 leaves the last convolution out: the network then gives 512 features.
    in_chans : int
    dropout : float
        Before the last convolution.
    same_padding : bool
        The first convolution padded as TensorFlow's SAME, and no pooling over the border.
    """

    classifier_path = "classifier.1"
    num_features = 512

    def __init__(self, version=_VERSION_1_0, num_classes: int = 1000, in_chans: int = 3, dropout: float = 0.5,
                 same_padding: bool = False):
        super().__init__()
        self.num_classes, self.in_chans = num_classes, in_chans
        (channels, kernel), rows = version
        # The least from which every pooling finds a window: to begin with, or a whole one.
        self.minimum_size = 29 if same_padding else kernel + 14
        layers, stages = [(Conv2dSame if same_padding else nn.Conv2d)(in_chans, channels, kernel, 2), nn.ReLU()], []
        for row in rows:
            if row == POOL:
                stages.append(Stage(f"features.{len(layers) - 1}", channels, 2 ** (len(stages) + 1)))
                layers.append(nn.MaxPool2d(3, 2, ceil_mode=not same_padding))
            else:
                layers.append(Fire(channels, *row))
                channels = 2 * row[1]
        self.features = nn.Sequential(*layers)
        self.stages = (*stages, Stage(f"features.{len(layers) - 1}", channels, 2 ** (len(stages) + 1)))
        self.classifier = nn.Sequential(nn.Dropout(dropout), self.make_classifier(num_classes) if num_classes else nn.Identity(),
                                        nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He et al. (2015), uniform; the last convolution N(0, 0.01^2); biases 0."""
        for layer in self.features.modules():
            if isinstance(layer, nn.Conv2d):
                init.kaiming_uniform_(layer.weight)
                init.zeros_(layer.bias)

    def make_classifier(self, num_classes: int) -> nn.Module:
        return initialize_linear(nn.Conv2d(self.num_features, num_classes, 1), 0.01)

    def forward_features(self, x):
        """(N, C, H, W) to (N, 512, H / 16, W / 16)."""
        self.check_input(x)
        return self.features(x)

    def forward_head(self, features):
        return self.classifier(features).flatten(1)


@register_model(input_size=(3, 224, 224), paper=PAPER, **IMAGENET, parameters=1_248_424, multiply_adds=818_924_576, crop_pct=0.875)
def squeezenet1_0(num_classes: int = 1000, in_chans: int = 3, **options) -> SqueezeNet:
    """SqueezeNet 1.0: table 1 of the paper."""
    return SqueezeNet(_VERSION_1_0, num_classes, in_chans, **options)


@register_model(input_size=(3, 224, 224), paper=PAPER, **IMAGENET, parameters=1_235_496, multiply_adds=349_151_936, crop_pct=0.875)
def squeezenet1_1(num_classes: int = 1000, in_chans: int = 3, **options) -> SqueezeNet:
    """SqueezeNet 1.1: as accurate at 2.4 times less computation."""
    return SqueezeNet(_VERSION_1_1, num_classes, in_chans, **options)


@register_model(input_size=(3, 227, 227), paper=PAPER, mean=(104 / 255, 116.7 / 255, 122.7 / 255), std=(1 / 255,) * 3,
                parameters=1_235_496, multiply_adds=352_932_608, interpolation="bicubic", channel_order="bgr")
def squeezenet1_1_tf(num_classes: int = 1000, in_chans: int = 3, **options) -> SqueezeNet:
    """SqueezeNet 1.1, padded as the weights of TensorFlow and Keras expect; channels are blue, green, red."""
    return SqueezeNet(_VERSION_1_1, num_classes, in_chans, same_padding=True, **options)
