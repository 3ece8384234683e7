"""Wide residual networks for ImageNet: bottlenecks whose 3x3 layers are twice as wide.

Zagoruyko and Komodakis: Wide Residual Networks, BMVC 2016, arXiv:1605.07146; section 3.4, table 8.
"""

from __future__ import annotations

from numbanet.zoo.registry import IMAGENET, register_model
from numbanet.zoo.resnet import BLOCKS, Bottleneck, ResNet

PAPER = "Zagoruyko and Komodakis 2016, Wide Residual Networks"


@register_model(paper=PAPER, **IMAGENET, crop_pct=0.875, parameters=68_883_240, multiply_adds=11_398_021_120)
def wide_resnet50_2(num_classes: int = 1000, in_chans: int = 3, **options) -> ResNet:
    """ResNet with 50 layers, their inner widths doubled."""
    return ResNet(Bottleneck, BLOCKS[50], num_classes, in_chans, width_per_group=128, **options)


@register_model(paper=PAPER, **IMAGENET, crop_pct=0.875, parameters=126_886_696, multiply_adds=22_753_050_624)
def wide_resnet101_2(num_classes: int = 1000, in_chans: int = 3, **options) -> ResNet:
    """ResNet with 101 layers, their inner widths doubled."""
    return ResNet(Bottleneck, BLOCKS[101], num_classes, in_chans, width_per_group=128, **options)
