"""U-Net: a network that labels every pixel.

Ronneberger, Fischer and Brox: U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015, arXiv:1505.04597; figure 1.
A contracting path, and an expanding one that reads the contracting path's maps of the same resolution again.
"""

from __future__ import annotations

import math

from numbanet import nn
from numbanet.errors import ShapeError, UsageError
from numbanet.nn import functional as F
from numbanet.nn import init
from numbanet.ops.rearrange import cat
from numbanet.zoo.layers import ConvNormActivation
from numbanet.zoo.network import Network, Stage
from numbanet.zoo.registry import register_model

PAPER = "Ronneberger et al. 2015, U-Net: Convolutional Networks for Biomedical Image Segmentation"

# Figure 1: maps at each resolution, each half of the one before.
WIDTHS = (64, 128, 256, 512, 1024)


class UNet(Network):
    """A U-Net: (N, C, H, W) to logits (N, num_classes, H, W).

    Parameters
    ----------
    num_classes, in_chans : int
    widths : tuple of ints
        The maps at each resolution; their number is one more than that of the poolings.
    padding : "same" or "valid"
        "same": 3x3 layers keep the size; an input of any size is padded with zeros at the bottom and the right, and the
        logits are cut to its size. "valid", as in the paper: 3x3 layers take a border off, the maps of the contracting path are
        cropped to their middle, and the logits cover the middle of the input: 388 x 388 of 572 x 572.
    dropout : float
        Probability at the end of the contracting path, after its last two resolutions.
    batch_norm : bool
        Normalise after each 3x3 layer, which the paper does not.
    """

    classifier_path = "classifier"

    def __init__(self, num_classes: int = 2, in_chans: int = 1, *, widths: tuple[int, ...] = WIDTHS, padding: str = "same",
                 dropout: float = 0.5, batch_norm: bool = False):
        super().__init__()
        if padding not in ("same", "valid"):
            raise UsageError(f"UNet: padding expects 'same' or 'valid', received {padding!r}")
        if len(widths) < 2:
            raise UsageError(f"UNet: widths expects at least two numbers of maps, received {widths!r}")
        self.in_chans, self.num_features, self.padding = in_chans, widths[0], padding
        self.stages = tuple(Stage(f"contracting.{i}", width, 1 << i) for i, width in enumerate(widths))
        self.multiple = 1 << len(widths) - 1
        # A 3x3 layer takes off 2 rows; both layers of all levels but the last take off `border` rows of the input, 4 at each.
        self.border = 4 * (self.multiple - 1) if padding == "valid" else 0
        if padding == "valid":      # so much that the expanding path's layers leave a row
            self.minimum_size = self.border + self.multiple * (4 + self.border // self.multiple + 1)
        options = {"padding": int(padding == "same"), "norm": nn.BatchNorm2d if batch_norm else None}
        self.contracting = nn.ModuleList()
        for level, (before, width) in enumerate(zip((in_chans, *widths), widths)):
            convolutions = _two_convolutions(before, width, options)
            self.contracting.append(convolutions.append(nn.Dropout(dropout)) if level >= len(widths) - 2 else convolutions)
        self.pool = nn.MaxPool2d(2)
        self.upsampling = nn.ModuleList(nn.ConvTranspose2d(deep, width, 2, 2) for deep, width in zip(widths[:0:-1], widths[-2::-1]))
        self.expanding = nn.ModuleList(_two_convolutions(2 * width, width, options) for width in widths[-2::-1])
        self.classifier = nn.Identity()
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                _initialize(layer)
        self.reset_classifier(num_classes)

    def make_classifier(self, num_classes: int) -> nn.Module:
        return _initialize(nn.Conv2d(self.num_features, num_classes, 1))

    def forward_features(self, x):
        """(N, C, H, W) to the last maps (N, widths[0], OH, OW), of the input's size with padding "same"."""
        self.check_input(x)
        height, width = x.shape[2:]
        if self.padding == "same":
            x = F.pad(x, (0, -width % self.multiple, 0, -height % self.multiple))
        elif (height - self.border) % self.multiple or (width - self.border) % self.multiple:
            fitting = tuple(n + (self.border - n) % self.multiple for n in (height, width))
            raise ShapeError(f"UNet: x expects maps that are even before each pooling, received {tuple(x.shape)}; "
                             f"pad the pictures to {fitting[0]} x {fitting[1]}, or make the model with padding='same'")
        contracted = []
        for level, convolutions in enumerate(self.contracting):
            x = convolutions(self.pool(x) if level else x)
            contracted.append(x)
        for upsample, convolutions, beside in zip(self.upsampling, self.expanding, contracted[-2::-1]):
            x = upsample(x)
            x = convolutions(cat([_middle(beside, x.shape[2:]), x], 1))
        return x[:, :, :height, :width] if self.padding == "same" else x

    def to_fully_convolutional(self, input_size=None):
        raise UsageError("to_fully_convolutional: UNet labels the pixels of pictures of any size already")

    def forward_head(self, features):
        """The last maps to logits (N, num_classes, OH, OW)."""
        return self.classifier(features)


def _two_convolutions(in_channels: int, width: int, options: dict) -> nn.Sequential:
    return nn.Sequential(ConvNormActivation(in_channels, width, 3, **options), ConvNormActivation(width, width, 3, **options))


def _middle(x, size):
    """The middle of (N, C, H, W), of the height and width `size`."""
    (top, left), (height, width) = ((n - m) // 2 for n, m in zip(x.shape[2:], size)), size
    return x[:, :, top:top + height, left:left + width]


def _initialize(layer: nn.Module) -> nn.Module:
    """Weights N(0, 2 / n), n the inputs of a unit (section 3), and biases 0; 2x2 up-convolutions do not overlap."""
    inputs = layer.in_channels if isinstance(layer, nn.ConvTranspose2d) else init.fans(layer.weight)[0]
    init.normal_(layer.weight, 0.0, math.sqrt(2 / inputs))
    if layer.bias is not None:
        init.zeros_(layer.bias)
    return layer


@register_model(input_size=(1, 512, 512), num_classes=2, paper=PAPER, parameters=31_030_658, multiply_adds=192_384_335_872)
def unet(num_classes: int = 2, in_chans: int = 1, **options) -> UNet:
    """U-Net with four poolings, 64 to 1024 maps; the size is kept."""
    return UNet(num_classes, in_chans, **options)
