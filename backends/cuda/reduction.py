"""Reductions: each output element is a fold over the reduced axes, in parts, and then over the parts, in a fixed order.

    part p of output o = x[o, e_p] + x[o, e_p+P] + ...      e: positions along the reduced axes, as they lie in memory, P parts

The number of parts comes from the shape alone, so that the bits do not depend on the GPU. Parts are reduced in the same way, until one is
left. 16-bit floats are folded in float32, integers in int64. In a wide launch (`wide.py`) a thread folds a piece of neighbouring outputs,
or of neighbouring parts where these are what lies on end.
"""

from __future__ import annotations

from copy import copy
from functools import lru_cache
from math import prod as product

import numpy as np

from numbanet.backends.cuda.compile import Sizes, device, kernel, lanewise
from numbanet.backends.cuda.index import grid_stride, offset, quotient
from numbanet.backends.cuda.launch import launch, number
from numbanet.backends.cuda.layout import merged, merged_in_order
from numbanet.backends.cuda.mathematics import larger, smaller
from numbanet.backends.cuda.memory import DeviceArray
from numbanet.backends.cuda.pointwise import BOOL, convert, converted
from numbanet.backends.cuda.registry import implements
from numbanet.backends.cuda.wide import pieces_of_rows
from numbanet.dtypes import is_floating_point

PARALLEL = 1 << 18          # elements worth reading at once, by so many threads or a quarter of them; fewer outputs are split into parts
SHORTEST, LONGEST = 32, 1024        # elements of a part: below the first a launch costs more, above the second sums lose digits


