"""Images on their way into a network: uint8 pixels sampled through affine maps, or cut out, and normalised.

    y[n, c, i, j] = (bilinear(images[n], x, y)[c] / 255 - mean[c]) / std[c]     (x, y) = matrices[n] @ (j, i, 1)

N images, C channels, (H, W) and (OH, OW) sizes before and after; i, j count output rows and columns, x and y input columns and
rows, with pixel centres at whole numbers. Of the four neighbours of (x, y) those outside of the image count as 0, before
normalisation: the border fades over one pixel, as in ``grid_sample(padding_mode="zeros")``. A coordinate that is NaN is outside.
"""

from __future__ import annotations

import numpy as np

from numbanet.backends.contract.checks import check_shape
from numbanet.backends.interface import Array, ArraySpec, channels_last, primitive
from numbanet.errors import DTypeError, IndexRangeError, ShapeError, UsageError

OPERATION = "images_affine_normalize"


@primitive
def images_affine_normalize(images: Array, matrices: Array, output_size: tuple[int, int], mean: tuple[float, ...],
                            std: tuple[float, ...]):
    """images uint8 (N, H, W) or (N, H, W, C), matrices float64 (N, 2, 3), C means and deviations: float32 (N, C, OH, OW)."""
    _check_images(OPERATION, images, output_size, mean, std)
    if matrices.dtype != np.float64:
        raise DTypeError(f"{OPERATION}: matrices expects float64, received {matrices.dtype}")
    check_shape(OPERATION, "matrices", matrices, (images.shape[0], 2, 3))
    return ArraySpec((images.shape[0], len(mean), *output_size), np.dtype(np.float32), channels_last(4))


@primitive
def images_crop_normalize(images: Array, windows: Array, output_size: tuple[int, int], mean: tuple[float, ...], std: tuple[float, ...]):
    """images uint8 (N, H, W) or (N, H, W, C), windows int64 (M, 4), C means and deviations: float32 (M, C, OH, OW).

        y[m, c, i, j] = (images[n, top + i, left + k, c] / 255 - mean[c]) / std[c]      k = OW - 1 - j if mirrored else j

    n, top, left, mirrored = windows[m]; pixels outside of an image count as 0. n must be that of an image: IndexRangeError.
    """
    operation = "images_crop_normalize"
    _check_images(operation, images, output_size, mean, std)
    if windows.dtype != np.int64:
        raise DTypeError(f"{operation}: windows expects int64, received {windows.dtype}")
    if len(windows.shape) != 2 or windows.shape[1] != 4:
        raise ShapeError(f"{operation}: windows expects (M, 4): image, top, left, mirrored; received shape {windows.shape}")
    return ArraySpec((windows.shape[0], len(mean), *output_size), np.dtype(np.float32), channels_last(4))


@primitive
def images_rgbx_to_rgb(images: Array):
    """uint8 (N, H, W, 4), each pixel's fourth byte of no meaning, as Pillow keeps colours: (N, H, W, 3) without it."""
    operation = "images_rgbx_to_rgb"
    if images.dtype != np.uint8:
        raise DTypeError(f"{operation}: images expects uint8, received {images.dtype}")
    if len(images.shape) != 4 or images.shape[3] != 4:
        raise ShapeError(f"{operation}: images expects (N, H, W, 4), received shape {images.shape}")
    return ArraySpec((*images.shape[:3], 3), np.dtype(np.uint8))


@images_rgbx_to_rgb.composed
def _images_rgbx_to_rgb(backend, images):
    return backend.copy(backend.slice_view(images, tuple((0, n, 1) for n in (*images.shape[:3], 3))))


def check_images_of_windows(windows: np.ndarray, count: int) -> None:
    """Every window is of one of `count` images; implementations call this, since declarations do not see what is in an array.

    Raises
    ------
    IndexRangeError
        It is of another.
    """
    if windows.size and (windows[:, 0].min() < 0 or windows[:, 0].max() >= count):
        raise IndexRangeError(f"images_crop_normalize: windows expects images from 0 to {count - 1}, received "
                              f"{windows[:, 0].min()} to {windows[:, 0].max()}")


def _check_images(operation: str, images: Array, output_size: tuple[int, int], mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    if images.dtype != np.uint8:
        raise DTypeError(f"{operation}: images expects uint8, received {images.dtype}")
    if len(images.shape) not in (3, 4):
        raise ShapeError(f"{operation}: images expects (N, H, W) or (N, H, W, C), received shape {images.shape}")
    channels = images.shape[3] if len(images.shape) == 4 else 1
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise ShapeError(f"{operation}: {name} expects {channels} numbers, one a channel, received {len(values)}")
    if not all(std):
        raise UsageError(f"{operation}: std expects numbers other than 0, received {std}")
    if len(output_size) != 2 or min(output_size) < 0:
        raise ShapeError(f"{operation}: output_size expects (OH, OW), received {output_size}")
