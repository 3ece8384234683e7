"""Transforms that change values and leave pixels where they are: ColorJitter, Grayscale, GaussianBlur, AlexNet's lighting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np

from numbanet.data.randomness import sample_generator
from numbanet.data.transforms import functional as F
from numbanet.data.transforms.geometric import pair, probability
from numbanet.data.transforms.image import Transform, as_channels_last, is_pillow
from numbanet.errors import ShapeError, UsageError

# Principal components of the colours of ImageNet's pixels (values 0 ... 1), as published with Facebook's training of ResNets for Torch.
EIGENVALUES = (0.2175, 0.0188, 0.0045)
EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


class ColorJitter(Transform):
    """Change brightness, contrast, saturation and hue by random factors, in random order.

    Parameters
    ----------
    brightness, contrast, saturation : number or (min, max), optional
        A number v means (max(0, 1 - v), 1 + v).
    hue : number or (min, max), optional
        Between -0.5 and 0.5; a number v means (-v, v).
    """

    def __init__(self, brightness: float | Sequence[float] | None = None, contrast: float | Sequence[float] | None = None,
                 saturation: float | Sequence[float] | None = None, hue: float | Sequence[float] | None = None):
        self.brightness, self.contrast = _factors("brightness", brightness), _factors("contrast", contrast)
        self.saturation, self.hue = _factors("saturation", saturation), _factors("hue", hue, 0.0, (-0.5, 0.5))

    def __call__(self, image: Any) -> Any:
        generator = sample_generator()
        changes = ((F.adjust_brightness, self.brightness), (F.adjust_contrast, self.contrast), (F.adjust_saturation, self.saturation),
                   (F.adjust_hue, self.hue))
        order = generator.permutation(4)
        factors = [None if limits is None else float(generator.uniform(*limits)) for _, limits in changes]
        for position in order:
            if factors[position] is not None:
                image = changes[position][0](image, factors[position])
        return image


class Grayscale(Transform):
    """Brightness of red, green and blue by ITU-R BT.601, in one channel or repeated in three."""

    def __init__(self, num_output_channels: int = 1):
        if num_output_channels not in (1, 3):
            raise UsageError(f"Grayscale: expected 1 or 3 output channels, received {num_output_channels}")
        self.num_output_channels = num_output_channels

    def __call__(self, image: Any) -> Any:
        return F.rgb_to_grayscale(image, self.num_output_channels)


class RandomGrayscale(Transform):
    """With probability `p` the image in grey, with as many channels as before."""

    def __init__(self, p: float = 0.1):
        self.p = probability("RandomGrayscale", p)

    def __call__(self, image: Any) -> Any:
        if sample_generator().random() >= self.p:
            return image
        return F.rgb_to_grayscale(image, F.get_num_channels(image))


class GaussianBlur(Transform):
    """Average over a window with the weights of a normal distribution of random width.

    Parameters
    ----------
    kernel_size : odd int or (width, height) of them
    sigma : number or (min, max)
        In pixels.
    """

    def __init__(self, kernel_size: int | Sequence[int], sigma: float | Sequence[float] = (0.1, 2.0)):
        self.kernel_size = pair("GaussianBlur", kernel_size)
        self.sigma = (float(sigma), float(sigma)) if isinstance(sigma, Real) else tuple(map(float, sigma))
        if not all(size % 2 for size in self.kernel_size):
            raise UsageError(f"GaussianBlur: expected a kernel_size of odd numbers, received {kernel_size}")
        if len(self.sigma) != 2 or not 0 < self.sigma[0] <= self.sigma[1]:
            raise UsageError(f"GaussianBlur: expected sigma as a number above 0 or (min, max), received {sigma}")

    def __call__(self, image: Any) -> Any:
        sigma = float(sample_generator().uniform(*self.sigma))
        return F.gaussian_blur(image, self.kernel_size, (sigma, sigma))


class Lighting(Transform):
    """AlexNet's colour noise: one random colour is added to all pixels, along the principal components of natural colours.

    ``image + eigvec @ (eigval * alpha)`` with three numbers alpha of a normal distribution; values between 0 and 1, of bytes 255 times as
    much, rounded.

    Parameters
    ----------
    alphastd : float
        Standard deviation of alpha.
    eigval : 3 floats
        Eigenvalues; by default those of ImageNet's pixels.
    eigvec : 3 x 3 floats
        Eigenvectors, one a column.

    References
    ----------
    Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks", NIPS 2012, section 4.1.
    """

    def __init__(self, alphastd: float = 0.1, eigval: Sequence[float] = EIGENVALUES, eigvec: Sequence[Sequence[float]] = EIGENVECTORS):
        if not 0 <= alphastd < math.inf or np.shape(eigval) != (3,) or np.shape(eigvec) != (3, 3):
            raise UsageError(f"Lighting: expected alphastd of 0 or more, 3 eigenvalues and 3 x 3 eigenvectors, received {alphastd}, "
                             f"{np.shape(eigval)} and {np.shape(eigvec)}")
        self.alphastd, self.eigval, self.eigvec = alphastd, tuple(eigval), tuple(map(tuple, eigvec))

    def __call__(self, image: Any) -> Any:
        alpha = self.alphastd * sample_generator().standard_normal(3)
        shift = np.asarray(self.eigvec) @ (np.asarray(self.eigval) * alpha)
        if F.get_num_channels(image) != 3:
            raise ShapeError(f"Lighting: expected 3 channels, received {F.get_num_channels(image)}")
        if is_pillow(image) or as_channels_last(image)[0].dtype == np.uint8:
            table = np.clip(np.arange(256) + np.rint(255 * shift)[:, None], 0, 255).astype(int).ravel().tolist()
            return F.on_colours("Lighting", image, lambda picture: picture.point(table))
        pixels, restore = as_channels_last(image)
        return restore(pixels + shift.astype(pixels.dtype))


def _factors(name: str, value: float | Sequence[float] | None, middle: float = 1.0,
             limits: tuple[float, float] = (0.0, math.inf)) -> tuple[float, float] | None:
    """Range of a factor, or None where it changes nothing."""
    if value is None:
        return None
    if isinstance(value, Real):
        if value < 0:
            raise UsageError(f"ColorJitter: expected {name} of 0 or more or (min, max), received {value}")
        value = (max(middle - value, limits[0]) if middle else -value, middle + value)
    low, high = tuple(map(float, value)) if len(value) == 2 else (1.0, 0.0)
    if not limits[0] <= low <= high <= limits[1]:
        raise UsageError(f"ColorJitter: expected {name} (min, max) between {limits[0]} and {limits[1]}, received {value}")
    return None if low == high == middle else (low, high)
