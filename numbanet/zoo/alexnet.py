"""AlexNet, as it was published in two groups and as one tower.

Krizhevsky, Sutskever and Hinton: ImageNet Classification with Deep Convolutional Neural Networks, NIPS 2012 (two groups);
Krizhevsky: One Weird Trick for Parallelizing Convolutional Neural Networks, arXiv:1404.5997, 2014 (one tower).
"""

from __future__ import annotations

from numbanet import nn
from numbanet.nn import init
from numbanet.zoo.layers import initialize_linear
from numbanet.zoo.network import Network, Stage
from numbanet.zoo.registry import IMAGENET, register_model

# filters, kernel, stride, padding, pooled; maps of a 224 x 224 picture after the row
_ONE_TOWER = (
    (64, 11, 4, 2, True),       # (N, 64, 55, 55), pooled 27 x 27
    (192, 5, 1, 2, True),       # (N, 192, 27, 27), pooled 13 x 13
    (384, 3, 1, 1, False),      # (N, 384, 13, 13)
    (256, 3, 1, 1, False),      # (N, 256, 13, 13)
    (256, 3, 1, 1, True),       # (N, 256, 13, 13), pooled 6 x 6
)

# name, filters, kernel, stride, padding, groups, normalised, pooled, first bias; maps of a 227 x 227 picture
_TWO_GROUPS = (
    ("1", 96, 11, 4, 0, 1, True, True, 0.0),        # (N, 96, 55, 55), pooled 27 x 27
    ("2", 256, 5, 1, 2, 2, True, True, 1.0),        # (N, 256, 27, 27), pooled 13 x 13
    ("3", 384, 3, 1, 1, 1, False, False, 0.0),      # (N, 384, 13, 13)
    ("4", 384, 3, 1, 1, 2, False, False, 1.0),      # (N, 384, 13, 13)
    ("5", 256, 3, 1, 1, 2, False, True, 1.0),       # (N, 256, 13, 13), pooled 6 x 6
)


class AlexNet(Network):
    """The one tower of 2014, in the sizes and with the parameter names of torchvision.

    Parameters
    ----------
    num_classes : int
        0 leaves the last layer out: the network then gives 4096 features.
    in_chans : int
    dropout : float
        Before each of the two hidden full connections.
    """

    classifier_path = "classifier.6"
    stages = (Stage("features.1", 64, 4), Stage("features.4", 192, 8), Stage("features.11", 256, 16), Stage("features.12", 256, 32))
    num_features = 4096
    minimum_size = 63

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, dropout: float = 0.5):
        super().__init__()
        self.num_classes, self.in_chans = num_classes, in_chans
        layers, channels = [], in_chans
        for filters, kernel, stride, padding, pooled in _ONE_TOWER:
            layers += [nn.Conv2d(channels, filters, kernel, stride, padding), nn.ReLU()]
            if pooled:
                layers.append(nn.MaxPool2d(3, 2))
            channels = filters
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(256 * 6 * 6, 4096), nn.ReLU(),
            nn.Dropout(dropout), nn.Linear(4096, 4096), nn.ReLU(),
            nn.Linear(4096, num_classes) if num_classes else nn.Identity())

    def forward_features(self, x):
        """(N, C, H, W) to (N, 256, 6, 6) of 224 x 224."""
        self.check_input(x)
        return self.features(x)

    def forward_head(self, features):
        return self.classifier(self.avgpool(features).flatten(1))


class AlexNetOf2012(Network):
    """The network of 2012: filters in two groups, as on two GPUs, and local response normalisation.

    A picture has 227 x 227 pixels: the paper writes 224, but windows of 11 x 11 with stride 4 give its 55 x 55 maps only
    from 227. Other sizes are averaged to the 6 x 6 maps that the full connections read.

    Parameters
    ----------
    num_classes : int
    in_chans : int
    dropout : float
        Of the outputs of the two hidden full connections.
    """

    classifier_path = "classifier.fc8"
    stages = (Stage("features.relu1", 96, 4), Stage("features.relu2", 256, 8), Stage("features.relu5", 256, 16),
              Stage("features.pool5", 256, 32))
    num_features = 4096
    minimum_size = 67

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, dropout: float = 0.5):
        super().__init__()
        self.num_classes, self.in_chans = num_classes, in_chans
        layers, channels = {}, in_chans
        for name, filters, kernel, stride, padding, groups, normalised, pooled, _ in _TWO_GROUPS:
            layers[f"conv{name}"] = nn.Conv2d(channels, filters, kernel, stride, padding, groups=groups)
            layers[f"relu{name}"] = nn.ReLU()
            if normalised:
                # The paper multiplies the sum by alpha = 1e-4, the layer the mean of the 5.
                layers[f"norm{name}"] = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)
            if pooled:
                layers[f"pool{name}"] = nn.MaxPool2d(3, 2)
            channels = filters
        self.features = nn.Sequential(layers)
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        with init.skip():       # drawn once, at the end
            self.classifier = nn.Sequential({
                "fc6": nn.Linear(256 * 6 * 6, 4096), "relu6": nn.ReLU(), "drop6": nn.Dropout(dropout),
                "fc7": nn.Linear(4096, 4096), "relu7": nn.ReLU(), "drop7": nn.Dropout(dropout),
                "fc8": nn.Linear(4096, num_classes) if num_classes else nn.Identity()})
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The paper's section 5: weights N(0, 0.01^2); biases 1 where they give ReLUs something positive to begin with."""
        bias = {f"features.conv{name}": value for name, *_, value in _TWO_GROUPS} | {"classifier.fc6": 1.0, "classifier.fc7": 1.0}
        for name, layer in self.named_modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                init.normal_(layer.weight, std=0.01)
                init.constant_(layer.bias, bias.get(name, 0.0))

    def make_classifier(self, num_classes: int) -> nn.Module:
        return initialize_linear(super().make_classifier(num_classes), 0.01)

    def forward_features(self, x):
        """(N, C, H, W) to (N, 256, 6, 6) of 227 x 227."""
        self.check_input(x)
        return self.features(x)

    def forward_head(self, features):
        return self.classifier(self.avgpool(features).flatten(1))


@register_model(input_size=(3, 224, 224), **IMAGENET, parameters=61_100_840, multiply_adds=714_188_480, crop_pct=0.875,
                paper="Krizhevsky 2014, One Weird Trick for Parallelizing Convolutional Neural Networks")
def alexnet(num_classes: int = 1000, in_chans: int = 3, **options) -> AlexNet:
    """AlexNet as one tower, without normalisation."""
    return AlexNet(num_classes, in_chans, **options)


@register_model(input_size=(3, 227, 227), mean=IMAGENET["mean"], std=(1 / 255,) * 3, parameters=60_965_224, multiply_adds=724_406_816,
                crop_pct=0.887, paper="Krizhevsky et al. 2012, ImageNet Classification with Deep Convolutional Neural Networks")
def alexnet_2012(num_classes: int = 1000, in_chans: int = 3, **options) -> AlexNetOf2012:
    """AlexNet as published: two groups, local response normalisation, overlapping pooling."""
    return AlexNetOf2012(num_classes, in_chans, **options)