def parts_of(outputs: int, count: int) -> int:
    """Into how many parts each of `outputs` folds over `count` elements is split: 1, or a multiple of 8, which whole pieces make up."""
    wanted = max(-(-count // LONGEST), min(-(-PARALLEL // max(outputs, 1)), count // SHORTEST))
    return -(-wanted // 8) * 8 if wanted > 1 else 1


class Fold:
    """out[o] = function(function(start, x[o, 0]), x[o, 1]) ..., with the parts between."""

    def __init__(self, function):
        function = lanewise(function)

        @kernel
        def fold(x, out, start, total, outputs, parts, count, parts_first, kept: Sizes, kept_steps, reduced: Sizes, reduced_steps,
                 out_steps, part_step):
            for i in grid_stride(total):
                if parts_first:                         # neighbouring threads read neighbours along the reduced axes
                    o = quotient(i, parts)
                    p = i - o * parts
                else:
                    p = quotient(i, outputs)
                    o = i - p * outputs
                begin, value = offset(o, kept, kept_steps), start
                for e in range(p, count, parts):
                    value = function(value, x[begin + offset(e, reduced, reduced_steps)])
                out[offset(o, kept, out_steps) + p * part_step] = value
        self.kernel = fold

    def __call__(self, x: DeviceArray, axes: tuple[int, ...], start, out: DeviceArray) -> None:
        """`out` may have another shape, of the same elements in logical order (axes of size 1, or none)."""
        self.rows(rows_to_reduce(x.shape, x.steps, tuple(axes), out.steps), start, x, out)

    def rows(self, rows: Rows, start, x: DeviceArray, out: DeviceArray) -> None:
        """The fold over rows; see :class:`Rows`."""
        if out.size == 0:
            return
        parts = parts_of(rows.outputs, rows.count)
        if parts == 1:
            return self._launch(rows, 1, start, x, out, rows.out_steps, 0)
        shape = (rows.outputs, parts) if rows.is_contiguous else (parts, rows.outputs)
        partial = x.lease.allocator.empty(shape, out.dtype if out.dtype.itemsize != 2 else np.dtype(np.float32))
        dense, part_step, of_parts = rows_of_parts(rows, parts)
        self._launch(rows, parts, start, x, partial, dense, part_step)
        return self.rows(of_parts, start, partial, out)

    def _launch(self, rows, parts, start, x, out, out_steps, part_step):
        start, parts_first = number(start, out.dtype), rows.is_contiguous and parts > 1
        of_kept, of_reduced = (rows.kept, out_steps, rows.kept_steps), (rows.reduced, (part_step,) * len(rows.reduced), rows.reduced_steps)
        outer, inner = (of_kept, of_reduced) if parts_first else (of_reduced, of_kept)          # inner: what neighbouring threads differ in
        width, places, (out, x) = pieces_of_rows(outer, inner, out, x)
        inner, outputs, count = tuple([one[len(outer[0]):] for one in places]), rows.outputs, rows.count
        if parts_first:
            of_reduced, parts, count, part_step = inner, parts // width, count // width, inner[1][-1]
        else:
            of_kept, outputs = inner, outputs // width
        (kept, out_steps, kept_steps), (reduced, _, reduced_steps) = of_kept, of_reduced
        total = outputs * parts
        launch(self.kernel, total, x, out, start, total, outputs, parts, count, int(parts_first), kept, kept_steps, reduced, reduced_steps,
               out_steps, part_step)


class Rows:
    """An array as `outputs` rows of `count` elements to be reduced: shapes and steps of both groups of axes, merged."""

    def __init__(self, shape: tuple[int, ...], steps: tuple[int, ...], axes: tuple[int, ...], out_steps: tuple[int, ...] | None):
        keep = [a for a in range(len(shape)) if a not in axes]
        kept_shape, kept_steps = tuple([shape[a] for a in keep]), tuple([steps[a] for a in keep])
        if out_steps is None:
            self.kept, self.kept_steps = merged_in_order(kept_shape, kept_steps)
        else:
            out_steps = out_steps if len(out_steps) == len(keep) else tuple([out_steps[a] for a in keep])
            self.kept, self.kept_steps, self.out_steps = merged_in_order(kept_shape, kept_steps, out_steps)
        self.reduced, self.reduced_steps = merged(tuple([shape[a] for a in axes]), tuple([steps[a] for a in axes]))     # as memory lies
        self.outputs, self.count = product(kept_shape), product([shape[a] for a in axes])
        self.is_contiguous = _fastest(self.reduced, self.reduced_steps) <= _fastest(self.kept, self.kept_steps)


@lru_cache(maxsize=8192)
def rows_to_reduce(shape: tuple[int, ...], steps: tuple[int, ...], axes: tuple[int, ...], out_steps: tuple[int, ...] | None = None) -> Rows:
    """The rows of an array and of what is made of them."""
    return Rows(shape, steps, axes, out_steps)


@lru_cache(maxsize=8192)
def rows_of_parts(rows: Rows, parts: int) -> tuple[tuple[int, ...], int, Rows]:
    """Of an array (outputs, parts), or (parts, outputs) where outputs lie on end: steps of the kept axes, the step of parts, its rows."""
    kept_steps, step = [], parts if rows.is_contiguous else 1
    for n in reversed(rows.kept):
        kept_steps.append(step)
        step *= n
    steps, part_step, made = tuple(reversed(kept_steps)), 1 if rows.is_contiguous else step, copy(rows)
    made.kept_steps, made.reduced, made.reduced_steps, made.count = steps, (parts,), (part_step,), parts
    return steps, part_step, made


def _fastest(shape, steps) -> int:
    """The smallest step of an axis that has one."""
    return min([s for n, s in zip(shape, steps) if n != 1 and s], default=1 << 60)


@device
def _sum(total, x):
    return total + x


@device
def _product(total, x):
    return total * x


@device
def _any(found, x):
    return found or x != 0


@device
def _all(found, x):
    return found and x != 0


sum_of, product_of, largest_of, smallest_of = Fold(_sum), Fold(_product), Fold(larger), Fold(smaller)
any_of, all_of = Fold(_any), Fold(_all)


def _wide(x: DeviceArray, out: DeviceArray) -> DeviceArray:
    """Integers and booleans in int64, as they are summed."""
    return x if is_floating_point(x.dtype) else converted(x, out.dtype)


@implements
def sum(x, axes, keepdims, out):
    sum_of(_wide(x, out), axes, 0, out)


@implements
def mean(x, axes, keepdims, out):
    from numbanet.backends.cuda.elementwise import divide
    count = product([x.shape[a] for a in axes])
    total = out if out.dtype.itemsize > 2 else x.lease.allocator.empty(out.shape, np.dtype(np.float32))
    sum_of(x, axes, 0, total)
    divide(total, float(count), total)
    if total is not out:
        convert(total, out)


@implements
def prod(x, axes, keepdims, out):
    product_of(_wide(x, out), axes, 1, out)


@implements
def max_reduce(x, axes, keepdims, out):
    if x.dtype == BOOL:
        any_of(x, axes, False, out)
    else:
        largest_of(x, axes, -np.inf if is_floating_point(x.dtype) else np.iinfo(x.dtype).min, out)


@implements
def min_reduce(x, axes, keepdims, out):
    if x.dtype == BOOL:
        all_of(x, axes, True, out)
    else:
        smallest_of(x, axes, np.inf if is_floating_point(x.dtype) else np.iinfo(x.dtype).max, out)


@implements
def any(x, axes, keepdims, out):
    any_of(x, axes, False, out)


@implements
def all(x, axes, keepdims, out):
    all_of(x, axes, True, out)
