"""Stable sorting by merging: in each pass, runs of `width` sorted positions are merged in pairs, one thread an element.

An element's place in the merged run is its place in its own run plus the number of elements of the other run that come before it,
which a binary search finds; among equal ones the left run's come first. So a line of n elements takes log2(n) launches, which have
no conflicts and no order of their own.
"""

from __future__ import annotations

import numpy as np

from numbanet.backends.cuda.compile import Sizes, device, kernel
from numbanet.backends.cuda.index import grid_stride, offset, quotient
from numbanet.backends.cuda.launch import launch
from numbanet.backends.cuda.layout import merged_in_order
from numbanet.backends.cuda.memory import DeviceArray
from numbanet.backends.cuda.pointwise import BOOL, convert, converted
from numbanet.backends.cuda.registry import implements

INT64 = np.dtype(np.int64)


@device
def _ascending(a, b):
    """Whether a must stand before b: NaN last."""
    return a < b or (b != b and a == a)


@device
def _descending(a, b):
    """Whether a must stand before b: NaN first."""
    return a > b or (a != a and b == b)


@kernel
def count_up(positions, total, count):
    """0, 1, ... along each line."""
    for i in grid_stride(total):
        positions[i] = i - quotient(i, count) * count


@kernel
def take_along(x, positions, out, total, taken, lines: Sizes, line_steps, step, count):
    """out[line, j] = x at the j-th position of each line; the first `taken` of `count`."""
    for i in grid_stride(total):
        line = quotient(i, taken)
        out[i] = x[offset(line, lines, line_steps) + positions[line * count + i - line * taken] * step]


class Sort:
    """Positions in order along an axis."""

    def __init__(self, before):
        @kernel
        def merge(x, positions, merged, total, width, count, lines: Sizes, line_steps, step):
            for i in grid_stride(total):
                line = quotient(i, count)
                j, first, begin = i - line * count, line * count, offset(line, lines, line_steps)
                pair = quotient(j, 2 * width) * 2 * width
                middle, end = min(pair + width, count), min(pair + 2 * width, count)
                is_left, own = j < middle, x[begin + positions[i] * step]
                low = middle if is_left else pair
                start, high = low, end if is_left else middle
                while low < high:                       # how many of the other run come before this element
                    probe = quotient(low + high, 2)
                    other = x[begin + positions[first + probe] * step]
                    if (before(other, own) if is_left else not before(own, other)):
                        low = probe + 1
                    else:
                        high = probe
                place = j + low - start if is_left else j - middle + low
                merged[first + place] = positions[i]
        self.kernel = merge

    def __call__(self, x: DeviceArray, axis: int) -> tuple[DeviceArray, tuple]:
        """int64 positions (lines, count), row-major, and what finds a line of x: shape, steps, step along the line."""
        count, rest = x.shape[axis], [a for a in range(len(x.shape)) if a != axis]
        lines, line_steps = merged_in_order(*[tuple([s[a] for a in rest]) for s in (x.shape, x.steps)])
        place = lines, line_steps, x.steps[axis]
        positions = x.lease.allocator.empty((x.size,), INT64)
        other, width = x.lease.allocator.empty((x.size,), INT64), 1
        launch(count_up, x.size, positions, x.size, count)
        while x.size and width < count:
            launch(self.kernel, x.size, x, positions, other, x.size, width, count, *place)
            positions, other, width = other, positions, 2 * width
        return positions, place


ORDERS = {False: Sort(_ascending), True: Sort(_descending)}         # by whether they descend


def _sorted(x: DeviceArray, axis: int, order: Sort, taken: int, values: DeviceArray, indices: DeviceArray) -> None:
    """The first `taken` elements in order, and their positions, to outputs of any layout."""
    if values.size == 0:
        return
    x = converted(x, np.dtype(np.uint8)) if x.dtype == BOOL else x
    positions, place = order(x, axis)
    count = x.shape[axis]
    dense = x.lease.allocator.empty((values.size,), x.dtype)
    launch(take_along, values.size, x, positions, dense, values.size, taken, *place, count)
    rest = [n for a, n in enumerate(x.shape) if a != axis]
    convert(_as_lines(dense, rest, taken, axis), values)
    convert(_as_lines(positions, rest, taken, axis, count), indices)


def _as_lines(dense: DeviceArray, rest: list[int], taken: int, axis: int, count: int | None = None) -> DeviceArray:
    """Row-major (*rest, count), the first `taken` of each line, as an array whose axis `axis` is the last one."""
    shape, strides, step = [*rest, taken], [], dense.itemsize
    for n in (count or taken, *reversed(rest)):
        strides.insert(0, step)
        step *= max(n, 1)
    shape.insert(axis, shape.pop())
    strides.insert(axis, strides.pop())
    return dense.view(tuple(shape), tuple(strides))


@implements
def topk(x, k, axis, largest, out):
    _sorted(x, axis, ORDERS[largest], k, *out)


@implements
def sort(x, axis, descending, out):
    _sorted(x, axis, ORDERS[descending], x.shape[axis], *out)
