"""Reductions: NumPy's functions. 16-bit floats are summed in float32."""

from __future__ import annotations

import numpy as np

from numbanet.backends.reference.registry import implements


def _wide(x, out):
    """x in the dtype in which it is accumulated."""
    if out.dtype.kind in "iu":
        return x.astype(np.int64, copy=False)
    return x.astype(np.float32) if out.dtype.itemsize == 2 else x


@implements
@np.errstate(all="ignore")
def sum(x, axes, keepdims, out):
    out[...] = _wide(x, out).sum(axes, keepdims=keepdims)


@implements
def mean(x, axes, keepdims, out):
    with np.errstate(all="ignore"):
        count = np.prod([x.shape[a] for a in axes], dtype=np.int64)
        out[...] = np.true_divide(_wide(x, out).sum(axes, keepdims=keepdims), count)


@implements
@np.errstate(all="ignore")
def prod(x, axes, keepdims, out):
    out[...] = _wide(x, out).prod(axes, keepdims=keepdims)


@implements
def max_reduce(x, axes, keepdims, out):
    out[...] = x.max(axes, keepdims=keepdims)


@implements
def min_reduce(x, axes, keepdims, out):
    out[...] = x.min(axes, keepdims=keepdims)


@implements
def any(x, axes, keepdims, out):
    out[...] = (x != 0).any(axes, keepdims=keepdims)


@implements
def all(x, axes, keepdims, out):
    out[...] = (x != 0).all(axes, keepdims=keepdims)


@implements
@np.errstate(all="ignore")
def sum_of_squares(arrays, out):
    out[...] = np.sum([np.square(_wide(x, out)).sum() for x in arrays])


@implements
def argmax(x, axis, keepdims, out):
    out[...] = x.argmax(axis, keepdims=keepdims)


@implements
def argmin(x, axis, keepdims, out):
    out[...] = x.argmin(axis, keepdims=keepdims)


def _with_index(x, indices, axis, keepdims, out):
    values = np.take_along_axis(x, indices, axis)
    out[0][...] = values if keepdims else values.squeeze(axis)
    out[1][...] = indices if keepdims else indices.squeeze(axis)


@implements
def max_with_index(x, axis, keepdims, out):
    _with_index(x, x.argmax(axis, keepdims=True), axis, keepdims, out)


@implements
def min_with_index(x, axis, keepdims, out):
    _with_index(x, x.argmin(axis, keepdims=True), axis, keepdims, out)


@implements
@np.errstate(all="ignore")
def cumsum(x, axis, out):
    out[...] = _wide(x, out).cumsum(axis)


def _ascending(x, axis):
    """Positions in ascending order, stable, NaN last."""
    return np.argsort(x, axis, kind="stable")


def _descending(x, axis):
    """Positions in descending order, stable, NaN first: the ascending order of the reversed axis, reversed."""
    return x.shape[axis] - 1 - np.flip(_ascending(np.flip(x, axis), axis), axis)


@implements
def topk(x, k, axis, largest, out):
    indices = (_descending if largest else _ascending)(x, axis).take(np.arange(k), axis)
    _with_index(x, indices, axis, True, out)


@implements
def sort(x, axis, descending, out):
    _with_index(x, (_descending if descending else _ascending)(x, axis), axis, True, out)
