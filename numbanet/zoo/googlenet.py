"""GoogLeNet, as torchvision has it (with batch normalisation) and as it was published.

Szegedy et al.: Going Deeper with Convolutions, CVPR 2015, arXiv:1409.4842: table 1, figures 2 and 3, section 5 for the
auxiliary heads. Parameter names of both are torchvision's.
"""

from __future__ import annotations

from typing import NamedTuple

from numbanet import nn
from numbanet._tensor import Tensor, tensor
from numbanet.nn import functional as F
from numbanet.nn import init
from numbanet.ops.rearrange import cat
from numbanet.zoo.network import Network, Stage
from numbanet.zoo.registry import IMAGENET, register_model

PAPER = "Szegedy et al. 2015, Going Deeper with Convolutions"

# Table 1: channels of the input; filters 1 x 1; reduction, filters 3 x 3; reduction, filters 5 x 5; projection after the pooling.
INCEPTIONS = {
    "3a": (192, 64, (96, 128), (16, 32), 32),       # (N, 256, 28, 28)
    "3b": (256, 128, (128, 192), (32, 96), 64),     # (N, 480, 28, 28)
    "4a": (480, 192, (96, 208), (16, 48), 64),      # (N, 512, 14, 14)
    "4b": (512, 160, (112, 224), (24, 64), 64),     # (N, 512, 14, 14)
    "4c": (512, 128, (128, 256), (24, 64), 64),     # (N, 512, 14, 14)
    "4d": (512, 112, (144, 288), (32, 64), 64),     # (N, 528, 14, 14)
    "4e": (528, 256, (160, 320), (32, 128), 128),   # (N, 832, 14, 14)
    "5a": (832, 256, (160, 320), (32, 128), 128),   # (N, 832, 7, 7)
    "5b": (832, 384, (192, 384), (48, 128), 128),   # (N, 1024, 7, 7)
}


class GoogLeNetOutputs(NamedTuple):
    """Logits (N, num_classes) in training: of the network, and of the heads after inception 4d and 4a."""

    logits: Tensor
    aux_logits2: Tensor
    aux_logits1: Tensor


class BasicConv2d(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size, stride=1, padding=0):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=1e-3)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class PlainConv2d(nn.Module):
    """Convolution with bias, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size, stride=1, padding=0):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding)

    def forward(self, x):
        return F.relu(self.conv(x))


class FromImagenetStatistics(nn.Module):
    """Pictures normalised by ImageNet's means and deviations to ones normalised by 0.5 and 0.5."""

    def __init__(self):
        super().__init__()
        mean, std = (tensor(IMAGENET[name]).reshape(1, 3, 1, 1) for name in ("mean", "std"))
        self.register_buffer("scale", std / 0.5, persistent=False)
        self.register_buffer("shift", (mean - 0.5) / 0.5, persistent=False)

    def forward(self, x):
        return x * self.scale + self.shift


