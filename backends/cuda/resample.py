"""Sums over taps, separable in rows and columns: padding and resizing, forward and backward.

    y[n, c, i, j] = sum over taps p of row i, taps q of column j of
                    row_weights[p] * column_weights[q] * x[n, c, row_sources[p], column_sources[q]]

The taps of row i are starts[i] ... starts[i + 1] - 1. A backward pass is the same sum with the taps transposed: it gathers, so each
element is one thread's, and the order of every sum is fixed. N, C, OH, OW are the sizes of y; in a wide launch (`wide.py`) C counts
pieces of channels.
"""

from __future__ import annotations

import numpy as np

from numbanet.backends.cuda.compile import Sizes, kernel
from numbanet.backends.cuda.constants import on_device
from numbanet.backends.cuda.index import grid_stride, split
from numbanet.backends.cuda.launch import launch
from numbanet.backends.cuda.memory import DeviceArray
from numbanet.backends.cuda.wide import maps


@kernel
def take_kernel(x, out, rows, columns, total, C: Sizes, OH: Sizes, OW: Sizes, x_steps, out_steps):
    """One tap of weight 1 a row and column: a lookup, of any dtype."""
    for t in grid_stride(total):
        pixel, c = split(t, C)                          # channels vary fastest, as they do in memory
        row, j = split(pixel, OW)
        n, i = split(row, OH)
        out[n * out_steps[0] + c * out_steps[1] + i * out_steps[2] + j * out_steps[3]] = (
            x[n * x_steps[0] + c * x_steps[1] + rows[i] * x_steps[2] + columns[j] * x_steps[3]])


@kernel(few_turns=True)
def resample_kernel(x, out, row_starts, row_sources, row_weights, column_starts, column_sources, column_weights, total, C: Sizes, OH: Sizes,
                    OW: Sizes, x_steps, out_steps):
    for t in grid_stride(total):
        pixel, c = split(t, C)
        row, j = split(pixel, OW)
        n, i = split(row, OH)
        begin, value = n * x_steps[0] + c * x_steps[1], row_weights[0] * 0.0
        for p in range(row_starts[i], row_starts[i + 1]):
            for q in range(column_starts[j], column_starts[j + 1]):
                weight = row_weights[p] * column_weights[q]
                value += weight * x[begin + row_sources[p] * x_steps[2] + column_sources[q] * x_steps[3]]
        out[n * out_steps[0] + c * out_steps[1] + i * out_steps[2] + j * out_steps[3]] = value


def take(x: DeviceArray, rows: np.ndarray, columns: np.ndarray, out: DeviceArray) -> None:
    """out[n, c, i, j] = x[n, c, rows[i], columns[j]]."""
    tables = [on_device(x.lease.allocator, np.asarray(table, np.int32)) for table in (rows, columns)]
    total, (_, OH, OW, _, C), (out, x), (out_steps, x_steps) = maps(out, x)
    launch(take_kernel, total, x, out, *tables, total, C, OH, OW, x_steps, out_steps)


def resample(x: DeviceArray, rows: tuple, columns: tuple, out: DeviceArray) -> None:
    """The sum of this module's text; `rows` and `columns` are (targets, sources, weights), a tap each, in any order."""
    tables = []
    for (targets, sources, weights), size in ((rows, out.shape[2]), (columns, out.shape[3])):
        order = np.argsort(targets, kind="stable")
        starts = np.searchsorted(np.asarray(targets)[order], np.arange(size + 1))
        weights = np.broadcast_to(np.asarray(weights, out.dtype), order.shape)[order]
        if not weights.size:
            weights = np.zeros(1, out.dtype)
        tables += [on_device(x.lease.allocator, t) for t in (starts.astype(np.int32), np.asarray(sources, np.int32)[order], weights)]
    total, (_, OH, OW, _, C), (out, x), (out_steps, x_steps) = maps(out, x)
    launch(resample_kernel, total, x, out, *tables, total, C, OH, OW, x_steps, out_steps)
