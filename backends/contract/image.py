"""Images on their way into a network: uint8 pixels sampled through affine maps and normalised.

    y[n, c, i, j] = (bilinear(images[n], x, y)[c] / 255 - mean[c]) / std[c]     (x, y) = matrices[n] @ (j, i, 1)

N images, C channels, (H, W) and (OH, OW) sizes before and after; i, j count output rows and columns, x and y input columns and
rows, with pixel centres at whole numbers. Of the four neighbours of (x, y) those outside of the image count as 0, before
normalisation: the border fades over one pixel, as in ``grid_sample(padding_mode="zeros")``. A coordinate that is NaN is outside.
"""

from __future__ import annotations

import numpy as np

from numbanet.backends.contract.checks import check_shape
from numbanet.backends.interface import Array, ArraySpec, channels_last, primitive
from numbanet.errors import DTypeError, ShapeError, UsageError

OPERATION = "images_affine_normalize"


@primitive
def images_affine_normalize(images: Array, matrices: Array, output_size: tuple[int, int], mean: tuple[float, ...],
                            std: tuple[float, ...]):
    """images uint8 (N, H, W) or (N, H, W, C), matrices float64 (N, 2, 3), C means and deviations: float32 (N, C, OH, OW)."""
    if images.dtype != np.uint8:
        raise DTypeError(f"{OPERATION}: images expects uint8, received {images.dtype}")
    if matrices.dtype != np.float64:
        raise DTypeError(f"{OPERATION}: matrices expects float64, received {matrices.dtype}")
    if len(images.shape) not in (3, 4):
        raise ShapeError(f"{OPERATION}: images expects (N, H, W) or (N, H, W, C), received shape {images.shape}")
    check_shape(OPERATION, "matrices", matrices, (images.shape[0], 2, 3))
    channels = images.shape[3] if len(images.shape) == 4 else 1
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise ShapeError(f"{OPERATION}: {name} expects {channels} numbers, one a channel, received {len(values)}")
    if not all(std):
        raise UsageError(f"{OPERATION}: std expects numbers other than 0, received {std}")
    if len(output_size) != 2 or min(output_size) < 0:
        raise ShapeError(f"{OPERATION}: output_size expects (OH, OW), received {output_size}")
    return ArraySpec((images.shape[0], channels, *output_size), np.dtype(np.float32), channels_last(4))
