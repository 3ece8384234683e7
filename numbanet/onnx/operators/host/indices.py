"""Gathering, scattering, sorting and counting, in NumPy."""

from __future__ import annotations

import math

import numpy as np

from numbanet.errors import IndexRangeError, ShapeError
from numbanet.onnx.operators.host.common import normal_axis
from numbanet.onnx.operators.registry import host_operator


def bounded(node, indices, n: int):
    """Indices in [-n, n) as ones in [0, n)."""
    indices = indices.astype(np.int64)
    if indices.size and (indices.min() < -n or indices.max() >= n):
        raise IndexRangeError(f"{node}: indices must be in [{-n}, {n - 1}], received {indices.min()} to {indices.max()}")
    return np.where(indices < 0, indices + n, indices)


@host_operator("Gather")
def gather(node, x, indices):
    """Slices of x along `axis`, one for each index."""
    axis = normal_axis(node, node.attributes.get("axis", 0), x.ndim)
    return np.take(x, bounded(node, indices, x.shape[axis]), axis)


@host_operator("GatherElements")
def gather_elements(node, x, indices):
    """One element for each index, whose other coordinates are its own."""
    axis = normal_axis(node, node.attributes.get("axis", 0), x.ndim)
    return x[_element_positions(node, x, indices, axis)]


def _element_positions(node, x, indices, axis: int):
    positions = list(np.indices(indices.shape, sparse=True))
    positions[axis] = bounded(node, indices, x.shape[axis])
    return tuple(positions)


def _reduce_at(node, y, positions, updates) -> None:
    reduction = node.attributes.get("reduction", "none")
    if reduction == "none":
        y[positions] = updates
    else:
        {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}[reduction].at(y, positions, updates)


@host_operator("ScatterElements")
@host_operator("Scatter")
def scatter_elements(node, x, indices, updates):
    """A copy of x with one element written, or combined by `reduction`, for each index."""
    axis = normal_axis(node, node.attributes.get("axis", 0), x.ndim)
    y = np.array(x)
    _reduce_at(node, y, _element_positions(node, x, indices, axis), updates)
    return y


def _tuple_positions(node, indices, sizes):
    return tuple(bounded(node, indices[..., axis], n) for axis, n in zip(range(indices.shape[-1]), sizes))


@host_operator("GatherND")
def gather_nd(node, x, indices):
    """The slice of x at each tuple of indices, after `batch_dims` axes that both share."""
    batch = node.attributes.get("batch_dims", 0)
    shared = np.indices(indices.shape[:batch], sparse=True)
    shared = tuple(axis.reshape(axis.shape + (1,) * (indices.ndim - 1 - batch)) for axis in shared)
    return np.asarray(x[shared + _tuple_positions(node, indices, x.shape[batch:])])


@host_operator("ScatterND")
def scatter_nd(node, x, indices, updates):
    """A copy of x with a slice written, or combined by `reduction`, at each tuple of indices."""
    y = np.array(x)
    _reduce_at(node, y, _tuple_positions(node, indices, x.shape), updates)
    return y


@host_operator("TensorScatter")
def tensor_scatter(node, past, update, write_indices=None):
    """A copy of a cache with new entries from each batch element's write index on."""
    axis = normal_axis(node, node.attributes.get("axis", -2), past.ndim)
    n, length = past.shape[axis], update.shape[axis]
    y = np.array(past)
    for batch, start in enumerate(np.zeros(len(past), np.int64) if write_indices is None else write_indices):
        positions = int(start) + np.arange(length)
        positions = positions % n if node.attributes.get("mode", "linear") == "circular" else bounded(node, positions, n)
        y[batch][(slice(None),) * (axis - 1) + (positions,)] = update[batch]
    return y


@host_operator("Compress")
def compress(node, x, condition):
    """The slices along `axis`, or the elements, where the condition is true."""
    return np.compress(condition.astype(bool), x, node.attributes.get("axis"))


@host_operator("NonZero")
def non_zero(node, x):
    """Coordinates of the elements that are not zero: (rank, count)."""
    return np.array(np.nonzero(np.atleast_1d(x)), np.int64)[:x.ndim]


@host_operator("OneHot")
def one_hot(node, indices, depth, values):
    """values[1] at each index of a new axis of length `depth`, values[0] elsewhere, and everywhere for an index outside."""
    depth = int(np.ravel(depth)[0])
    axis = normal_axis(node, node.attributes.get("axis", -1), indices.ndim + 1)
    indices = np.where(indices < 0, indices + depth, indices)
    classes = np.arange(depth).reshape((depth,) + (1,) * (indices.ndim - axis))
    return np.where(np.expand_dims(indices, axis) == classes, values[1], values[0])


