"""Images through affine maps, as `contract/image.py` defines it, and the sampling alone for pixels of any dtype."""

from __future__ import annotations

import numpy as np

from numbanet.backends.contract.image import check_images_of_windows
from numbanet.backends.reference.registry import implements


@implements
def images_affine_normalize(images, matrices, output_size, mean, std, out):
    images = images[..., None] if images.ndim == 3 else images
    sampled = sample_bilinear(images, matrices, output_size)        # (N, OH, OW, C)
    out[...] = ((sampled / 255 - np.array(mean)) / np.array(std)).transpose(0, 3, 1, 2)


@implements
def images_crop_normalize(images, windows, output_size, mean, std, out):
    images = images[..., None] if images.ndim == 3 else images
    N, H, W, C = images.shape
    OH, OW = output_size
    check_images_of_windows(windows, N)
    for m, (n, top, left, mirrored) in enumerate(windows):
        for i, j in np.ndindex(OH, OW):
            y, x = top + i, left + (OW - 1 - j if mirrored else j)
            pixel = images[n, y, x] if 0 <= y < H and 0 <= x < W else np.zeros(C)
            out[m, :, i, j] = (pixel / 255 - np.array(mean)) / np.array(std)


def sample_bilinear(images: np.ndarray, matrices: np.ndarray, output_size: tuple[int, int]) -> np.ndarray:
    """Weighted sum of the four neighbours of each mapped pixel: (N, H, W, C) to float64 (N, OH, OW, C)."""
    x, y = mapped_pixels(matrices, output_size)                     # (N, OH, OW)
    height, width = images.shape[1:3]
    x, y = _held(x, width), _held(y, height)
    left, top = np.floor(x), np.floor(y)
    result = 0.0
    for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = np.abs(1 - dy - (y - top)) * np.abs(1 - dx - (x - left))
        result = result + weight[..., None] * _pixels(images, left + dx, top + dy)
    return result


def mapped_pixels(matrices: np.ndarray, output_size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Input columns and rows of all output pixels, each (N, OH, OW)."""
    i, j = np.mgrid[:output_size[0], :output_size[1]]
    rows = np.stack([j, i, np.ones_like(i)]).reshape(3, -1)
    x, y = (matrices @ rows).reshape(len(matrices), 2, *output_size).transpose(1, 0, 2, 3)
    return x, y


def _held(x: np.ndarray, size: int) -> np.ndarray:
    """x at most one pixel outside, where all counts as 0, as it does further out, where whole numbers overflow; NaN too."""
    return np.fmin(np.fmax(x, -1), size)


def _pixels(images: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    height, width = images.shape[1:3]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    n = np.arange(len(images))[:, None, None]
    found = images[n, np.where(inside, y, 0).astype(np.int64), np.where(inside, x, 0).astype(np.int64)] \
        if height and width else np.zeros((*x.shape, images.shape[3]), images.dtype)
    return np.where(inside[..., None], found, images.dtype.type(0))
