"""Residual networks for ImageNet.

He, Zhang, Ren and Sun: Deep Residual Learning for Image Recognition, CVPR 2016, arXiv:1512.03385; table 1.
The residual blocks are y = relu(F(x) + shortcut(x)); shortcuts that change shape are 1x1 convolutions (the paper's option B).
"""

from __future__ import annotations

from numbanet import nn
from numbanet.errors import UsageError
from numbanet.nn import init
from numbanet.zoo.layers import initialize_he
from numbanet.zoo.network import Network, Stage
from numbanet.zoo.registry import IMAGENET, register_model

PAPER = "He et al. 2016, Deep Residual Learning for Image Recognition"

# Table 1: blocks in conv2_x, conv3_x, conv4_x and conv5_x.
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
# The width of each of them; the 3x3 layers of a bottleneck have it too, its output is four times as wide.
WIDTHS = (64, 128, 256, 512)


def _conv3x3(in_channels, out_channels, stride=1, groups=1, dilation=1):
    return nn.Conv2d(in_channels, out_channels, 3, stride, dilation, dilation, groups, bias=False)


def _conv1x1(in_channels, out_channels, stride=1):
    return nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 layers (figure 5, left): (N, C, H, W) to (N, width, H / stride, W / stride)."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int = 1, shortcut: nn.Module | None = None, *, dilation: int = 1):
        super().__init__()
        self.conv1 = _conv3x3(in_channels, width, stride, dilation=dilation)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.conv2 = _conv3x3(width, width, dilation=dilation)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut

    def last_norm(self) -> nn.Module:
        """The normalisation that ends the residual branch."""
        return self.bn2

    def forward(self, x):
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        return self.relu(residual + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 layers (figure 5, right): (N, C, H, W) to (N, 4 width, H / stride, W / stride).

    Parameters
    ----------
    in_channels, width, stride : int
    shortcut : Module, optional
        Where the shape changes.
    groups, width_per_group : int
        The inner layers have width * width_per_group / 64 channels in each of so many groups.
    dilation : int
        Of the 3x3 layer.
    stride_in_1x1 : bool
        The first 1x1 layer takes the stride, as in the paper; else the 3x3 layer, which is known as version 1.5.
    """

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int = 1, shortcut: nn.Module | None = None, *, groups: int = 1,
                 width_per_group: int = 64, dilation: int = 1, stride_in_1x1: bool = False):
        super().__init__()
        inner, out_channels = width * width_per_group // 64 * groups, width * self.expansion
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = _conv1x1(in_channels, inner, first)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = _conv3x3(inner, inner, second, groups, dilation)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = _conv1x1(inner, out_channels)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.downsample = shortcut

    def last_norm(self) -> nn.Module:
        """The normalisation that ends the residual branch."""
        return self.bn3

    def forward(self, x):
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.relu(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        return self.relu(residual + (x if self.downsample is None else self.downsample(x)))


def _stage(block, in_channels: int, width: int, stride: int, dilations: list[int], options: dict) -> nn.Sequential:
    """Blocks of one resolution; the first takes the stride and the new width."""
    out_channels, shortcut = width * block.expansion, None
    if stride != 1 or in_channels != out_channels:
        shortcut = nn.Sequential(_conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))
    layers = [block(in_channels, width, stride, shortcut, dilation=dilations[0], **options)]
    layers.extend(block(out_channels, width, dilation=dilation, **options) for dilation in dilations[1:])
    return nn.Sequential(*layers)


class ResNet(Network):
    """A residual network with the keys and the options of torchvision's.

    Parameters
    ----------
    block : BasicBlock or Bottleneck
    blocks : tuple of four ints
        In each stage.
    num_classes, in_chans : int
    zero_init_residual : bool
        Start every block as the identity: the last scale of its branch is 0 (Goyal et al. 2017, arXiv:1706.02677).
    replace_stride_with_dilation : tuple of three bools
        For the last three stages: keep the resolution and widen the windows instead.
    width : int
        Of the first convolution and stage; each further stage has twice as many maps.
    block_options
        ``groups``, ``width_per_group`` and ``stride_in_1x1`` of :class:`Bottleneck`.
    """

    classifier_path = "fc"

    def __init__(self, block, blocks, num_classes: int = 1000, in_chans: int = 3, *, zero_init_residual: bool = False,
                 replace_stride_with_dilation=(False, False, False), width: int = WIDTHS[0], **block_options):
        super().__init__()
        dilate = tuple(replace_stride_with_dilation)
        if len(dilate) != 3:
            raise UsageError(f"ResNet: replace_stride_with_dilation expects three bools, received {replace_stride_with_dilation!r}")
        if not isinstance(width, int) or width < 1:
            raise UsageError(f"ResNet: width expects an integer of at least 1, received {width!r}")
        widths = tuple(full * width // WIDTHS[0] for full in WIDTHS)
        self.in_chans, self.num_features = in_chans, widths[-1] * block.expansion
        self.conv1 = nn.Conv2d(in_chans, width, 7, 2, 3, bias=False)    # (N, C, 224, 224) -> (N, 64, 112, 112)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)                            # (N, 64, 56, 56)
        stages, channels, reduction, dilation = [Stage("relu", width, 2)], width, 4, 1
        for number, (width, count, dilated) in enumerate(zip(widths, blocks, (False, *dilate)), 1):         # sides 56, 28, 14, 7
            stride = 1 if number == 1 or dilated else 2
            # The first block of a dilated stage still reads neighbours at the distance that its input was made for.
            dilations = [dilation] + [2 * dilation if dilated else dilation] * (count - 1)
            dilation = 2 * dilation if dilated else dilation
            self.register_module(f"layer{number}", _stage(block, channels, width, stride, dilations, block_options))
            channels, reduction = width * block.expansion, reduction * stride
            stages.append(Stage(f"layer{number}", channels, reduction))
        self.stages = tuple(stages)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Identity()
        initialize_he(self)
        if zero_init_residual:
            for layer in self.modules():
                if isinstance(layer, (BasicBlock, Bottleneck)):
                    init.zeros_(layer.last_norm().weight)
        self.reset_classifier(num_classes)

    def forward_features(self, x):
        """(N, C, H, W) to the maps of the last stage, at 1/32 of the resolution."""
        self.check_input(x)
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def forward_head(self, features):
        """Maps to logits (N, num_classes)."""
        return self.fc(self.avgpool(features).flatten(1))


@register_model(paper=PAPER, **IMAGENET, crop_pct=0.875, parameters=11_689_512, multiply_adds=1_814_073_344)
def resnet18(num_classes: int = 1000, in_chans: int = 3, **options) -> ResNet:
    """ResNet with 18 layers: two 3x3 layers a block."""
    return ResNet(BasicBlock, BLOCKS[18], num_classes, in_chans, **options)


@register_model(paper=PAPER, **IMAGENET, crop_pct=0.875, parameters=21_797_672, multiply_adds=3_663_761_408)
def resnet34(num_classes: int = 1000, in_chans: int = 3, **options) -> ResNet:
    """ResNet with 34 layers: two 3x3 layers a block."""
    return ResNet(BasicBlock, BLOCKS[34], num_classes, in_chans, **options)


@register_model(paper=PAPER, **IMAGENET, crop_pct=0.875, parameters=25_557_032, multiply_adds=4_089_184_256)
def resnet50(num_classes: int = 1000, in_chans: int = 3, **options) -> ResNet:
    """ResNet with 50 layers: bottlenecks, with the stride in the 3x3 layers (version 1.5)."""
    return ResNet(Bottleneck, BLOCKS[50], num_classes, in_chans, **options)


@register_model(paper=PAPER, **IMAGENET, crop_pct=0.875, parameters=44_549_160, multiply_adds=7_801_405_440)
def resnet101(num_classes: int = 1000, in_chans: int = 3, **options) -> ResNet:
    """ResNet with 101 layers: bottlenecks, with the stride in the 3x3 layers (version 1.5)."""
    return ResNet(Bottleneck, BLOCKS[101], num_classes, in_chans, **options)


@register_model(paper=PAPER, **IMAGENET, crop_pct=0.875, parameters=60_192_808, multiply_adds=11_513_626_624)
def resnet152(num_classes: int = 1000, in_chans: int = 3, **options) -> ResNet:
    """ResNet with 152 layers: bottlenecks, with the stride in the 3x3 layers (version 1.5)."""
    return ResNet(Bottleneck, BLOCKS[152], num_classes, in_chans, **options)


@register_model(paper=PAPER, **IMAGENET, crop_pct=0.875, parameters=25_557_032, multiply_adds=3_857_973_248)
def resnet50_v1(num_classes: int = 1000, in_chans: int = 3, **options) -> ResNet:
    """ResNet with 50 layers as in the paper: the stride in the first 1x1 layer of a block."""
    return ResNet(Bottleneck, BLOCKS[50], num_classes, in_chans, stride_in_1x1=True, **options)
