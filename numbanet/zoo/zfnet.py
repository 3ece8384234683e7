"""ZFNet-512, the larger of the networks by which AlexNet's filters were made visible.

Zeiler and Fergus: Visualizing and Understanding Convolutional Networks, ECCV 2014, arXiv:1311.2901: AlexNet with 7 x 7 first
filters at stride 2 and 512, 512, 512 maps in layers 3 to 5. Sizes of the full connections, the padding and the constants of the
normalisation are those of the network of that name that the ONNX project distributes (``zfnet512``).
"""

from __future__ import annotations

from numbanet import nn
from numbanet.nn import init
from numbanet.zoo.layers import initialize_linear
from numbanet.zoo.network import Network, Stage
from numbanet.zoo.registry import IMAGENET, register_model

# name, filters, kernel, stride, padding, normalised, size of the pooling window at stride 2
_ROWS = (
    ("1", 96, 7, 2, 0, True, 3),        # (N, 96, 109, 109), pooled 54 x 54
    ("2", 256, 5, 2, 0, True, 3),       # (N, 256, 25, 25), pooled 12 x 12
    ("3", 512, 3, 1, 1, False, None),   # (N, 512, 12, 12)
    ("4", 512, 3, 1, 1, False, None),   # (N, 512, 12, 12)
    ("5", 512, 3, 1, 1, False, 2),      # (N, 512, 12, 12), pooled 6 x 6
)


class ZFNet512(Network):
    """Five convolutions and three full connections.

    Parameters
    ----------
    num_classes : int
        0 leaves the last layer out: the network then gives 1024 features.
    in_chans : int
    dropout : float
        Of the outputs of the two hidden full connections.
    """

    classifier_path = "classifier.fc8"
    stages = (Stage("features.relu1", 96, 2), Stage("features.pool1", 96, 4), Stage("features.relu2", 256, 8),
              Stage("features.relu5", 512, 16), Stage("features.pool5", 512, 32))
    num_features = 1024
    minimum_size = 59

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, dropout: float = 0.5):
        super().__init__()
        self.num_classes, self.in_chans = num_classes, in_chans
        layers, channels = {}, in_chans
        for name, filters, kernel, stride, padding, normalised, window in _ROWS:
            layers[f"conv{name}"] = nn.Conv2d(channels, filters, kernel, stride, padding)
            layers[f"relu{name}"] = nn.ReLU()
            if normalised:
                # alpha multiplies the mean of the 5 squares; of their sum it is the 1e-4 of AlexNet
                layers[f"norm{name}"] = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)
            if window:
                layers[f"pool{name}"] = nn.MaxPool2d(window, 2)
            channels = filters
        self.features = nn.Sequential(layers)
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        with init.skip():       # drawn once, at the end
            self.classifier = nn.Sequential({
                "fc6": nn.Linear(512 * 6 * 6, 4096), "relu6": nn.ReLU(), "drop6": nn.Dropout(dropout),
                "fc7": nn.Linear(4096, 1024), "relu7": nn.ReLU(), "drop7": nn.Dropout(dropout),
                "fc8": nn.Linear(1024, num_classes) if num_classes else nn.Identity()})
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights N(0, 0.01^2) and biases 0 (the paper's section 3.1 sets all weights to 0.01, which would keep filters equal)."""
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                initialize_linear(layer, 0.01)

    def make_classifier(self, num_classes: int) -> nn.Module:
        return initialize_linear(super().make_classifier(num_classes), 0.01)

    def forward_features(self, x):
        """(N, C, H, W) to (N, 512, 6, 6) of 224 x 224."""
        self.check_input(x)
        return self.features(x)

    def forward_head(self, features):
        return self.classifier(self.avgpool(features).flatten(1))


@register_model(input_size=(3, 224, 224), paper="Zeiler and Fergus 2014, Visualizing and Understanding Convolutional Networks", **IMAGENET,
                parameters=87_250_536, multiply_adds=1_481_727_008, crop_pct=0.875)
def zfnet512(num_classes: int = 1000, in_chans: int = 3, **options) -> ZFNet512:
    """ZFNet-512: AlexNet with smaller first filters at a smaller stride."""
    return ZFNet512(num_classes, in_chans, **options)
