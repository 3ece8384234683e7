"""ResNeXt: residual networks whose bottlenecks have many narrow paths.

Xie, Girshick, Dollár, Tu and He: Aggregated Residual Transformations for Deep Neural Networks, CVPR 2017, arXiv:1611.05431; table 1.
The paths of a block are written as one grouped 3x3 convolution (figure 3c); C x d names groups and channels in each.
"""

from __future__ import annotations

from numbanet.zoo.registry import IMAGENET, register_model
from numbanet.zoo.resnet import BLOCKS, Bottleneck, ResNet

PAPER = "Xie et al. 2017, Aggregated Residual Transformations for Deep Neural Networks"


@register_model(paper=PAPER, **IMAGENET, crop_pct=0.875, parameters=25_028_904, multiply_adds=4_230_479_872)
def resnext50_32x4d(num_classes: int = 1000, in_chans: int = 3, **options) -> ResNet:
    """ResNeXt with 50 layers, 32 groups of 4 channels."""
    return ResNet(Bottleneck, BLOCKS[50], num_classes, in_chans, groups=32, width_per_group=4, **options)


@register_model(paper=PAPER, **IMAGENET, crop_pct=0.875, parameters=88_791_336, multiply_adds=16_414_015_488)
def resnext101_32x8d(num_classes: int = 1000, in_chans: int = 3, **options) -> ResNet:
    """ResNeXt with 101 layers, 32 groups of 8 channels."""
    return ResNet(Bottleneck, BLOCKS[101], num_classes, in_chans, groups=32, width_per_group=8, **options)


@register_model(paper=PAPER, **IMAGENET, crop_pct=224 / 232, parameters=83_455_272, multiply_adds=15_460_270_080)
def resnext101_64x4d(num_classes: int = 1000, in_chans: int = 3, **options) -> ResNet:
    """ResNeXt with 101 layers, 64 groups of 4 channels."""
    return ResNet(Bottleneck, BLOCKS[101], num_classes, in_chans, groups=64, width_per_group=4, **options)
