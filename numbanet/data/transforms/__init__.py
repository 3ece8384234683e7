"""Transforms of images, with torchvision's names, and `normalize_digit` for pictures of digits."""

from numbanet.data.transforms.affine import AffineRanges, affine_matrices, images_affine_normalize
from numbanet.data.transforms.batch import BatchAffineNormalize
from numbanet.data.transforms.digits import normalize_digit
from numbanet.data.transforms.geometric import (
    CenterCrop,
    InterpolationMode,
    Pad,
    RandomAffine,
    RandomCrop,
    RandomHorizontalFlip,
    Resize,
)
from numbanet.data.transforms.image import Compose, Grayscale, Image, Lambda, Normalize, ToDtype, ToImage, ToTensor

__all__ = ["AffineRanges", "BatchAffineNormalize", "CenterCrop", "Compose", "Grayscale", "Image", "InterpolationMode",
           "Lambda", "Normalize", "Pad", "RandomAffine", "RandomCrop", "RandomHorizontalFlip", "Resize", "ToDtype",
           "ToImage", "ToTensor", "affine_matrices", "images_affine_normalize", "normalize_digit"]
