"""VGG: columns A, B, D and E of table 1 (11, 13, 16, 19 layers with weights), each also with batch normalisation.

Simonyan and Zisserman: Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015, arXiv:1409.1556.
Parameter names are torchvision's, and so are the initial values: the paper starts the deep columns from trained shallow ones.
"""

from __future__ import annotations

from numbanet import nn
from numbanet.nn import init
from numbanet.zoo.layers import initialize_he, initialize_linear
from numbanet.zoo.network import Network, Stage
from numbanet.zoo.registry import IMAGENET, register_model

PAPER = "Simonyan and Zisserman 2015, Very Deep Convolutional Networks for Large-Scale Image Recognition"

# Table 1: the filters of the 3 x 3 convolutions between the poolings, which halve the maps: 224 -> 112 -> 56 -> 28 -> 14 -> 7.
COLUMNS = {
    "A": ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    "B": ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512)),
    "D": ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
    "E": ((64, 64), (128, 128), (256, 256, 256, 256), (512, 512, 512, 512), (512, 512, 512, 512)),
}


class VGG(Network):
    """A column of table 1.

    Parameters
    ----------
    column : tuple of tuples
        One of :data:`COLUMNS`.
    batch_norm : bool
        Between each convolution and its ReLU (Ioffe and Szegedy, 2015).
    num_classes : int
        0 leaves the last layer out: the network then gives 4096 features.
    in_chans : int
    dropout : float
        After each of the two hidden full connections.
    """

    classifier_path = "classifier.6"
    num_features = 4096
    minimum_size = 32

    def __init__(self, column, batch_norm: bool = False, num_classes: int = 1000, in_chans: int = 3, dropout: float = 0.5):
        super().__init__()
        self.num_classes, self.in_chans = num_classes, in_chans
        layers, stages, channels = [], [], in_chans
        for depth, block in enumerate(column):
            for filters in block:
                layers.append(nn.Conv2d(channels, filters, 3, padding=1))
                if batch_norm:
                    layers.append(nn.BatchNorm2d(filters))
                layers.append(nn.ReLU())
                channels = filters
            if depth:
                stages.append(Stage(f"features.{len(layers) - 1}", channels, 2 ** depth))
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.stages = (*stages, Stage(f"features.{len(layers) - 1}", channels, 2 ** len(column)))
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        with init.skip():       # drawn once, at the end
            self.classifier = nn.Sequential(
                nn.Linear(512 * 7 * 7, 4096), nn.ReLU(), nn.Dropout(dropout),
                nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(dropout),
                self.make_classifier(num_classes) if num_classes else nn.Identity())
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Convolutions as He et al. (2015) by fan-out, full connections N(0, 0.01^2), biases 0."""
        initialize_he(self)
        for layer in self.classifier:
            if isinstance(layer, nn.Linear):
                initialize_linear(layer, 0.01)

    def make_classifier(self, num_classes: int) -> nn.Module:
        return initialize_linear(nn.Linear(self.num_features, num_classes), 0.01)

    def forward_features(self, x):
        """(N, C, H, W) to (N, 512, H / 32, W / 32)."""
        self.check_input(x)
        return self.features(x)

    def forward_head(self, features):
        return self.classifier(self.avgpool(features).flatten(1))


def _register(parameters: int, multiply_adds: int):
    return register_model(input_size=(3, 224, 224), paper=PAPER, **IMAGENET, parameters=parameters, multiply_adds=multiply_adds,
                          crop_pct=0.875)


@_register(132_863_336, 7_609_090_048)
def vgg11(num_classes: int = 1000, in_chans: int = 3, **options) -> VGG:
    """VGG with 11 layers: column A."""
    return VGG(COLUMNS["A"], False, num_classes, in_chans, **options)


@_register(132_868_840, 7_609_090_048)
def vgg11_bn(num_classes: int = 1000, in_chans: int = 3, **options) -> VGG:
    """VGG with 11 layers: column A, and batch normalisation."""
    return VGG(COLUMNS["A"], True, num_classes, in_chans, **options)


@_register(133_047_848, 11_308_466_176)
def vgg13(num_classes: int = 1000, in_chans: int = 3, **options) -> VGG:
    """VGG with 13 layers: column B."""
    return VGG(COLUMNS["B"], False, num_classes, in_chans, **options)


@_register(133_053_736, 11_308_466_176)
def vgg13_bn(num_classes: int = 1000, in_chans: int = 3, **options) -> VGG:
    """VGG with 13 layers: column B, and batch normalisation."""
    return VGG(COLUMNS["B"], True, num_classes, in_chans, **options)


@_register(138_357_544, 15_470_264_320)
def vgg16(num_classes: int = 1000, in_chans: int = 3, **options) -> VGG:
    """VGG with 16 layers: column D."""
    return VGG(COLUMNS["D"], False, num_classes, in_chans, **options)


@_register(138_365_992, 15_470_264_320)
def vgg16_bn(num_classes: int = 1000, in_chans: int = 3, **options) -> VGG:
    """VGG with 16 layers: column D, and batch normalisation."""
    return VGG(COLUMNS["D"], True, num_classes, in_chans, **options)


@_register(143_667_240, 19_632_062_464)
def vgg19(num_classes: int = 1000, in_chans: int = 3, **options) -> VGG:
    """VGG with 19 layers: column E."""
    return VGG(COLUMNS["E"], False, num_classes, in_chans, **options)


@_register(143_678_248, 19_632_062_464)
def vgg19_bn(num_classes: int = 1000, in_chans: int = 3, **options) -> VGG:
    """VGG with 19 layers: column E, and batch normalisation."""
    return VGG(COLUMNS["E"], True, num_classes, in_chans, **options)
