"""Affine maps of images, at random within ranges, and the sampling of uint8 batches through them."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real

import numpy as np

from numbanet.errors import UsageError

DRAWS = 6       # uniform numbers that a random affine map takes


class AffineRanges:
    """Ranges of a random affine map, with the parameters of torchvision's `RandomAffine`.

    Parameters
    ----------
    degrees : float or (min, max)
        Rotation, clockwise; a number d means (-d, d).
    translate : (float, float), optional
        Largest shift as fractions of the width and height.
    scale : (min, max), optional
    shear : float, (min, max) or (min x, max x, min y, max y), optional
        In degrees.
    """

    def __init__(self, degrees: float | Sequence[float] = 0.0, translate: Sequence[float] | None = None,
                 scale: Sequence[float] | None = None, shear: float | Sequence[float] | None = None):
        self.degrees = interval("degrees", degrees)
        self.translate = (0.0, 0.0) if translate is None else tuple(map(float, translate))
        if len(self.translate) != 2 or not all(0 <= t <= 1 for t in self.translate):
            raise UsageError(f"translate: expected two fractions between 0 and 1, received {translate}")
        self.scale = (1.0, 1.0) if scale is None else interval("scale", scale)
        if self.scale[0] <= 0:
            raise UsageError(f"scale: expected factors above 0, received {scale}")
        shear = (0.0,) * 4 if shear is None else shear
        if isinstance(shear, Real) or len(shear) == 2:
            shear = (*interval("shear", shear), 0.0, 0.0)
        if len(shear) != 4 or max(map(abs, shear)) >= 90:
            raise UsageError(f"shear: expected a number or 2 or 4 of them, below 90 degrees, received {shear}")
        self.shear = tuple(map(float, shear))

    def matrices(self, uniforms: np.ndarray, size: tuple[int, int], output_size: tuple[int, int]) -> np.ndarray:
        """Maps from output to input pixels for numbers (N, 6) in [0, 1): float64 (N, 2, 3)."""
        return affine_matrices(*self.parameters(uniforms, size), size, output_size)

    def parameters(self, uniforms: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Angle (N,), shift in pixels (N, 2), scale (N,) and shear (N, 2) for numbers (N, 6) in [0, 1)."""
        angle, x, y, scale, shear_x, shear_y = uniforms.T
        shift = np.stack([(2 * x - 1) * self.translate[0] * size[1], (2 * y - 1) * self.translate[1] * size[0]], 1)
        shear = np.stack([_between(self.shear[:2], shear_x), _between(self.shear[2:], shear_y)], 1)
        return _between(self.degrees, angle), shift, _between(self.scale, scale), shear

    def __repr__(self) -> str:
        return (f"degrees={self.degrees}, translate={self.translate}, scale={self.scale}, shear={self.shear}")


def affine_matrices(angle: np.ndarray, translate: np.ndarray, scale: np.ndarray, shear: np.ndarray,
                    size: tuple[int, int], output_size: tuple[int, int]) -> np.ndarray:
    """Maps from output to input pixels that shear, scale, rotate and shift a picture about its centre.

    Centres of input and output lie on each other, so another `output_size` pads or crops evenly.

    Parameters
    ----------
    angle, scale : array (N,)
        Degrees, clockwise; factors.
    translate, shear : array (N, 2)
        (x, y) in pixels and in degrees.
    size, output_size : (H, W)

    Returns
    -------
    numpy.ndarray
        float64 (N, 2, 3)
    """
    angle, shear = np.radians(angle), np.radians(shear)
    one, zero = np.ones_like(angle), np.zeros_like(angle)
    rotation = _matrix(np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle))
    shear_x = _matrix(one, -np.tan(shear[:, 0]), zero, one)
    shear_y = _matrix(one, zero, -np.tan(shear[:, 1]), one)
    inverse = np.linalg.inv(rotation @ shear_y @ shear_x * np.asarray(scale)[:, None, None])    # output to input
    centre_in, centre_out = ((np.array(s[::-1]) - 1) / 2 for s in (size, output_size))
    offset = centre_in - (inverse @ (centre_out + translate)[:, :, None])[:, :, 0]
    return np.concatenate([inverse, offset[:, :, None]], 2)


