"""Sums of the rows of clusters; the rest of the family is composed (see `contract/search.py`).

    sums[c, d] = sum of x[n, d] over all n with labels[n] = c

Rows are put in the order of their labels, stably; one thread adds one column of one cluster, in the order of the rows, so that the bits
are the same every run. Threads beside each other read columns beside each other.
"""

from __future__ import annotations

from numbanet.backends.cuda.compile import float64, kernel
from numbanet.backends.cuda.index import grid_stride, quotient
from numbanet.backends.cuda.indexing import has_out_of_range
from numbanet.backends.cuda.launch import launch
from numbanet.backends.cuda.pointwise import on_host
from numbanet.backends.cuda.registry import implements
from numbanet.backends.cuda.sorting import ORDERS
from numbanet.errors import IndexRangeError


@kernel
def kmeans_sums_in_order(x, labels, order, out, total, count, columns, label_step, x_steps, out_steps):
    """In double precision, as the contract says; float64(0) since a literal would be of x's."""
    for i in grid_stride(total):
        c = quotient(i, columns)
        d = i - c * columns
        low, high = 0, count                            # the first row of the cluster, by halving
        while low < high:
            middle = quotient(low + high, 2)
            if labels[order[middle] * label_step] < c:
                low = middle + 1
            else:
                high = middle
        value = float64(0)
        while low < count and labels[order[low] * label_step] == c:
            value += float64(x[order[low] * x_steps[0] + d * x_steps[1]])
            low += 1
        out[c * out_steps[0] + d * out_steps[1]] = value


@implements
def kmeans_sums(x, labels, count, out):
    if has_out_of_range(labels, count):
        given = on_host(labels)
        raise IndexRangeError(f"kmeans_sums: labels expects 0 to {count - 1}, received {given.min()} to {given.max()}")
    order, _ = ORDERS[False](labels, 0)
    launch(kmeans_sums_in_order, out.size, x, labels, order, out, out.size, labels.size, max(x.shape[1], 1), labels.steps[0], x.steps,
           out.steps)