@host_operator("TopK")
def top_k(node, x, k=None):
    """The k largest (or smallest) values along `axis`, and their positions; of equals the first ones."""
    k = int(node.attributes["k"] if k is None else np.ravel(k)[0])
    axis = normal_axis(node, node.attributes.get("axis", -1), x.ndim)
    if node.attributes.get("largest", 1):
        order = x.shape[axis] - 1 - np.flip(np.argsort(np.flip(x, axis), axis, kind="stable"), axis)
    else:
        order = np.argsort(x, axis, kind="stable")
    if not 0 <= k <= x.shape[axis]:
        raise ShapeError(f"{node}: expected k of at most {x.shape[axis]}, the length of axis {axis}, received {k}")
    order = np.take(order, np.arange(k), axis)
    return np.take_along_axis(x, order, axis), order.astype(np.int64)


def _first_of_equal(node, x, best):
    axis = normal_axis(node, node.attributes.get("axis", 0), x.ndim)
    if node.attributes.get("select_last_index", 0):
        y = x.shape[axis] - 1 - best(np.flip(x, axis), axis)
    else:
        y = best(x, axis)
    return np.asarray(np.expand_dims(y, axis) if node.attributes.get("keepdims", 1) else y, np.int64)


@host_operator("ArgMax")
def arg_max(node, x):
    """Position of the largest element along `axis`."""
    return _first_of_equal(node, x, np.argmax)


@host_operator("ArgMin")
def arg_min(node, x):
    """Position of the smallest element along `axis`."""
    return _first_of_equal(node, x, np.argmin)


@host_operator("Hardmax")
def hardmax(node, x):
    """One at the first largest element along `axis`, zero elsewhere; before opset 13 over all axes from `axis` on."""
    legacy = node.version < 13
    axis = normal_axis(node, node.attributes.get("axis", 1 if legacy else -1), x.ndim)
    rows = x.reshape(math.prod(x.shape[:axis]), -1) if legacy else x
    y = np.zeros_like(rows)
    along = 1 if legacy else axis
    np.put_along_axis(y, np.expand_dims(np.argmax(rows, along), along), 1, along)
    return y.reshape(x.shape)


@host_operator("Unique")
def unique(node, x):
    """Distinct values (or slices along `axis`), the first position of each, the way back, and the counts."""
    axis = node.attributes.get("axis")
    y, first, inverse, counts = np.unique(x, return_index=True, return_inverse=True, return_counts=True, axis=axis)
    inverse = inverse.reshape(-1)
    if not node.attributes.get("sorted", 1):
        order = np.argsort(first)
        y, first, counts = np.take(y, order, 0 if axis is None else axis), first[order], counts[order]
        inverse = np.argsort(order)[inverse]
    return y, first.astype(np.int64), inverse.astype(np.int64), counts.astype(np.int64)


@host_operator("ReverseSequence")
def reverse_sequence(node, x, lengths):
    """The first `lengths[i]` time steps of batch element i in reverse order."""
    time, batch = node.attributes.get("time_axis", 0), node.attributes.get("batch_axis", 1)
    steps = np.arange(x.shape[time])[:, None]                               # (T, N)
    order = np.where(steps < lengths, lengths - 1 - steps, steps)
    moved = np.moveaxis(x, (time, batch), (0, 1))                           # (T, N, ...)
    return np.moveaxis(moved[order, np.arange(x.shape[batch])], (0, 1), (time, batch))


@host_operator("Trilu")
def trilu(node, x, k=None):
    """The upper or lower triangle of each matrix, from the k-th diagonal."""
    return (np.triu if node.attributes.get("upper", 1) else np.tril)(x, 0 if k is None else int(np.ravel(k)[0]))


def _cumulate(node, x, axis, accumulate, start: int):
    axis = normal_axis(node, int(np.ravel(axis)[0]), x.ndim)
    reverse = node.attributes.get("reverse", 0)
    y = np.flip(x, axis) if reverse else x
    if node.attributes.get("exclusive", 0):
        head = np.full_like(np.take(y, [0], axis), start)
        y = np.concatenate([head, np.take(y, np.arange(y.shape[axis] - 1), axis)], axis)
    y = accumulate(y, axis).astype(x.dtype)
    return np.flip(y, axis) if reverse else y


@host_operator("CumSum")
def cum_sum(node, x, axis):
    """Running sums along an axis."""
    return _cumulate(node, x, axis, np.cumsum, 0)


@host_operator("CumProd")
def cum_prod(node, x, axis):
    """Running products along an axis."""
    return _cumulate(node, x, axis, np.cumprod, 1)
