"""Transforms of images, with torchvision's names, and `normalize_digit` for pictures of digits."""

from numbanet.data.transforms import functional
from numbanet.data.transforms.affine import AffineRanges, affine_matrices, images_affine_normalize, images_crop_normalize
from numbanet.data.transforms.augment import RandAugment, RandomApply, RandomErasing, TrivialAugmentWide
from numbanet.data.transforms.batch import BatchAffineNormalize, BatchCropNormalize, BatchResizedCropNormalize
from numbanet.data.transforms.color import ColorJitter, GaussianBlur, Grayscale, Lighting, RandomGrayscale
from numbanet.data.transforms.digits import normalize_digit
from numbanet.data.transforms.functional import InterpolationMode
from numbanet.data.transforms.geometric import (
    CenterCrop,
    Pad,
    RandomAffine,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomRotation,
    RandomVerticalFlip,
    Resize,
)
from numbanet.data.transforms.image import Compose, Image, Lambda, Normalize, ToDtype, ToImage, ToTensor, Transform

__all__ = ["AffineRanges", "BatchAffineNormalize", "BatchCropNormalize", "BatchResizedCropNormalize", "CenterCrop", "ColorJitter",
           "Compose", "GaussianBlur", "Grayscale", "Image", "InterpolationMode", "Lambda", "Lighting", "Normalize", "Pad",
           "RandAugment", "RandomAffine", "RandomApply", "RandomCrop", "RandomErasing", "RandomGrayscale", "RandomHorizontalFlip",
           "RandomResizedCrop", "RandomRotation", "RandomVerticalFlip", "Resize", "ToDtype", "ToImage", "ToTensor", "Transform",
           "TrivialAugmentWide", "affine_matrices", "functional", "images_affine_normalize", "images_crop_normalize", "normalize_digit"]
