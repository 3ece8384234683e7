"""Where windows of convolution and pooling lie, and operands that may be missing."""

from __future__ import annotations

from numbanet.backends.cuda.compile import device
from numbanet.backends.cuda.index import narrow, quotient
from numbanet.backends.cuda.memory import DeviceArray


@device
def place(i, shape):
    """(n, h, w, g, c) of position i of a map of this shape: channels innermost, in groups."""
    groups = quotient(i, shape[4])
    pixel = quotient(groups, shape[3])
    row = quotient(pixel, shape[2])
    n = quotient(row, shape[1])
    return n, row - n * shape[1], pixel - row * shape[2], groups - pixel * shape[3], i - groups * shape[4]


@device
def window_of(position, tap, stride, padding, dilation, outputs):
    """The window whose tap lies at this position of the input, along one axis; -1 where there is none."""
    start = position + padding - tap * dilation
    if start < 0:
        return -1
    o = quotient(narrow(start, outputs), stride)
    return o if o * stride == start and o < outputs else -1


def map_shape(x: DeviceArray, groups: int) -> tuple[int, ...]:
    """(N, H, W, G, C / G) of an array (N, C, H, W)."""
    N, C, H, W = x.shape
    return N, H, W, groups, C // groups


def walk_of(geometry) -> tuple[int, ...]:
    """(stride, padding before, dilation) of rows and columns."""
    return tuple([v for axis in (0, 1) for v in (geometry.stride[axis], geometry.padding[axis][0], geometry.dilation[axis])])


def optional(array: DeviceArray | None, stand_in: DeviceArray) -> tuple[DeviceArray, tuple[int, ...], int]:
    """(array, its steps, 1), or where there is none (an array that the kernel will not read, steps of 0, 0)."""
    return (stand_in, (0,) * stand_in.ndim, 0) if array is None else (array, array.steps, 1)
