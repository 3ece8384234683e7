"""Transforms that move pixels: Pad, Resize, crops, flip, affine maps, of images as `transforms.image` defines them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import numpy as np

from numbanet.backends.reference.image import sample_bilinear, sample_nearest
from numbanet.data.randomness import sample_generator
from numbanet.data.transforms.affine import DRAWS, AffineRanges
from numbanet.data.transforms.image import as_channels_last
from numbanet.errors import ShapeError, UsageError


class InterpolationMode(StrEnum):
    """How values between pixels are found."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"


class _Geometric:
    """A transform of pixels (H, W, C), whatever the kind of the image."""

    def __call__(self, image: Any) -> Any:
        pixels, restore = as_channels_last(image)
        return restore(self.apply(pixels))

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        raise NotImplementedError


class Pad(_Geometric):
    """Add a border.

    Parameters
    ----------
    padding : int, (left and right, top and bottom), or (left, top, right, bottom)
    fill : number
        Of the constant border.
    padding_mode : {"constant", "edge", "reflect", "symmetric"}
    """

    def __init__(self, padding: int | Sequence[int], fill: float = 0, padding_mode: str = "constant"):
        padding = (padding,) * 4 if isinstance(padding, int) else tuple(padding)
        padding = padding * 2 if len(padding) == 2 else padding
        if len(padding) != 4 or min(padding) < 0:
            raise UsageError(f"Pad: expected 1, 2 or 4 paddings of 0 or more, received {padding}")
        if padding_mode not in ("constant", "edge", "reflect", "symmetric"):
            raise UsageError("Pad: expected padding_mode constant, edge, reflect or symmetric, received "
                             f"{padding_mode!r}")
        self.padding, self.fill, self.padding_mode = padding, fill, padding_mode

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        left, top, right, bottom = self.padding
        values = {"constant_values": self.fill} if self.padding_mode == "constant" else {}
        return np.pad(pixels, ((top, bottom), (left, right), (0, 0)), self.padding_mode, **values)


class Resize(_Geometric):
    """Scale to a size, without aliasing.

    Parameters
    ----------
    size : int or (H, W)
        A number scales the shorter side to it.
    interpolation : InterpolationMode
    """

    def __init__(self, size: int | Sequence[int], interpolation: str = InterpolationMode.BILINEAR,
                 antialias: bool = True):
        self.size = size if isinstance(size, int) else _pair("Resize", size)
        self.interpolation, self.antialias = InterpolationMode(interpolation), antialias
        if not antialias and self.interpolation != InterpolationMode.NEAREST:
            raise UsageError("Resize: antialias=False is only there for interpolation='nearest'")

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        from PIL import Image

        height, width = pixels.shape[:2]
        size = self.size
        if isinstance(size, int):
            size = (size, int(size * width / height)) if height <= width else (int(size * height / width), size)
        if size == (height, width):
            return pixels
        method = Image.Resampling[self.interpolation.name]
        # PIL knows single channels of bytes and of float32, so channels go one by one.
        form = np.uint8 if pixels.dtype == np.uint8 else np.float32
        planes = [np.asarray(Image.fromarray(np.ascontiguousarray(pixels[:, :, c], form)).resize(size[::-1], method))
                  for c in range(pixels.shape[2])]
        return np.stack(planes, 2).astype(pixels.dtype, copy=False)


class CenterCrop(_Geometric):
    """Cut out the middle; a smaller image gets a border of zeros."""

    def __init__(self, size: int | Sequence[int]):
        self.size = _pair("CenterCrop", size)

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        pixels = _pad_to(pixels, self.size)
        top, left = (round((have - want) / 2) for have, want in zip(pixels.shape, self.size))
        return pixels[top:top + self.size[0], left:left + self.size[1]]


class RandomCrop(_Geometric):
    """Cut out a random window.

    Parameters
    ----------
    size : int or (H, W)
    padding, fill, padding_mode
        Border added first, as by `Pad`.
    pad_if_needed : bool
        A smaller image gets a border; otherwise it is an error.
    """

    def __init__(self, size: int | Sequence[int], padding: int | Sequence[int] | None = None,
                 pad_if_needed: bool = False, fill: float = 0, padding_mode: str = "constant"):
        self.size, self.pad_if_needed = _pair("RandomCrop", size), pad_if_needed
        self.pad = None if padding is None else Pad(padding, fill, padding_mode)

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        if self.pad is not None:
            pixels = self.pad.apply(pixels)
        if self.pad_if_needed:
            pixels = _pad_to(pixels, self.size)
        if pixels.shape[0] < self.size[0] or pixels.shape[1] < self.size[1]:
            raise ShapeError(f"RandomCrop: expected an image of {self.size} or more, received {pixels.shape[:2]}; use "
                             "padding or pad_if_needed=True")
        generator = sample_generator()
        top, left = (int(generator.integers(have - want + 1)) for have, want in zip(pixels.shape, self.size))
        return pixels[top:top + self.size[0], left:left + self.size[1]]


class RandomHorizontalFlip(_Geometric):
    """Mirror left and right with probability `p`."""

    def __init__(self, p: float = 0.5):
        if not 0 <= p <= 1:
            raise UsageError(f"RandomHorizontalFlip: expected a probability between 0 and 1, received {p}")
        self.p = p

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        return pixels[:, ::-1] if sample_generator().random() < self.p else pixels


class RandomAffine(_Geometric):
    """Rotate, shift, scale and shear by random amounts about the centre; outside is `fill`.

    Parameters
    ----------
    degrees, translate, scale, shear
        See `AffineRanges`.
    interpolation : {"nearest", "bilinear"}
    fill : number
    """

    def __init__(self, degrees: float | Sequence[float], translate: Sequence[float] | None = None,
                 scale: Sequence[float] | None = None, shear: float | Sequence[float] | None = None,
                 interpolation: str = InterpolationMode.NEAREST, fill: float = 0):
        self.ranges = AffineRanges(degrees, translate, scale, shear)
        self.interpolation, self.fill = InterpolationMode(interpolation), fill
        if self.interpolation == InterpolationMode.BICUBIC:
            raise UsageError("RandomAffine: expected interpolation nearest or bilinear, received bicubic")

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        size = pixels.shape[:2]
        matrices = self.ranges.matrices(sample_generator().random((1, DRAWS)), size, size)
        # Outside counts as 0, so what is sampled is the difference from `fill`.
        values = pixels[None].astype(np.float64) - self.fill
        sample = sample_bilinear if self.interpolation == InterpolationMode.BILINEAR else sample_nearest
        values = sample(values, matrices, size)[0] + self.fill
        return (np.rint(values) if pixels.dtype.kind in "iu" else values).astype(pixels.dtype)


def _pair(name: str, size: int | Sequence[int]) -> tuple[int, int]:
    size = (size, size) if isinstance(size, int) else tuple(size)
    size = size * 2 if len(size) == 1 else size
    if len(size) != 2 or min(size) < 1:
        raise UsageError(f"{name}: expected a size of 1 or more, or (H, W), received {size}")
    return size


def _pad_to(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    border = [(max(0, want - have) // 2, (max(0, want - have) + 1) // 2) for have, want in zip(pixels.shape, size)]
    return np.pad(pixels, (*border, (0, 0)))
