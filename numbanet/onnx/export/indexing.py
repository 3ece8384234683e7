"""Reading and writing at positions that are data."""

from __future__ import annotations

import numpy as np

from numbanet.backends.contract.elementwise import broadcast_shape
from numbanet.errors import UnsupportedOperationError
from numbanet.onnx.export.program import REMEDY, Size
from numbanet.onnx.export.registry import Operand, translates
from numbanet.onnx.export.shape import expand, following, inverse, reshape, transpose


def _positions(b, indices) -> tuple[str, tuple]:
    """The arrays as one of vectors, (..., len(indices)), and their common shape."""
    shape = broadcast_shape("index", *[i.shape for i in indices])
    columns = [b.node("Unsqueeze", expand(b, i, shape), np.array([-1], np.int64)) for i in indices]
    return columns[0] if len(columns) == 1 else b.node("Concat", *columns, axis=-1), shape


def _moved(axes, common: int, rank: int) -> tuple[int, ...]:
    """Axis order that brings (common..., rest...) to where the indexed axes stood, if they were neighbours."""
    neighbours = tuple(axes) == tuple(range(axes[0], axes[0] + len(axes)))
    at = axes[0] if neighbours else 0
    rest = list(range(common, common + rank - len(axes)))
    return (*rest[:at], *range(common), *rest[at:])


@translates("index_get")
def index_get(b, x, indices, axes):
    if len(axes) == 1:
        return b.node("Gather", x, indices[0], axis=axes[0])
    positions, common = _positions(b, indices)
    y = b.node("GatherND", transpose(b, x, _first(axes, len(x.shape))), positions)
    return transpose(b, Operand(y, (), x.dtype), _moved(axes, len(common), len(x.shape)))


@translates("index_put")
def index_put(b, x, indices, axes, values, accumulate):
    positions, common = _positions(b, indices)
    indexed = (*common, *[n for a, n in enumerate(x.shape) if a not in axes])
    moved = _moved(axes, len(common), len(x.shape))
    shape = tuple(indexed[a] for a in moved)
    values = Operand(expand(b, values, shape), shape, x.dtype)
    return _scatter(b, x, axes, positions, transpose(b, values, inverse(moved)), "add" if accumulate else None)


@translates("slice_put")
def slice_put(b, x, index, values):
    entries = [entry for entry in index if entry is not None]
    entries += [(0, n, 1) for n in x.shape[len(entries):]]
    ranges = [entry if type(entry) is tuple else (entry, following(entry), 1) for entry in entries]
    cut = tuple(axis for axis, entry in enumerate(ranges) if entry != (0, x.shape[axis], 1))
    if any(isinstance(i, Size) for axis in cut for i in ranges[axis]):
        raise UnsupportedOperationError(f"a part of the batch is written in place; {REMEDY}")
    kept = tuple(len(range(*ranges[axis])) if axis in cut else n for axis, n in enumerate(x.shape))
    shape = _with_new_axes(index, entries, kept)
    values = Operand(b.cast(values, x.dtype), values.shape, x.dtype)
    values = Operand(reshape(b, Operand(expand(b, values, shape), shape, x.dtype), kept), kept, x.dtype)
    if not cut:
        return values.name
    positions = np.stack(np.meshgrid(*[np.arange(*ranges[axis]) for axis in cut], indexing="ij"), -1).astype(np.int64)
    return _scatter(b, x, cut, positions, transpose(b, values, _first(cut, len(x.shape))), None)


def _with_new_axes(index, entries, kept) -> tuple:
    """The shape of x[index], given the lengths that `entries`, those of `index` for axes of x, keep."""
    lengths = iter([n for entry, n in zip(entries, kept) if type(entry) is tuple])
    shape = [1 if entry is None else next(lengths) for entry in index if entry is None or type(entry) is tuple]
    return (*shape, *lengths)


def _first(axes, rank: int) -> tuple[int, ...]:
    """The axis order that has `axes` in front."""
    return (*axes, *[a for a in range(rank) if a not in axes])


def _scatter(b, x, axes, positions, written, reduction) -> str:
    """x with `written` (common..., rest...) at `positions` (common..., len(axes)) along `axes`: ScatterND does the first axes."""
    order = _first(axes, len(x.shape))
    y = b.node("ScatterND", transpose(b, x, order), positions, written, reduction=reduction)
    return transpose(b, Operand(y, (), x.dtype), inverse(order))


@translates("gather")
def gather(b, x, axis, index):
    return b.node("GatherElements", x, index, axis=axis)


@translates("scatter")
def scatter(b, x, axis, index, src, accumulate):
    if not isinstance(src, Operand):
        src = expand(b, Operand(b.initializer(b.inside("value"), np.asarray(src, x.dtype)), (), x.dtype), index.shape)
    elif src.shape != index.shape:
        src = b.node("Slice", src, np.zeros(len(index.shape), np.int64), b.ints(index.shape))
    return b.node("ScatterElements", x, index, src, axis=axis, reduction="add" if accumulate else None)
