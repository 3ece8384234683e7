"""Pooling over two spatial axes: x (N, C, H, W) -> y (N, C, OH, OW)."""

from __future__ import annotations

import numpy as np

from numbanet.backends.contract.checks import check_float, check_rank, check_shape
from numbanet.backends.interface import Array, ArraySpec, channels_last, primitive
from numbanet.geometry import PoolGeometry

NHWC = channels_last(4)
INT32 = np.dtype(np.int32)


@primitive
def max_pool2d_forward(x: Array, geometry: PoolGeometry):
    """Maximum over each window: (y, argmax), argmax int32 the position h * W + w of the maximum in the input plane.

    On a tie the first element in row-major order counts; a NaN counts as the largest, the first one again.
    """
    check_float("max_pool2d", x=x)
    check_rank("max_pool2d", "x", x, 4, "(N, C, H, W)")
    check_shape("max_pool2d", "x", x, (*x.shape[:2], *geometry.input_size))
    shape = (*x.shape[:2], *geometry.output_size)
    return ArraySpec(shape, x.dtype, NHWC), ArraySpec(shape, INT32, NHWC)


@primitive
def max_pool2d_backward_input(grad_y: Array, argmax: Array, geometry: PoolGeometry):
    """Each element of grad_y added where its maximum stood; the rest is 0."""
    check_float("max_pool2d_backward_input", grad_y=grad_y)
    check_shape("max_pool2d_backward_input", "argmax", argmax, grad_y.shape)
    check_shape("max_pool2d_backward_input", "grad_y", grad_y, (*grad_y.shape[:2], *geometry.output_size))
    return ArraySpec((*grad_y.shape[:2], *geometry.input_size), grad_y.dtype, NHWC)
