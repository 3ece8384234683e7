"""Transforms that move pixels: Pad, Resize, crops, flips, rotations and affine maps, of images as `transforms.image` defines them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from numbanet.data.randomness import sample_generator
from numbanet.data.transforms import functional as F
from numbanet.data.transforms.affine import DRAWS, AffineRanges, interval
from numbanet.data.transforms.functional import PADDING_MODES, InterpolationMode, paddings
from numbanet.data.transforms.image import Transform
from numbanet.errors import ShapeError, UsageError

TRIES = 10      # windows drawn before the middle is taken


class Pad(Transform):
    """Add a border.

    Parameters
    ----------
    padding : int, (left and right, top and bottom), or (left, top, right, bottom)
    fill : number or one a channel
        Of the constant border.
    padding_mode : {"constant", "edge", "reflect", "symmetric"}
    """

    def __init__(self, padding: int | Sequence[int], fill: float | Sequence[float] = 0, padding_mode: str = "constant"):
        if padding_mode not in PADDING_MODES:
            raise UsageError(f"Pad: expected padding_mode constant, edge, reflect or symmetric, received {padding_mode!r}")
        self.padding, self.fill, self.padding_mode = paddings(padding), fill, padding_mode

    def __call__(self, image: Any) -> Any:
        return F.pad(image, self.padding, self.fill, self.padding_mode)


class Resize(Transform):
    """Scale to a size, without aliasing.

    Parameters
    ----------
    size : int, (H, W) or None
        A number scales the shorter side to it; None the longer one to `max_size`.
    interpolation : InterpolationMode
    max_size : int, optional
        The longer side is at most this.
    """

    def __init__(self, size: int | Sequence[int] | None, interpolation: str = InterpolationMode.BILINEAR, max_size: int | None = None,
                 antialias: bool = True):
        self.size = size if isinstance(size, int) or size is None else tuple(size)
        if size is not None and (isinstance(size, int) or len(self.size) != 1):
            pair("Resize", size)
        if max_size is not None and not (self.size is None or isinstance(self.size, int) or len(self.size) == 1):
            raise UsageError(f"Resize: max_size goes with a size of one number, received size={size}")
        if size is None and max_size is None:
            raise UsageError("Resize: size=None needs max_size")
        if isinstance(size, int) and max_size is not None and max_size <= size:
            raise UsageError(f"Resize: expected max_size above size, received {max_size} and {size}")
        self.interpolation, self.max_size, self.antialias = InterpolationMode(interpolation), max_size, antialias
        if not antialias and self.interpolation not in (InterpolationMode.NEAREST, InterpolationMode.NEAREST_EXACT):
            raise UsageError("Resize: antialias=False is only there for interpolation='nearest'")

    def __call__(self, image: Any) -> Any:
        return F.resize(image, self.size, self.interpolation, self.max_size)


class CenterCrop(Transform):
    """Cut out the middle; a smaller image gets a border of zeros."""

    def __init__(self, size: int | Sequence[int]):
        self.size = pair("CenterCrop", size)

    def __call__(self, image: Any) -> Any:
        return F.center_crop(image, self.size)


class RandomCrop(Transform):
    """Cut out a random window.

    Parameters
    ----------
    size : int or (H, W)
    padding, fill, padding_mode
        Border added first, as by `Pad`.
    pad_if_needed : bool
        A smaller image gets a border, on each side as wide as what is lacking; otherwise it is an error.
    """

    def __init__(self, size: int | Sequence[int], padding: int | Sequence[int] | None = None,
                 pad_if_needed: bool = False, fill: float | Sequence[float] = 0, padding_mode: str = "constant"):
        self.size, self.pad_if_needed = pair("RandomCrop", size), pad_if_needed
        if padding_mode not in PADDING_MODES:
            raise UsageError(f"RandomCrop: expected padding_mode constant, edge, reflect or symmetric, received {padding_mode!r}")
        self.padding, self.fill, self.padding_mode = None if padding is None else paddings(padding), fill, padding_mode

    def __call__(self, image: Any) -> Any:
        left, top, right, bottom = self.padding or (0, 0, 0, 0)
        height, width = F.get_size(image)
        height, width = height + top + bottom, width + left + right
        if self.pad_if_needed:
            down, across = max(0, self.size[0] - height), max(0, self.size[1] - width)
            left, top, right, bottom = left + across, top + down, right + across, bottom + down
            height, width = height + 2 * down, width + 2 * across
        if height < self.size[0] or width < self.size[1]:
            raise ShapeError(f"RandomCrop: expected an image of {self.size} or more, received {(height, width)}; use padding or "
                             "pad_if_needed=True")
        if left or top or right or bottom:
            image = F.pad(image, (left, top, right, bottom), self.fill, self.padding_mode)
        generator = sample_generator()
        row, column = (int(generator.integers(have - want + 1)) for have, want in zip((height, width), self.size))
        return image if (height, width) == self.size else F.crop(image, row, column, *self.size)


class RandomResizedCrop(Transform):
    """Cut out a random window of random size and shape, and scale it (Szegedy et al., arXiv:1409.4842, section 6).

    Parameters
    ----------
    size : int or (H, W)
    scale : (min, max)
        Of the window's area, as part of the image's.
    ratio : (min, max)
        Of its width to its height, drawn evenly in their logarithm.
    interpolation : InterpolationMode
    """

    def __init__(self, size: int | Sequence[int], scale: Sequence[float] = (0.08, 1.0), ratio: Sequence[float] = (3 / 4, 4 / 3),
                 interpolation: str = InterpolationMode.BILINEAR, antialias: bool = True):
        self.size = pair("RandomResizedCrop", size)
        self.scale, self.ratio = check_window("RandomResizedCrop", scale, ratio)
        self.interpolation, self.antialias = InterpolationMode(interpolation), antialias
        if not antialias and self.interpolation not in (InterpolationMode.NEAREST, InterpolationMode.NEAREST_EXACT):
            raise UsageError("RandomResizedCrop: antialias=False is only there for interpolation='nearest'")

    def window(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """(top, left, height, width) for the sample that is being loaded, of an image of (H, W)."""
        generator, (height, width) = sample_generator(), size
        for _ in range(TRIES):
            h, w = draw_window(generator, size, self.scale, self.ratio)
            if 0 < w <= width and 0 < h <= height:
                return int(generator.integers(height - h + 1)), int(generator.integers(width - w + 1)), h, w
        low, high = self.ratio      # nothing fits: the largest window in the middle
        h, w = size
        if width / height < low:
            h = min(height, max(1, round(width / low)))
        elif width / height > high:
            w = min(width, max(1, round(height * high)))
        return (height - h) // 2, (width - w) // 2, h, w

    def __call__(self, image: Any) -> Any:
        return F.resized_crop(image, *self.window(F.get_size(image)), self.size, self.interpolation)


class RandomHorizontalFlip(Transform):
    """Mirror left and right with probability `p`."""

    def __init__(self, p: float = 0.5):
        self.p = probability("RandomHorizontalFlip", p)

    def __call__(self, image: Any) -> Any:
        return F.horizontal_flip(image) if sample_generator().random() < self.p else image


class RandomVerticalFlip(Transform):
    """Mirror top and bottom with probability `p`."""

    def __init__(self, p: float = 0.5):
        self.p = probability("RandomVerticalFlip", p)

    def __call__(self, image: Any) -> Any:
        return F.vertical_flip(image) if sample_generator().random() < self.p else image


class RandomRotation(Transform):
    """Turn by a random angle.

    Parameters
    ----------
    degrees : number or (min, max)
        Counter-clockwise; a number d means (-d, d).
    interpolation : {"nearest", "bilinear", "bicubic"}
    expand : bool
        Whether the image grows so that all of it is kept.
    center : (x, y), optional
        By default the middle.
    fill : number or one a channel
    """

    def __init__(self, degrees: float | Sequence[float], interpolation: str = InterpolationMode.NEAREST, expand: bool = False,
                 center: Sequence[float] | None = None, fill: float | Sequence[float] = 0):
        self.degrees, self.expand, self.center, self.fill = interval("degrees", degrees), expand, center, fill
        self.interpolation = mapping_mode("RandomRotation", interpolation)

    def __call__(self, image: Any) -> Any:
        angle = float(sample_generator().uniform(*self.degrees))
        return F.rotate(image, angle, self.interpolation, self.expand, self.center, self.fill)


class RandomAffine(Transform):
    """Rotate, shift, scale and shear by random amounts; outside is `fill`. Shifts are not rounded to whole pixels.

    Parameters
    ----------
    degrees, translate, scale, shear
        See `AffineRanges`.
    interpolation : {"nearest", "bilinear", "bicubic"}
    fill : number or one a channel
    center : (x, y), optional
        Of turning, scaling and shearing; by default the middle.
    """

    def __init__(self, degrees: float | Sequence[float], translate: Sequence[float] | None = None,
                 scale: Sequence[float] | None = None, shear: float | Sequence[float] | None = None,
                 interpolation: str = InterpolationMode.NEAREST, fill: float | Sequence[float] = 0, center: Sequence[float] | None = None):
        self.ranges = AffineRanges(degrees, translate, scale, shear)
        self.interpolation, self.fill, self.center = mapping_mode("RandomAffine", interpolation), fill, center

    def __call__(self, image: Any) -> Any:
        size = F.get_size(image)
        angle, translate, scale, shear = self.ranges.parameters(sample_generator().random((1, DRAWS)), size)
        return F.affine(image, float(angle[0]), translate[0], float(scale[0]), shear[0], self.interpolation, self.fill, self.center)


def draw_window(generator: np.random.Generator, size: tuple[int, int], scale: Sequence[float], ratio: Sequence[float]) -> tuple[int, int]:
    """(height, width) of a window of random area and shape."""
    area = size[0] * size[1] * generator.uniform(*scale)
    shape = math.exp(generator.uniform(math.log(ratio[0]), math.log(ratio[1])))
    return round(math.sqrt(area / shape)), round(math.sqrt(area * shape))


def check_window(name: str, scale: Sequence[float], ratio: Sequence[float]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Ranges of area and shape as pairs of floats."""
    scale, ratio = tuple(map(float, scale)), tuple(map(float, ratio))
    if len(scale) != 2 or not 0 <= scale[0] <= scale[1] <= 1 or len(ratio) != 2 or not 0 < ratio[0] <= ratio[1] < math.inf:
        raise UsageError(f"{name}: expected scale (min, max) from 0 to 1 and ratio (min, max) above 0, received {scale} and {ratio}")
    return scale, ratio


def mapping_mode(name: str, interpolation: str) -> InterpolationMode:
    """An interpolation that maps can use."""
    mode = InterpolationMode(interpolation)
    if mode not in (InterpolationMode.NEAREST, InterpolationMode.BILINEAR, InterpolationMode.BICUBIC):
        raise UsageError(f"{name}: expected interpolation nearest, bilinear or bicubic, received {mode}")
    return mode


def probability(name: str, p: float) -> float:
    """`p`, if it is one."""
    if not 0 <= p <= 1:
        raise UsageError(f"{name}: expected a probability between 0 and 1, received {p}")
    return p


def pair(name: str, size: int | Sequence[int]) -> tuple[int, int]:
    """(H, W) of one number or two."""
    size = (size, size) if isinstance(size, int) else tuple(size)
    size = size * 2 if len(size) == 1 else size
    if len(size) != 2 or min(size) < 1:
        raise UsageError(f"{name}: expected a size of 1 or more, or (H, W), received {size}")
    return size
