"""The largest or smallest element along an axis and where it stands: a fold over pairs, in parts as in `reduction.py`.

NaN counts as the largest and as the smallest; of equal elements the first one counts, whatever part it is in.
"""

from __future__ import annotations

import numpy as np

from numbanet.backends.cuda.compile import Sizes, device, kernel
from numbanet.backends.cuda.index import grid_stride, offset, quotient
from numbanet.backends.cuda.launch import launch
from numbanet.backends.cuda.memory import DeviceArray
from numbanet.backends.cuda.pointwise import BOOL, convert, converted
from numbanet.backends.cuda.reduction import parts_of, rows_to_reduce
from numbanet.backends.cuda.registry import implements


@device
def _above(a, b):
    """Whether a comes before b where the largest is wanted."""
    return a > b or (a != a and b == b)


@device
def _below(a, b):
    """Whether a comes before b where the smallest is wanted."""
    return a < b or (a != a and b == b)


class Extremum:
    """Values and positions of the extremes along one axis."""

    def __init__(self, before):
        @kernel
        def extreme(x, values, positions, total, parts, count, kept: Sizes, kept_steps, step):
            """Part p of output o looks at elements p, p + parts, ..."""
            for i in grid_stride(total):
                o = quotient(i, parts)
                p = i - o * parts
                begin = offset(o, kept, kept_steps)
                best, at = x[begin + p * step], p
                for e in range(p + parts, count, parts):
                    value = x[begin + e * step]
                    if before(value, best):
                        best, at = value, e
                values[i] = best
                positions[i] = at

        @kernel
        def extreme_of_parts(part_values, part_positions, values, positions, total, parts):
            for i in grid_stride(total):
                best, at = part_values[i * parts], part_positions[i * parts]
                for p in range(1, parts):
                    value, where = part_values[i * parts + p], part_positions[i * parts + p]
                    if before(value, best) or (not before(best, value) and where < at):
                        best, at = value, where
                values[i] = best
                positions[i] = at
        self.whole, self.of_parts = extreme, extreme_of_parts

    def __call__(self, x: DeviceArray, axis: int, values: DeviceArray | None, positions: DeviceArray) -> None:
        """`values` None: nobody asks for them."""
        if positions.size == 0:
            return
        empty = x.lease.allocator.empty
        x = converted(x, np.dtype(np.uint8)) if x.dtype == BOOL else x
        found = values if values is not None and values.is_row_major and values.dtype == x.dtype else empty(positions.shape, x.dtype)
        where = positions if positions.is_row_major else empty(positions.shape, positions.dtype)
        rows, step = rows_to_reduce(x.shape, x.steps, (axis,)), x.steps[axis]
        parts, total = parts_of(rows.outputs, rows.count), rows.outputs
        if parts == 1:
            launch(self.whole, total, x, found, where, total, 1, rows.count, rows.kept, rows.kept_steps, step)
        else:
            part_values, part_positions = empty((total, parts), x.dtype), empty((total, parts), where.dtype)
            launch(self.whole, total * parts, x, part_values, part_positions, total * parts, parts, rows.count, rows.kept, rows.kept_steps,
                   step)
            launch(self.of_parts, total, part_values, part_positions, found, where, total, parts)
        for result, given in ((found, values), (where, positions)):
            if given is not None and given is not result:
                convert(result, given)


largest_with_position, smallest_with_position = Extremum(_above), Extremum(_below)


@implements
def argmax(x, axis, keepdims, out):
    largest_with_position(x, axis, None, out)


@implements
def argmin(x, axis, keepdims, out):
    smallest_with_position(x, axis, None, out)


@implements
def max_with_index(x, axis, keepdims, out):
    largest_with_position(x, axis, *out)


@implements
def min_with_index(x, axis, keepdims, out):
    smallest_with_position(x, axis, *out)
