"""Weighted sums over taps, separable in rows and columns: average pooling, resizing and padding, forward and backward.

    y[n, i, j, c] = 1 / divisors[i, j] * sum over taps p of row i, taps q of column j of
                    row_weights[p] * column_weights[q] * x[n, row_sources[p], column_sources[q], c]

x (N, H, W, C), y (N, OH, OW, C), both with unit stride over channels, which are the vector's lanes. The taps of row i
are starts[i] ... starts[i + 1] - 1. A backward pass is the same sum with the taps transposed: it gathers, so that rows
are independent tasks and the order of every sum is fixed.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import prange

from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.layout import are_pixels, finish_pixels, pixels
from numbanet.backends.cpu.simd import L, fma, load, load_partial, splat, store, store_partial

WANTED_TASKS = 16

_SIGNATURE = ("void(const T[:,:,:,:], T[:,:,:,:], const i8[::1], const i8[::1], const T[::1], "
              "const i8[::1], const i8[::1], const T[::1], const T[:,:])")


class Taps(NamedTuple):
    """The taps of every output position along one axis."""

    starts: np.ndarray       # int64 (outputs + 1)
    sources: np.ndarray      # int64 (taps)
    weights: np.ndarray      # (taps)


def make_taps(targets, sources, weights, size: int, dtype) -> Taps:
    """Taps of an axis of `size` outputs from pairs (target, source) in any order, and a weight for each or for all."""
    order = np.argsort(targets, kind="stable")
    starts = np.searchsorted(np.asarray(targets)[order], np.arange(size + 1))
    weights = np.broadcast_to(np.asarray(weights, dtype), order.shape)[order]
    return Taps(starts.astype(np.int64), np.ascontiguousarray(np.asarray(sources)[order], np.int64), weights)


@lru_cache(maxsize=1024)
def undivided(shape: tuple[int, int], dtype) -> np.ndarray:
    """Divisors of 1."""
    return np.broadcast_to(np.ones(1, dtype), shape)


@worker
def resample_row(x, y, n, i, first, C, row_starts, row_sources, row_weights,
                 column_starts, column_sources, column_weights, divisors):
    """Channels first, ..., C - 1 of row i of sample n of y."""
    x_sample, x_row, x_column = n * (x.strides[0] // 4), x.strides[1] // 4, x.strides[2] // 4
    offset = n * (y.strides[0] // 4) + i * (y.strides[1] // 4)
    for j in range(y.shape[2]):
        begin, end, divisor = column_starts[j], column_starts[j + 1], divisors[i, j]
        c = first
        while c + 4 * L <= C:       # four vectors at a time: their sums are independent, and each tap is looked up once
            total0, total1, total2, total3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
            for p in range(row_starts[i], row_starts[i + 1]):
                row = x_sample + row_sources[p] * x_row + c
                sum0, sum1, sum2, sum3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
                for q in range(begin, end):
                    a, weight = row + column_sources[q] * x_column, splat(column_weights[q])
                    sum0 = fma(weight, load(x, a), sum0)
                    sum1 = fma(weight, load(x, a + L), sum1)
                    sum2 = fma(weight, load(x, a + 2 * L), sum2)
                    sum3 = fma(weight, load(x, a + 3 * L), sum3)
                weight = splat(row_weights[p])
                total0, total1 = fma(weight, sum0, total0), fma(weight, sum1, total1)
                total2, total3 = fma(weight, sum2, total2), fma(weight, sum3, total3)
            if divisor != 1:        # divisions are slow: half of the time of a bilinear pixel
                total0, total1, total2, total3 = total0 / divisor, total1 / divisor, total2 / divisor, total3 / divisor
            store(y, offset + c, total0)
            store(y, offset + c + L, total1)
            store(y, offset + c + 2 * L, total2)
            store(y, offset + c + 3 * L, total3)
            c += 4 * L
        while c < C:
            count = min(L, C - c)
            total = splat(0.0)
            for p in range(row_starts[i], row_starts[i + 1]):
                row = x_sample + row_sources[p] * x_row + c
                row_sum = splat(0.0)
                for q in range(begin, end):
                    value = load_partial(x, row + column_sources[q] * x_column, count)
                    row_sum = fma(column_weights[q], value, row_sum)
                total = fma(row_weights[p], row_sum, total)
            store_partial(y, offset + c, total / divisor, count)
            c += L
        offset += y.strides[2] // 4


@kernel(_SIGNATURE, parallel=True)
def resample_vector(x, y, row_starts, row_sources, row_weights,
                    column_starts, column_sources, column_weights, divisors):
    N, OH, _, C = y.shape
    blocks = (C + 4 * L - 1) // (4 * L)
    parts = max(1, min(blocks, WANTED_TASKS // max(1, N * OH)))         # a pooled map of one row is shared by its channels
    for task in prange(N * OH * parts):
        row, part = task // parts, task % parts
        resample_row(x, y, row // OH, row % OH, part * blocks // parts * 4 * L, min(C, (part + 1) * blocks // parts * 4 * L), row_starts,
                     row_sources, row_weights, column_starts, column_sources, column_weights, divisors)


@kernel(_SIGNATURE, dtypes=("float64",))
def resample_loops(x, y, row_starts, row_sources, row_weights,
                   column_starts, column_sources, column_weights, divisors):
    for n, i, j, c in np.ndindex(y.shape):
        total = 0.0
        for p in range(row_starts[i], row_starts[i + 1]):
            row_sum = 0.0
            for q in range(column_starts[j], column_starts[j + 1]):
                row_sum += column_weights[q] * x[n, row_sources[p], column_sources[q], c]
            total += row_weights[p] * row_sum
        y[n, i, j, c] = total / divisors[i, j]


def resample(x: np.ndarray, rows: Taps, columns: Taps, divisors: np.ndarray | None, out: np.ndarray) -> None:
    """The sum of this module's text over x (N, C, H, W), into `out` (N, C, OH, OW)."""
    if divisors is None:
        divisors = undivided(out.shape[2:], out.dtype)
    y = pixels(out)
    run = resample_vector if out.dtype == np.float32 else resample_loops
    run(pixels(x), y, *rows, *columns, divisors)
    finish_pixels(y, out)


def resample_kernels(x: np.ndarray, rows: Taps, columns: Taps, divisors: np.ndarray | None, out: np.ndarray) -> list | None:
    """What `resample` runs where that needs no copies: see `program.joined`."""
    if out.dtype != np.float32 or not are_pixels(x, out):
        return None
    divisors = undivided(out.shape[2:], out.dtype) if divisors is None else divisors
    return [(resample_vector, (pixels(x), pixels(out), *rows, *columns, divisors), True)]
