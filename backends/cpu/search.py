"""Searching among vectors on the CPU, as `contract/search.py` defines it, with its letters. float64 is NumPy's.

nearest_rows, few queries: a job is PART rows. It keeps its own k best of each query, and jobs are merged in order.
nearest_rows, many: scores (B, Q) = rows (B, D) @ queries.T for a block of rows at a time, small enough to stay in the second-level
cache; then LANES queries at a time are compared with the worst of their k best, of which few are replaced.
kmeans_assign: scores (B, C) = x (B, D) @ centres.T - |centres|^2 / 2, whose greatest is the nearest centre's. The squared distance to
that one is then summed by itself, since the difference of scores would cancel.
kmeans_sums: a job is COLUMNS columns of all rows, so that sums are added in the order of the rows whatever the threads do.

Rows that are best and rows that are equal are told by value and position alone, so neither blocks nor threads show.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu import hardware, memory
from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.gemm import gemm, gemm_packed, pack
from numbanet.backends.cpu.out_of_line import out_of_line
from numbanet.backends.cpu.registry import implements
from numbanet.backends.cpu.simd import (
    L,
    any_lane,
    fma,
    load,
    load_partial,
    maximum,
    reduce_add,
    reduce_max,
    splat,
)
from numbanet.backends.reference import reduction
from numbanet.backends.reference import search as numpy

FEW = 8                 # queries whose products are summed row by row: 100,000 x 512 by 1, 4, 8, 16 queries, see docs/search.md
PART = 1024             # rows of a job
COLUMNS = 32            # of a job: two cache lines of x, four of sums


@worker
def dot(x, x_offset, y, y_offset, D):
    """sum over d of x[d] * y[d], in four vectors."""
    a, b, c, e = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    d = 0
    while d + 4 * L <= D:
        a = fma(load(x, x_offset + d), load(y, y_offset + d), a)
        b = fma(load(x, x_offset + d + L), load(y, y_offset + d + L), b)
        c = fma(load(x, x_offset + d + 2 * L), load(y, y_offset + d + 2 * L), c)
        e = fma(load(x, x_offset + d + 3 * L), load(y, y_offset + d + 3 * L), e)
        d += 4 * L
    while d < D:
        a = fma(load_partial(x, x_offset + d, D - d), load_partial(y, y_offset + d, D - d), a)
        d += L
    return reduce_add((a + b) + (c + e))


@worker
def insert(value, index, held, k, values, indices):
    """Put a row among the best, sorted, of which `held` are there; returns how many there are then. Equal ones were before."""
    at = held if held < k else k - 1
    while at > 0:
        before = values[at - 1]
        if value > before or (value != value and before == before):
            if at < k:
                values[at], indices[at] = before, indices[at - 1]
            at -= 1
        else:
            break
    values[at], indices[at] = value, index
    return min(held + 1, k)


@worker
def nearest_of_part(queries, rows, first, last, k, values, indices):
    """values, indices (Q, k) of rows first, ..., last - 1."""
    out_of_line()
    D, row, query = rows.shape[1], rows.strides[0] // 4, queries.strides[0] // 4
    for q in range(queries.shape[0]):
        held = 0
        for n in range(first, last):
            value = dot(rows, n * row, queries, q * query, D)
            if held < k or not value <= values[q, k - 1]:
                if held < k or value > values[q, k - 1] or values[q, k - 1] == values[q, k - 1]:
                    held = insert(value, n, held, k, values[q], indices[q])


@kernel("void(const T[:,:], const T[:,:], i8, T[:,:,::1], i8[:,:,::1])", parallel=True)
def nearest_rows_by_parts(queries, rows, k, values, indices):
    N = rows.shape[0]
    for part in prange((N + PART - 1) // PART):
        nearest_of_part(queries, rows, part * PART, min(part * PART + PART, N), k, values[part], indices[part])


@worker
def nearest_of_block(scores, first, begin, end, k, worst, held, values, indices):
    """Queries begin, ..., end - 1 (at most L) against a block of scores (B, Q), whose rows are those from `first` on."""
    out_of_line()
    row = scores.strides[0] // 4
    for n in range(scores.shape[0]):
        here = load_partial(scores, n * row + begin, end - begin)
        if held[begin] == k and not any_lane(~(here <= load_partial(worst, begin, end - begin))):
            continue
        for q in range(begin, end):
            value, least = scores[n, q], worst[q]
            if held[q] < k or value > least or (value != value and least == least):
                held[q] = insert(value, first + n, held[q], k, values[q], indices[q])
                worst[q] = values[q, k - 1] if held[q] == k else np.float32(-np.inf)


@kernel("void(const T[:,::1], i8, i8, T[::1], i8[::1], T[:,::1], i8[:,::1])", parallel=True)
def nearest_rows_of_scores(scores, first, k, worst, held, values, indices):
    Q = scores.shape[1]
    for group in prange((Q + L - 1) // L):
        nearest_of_block(scores, first, group * L, min(group * L + L, Q), k, worst, held, values, indices)


@implements
def nearest_rows(queries, rows, k, out):
    if not out[0].size:
        return
    if rows.dtype == np.float64 or not rows.shape[1]:
        return numpy.nearest_rows(queries, rows, k, out)
    queries, rows = _by_rows(queries), _by_rows(rows)
    values, indices = (_nearest_of_few if len(queries) <= FEW else _nearest_of_many)(queries, rows, k)
    out[0][...], out[1][...] = values, indices


def _nearest_of_few(queries, rows, k):
    parts = -(-len(rows) // PART)
    k_part = min(k, PART)
    values = np.full((parts, len(queries), k_part), -np.inf, np.float32)
    indices = np.full(values.shape, -1, np.int64)
    nearest_rows_by_parts(queries, rows, k_part, values, indices)
    if parts == 1:
        return values[0], indices[0]
    values, indices = (a.transpose(1, 0, 2).reshape(len(queries), -1) for a in (values, indices))
    best = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    reduction.topk(values, k, 1, True, best)    # the first of equal ones: places that the last part left free are the last of all
    return best[0], np.take_along_axis(indices, best[1], 1)


def _nearest_of_many(queries, rows, k):
    Q, N = len(queries), len(rows)
    block = max(64, min(N, hardware.cache_sizes().l2 // (4 * Q)))
    scores = memory.empty((block, Q), queries.dtype)
    values, indices = np.full((Q, k), -np.inf, np.float32), np.full((Q, k), -1, np.int64)
    worst, held = np.full(Q, -np.inf, np.float32), np.zeros(Q, np.int64)
    for first in range(0, N, block):
        part = rows[first:first + block]
        gemm(part, queries.T, scores[:len(part)])
        nearest_rows_of_scores(scores[:len(part)], first, k, worst, held, values, indices)
    return values, indices


@worker
def squared_distance(x, x_offset, y, y_offset, D):
    """sum over d of (x[d] - y[d])^2."""
    total = splat(0.0)
    for d in range(0, D, L):
        apart = load_partial(x, x_offset + d, D - d) - load_partial(y, y_offset + d, D - d)
        total = fma(apart, apart, total)
    return reduce_add(total)


@worker
def greatest_of(scores, offset, count):
    """The position of the greatest of `count` numbers, the first of equal ones; a NaN is greater."""
    best = splat(-np.inf)
    full = count - count % L
    for c in range(0, full, L):
        best = maximum(best, load(scores, offset + c))
    most = reduce_max(best)
    for c in range(full, count):
        value = scores[offset + c]
        most = value if value > most or value != value else most
    for c in range(count):
        if scores[offset + c] == most or (most != most and scores[offset + c] != scores[offset + c]):
            return c
    return 0


@worker
def assign_rows(x, centres, scores, first, last, labels, distances):
    out_of_line()
    D, C = x.shape[1], centres.shape[0]
    for n in range(first, last):
        label = greatest_of(scores, n * C, C)
        labels[n] = label
        distances[n] = squared_distance(x, n * (x.strides[0] // 4), centres, label * (centres.strides[0] // 4), D)


@kernel("void(const T[:,:], const T[:,:], const T[::1], i8[::1], T[::1])", parallel=True)
def kmeans_assign_of_scores(x, centres, scores, labels, distances):
    N = x.shape[0]
    step = 64
    for job in prange((N + step - 1) // step):
        assign_rows(x, centres, scores, job * step, min(job * step + step, N), labels, distances)


@implements
def kmeans_assign(x, centres, out):
    if not len(x):
        return
    if x.dtype == np.float64 or not x.shape[1]:
        return numpy.kmeans_assign(x, centres, out)
    x, centres = _by_rows(x), _by_rows(centres)
    N, C = len(x), len(centres)
    labels, distances = np.empty(N, np.int64), np.empty(N, np.float32)
    with np.errstate(all="ignore"):
        bias = np.negative(np.square(centres, dtype=np.float64).sum(1) / 2).astype(np.float32)
    packed, block = pack(centres.T), max(64, hardware.cache_sizes().l2 // (4 * C))
    scores = memory.empty((min(block, N), C), x.dtype)
    for first in range(0, N, block):
        part = slice(first, min(first + block, N))
        product = scores[:part.stop - first]
        gemm_packed(x[part], packed, product, bias, -np.inf, np.inf)
        kmeans_assign_of_scores(x[part], centres, product.reshape(-1), labels[part], distances[part])
    out[0][...], out[1][...] = labels, distances


@worker
def sum_columns(x, labels, begin, end, sums):
    out_of_line()
    for n in range(x.shape[0]):
        label = labels[n]
        for d in range(begin, end):
            sums[label, d] += x[n, d]


@kernel("void(const T[:,:], const i8[::1], f8[:,::1])", parallel=True)
def kmeans_sums_by_columns(x, labels, sums):
    D = x.shape[1]
    for job in prange((D + COLUMNS - 1) // COLUMNS):
        sum_columns(x, labels, job * COLUMNS, min(job * COLUMNS + COLUMNS, D), sums)


@implements
def kmeans_sums(x, labels, count, out):
    if x.dtype == np.float64 or not x.size:
        return numpy.kmeans_sums(x, labels, count, out)
    numpy.check_labels(labels, count)
    sums = np.zeros(out.shape)
    kmeans_sums_by_columns(x, np.ascontiguousarray(labels), sums)
    with np.errstate(over="ignore"):
        out[...] = sums


def _by_rows(x):
    """x with unit stride along its rows, and rows that stand apart (not broadcast)."""
    return x if x.strides[1] == x.itemsize and x.strides[0] >= x.shape[1] * x.itemsize else np.ascontiguousarray(x)
