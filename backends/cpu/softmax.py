"""Softmax and log-softmax in float32 over rows of contiguous memory. Formulas: `contract/softmax.py`.

x (M, C): the axis is moved to the end, which is free for channels-last maps. Each row is read three times, from the cache:
maximum, sum of exponentials, result. float64 serves to check gradients and goes through NumPy.
"""

from __future__ import annotations

from math import inf

import numpy as np
from numba import prange

from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.out_of_line import out_of_line
from numbanet.backends.cpu.registry import implements
from numbanet.backends.cpu.simd import (
    L,
    exp,
    lane_indices,
    load_partial,
    log,
    maximum,
    reduce_add,
    reduce_max,
    select,
    splat,
    store_partial,
)
from numbanet.backends.reference import softmax as numpy

TASK = 16384            # elements; what is smaller than one task runs without a parallel region
FIRST = np.int64(0)


@kernel("void(b1, const T[::1], T[::1], i8)", parallel=True)
def forward(logarithm, x, y, C):
    M = x.size // C
    rows = max(TASK // C, 1)
    if M <= rows:
        forward_rows(logarithm, x, y, C, FIRST, M)
    else:
        for task in prange((M + rows - 1) // rows):
            forward_rows(logarithm, x, y, C, task * rows, min(task * rows + rows, M))


@kernel("void(b1, const T[::1], const T[::1], T[::1], i8)", parallel=True)
def backward(logarithm, grad_y, y, grad_x, C):
    M = y.size // C
    rows = max(TASK // C, 1)
    if M <= rows:
        backward_rows(logarithm, grad_y, y, grad_x, C, FIRST, M)
    else:
        for task in prange((M + rows - 1) // rows):
            backward_rows(logarithm, grad_y, y, grad_x, C, task * rows, min(task * rows + rows, M))


@worker(inline=True)
def _load_or_lowest(x, offset, count):
    """Elements of a row; -inf behind its end, whose exponential is 0."""
    return select(lane_indices() < np.int32(min(count, L)), load_partial(x, offset, count), -inf)


@worker
def forward_rows(logarithm, x, y, C, first, last):
    """Rows first, ..., last - 1."""
    out_of_line()
    for begin in range(first * C, last * C, C):
        highest = splat(-inf)
        for i in range(0, C, L):
            highest = maximum(highest, _load_or_lowest(x, begin + i, C - i))
        peak = reduce_max(highest)
        total = splat(0.0)
        for i in range(0, C, L):
            total = total + exp(_load_or_lowest(x, begin + i, C - i) - peak)
        whole = reduce_add(total)
        if logarithm:
            shift = log(splat(whole))
            for i in range(0, C, L):
                store_partial(y, begin + i, load_partial(x, begin + i, C - i) - peak - shift, C - i)
        else:
            for i in range(0, C, L):
                store_partial(y, begin + i, exp(load_partial(x, begin + i, C - i) - peak) / whole, C - i)


@worker
def backward_rows(logarithm, grad_y, y, grad_x, C, first, last):
    """Rows first, ..., last - 1."""
    out_of_line()
    for begin in range(first * C, last * C, C):
        total = splat(0.0)
        if logarithm:
            for i in range(0, C, L):
                total = total + load_partial(grad_y, begin + i, C - i)
            whole = reduce_add(total)
            for i in range(0, C, L):
                v = load_partial(grad_y, begin + i, C - i) - exp(load_partial(y, begin + i, C - i)) * whole
                store_partial(grad_x, begin + i, v, C - i)
        else:
            for i in range(0, C, L):
                total = total + load_partial(grad_y, begin + i, C - i) * load_partial(y, begin + i, C - i)
            whole = reduce_add(total)
            for i in range(0, C, L):
                v = (load_partial(grad_y, begin + i, C - i) - whole) * load_partial(y, begin + i, C - i)
                store_partial(grad_x, begin + i, v, C - i)


def _run(launch, logarithm: bool, axis: int, out: np.ndarray, *arrays: np.ndarray) -> None:
    """Launch a kernel on rows; what does not lie in rows is copied."""
    if out.size == 0:
        return
    target = np.moveaxis(out, axis, -1)
    rows = target if target.flags.c_contiguous else np.empty(target.shape, out.dtype)
    flat = [np.ascontiguousarray(np.moveaxis(x, axis, -1)).reshape(-1) for x in arrays]
    launch(logarithm, *flat, rows.reshape(-1), out.shape[axis])
    if rows is not target:
        np.copyto(target, rows)


@implements
def softmax_forward(x, axis, out):
    if x.dtype.char == "f":
        _run(forward, False, axis, out, x)
    else:
        numpy.softmax_forward(x, axis, out)


@implements
def softmax_backward_input(grad_y, y, axis, out):
    if y.dtype.char == "f":
        _run(backward, False, axis, out, grad_y, y)
    else:
        numpy.softmax_backward_input(grad_y, y, axis, out)


@implements
def log_softmax_forward(x, axis, out):
    if x.dtype.char == "f":
        _run(forward, True, axis, out, x)
    else:
        numpy.log_softmax_forward(x, axis, out)


@implements
def log_softmax_backward_input(grad_y, y, axis, out):
    if y.dtype.char == "f":
        _run(backward, True, axis, out, grad_y, y)
    else:
        numpy.log_softmax_backward_input(grad_y, y, axis, out)