def images_affine_normalize(images: np.ndarray, matrices: np.ndarray, output_size: tuple[int, int],
                            mean: Sequence[float] | float, std: Sequence[float] | float,
                            out: np.ndarray | None = None) -> np.ndarray:
    """Sample uint8 images through affine maps, bilinearly, and normalise them.

    Runs on the CPU, whatever the default device, since this is where batches are made; on `reference` where that is the
    default.

    Parameters
    ----------
    images : uint8 array (N, H, W) or (N, H, W, C)
    matrices : array (N, 2, 3)
        From output pixels (column, row, 1) to input pixels (column, row), pixel centres at whole numbers.
    output_size : (OH, OW)
    mean, std : float or C floats
        Of values between 0 and 1.
    out : float32 array (N, C, OH, OW), optional

    Returns
    -------
    numpy.ndarray
        float32 (N, C, OH, OW), which is `out` if given. What lies outside of an image is 0 before normalisation.

    Raises
    ------
    ShapeError, DTypeError, UsageError
        Operands that do not fit.
    """
    images = np.asarray(images)
    channels = images.shape[3] if images.ndim == 4 else 1
    return _backend().images_affine_normalize(images, np.asarray(matrices, np.float64), tuple(output_size),
                                              _per_channel(mean, channels), _per_channel(std, channels), out=out)


def images_crop_normalize(images: np.ndarray, windows: np.ndarray, output_size: tuple[int, int], mean: Sequence[float] | float,
                          std: Sequence[float] | float, out: np.ndarray | None = None) -> np.ndarray:
    """Cut windows out of uint8 images, mirror some, and normalise them; on the CPU, as `images_affine_normalize`.

    Parameters
    ----------
    images : uint8 array (N, H, W) or (N, H, W, C)
        Also memory-mapped: what lies outside of the windows is not read.
    windows : int64 array (M, 4)
        (image, top, left, mirrored) of each window; pixels outside of an image count as 0.
    output_size : (OH, OW)
        Of the windows.
    mean, std : float or C floats
        Of values between 0 and 1.
    out : float32 array (M, C, OH, OW), optional

    Returns
    -------
    numpy.ndarray
        float32 (M, C, OH, OW), which is `out` if given.

    Raises
    ------
    ShapeError, DTypeError, UsageError, IndexRangeError
        Operands that do not fit.
    """
    images = np.asarray(images)
    channels = images.shape[3] if images.ndim == 4 else 1
    return _backend().images_crop_normalize(images, np.asarray(windows, np.int64), tuple(output_size), _per_channel(mean, channels),
                                            _per_channel(std, channels), out=out)


def _backend():
    """Where batches are made: the CPU, or `reference` where that is the default."""
    from numbanet import get_default_device
    from numbanet.backends import get_backend

    return get_backend("reference" if get_default_device() == "reference" else "cpu")


def _per_channel(values: Sequence[float] | float, channels: int) -> tuple[float, ...]:
    values = tuple(np.asarray(values, np.float64).reshape(-1).tolist())
    return values * channels if len(values) == 1 else values


def interval(name: str, value: float | Sequence[float]) -> tuple[float, float]:
    """A range (min, max); a number v means (-v, v)."""
    if isinstance(value, Real):
        if value < 0:
            raise UsageError(f"{name}: expected a number of 0 or more or (min, max), received {value}")
        return -float(value), float(value)
    if len(value) != 2 or value[0] > value[1]:
        raise UsageError(f"{name}: expected (min, max), received {value}")
    return float(value[0]), float(value[1])


def _between(interval: Sequence[float], uniform: np.ndarray) -> np.ndarray:
    return interval[0] + (interval[1] - interval[0]) * uniform


def _matrix(a, b, c, d) -> np.ndarray:
    return np.stack([a, b, c, d], 1).reshape(-1, 2, 2)
