"""Searching among vectors, in double precision. See `contract/search.py`."""

from __future__ import annotations

import numpy as np

from numbanet.backends.reference import reduction
from numbanet.backends.reference.registry import implements
from numbanet.errors import IndexRangeError


@implements
def nearest_rows(queries, rows, k, out):
    with np.errstate(all="ignore"):
        products = (queries.astype(np.float64) @ rows.astype(np.float64).T).astype(rows.dtype)
    reduction.topk(products, k, 1, True, out)


@implements
def kmeans_assign(x, centres, out):
    for n, row in enumerate(x.astype(np.float64)):
        with np.errstate(all="ignore"):
            distances = np.square(row - centres).sum(1)
        out[0][n] = distances.argmin()
        out[1][n] = distances[out[0][n]]


@implements
def kmeans_sums(x, labels, count, out):
    check_labels(labels, count)
    sums = np.zeros(out.shape)
    with np.errstate(all="ignore"):
        np.add.at(sums, labels, x)
    out[...] = sums


def check_labels(labels, count: int) -> None:
    """Labels are 0 to count - 1."""
    if len(labels) and not (labels.min() >= 0 and labels.max() < count):
        raise IndexRangeError(f"kmeans_sums: labels expects 0 to {count - 1}, received {labels.min()} to {labels.max()}")
