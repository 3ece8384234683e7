"""Affine maps of images, and the sampling of uint8 images through them.

    y[n, c, i, j] = (bilinear(image[n], x, y)[c] / 255 - mean[c]) / std[c]      (x, y) = matrices[n] @ (j, i, 1)

N images, C channels, (H, W) and (OH, OW) sizes before and after; i, j count output rows and columns, x and y input
columns and rows, with pixel centres at whole numbers. What lies outside of an image is 0 before normalisation, and so
is each of the four neighbours that lies outside: the border fades over one pixel, as in
``grid_sample(padding_mode="zeros")``.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real

import numpy as np

from numbanet.errors import DTypeError, ShapeError, UsageError

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
        self.degrees = _interval("degrees", degrees)
        self.translate = (0.0, 0.0) if translate is None else tuple(map(float, translate))
        if len(self.translate) != 2 or not all(0 <= t <= 1 for t in self.translate):
            raise UsageError(f"translate: expected two fractions between 0 and 1, received {translate}")
        self.scale = (1.0, 1.0) if scale is None else _interval("scale", scale)
        if self.scale[0] <= 0:
            raise UsageError(f"scale: expected factors above 0, received {scale}")
        shear = (0.0,) * 4 if shear is None else shear
        if isinstance(shear, Real) or len(shear) == 2:
            shear = (*_interval("shear", shear), 0.0, 0.0)
        if len(shear) != 4 or max(map(abs, shear)) >= 90:
            raise UsageError(f"shear: expected a number or 2 or 4 of them, below 90 degrees, received {shear}")
        self.shear = tuple(map(float, shear))

    def matrices(self, uniforms: np.ndarray, size: tuple[int, int], output_size: tuple[int, int]) -> np.ndarray:
        """Maps from output to input pixels for numbers (N, 6) in [0, 1): float64 (N, 2, 3)."""
        angle, x, y, scale, shear_x, shear_y = uniforms.T
        return affine_matrices(
            _between(self.degrees, angle),
            np.stack([(2 * x - 1) * self.translate[0] * size[1], (2 * y - 1) * self.translate[1] * size[0]], 1),
            _between(self.scale, scale),
            np.stack([_between(self.shear[:2], shear_x), _between(self.shear[2:], shear_y)], 1), size, output_size)

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

    Parameters
    ----------
    images : uint8 array (N, H, W) or (N, H, W, C)
    matrices : array (N, 2, 3)
        From output pixels (column, row, 1) to input pixels (column, row).
    output_size : (OH, OW)
    mean, std : float or C floats
        Of values between 0 and 1.
    out : float32 array (N, C, OH, OW), optional

    Returns
    -------
    numpy.ndarray
        float32 (N, C, OH, OW), which is `out` if given.

    Raises
    ------
    ShapeError, DTypeError
        Operands that do not fit.
    """
    images, matrices = _check(images, matrices, out, output_size)
    mean, std = (_per_channel(name, value, images.shape[3]) for name, value in (("mean", mean), ("std", std)))
    if not std.all():
        raise UsageError(f"images_affine_normalize: expected a std other than 0, received {std.tolist()}")
    if out is None:
        out = np.empty((len(images), images.shape[3], *output_size), np.float32)
    sampled = sample_bilinear(images, matrices, output_size)        # (N, OH, OW, C)
    out[...] = ((sampled / 255 - mean) / std).transpose(0, 3, 1, 2)
    return out


def sample_bilinear(images: np.ndarray, matrices: np.ndarray, output_size: tuple[int, int]) -> np.ndarray:
    """Weighted sum of the four neighbours of each mapped pixel: (N, H, W, C) to float64 (N, OH, OW, C)."""
    x, y = mapped_pixels(matrices, output_size)                     # (N, OH, OW)
    height, width = images.shape[1:3]
    # One pixel outside all four neighbours count as 0, as they do further out, where whole numbers would overflow.
    x, y = np.clip(x, -1, width), np.clip(y, -1, height)
    left, top = np.floor(x), np.floor(y)
    result = 0.0
    for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = np.abs(1 - dy - (y - top)) * np.abs(1 - dx - (x - left))
        result = result + weight[..., None] * _pixels(images, left + dx, top + dy)
    return result


def sample_nearest(images: np.ndarray, matrices: np.ndarray, output_size: tuple[int, int]) -> np.ndarray:
    """The nearest pixel of each mapped one, 0 outside: (N, H, W, C) to (N, OH, OW, C) of the same dtype."""
    x, y = mapped_pixels(matrices, output_size)
    height, width = images.shape[1:3]
    return _pixels(images, np.floor(np.clip(x, -1, width) + 0.5), np.floor(np.clip(y, -1, height) + 0.5))


def mapped_pixels(matrices: np.ndarray, output_size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Input columns and rows of all output pixels, each (N, OH, OW)."""
    i, j = np.mgrid[:output_size[0], :output_size[1]]
    rows = np.stack([j, i, np.ones_like(i)]).reshape(3, -1)
    x, y = (np.asarray(matrices, np.float64) @ rows).reshape(len(matrices), 2, *output_size).transpose(1, 0, 2, 3)
    return x, y


def _pixels(images: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    height, width = images.shape[1:3]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    n = np.arange(len(images))[:, None, None]
    found = images[n, np.where(inside, y, 0).astype(np.int64), np.where(inside, x, 0).astype(np.int64)] \
        if height and width else np.zeros((*x.shape, images.shape[3]), images.dtype)
    return np.where(inside[..., None], found, images.dtype.type(0))


def _check(images, matrices, out, output_size) -> tuple[np.ndarray, np.ndarray]:
    images, matrices = np.asarray(images), np.asarray(matrices)
    if images.dtype != np.uint8:
        raise DTypeError(f"images_affine_normalize: expected uint8 images, received {images.dtype}")
    if images.ndim not in (3, 4):
        raise ShapeError(f"images_affine_normalize: expected images (N, H, W) or (N, H, W, C), received {images.shape}")
    images = images[..., None] if images.ndim == 3 else images
    if matrices.shape != (len(images), 2, 3):
        raise ShapeError(f"images_affine_normalize: expected matrices {(len(images), 2, 3)}, received {matrices.shape}")
    shape = (len(images), images.shape[3], *output_size)
    if out is not None and (out.shape != shape or out.dtype != np.float32):
        raise ShapeError(f"images_affine_normalize: expected out as float32 {shape}, received {out.dtype} {out.shape}")
    return images, matrices


def _per_channel(name: str, values: Sequence[float] | float, channels: int) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.shape not in ((), (1,), (channels,)):
        raise ShapeError(f"{name}: expected 1 or {channels} numbers, one a channel, received {values.shape}")
    return np.broadcast_to(values, (channels,))


def _interval(name: str, value: float | Sequence[float]) -> tuple[float, float]:
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
