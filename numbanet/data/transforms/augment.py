"""Augmentation without tuning: RandAugment, TrivialAugment, RandomErasing, and transforms applied now and then."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import numpy as np

from numbanet.data.randomness import sample_generator
from numbanet.data.transforms import functional as F
from numbanet.data.transforms.functional import InterpolationMode
from numbanet.data.transforms.geometric import check_window, draw_window, mapping_mode, probability
from numbanet.data.transforms.image import Transform, as_channels_last
from numbanet.errors import ShapeError, UsageError

# Name: largest magnitude (None: there is none; a function of (H, W)), and whether its sign is random. Posterize counts bits dropped.
RAND_AUGMENT: dict[str, tuple[Any, bool]] = {
    "Identity": (None, False), "ShearX": (0.3, True), "ShearY": (0.3, True), "TranslateX": (lambda size: 150 / 331 * size[1], True),
    "TranslateY": (lambda size: 150 / 331 * size[0], True), "Rotate": (30.0, True), "Brightness": (0.9, True), "Color": (0.9, True),
    "Contrast": (0.9, True), "Sharpness": (0.9, True), "Posterize": (4, False), "Solarize": (1.0, False), "AutoContrast": (None, False),
    "Equalize": (None, False)}
TRIVIAL_AUGMENT: dict[str, tuple[Any, bool]] = {
    "Identity": (None, False), "ShearX": (0.99, True), "ShearY": (0.99, True), "TranslateX": (32.0, True), "TranslateY": (32.0, True),
    "Rotate": (135.0, True), "Brightness": (0.99, True), "Color": (0.99, True), "Contrast": (0.99, True), "Sharpness": (0.99, True),
    "Posterize": (6, False), "Solarize": (1.0, False), "AutoContrast": (None, False), "Equalize": (None, False)}


class _Augment(Transform):
    """Operations with magnitudes from 0 to a largest one in `num_magnitude_bins` steps."""

    space: dict[str, tuple[Any, bool]]

    def __init__(self, num_magnitude_bins: int, interpolation: str, fill: float | Sequence[float] | None):
        if num_magnitude_bins < 2:
            raise UsageError(f"{type(self).__name__}: expected num_magnitude_bins of 2 or more, received {num_magnitude_bins}")
        self.num_magnitude_bins, self.fill = num_magnitude_bins, fill
        self.interpolation = mapping_mode(type(self).__name__, interpolation)

    def magnitude_of(self, name: str, step: int, size: tuple[int, int]) -> float:
        """The magnitude, without a sign, of an operation at a step."""
        largest = self.space[name][0]
        if largest is None:
            return 0.0
        part = step / (self.num_magnitude_bins - 1)
        if name == "Posterize":
            return round(8 - part * largest)
        if name == "Solarize":
            return 1.0 - part
        return part * (largest(size) if callable(largest) else largest)

    def change(self, image: Any, name: str, magnitude: float) -> Any:
        """The image after one operation."""
        turn = {"interpolation": self.interpolation, "fill": self.fill}
        if name == "Identity":
            return image
        if name in ("ShearX", "ShearY"):
            shear = math.degrees(math.atan(magnitude))
            return F.affine(image, 0, (0, 0), 1, (shear, 0) if name == "ShearX" else (0, shear), center=(0, 0), **turn)
        if name in ("TranslateX", "TranslateY"):
            return F.affine(image, 0, (int(magnitude), 0) if name == "TranslateX" else (0, int(magnitude)), 1, (0, 0), **turn)
        if name == "Rotate":
            return F.rotate(image, magnitude, **turn)
        if name == "Posterize":
            return F.posterize(image, int(magnitude))
        if name == "Solarize":
            return F.solarize(image, 255 * magnitude)
        if name in ("AutoContrast", "Equalize"):
            return F.autocontrast(image) if name == "AutoContrast" else F.equalize(image)
        adjust = {"Brightness": F.adjust_brightness, "Color": F.adjust_saturation, "Contrast": F.adjust_contrast,
                  "Sharpness": F.adjust_sharpness}
        return adjust[name](image, 1 + magnitude)

    def _draw(self, image: Any, generator: np.random.Generator, step: int | None) -> tuple[str, float]:
        """An operation and its magnitude, at this step or at a random one."""
        name = list(self.space)[generator.integers(len(self.space))]
        step = int(generator.integers(self.num_magnitude_bins)) if step is None else step
        magnitude = self.magnitude_of(name, step, F.get_size(image))
        return name, -magnitude if self.space[name][1] and generator.random() < 0.5 else magnitude


class RandAugment(_Augment):
    """`num_ops` random operations, all of the same magnitude (Cubuk et al., arXiv:1909.13719).

    Parameters
    ----------
    num_ops : int
    magnitude : int
        The step, below `num_magnitude_bins`.
    num_magnitude_bins : int
    interpolation : {"nearest", "bilinear", "bicubic"}
    fill : number or one a channel, optional
        Outside of what is moved; by default black.
    """

    space = RAND_AUGMENT

    def __init__(self, num_ops: int = 2, magnitude: int = 9, num_magnitude_bins: int = 31, interpolation: str = InterpolationMode.NEAREST,
                 fill: float | Sequence[float] | None = None):
        super().__init__(num_magnitude_bins, interpolation, fill)
        if num_ops < 0 or not 0 <= magnitude < num_magnitude_bins:
            raise UsageError(f"RandAugment: expected num_ops of 0 or more and a magnitude from 0 to {num_magnitude_bins - 1}, received "
                             f"{num_ops} and {magnitude}")
        self.num_ops, self.magnitude = num_ops, magnitude

    def __call__(self, image: Any) -> Any:
        generator = sample_generator()
        for _ in range(self.num_ops):
            image = self.change(image, *self._draw(image, generator, self.magnitude))
        return image


class TrivialAugmentWide(_Augment):
    """One random operation of a random magnitude from wide ranges (Müller and Hutter, arXiv:2103.10158).

    Parameters
    ----------
    num_magnitude_bins, interpolation, fill
        As in `RandAugment`.
    """

    space = TRIVIAL_AUGMENT

    def __init__(self, num_magnitude_bins: int = 31, interpolation: str = InterpolationMode.NEAREST,
                 fill: float | Sequence[float] | None = None):
        super().__init__(num_magnitude_bins, interpolation, fill)

    def __call__(self, image: Any) -> Any:
        return self.change(image, *self._draw(image, sample_generator(), None))


class RandomErasing(Transform):
    """Overwrite a random window with probability `p` (Zhong et al., arXiv:1708.04896).

    Parameters
    ----------
    p : float
    scale : (min, max)
        Of the window's area, as part of the image's.
    ratio : (min, max)
        Of its height to its width, drawn evenly in their logarithm.
    value : number, one a channel, or "random"
        What is written; "random" means numbers of a standard normal distribution, of uint8 images random bytes.
    inplace : bool
        Change the array that is given, where it is one.
    """

    def __init__(self, p: float = 0.5, scale: Sequence[float] = (0.02, 0.33), ratio: Sequence[float] = (0.3, 3.3),
                 value: float | Sequence[float] | str = 0.0, inplace: bool = False):
        self.p = probability("RandomErasing", p)
        self.scale, self.ratio = check_window("RandomErasing", scale, ratio)
        if isinstance(value, str) and value != "random":
            raise UsageError(f"RandomErasing: expected value to be a number, one a channel, or 'random', received {value!r}")
        self.value = value if isinstance(value, str) else (float(value),) if isinstance(value, Real) else tuple(map(float, value))
        self.inplace = inplace

    def __call__(self, image: Any) -> Any:
        generator = sample_generator()
        if generator.random() >= self.p:
            return image
        pixels, _ = as_channels_last(image)
        height, width, channels = pixels.shape
        if self.value != "random" and len(self.value) not in (1, channels):
            raise ShapeError(f"RandomErasing: expected a value or {channels}, one a channel, received {len(self.value)}")
        for _ in range(10):
            w, h = draw_window(generator, (height, width), self.scale, self.ratio)
            if h < height and w < width:
                break
        else:
            return image
        row, column = int(generator.integers(height - h + 1)), int(generator.integers(width - w + 1))
        if self.value != "random":
            value = self.value
        elif pixels.dtype.kind == "f":
            value = generator.standard_normal((h, w, channels))
        else:
            value = generator.integers(0, 256, (h, w, channels), np.uint8)
        return F.erase(image, row, column, h, w, value, self.inplace)


class RandomApply(Transform):
    """Transforms one after the other, all with probability `p` or none."""

    def __init__(self, transforms: Sequence[Callable], p: float = 0.5):
        self.transforms, self.p = list(transforms), probability("RandomApply", p)

    def __call__(self, image: Any) -> Any:
        if sample_generator().random() < self.p:
            for transform in self.transforms:
                image = transform(image)
        return image
