"""Searching among vectors: the nearest of many by inner product, and the two halves of a step of k-means.

    nearest_rows     values[q, i] = the i-th greatest of sum over d of queries[q, d] * rows[n, d], indices[q, i] its n
    kmeans_assign    labels[n] = argmin over c of sum over d of (x[n, d] - centres[c, d])^2, distances[n] that minimum
    kmeans_sums      sums[c, d] = sum of x[n, d] over all n with labels[n] = c

Q queries, N rows, D dimensions, C centres. NaN counts as the greatest and as the smallest; of equal ones the first counts.
"""

from __future__ import annotations

import numpy as np

from numbanet.backends.contract.checks import check_float, check_rank, check_shape
from numbanet.backends.interface import Array, ArraySpec, primitive
from numbanet.errors import DTypeError, ShapeError

INT64 = np.dtype(np.int64)


def _check_pair(operation: str, **arrays) -> None:
    """Two matrices over the same dimensions."""
    (first, a), (second, b) = arrays.items()
    check_float(operation, **arrays)
    check_rank(operation, first, a, 2, "(count, D)")
    check_rank(operation, second, b, 2, "(count, D)")
    if a.shape[1] != b.shape[1]:
        raise ShapeError(f"{operation}: {first} and {second} expect as many columns, received {a.shape} and {b.shape}")


@primitive
def nearest_rows(queries: Array, rows: Array, k: int):
    """The k rows (N, D) with the greatest inner product with each query (Q, D), in order: (values (Q, k), indices int64 (Q, k))."""
    _check_pair("nearest_rows", queries=queries, rows=rows)
    if not 0 <= k <= rows.shape[0]:
        raise ShapeError(f"nearest_rows: k expects 0 to {rows.shape[0]}, the number of rows, received {k}")
    shape = queries.shape[0], k
    return ArraySpec(shape, rows.dtype), ArraySpec(shape, INT64)


@nearest_rows.composed
def _nearest_rows(backend, queries, rows, k):
    return backend.topk(backend.matmul(queries, backend.transpose(rows, (1, 0))), k, 1, True)


@primitive
def kmeans_assign(x: Array, centres: Array):
    """The nearest of the centres (C, D) for each row of x (N, D), and its squared distance: (labels int64 (N,), distances (N,))."""
    _check_pair("kmeans_assign", x=x, centres=centres)
    if not centres.shape[0]:
        raise ShapeError("kmeans_assign: centres expects one row or more, received none")
    return ArraySpec((x.shape[0],), INT64), ArraySpec((x.shape[0],), x.dtype)


@kmeans_assign.composed
def _kmeans_assign(backend, x, centres):
    half = backend.multiply(backend.sum(backend.square(centres), (1,), False), 0.5)
    labels = backend.argmin(backend.subtract(half, backend.matmul(x, backend.transpose(centres, (1, 0)))), 1, False)
    apart = backend.subtract(x, backend.index_get(centres, [labels], (0,)))
    return labels, backend.sum(backend.square(apart), (1,), False)


@primitive
def kmeans_sums(x: Array, labels: Array, count: int):
    """Sums (count, D) of the rows of x (N, D) that have the same label, int64 (N,): added in their order, in double precision."""
    check_float("kmeans_sums", x=x)
    check_rank("kmeans_sums", "x", x, 2, "(N, D)")
    if labels.dtype != INT64:
        raise DTypeError(f"kmeans_sums: labels expects int64, received {labels.dtype}")
    check_shape("kmeans_sums", "labels", labels, x.shape[:1])
    return ArraySpec((count, x.shape[1]), x.dtype)
