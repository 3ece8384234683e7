"""Reductions in float32: y[o, i] = combine over r of x[o, r, i].

Any reduction becomes this form: axes in memory order, neighbours of one kind merged, what is not of the form (kept,
reduced, kept) copied to (kept, reduced). Both the last axes (I = 1) and the leading ones (O = 1) are then loops over
contiguous memory:

    lanes = I * G                  G rows of I side by side, about 256 elements: enough vectors in flight
    block = 32 * lanes elements    combined lane by lane, float32; blocks are combined in float64

So a sum of any length has the error of about 32 additions, 2e-7. The order depends on the shape only: R is cut into parts of
fixed length, one task each, whose results are combined in order.

What NumPy does here is control data (argmax, any, integers), float64, which serves to check gradients, and sorting.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod as product

import numpy as np
from numba import prange

from numbanet.backends.cpu.broadcast import dense
from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.out_of_line import out_of_line
from numbanet.backends.cpu.registry import implements
from numbanet.backends.cpu.simd import L, load_partial, reduce_add, reduce_max, reduce_min, store_partial
from numbanet.backends.cpu.simd import maximum as larger
from numbanet.backends.cpu.simd import minimum as smaller
from numbanet.backends.reference import reduction as numpy

SUM, MAX, MIN, PROD = range(4)
LANES = 256
ROWS = 32               # of lanes, combined in float32
COLUMNS = 4096          # of I, in one task
PART = 1 << 16          # elements of R * I in one task
SHORT = 1024            # elements of a row up to which one vector of float32 sums is exact enough
FIRST = np.int64(0)
IDENTITY = np.array([0, -np.inf, np.inf, 1])


@kernel("void(i8, const T[::1], f8[:,:,::1], i8, i8, i8)", parallel=True)
def reduce_parts(function, x, partial, R, I, rows_per_part):
    """partial[part, o, i] = combine over the rows of that part."""
    parts, O = partial.shape[:2]
    if I == 1 and R <= SHORT and function != PROD:
        rows = max(PART // R, 1)
        if O <= rows:
            reduce_short_rows(function, x, partial, R, FIRST, O)
        else:
            for task in prange((O + rows - 1) // rows):
                reduce_short_rows(function, x, partial, R, task * rows, min(task * rows + rows, O))
        return
    columns = (I + COLUMNS - 1) // COLUMNS
    tasks = parts * O * columns
    if x.size < PART:
        for task in range(tasks):
            reduce_task(function, x, partial, R, I, rows_per_part, columns, task)
    else:
        for task in prange(tasks):
            reduce_task(function, x, partial, R, I, rows_per_part, columns, task)


@worker
def reduce_task(function, x, partial, R, I, rows_per_part, columns, task):
    """One part of R for one o and a range of i."""
    out_of_line()
    O = partial.shape[1]
    part, o, first = task // (O * columns), task // columns % O, task % columns * COLUMNS
    width = min(COLUMNS, I - first)
    row, last_row = part * rows_per_part, min(part * rows_per_part + rows_per_part, R)
    identity = IDENTITY[function]
    total = np.full(width, identity, np.float64)
    # rows side by side only where they are contiguous, and only as many as are needed
    group = 1 if width < I else max(1, min(LANES // I, (last_row - row) // 4))
    lanes = width * group
    block = np.empty(lanes, np.float32)
    while row < last_row:
        for i in range(lanes):
            block[i] = identity
        end = min(row + ROWS * group, last_row)
        while row < end:
            count = min(group, end - row) * width
            combine(function, x, (o * R + row) * I + first, count, block)
            row += group
        row = min(row, end)
        fold(function, block, width, total)
    for i in range(width):
        partial[part, o, first + i] = total[i]


@worker
def reduce_short_rows(function, x, partial, R, first, last):
    """Rows first, ..., last - 1 of at most SHORT elements: one vector accumulates each."""
    out_of_line()
    for o in range(first, last):
        begin, end = o * R, o * R + R
        if function == SUM:
            v = load_partial(x, begin, R)
            for i in range(begin + L, end, L):
                v = v + load_partial(x, i, end - i)
            partial[0, o, 0] = reduce_add(v)
        elif R < L:
            value = x[begin]
            for i in range(begin + 1, end):
                w = x[i]
                if w != w or (value == value and (w > value if function == MAX else w < value)):
                    value = w
            partial[0, o, 0] = value
        else:                                           # the last vector overlaps the one before: no element counts less
            v = load_partial(x, end - L, L)
            if function == MAX:
                for i in range(begin, end - L, L):
                    v = larger(v, load_partial(x, i, L))
                partial[0, o, 0] = reduce_max(v)
            else:
                for i in range(begin, end - L, L):
                    v = smaller(v, load_partial(x, i, L))
                partial[0, o, 0] = reduce_min(v)


@worker
def combine(function, x, offset, count, block):
    """block[i] = f(block[i], x[offset + i])."""
    out_of_line()
    if function == SUM:
        for i in range(0, count, L):
            store_partial(block, i, load_partial(block, i, count - i) + load_partial(x, offset + i, count - i), count - i)
    elif function == MAX:
        for i in range(0, count, L):
            store_partial(block, i, larger(load_partial(block, i, count - i), load_partial(x, offset + i, count - i)), count - i)
    elif function == MIN:
        for i in range(0, count, L):
            store_partial(block, i, smaller(load_partial(block, i, count - i), load_partial(x, offset + i, count - i)), count - i)
    else:
        for i in range(0, count, L):
            store_partial(block, i, load_partial(block, i, count - i) * load_partial(x, offset + i, count - i), count - i)


@worker
def fold(function, block, width, total):
    """total[i] = f(total[i], block[g * width + i]) for all g, in order."""
    i = FIRST
    for k in range(block.size):
        v = np.float64(block[k])
        t = total[i]
        if function == SUM:
            t = t + v
        elif function == PROD:
            t = t * v
        elif function == MAX:
            t = v if v > t or v != v else t
        else:
            t = v if v < t or v != v else t
        total[i] = t
        i += 1
        if i == width:
            i = FIRST


@lru_cache(maxsize=4096)
def _form(shape: tuple, strides: tuple, axes: tuple):
    """(order, kinds): the axes of a dense array from slow to fast, and the merged runs as (reduced, size)."""
    order = sorted((a for a in range(len(shape)) if shape[a] != 1), key=lambda a: -strides[a])
    runs: list[list] = []
    for axis in order:
        reduced = axis in axes
        if runs and runs[-1][0] == reduced:
            runs[-1][1] *= shape[axis]
        else:
            runs.append([reduced, shape[axis]])
    return tuple(order), tuple((reduced, n) for reduced, n in runs)


def reduce_float32(function: int, x: np.ndarray, axes: tuple, out: np.ndarray, scale: float = 1.0) -> None:
    """out = scale * combine(x over axes); `out` with or without the reduced axes."""
    x, x_shape = dense(x), x.shape
    order, runs = _form(x.shape, x.strides, axes)
    pattern = tuple(reduced for reduced, _ in runs)
    if pattern.count(True) > 1 or pattern.count(False) > 2:
        kept = [a for a in range(x.ndim) if a not in axes]
        x = np.ascontiguousarray(x.transpose(*kept, *axes))
        order, O, R, I = kept, product(x.shape[:len(kept)]), product(x.shape[len(kept):]), 1
    else:
        where = pattern.index(True) if True in pattern else len(runs)
        sizes = [n for _, n in runs]
        O, R, I = product(sizes[:where]), product(sizes[where:where + 1]), product(sizes[where + 1:])
    rows_per_part = max(1, PART // min(I, COLUMNS))
    partial = np.empty(((R + rows_per_part - 1) // rows_per_part, O, I))
    reduce_parts(function, x.ravel("K"), partial, R, I, rows_per_part)
    result = (partial[0] if len(partial) == 1 else _MERGE[function](partial, 0)).reshape(-1)
    if scale != 1.0:
        result *= scale
    kept = [a for a in order if a not in axes]          # the axes of `result`, in memory order
    if kept != sorted(kept):
        result = result.reshape([x_shape[a] for a in kept]).transpose(np.argsort(kept))
    with np.errstate(over="ignore"):                    # sums in float64 that float32 cannot hold are infinite
        out[...] = result.reshape(out.shape)


# Parts are few, and NumPy adds along the leading axis in order
_MERGE = {SUM: np.add.reduce, MAX: np.maximum.reduce, MIN: np.minimum.reduce, PROD: np.multiply.reduce}


def _reduce(function: int, in_numpy, x, axes, keepdims, out) -> None:
    if x.dtype.char == "f" and x.size:
        reduce_float32(function, x, axes, out)
    else:
        in_numpy(x, axes, keepdims, out)


@implements
def sum(x, axes, keepdims, out):
    _reduce(SUM, numpy.sum, x, axes, keepdims, out)


@implements
def mean(x, axes, keepdims, out):
    if x.dtype.char == "f" and x.size:
        reduce_float32(SUM, x, axes, out, 1 / product([x.shape[a] for a in axes]))
    else:
        numpy.mean(x, axes, keepdims, out)


@implements
def prod(x, axes, keepdims, out):
    _reduce(PROD, numpy.prod, x, axes, keepdims, out)


@implements
def max_reduce(x, axes, keepdims, out):
    _reduce(MAX, numpy.max_reduce, x, axes, keepdims, out)


@implements
def min_reduce(x, axes, keepdims, out):
    _reduce(MIN, numpy.min_reduce, x, axes, keepdims, out)


@kernel("f8(const T[::1], f8[::1])", parallel=True)
def square_parts(x, partial):
    """The sum of squares, partial[part] that of PART elements."""
    parts = partial.size
    if parts == 1:
        return square_part(x, FIRST)
    for part in prange(parts):
        partial[part] = square_part(x, part)
    total = 0.0
    for part in range(parts):
        total += partial[part]
    return total


@worker
def square_part(x, part):
    """Of elements part * PART and on: float32 lane by lane over ROWS vectors, then float64."""
    out_of_line()
    total, i, last = 0.0, part * PART, min(part * PART + PART, x.size)
    while i < last:
        v = load_partial(x, i, last - i)
        v, end = v * v, min(i + ROWS * L, last)
        i += L
        while i < end:
            w = load_partial(x, i, last - i)
            v = v + w * w
            i += L
        total += reduce_add(v)
    return total


@implements
def sum_of_squares(arrays, out):
    if arrays[0].dtype.char != "f":
        numpy.sum_of_squares(arrays, out)
        return
    total = 0.0
    for x in arrays:
        if x.size:
            total += square_parts(dense(x).ravel("K"), np.empty((x.size + PART - 1) // PART))
    with np.errstate(over="ignore"):
        out[()] = total


for _function in (numpy.any, numpy.all, numpy.argmax, numpy.argmin, numpy.max_with_index, numpy.min_with_index, numpy.cumsum,
                  numpy.topk, numpy.sort):
    implements(_function)
