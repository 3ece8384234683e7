"""Pooling over two spatial axes: x (N, C, H, W) -> y (N, C, OH, OW).

Windows of `geometry` are regular; *adaptive* ones cover an axis of H elements by OH windows, the i-th being
floor(i * H / OH) ... ceil((i + 1) * H / OH) - 1. One output element an axis is global pooling.
"""

from __future__ import annotations

import numpy as np

from numbanet.backends.contract.checks import check_float, check_rank, check_shape
from numbanet.backends.interface import Array, ArraySpec, channels_last, primitive
from numbanet.errors import DTypeError, ShapeError
from numbanet.geometry import PoolGeometry

NHWC = channels_last(4)
INT32 = np.dtype(np.int32)


def _check_input(operation: str, x, sizes: tuple[int, int]) -> None:
    check_float(operation, x=x)
    check_rank(operation, "x", x, 4, "(N, C, H, W)")
    check_shape(operation, "x", x, (*x.shape[:2], *sizes))


def _check_gradient(operation: str, grad_y, sizes: tuple[int, int], argmax=None) -> None:
    check_float(operation, grad_y=grad_y)
    check_rank(operation, "grad_y", grad_y, 4, "(N, C, OH, OW)")
    check_shape(operation, "grad_y", grad_y, (*grad_y.shape[:2], *sizes))
    if argmax is not None:
        check_shape(operation, "argmax", argmax, grad_y.shape)
        if argmax.dtype != INT32:
            raise DTypeError(f"{operation}: argmax expects the forward pass's int32, received {argmax.dtype}")


def _check_adaptive(operation: str, x, output_size: tuple[int, int]) -> None:
    check_float(operation, x=x)
    check_rank(operation, "x", x, 4, "(N, C, H, W)")
    if len(output_size) != 2 or min(output_size) < 1 or min(x.shape[2:]) < 1:
        raise ShapeError(f"{operation}: expected an input map and an output_size (OH, OW) of at least 1 x 1, "
                         f"received x {x.shape} and output_size {output_size}")


@primitive
def max_pool2d_forward(x: Array, geometry: PoolGeometry):
    """Maximum over each window: (y, argmax), argmax int32 the position h * W + w of the maximum in the input plane.

    On a tie the first element in row-major order counts; a NaN counts as the largest, the first one again. A window
    that lies in the padding alone (dilation can do that) gives -inf and the position -1.
    """
    _check_input("max_pool2d", x, geometry.input_size)
    shape = (*x.shape[:2], *geometry.output_size)
    return ArraySpec(shape, x.dtype, NHWC), ArraySpec(shape, INT32, NHWC)


@primitive
def max_pool2d_backward_input(grad_y: Array, argmax: Array, geometry: PoolGeometry):
    """Each element of grad_y added where its maximum stood; the rest is 0."""
    _check_gradient("max_pool2d_backward_input", grad_y, geometry.output_size, argmax)
    return ArraySpec((*grad_y.shape[:2], *geometry.input_size), grad_y.dtype, NHWC)


@primitive
def avg_pool2d_forward(x: Array, geometry: PoolGeometry, count_include_pad: bool, divisor_override: int | None):
    """Sum over each window divided by `divisor_override`, or by the number of its elements.

    With `count_include_pad` padding counts, but what `ceil_mode` adds beyond the padding never does.
    """
    _check_input("avg_pool2d", x, geometry.input_size)
    return ArraySpec((*x.shape[:2], *geometry.output_size), x.dtype, NHWC)


@primitive
def avg_pool2d_backward_input(grad_y: Array, geometry: PoolGeometry, count_include_pad: bool,
                              divisor_override: int | None):
    """Each element of grad_y, divided as in the forward pass, added to all elements of its window."""
    _check_gradient("avg_pool2d_backward_input", grad_y, geometry.output_size)
    return ArraySpec((*grad_y.shape[:2], *geometry.input_size), grad_y.dtype, NHWC)


@primitive
def adaptive_max_pool2d_forward(x: Array, output_size: tuple[int, int]):
    """Maximum over adaptive windows: (y, argmax) as in `max_pool2d_forward`."""
    _check_adaptive("adaptive_max_pool2d", x, output_size)
    shape = (*x.shape[:2], *output_size)
    return ArraySpec(shape, x.dtype, NHWC), ArraySpec(shape, INT32, NHWC)


@primitive
def adaptive_max_pool2d_backward_input(grad_y: Array, argmax: Array, input_size: tuple[int, int]):
    """Each element of grad_y added where its maximum stood; the rest is 0."""
    _check_gradient("adaptive_max_pool2d_backward_input", grad_y, grad_y.shape[2:], argmax)
    return ArraySpec((*grad_y.shape[:2], *input_size), grad_y.dtype, NHWC)


@primitive
def adaptive_avg_pool2d_forward(x: Array, output_size: tuple[int, int]):
    """Mean over adaptive windows."""
    _check_adaptive("adaptive_avg_pool2d", x, output_size)
    return ArraySpec((*x.shape[:2], *output_size), x.dtype, NHWC)


@primitive
def adaptive_avg_pool2d_backward_input(grad_y: Array, input_size: tuple[int, int]):
    """Each element of grad_y, divided by the size of its window, added to all elements of the window."""
    _check_gradient("adaptive_avg_pool2d_backward_input", grad_y, grad_y.shape[2:])
    return ArraySpec((*grad_y.shape[:2], *input_size), grad_y.dtype, NHWC)
