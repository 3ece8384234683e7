"""Where windows of convolution and pooling lie, and operands that may be missing."""

from __future__ import annotations

from numbanet.backends.cuda.compile import device
from numbanet.backends.cuda.index import extent, narrow, quotient, split
from numbanet.backends.cuda.memory import DeviceArray


@device
def place(i, shape):
    """(n, h, w, g, c) of position i of a map of this shape: channels innermost, in groups."""
    groups, c = split(i, shape[4])
    pixel, g = split(groups, shape[3])
    row, w = split(pixel, shape[2])
    n, h = split(row, shape[1])
    return n, h, w, g, c


@device
def first_window(position, taps, stride, padding, dilation):
    """The first window that reaches a position of the input, along one axis; those up to `last_window` do, where they have a tap there."""
    start = position + padding - (taps - 1) * dilation
    return quotient(start + extent(stride) - 1, stride) if start > 0 else narrow(0, position)


@device
def last_window(position, stride, padding, outputs):
    """The last window that begins at a position of the input or before it, along one axis; -1 where there is none."""
    reach = position + padding
    return min(quotient(reach, stride), outputs - 1) if reach >= 0 else narrow(-1, position)


@device
def tap_at(position, window, stride, padding, dilation):
    """The tap of a window that lies at a position which it reaches; -1 where that is between two."""
    distance = position + padding - window * extent(stride)
    if dilation == 1:
        return distance
    tap = quotient(distance, dilation)
    return tap if tap * dilation == distance else narrow(-1, position)


def map_shape(x: DeviceArray, groups: int) -> tuple[int, ...]:
    """(N, H, W, G, C / G) of an array (N, C, H, W)."""
    N, C, H, W = x.shape
    return N, H, W, groups, C // groups


def walk_of(geometry) -> tuple[int, ...]:
    """(stride, padding before, dilation) of rows and columns. Kernels that find windows from positions take strides as sizes too."""
    return tuple([v for axis in (0, 1) for v in (geometry.stride[axis], geometry.padding[axis][0], geometry.dilation[axis])])


def optional(array: DeviceArray | None, stand_in: DeviceArray) -> tuple[DeviceArray, tuple[int, ...], int]:
    """(array, its steps, 1), or where there is none (an array that the kernel will not read, steps of 0, 0)."""
    return (stand_in, (0,) * stand_in.ndim, 0) if array is None else (array, array.steps, 1)