class Inception(nn.Module):
    """Four branches side by side (figure 2b): 1 x 1; 1 x 1 then 3 x 3; 1 x 1 then the largest kernel; 3 x 3 pooling then 1 x 1."""

    def __init__(self, channels: int, narrow: int, middle: tuple[int, int], wide: tuple[int, int], projection: int, conv, kernel_size: int):
        super().__init__()
        self.branch1 = conv(channels, narrow, 1)
        self.branch2 = nn.Sequential(conv(channels, middle[0], 1), conv(*middle, 3, padding=1))
        self.branch3 = nn.Sequential(conv(channels, wide[0], 1), conv(*wide, kernel_size, padding=kernel_size // 2))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(channels, projection, 1))

    def forward(self, x):
        return cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class InceptionAux(nn.Module):
    """A classifier of earlier maps, (N, C, H, W) to logits: pooling to 4 x 4, 1 x 1 convolution, two full connections."""

    def __init__(self, channels: int, num_classes: int, conv, pool: nn.Module, dropout: float):
        super().__init__()
        self.pool = pool
        self.conv = conv(channels, 128, 1)
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.fc2 = nn.Linear(1024, num_classes) if num_classes else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        x = self.conv(self.pool(x)).flatten(1)                  # (N, 2048)
        return self.fc2(self.dropout(F.relu(self.fc1(x))))


class GoogLeNet(Network):
    """torchvision's form: batch normalisation everywhere, and 3 x 3 where the paper has 5 x 5, as in its trained weights.

    In training it returns :class:`GoogLeNetOutputs`, in evaluation the logits.

    Parameters
    ----------
    num_classes : int
        0 leaves the last layers out: the network then gives 1024 features.
    in_chans : int
    aux_logits : bool
        With the auxiliary heads.
    transform_input : bool
        Take pictures normalised by ImageNet's means and deviations, rather than by 0.5 and 0.5 as its trained weights expect.
    dropout, dropout_aux : float
        Before the last layer of the network and of the auxiliary heads.
    """

    classifier_path = "fc"
    stages = (Stage("conv1", 64, 2), Stage("conv3", 192, 4), Stage("inception3b", 480, 8), Stage("inception4e", 832, 16),
              Stage("inception5b", 1024, 32))
    num_features = 1024
    minimum_size = 15
    convolution = BasicConv2d
    large_kernel = 3

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, aux_logits: bool = True, transform_input: bool = False,
                 dropout: float = 0.2, dropout_aux: float = 0.7):
        super().__init__()
        self.num_classes, self.in_chans, self.aux_logits = num_classes, in_chans, aux_logits
        self.transform = FromImagenetStatistics() if transform_input else nn.Identity()
        conv = self.convolution
        self.conv1 = conv(in_chans, 64, 7, 2, 3)                    # (N, 64, 112, 112)
        self.maxpool1 = nn.MaxPool2d(3, 2, ceil_mode=True)          # (N, 64, 56, 56)
        self.norm1 = self.normalisation()
        self.conv2 = conv(64, 64, 1)                                # (N, 64, 56, 56)
        self.conv3 = conv(64, 192, 3, padding=1)                    # (N, 192, 56, 56)
        self.norm2 = self.normalisation()
        self.maxpool2 = nn.MaxPool2d(3, 2, ceil_mode=True)          # (N, 192, 28, 28)
        for name, row in INCEPTIONS.items():
            if name == "4a":
                self.maxpool3 = nn.MaxPool2d(3, 2, ceil_mode=True)                      # (N, 480, 14, 14)
            elif name == "5a":
                self.maxpool4 = self.last_pooling()                                     # (N, 832, 7, 7)
            self.register_module(f"inception{name}", Inception(*row, conv, self.large_kernel))
        if aux_logits:
            self.aux1 = InceptionAux(512, num_classes, conv, self.pooling_of_heads(), dropout_aux)
            self.aux2 = InceptionAux(528, num_classes, conv, self.pooling_of_heads(), dropout_aux)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(1024, num_classes) if num_classes else nn.Identity()
        self.reset_parameters()

    @staticmethod
    def normalisation() -> nn.Module:
        """Of the maps around the second and third convolution."""
        return nn.Identity()

    @staticmethod
    def last_pooling() -> nn.Module:
        return nn.MaxPool2d(2, ceil_mode=True)

    @staticmethod
    def pooling_of_heads() -> nn.Module:
        return nn.AdaptiveAvgPool2d(4)

    def reset_parameters(self) -> None:
        """Weights N(0, 0.01^2)."""
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                init.normal_(layer.weight, std=0.01)

    def reset_classifier(self, num_classes: int) -> None:
        """New last layers, of the auxiliary heads too, for another number of classes; 0 takes them away."""
        super().reset_classifier(num_classes)
        if self.aux_logits:
            for head in ("aux1", "aux2"):
                self._replace(f"{head}.fc2", nn.Linear(1024, num_classes) if num_classes else nn.Identity())

    def _maps(self, x):
        """The maps after inception 5b, 4d and 4a."""
        self.check_input(x)
        x = self.conv1(self.transform(x))
        x = self.conv2(self.norm1(self.maxpool1(x)))
        x = self.maxpool2(self.norm2(self.conv3(x)))
        x = self.maxpool3(self.inception3b(self.inception3a(x)))
        maps_4a = self.inception4a(x)
        maps_4d = self.inception4d(self.inception4c(self.inception4b(maps_4a)))
        x = self.maxpool4(self.inception4e(maps_4d))
        return self.inception5b(self.inception5a(x)), maps_4d, maps_4a

    def forward_features(self, x):
        """(N, C, H, W) to (N, 1024, H / 32, W / 32)."""
        return self._maps(x)[0]

    def forward_head(self, features):
        return self.fc(self.dropout(self.avgpool(features).flatten(1)))

    def forward(self, x):
        features, maps_4d, maps_4a = self._maps(x)
        logits = self.forward_head(features)
        if self.training and self.aux_logits:
            return GoogLeNetOutputs(logits, self.aux2(maps_4d), self.aux1(maps_4a))
        return logits

    def loss_function(self, outputs, target):
        """Cross-entropy; in training that of the auxiliary heads is added with weight 0.3 (section 5)."""
        return loss_with_heads(outputs, target, 0.3)


def loss_with_heads(outputs, target, weight: float):
    """Cross-entropy of the first output plus `weight` times that of each further one; of logits alone their own."""
    if isinstance(outputs, Tensor):
        return F.cross_entropy(outputs, target)
    return F.cross_entropy(outputs[0], target) + weight * sum(F.cross_entropy(logits, target) for logits in outputs[1:])


class PoolingOfHeads(nn.Module):
    """Means of 5 x 5 at stride 3, which give 4 x 4 maps of the paper's 14 x 14; others are averaged to that size."""

    def forward(self, x):
        return F.adaptive_avg_pool2d(F.avg_pool2d(x, 5, 3), 4)


class GoogLeNetOf2014(GoogLeNet):
    """The network of the paper: biases and local response normalisation, true 5 x 5 branches, 5 x 5 average pooling in the heads.

    The paper does not say the constants of the normalisation nor the initial values; they are those of its replication by
    the BVLC (Caffe's ``bvlc_googlenet``). Parameters are those of :class:`GoogLeNet`.
    """

    convolution = PlainConv2d
    large_kernel = 5

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, aux_logits: bool = True, dropout: float = 0.4, dropout_aux: float = 0.7):
        super().__init__(num_classes, in_chans, aux_logits, False, dropout, dropout_aux)

    @property
    def minimum_size(self) -> int:
        return 79 if self.training and self.aux_logits else 31      # the heads pool windows of 5 x 5

    @staticmethod
    def normalisation() -> nn.Module:
        return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)

    @staticmethod
    def last_pooling() -> nn.Module:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    @staticmethod
    def pooling_of_heads() -> nn.Module:
        return PoolingOfHeads()

    def reset_parameters(self) -> None:
        """Weights as Glorot and Bengio (2010), uniform by fan-in; biases 0.2, and 0 in the layers of logits."""
        last = {self.fc, *((self.aux1.fc2, self.aux2.fc2) if self.aux_logits else ())}
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                init.kaiming_uniform_(layer.weight, nonlinearity="linear")
                init.constant_(layer.bias, 0.0 if layer in last else 0.2)


@register_model(input_size=(3, 224, 224), paper=PAPER, mean=(0.5,) * 3, std=(0.5,) * 3, parameters=13_004_888, multiply_adds=1_498_376_192,
                crop_pct=0.875)
def googlenet(num_classes: int = 1000, in_chans: int = 3, **options) -> GoogLeNet:
    """GoogLeNet with batch normalisation, as in torchvision; 6,624,904 parameters with aux_logits=False."""
    return GoogLeNet(num_classes, in_chans, **options)


@register_model(input_size=(3, 224, 224), paper=PAPER, **IMAGENET, parameters=13_378_280, multiply_adds=1_582_671_872, crop_pct=0.875)
def googlenet_2014(num_classes: int = 1000, in_chans: int = 3, **options) -> GoogLeNetOf2014:
    """GoogLeNet as published: local response normalisation, 5 x 5 branches; 6,998,552 parameters with aux_logits=False."""
    return GoogLeNetOf2014(num_classes, in_chans, **options)
