"""Resizing of x (N, C, H, W) to (N, C, OH, OW): which input positions an output position reads, and how they are weighted.

The formulas are PyTorch's. Along an axis, with `step` input elements to an output element (1 / scale where a scale is given,
else H / OH)::

    nearest     h = floor(o * step)
    linear      h = step * (o + 1/2) - 1/2, at least 0; or o * (H - 1) / (OH - 1) with aligned corners;
                y = (1 - f) * x[floor(h)] + f * x[floor(h) + 1],  f = h - floor(h)
"""

from __future__ import annotations

import numpy as np

from numbanet.backends.contract.checks import check_float, check_rank
from numbanet.backends.interface import Array, ArraySpec, channels_last, primitive
from numbanet.errors import ShapeError

NHWC = channels_last(4)


def nearest_sources(size: int, outputs: int, scale: float | None) -> np.ndarray:
    """The input position of every output position. Where the sizes are equal or double, a factor near that is ignored."""
    scale = None if outputs in (size, 2 * size) else scale
    step = np.float32(1 / scale if scale else size / outputs)
    return np.minimum(np.floor(np.arange(outputs, dtype=np.float32) * step).astype(np.int64), size - 1)


def linear_sources(size: int, outputs: int, scale: float | None, align_corners: bool,
                   dtype) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every output position: the two input positions, and the weight of the second; computed in `dtype`."""
    real, one_half = np.dtype(dtype).type, np.dtype(dtype).type(0.5)
    o = np.arange(outputs).astype(dtype)
    if outputs == size:
        position = o
    elif align_corners:
        position = o * real((size - 1) / (outputs - 1) if outputs > 1 else 0)
    else:
        position = np.maximum((o + one_half) * real(1 / scale if scale else size / outputs) - one_half, 0)
    first = np.minimum(position.astype(np.int64), size - 1)
    return first, np.minimum(first + 1, size - 1), np.clip(position - first.astype(dtype), 0, 1)


def _spec(operation: str, x, name: str, sizes: tuple[int, int]) -> ArraySpec:
    check_float(operation, **{name: x})
    check_rank(operation, name, x, 4, "(N, C, H, W)")
    if len(sizes) != 2 or min(*sizes, *x.shape[2:]) < 1:
        raise ShapeError(f"{operation}: expected maps of at least 1 x 1, received {name} {x.shape} and the size {sizes}")
    return ArraySpec((*x.shape[:2], *sizes), x.dtype, NHWC)


@primitive
def resize2d_nearest_forward(x: Array, output_size: tuple[int, int], scales: tuple[float | None, float | None]):
    """The nearest input element (towards the first)."""
    return _spec("resize2d_nearest", x, "x", output_size)


@primitive
def resize2d_nearest_backward_input(grad_y: Array, input_size: tuple[int, int],
                                    scales: tuple[float | None, float | None]):
    """Each element of grad_y added to the input element it came from."""
    return _spec("resize2d_nearest_backward_input", grad_y, "grad_y", input_size)


@primitive
def resize2d_bilinear_forward(x: Array, output_size: tuple[int, int], scales: tuple[float | None, float | None],
                              align_corners: bool):
    """Linear interpolation along both axes."""
    return _spec("resize2d_bilinear", x, "x", output_size)


@primitive
def resize2d_bilinear_backward_input(grad_y: Array, input_size: tuple[int, int],
                                     scales: tuple[float | None, float | None], align_corners: bool):
    """Each element of grad_y added, weighted, to the four input elements it came from."""
    return _spec("resize2d_bilinear_backward_input", grad_y, "grad_y", input_size)
