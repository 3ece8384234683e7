"""Views, and what rearranges elements."""

from __future__ import annotations

import numpy as np

from numbanet.onnx.export.program import Size
from numbanet.onnx.export.registry import Operand, translates


@translates("transpose")
def transpose(b, x, axes):
    return b.node("Transpose", x, perm=axes) if axes != tuple(range(len(axes))) else x.name


def inverse(axes) -> tuple[int, ...]:
    """The axis order that undoes `axes`."""
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))


@translates("reshape")
def reshape(b, x, shape):
    """x under another shape; back to its first shape it is the first value, and the same shape again is the same value."""
    if isinstance(x.name, np.ndarray):
        return x.name.reshape(shape)
    source = b.sources.get(x.name, x)
    if shape == source.shape:
        return source.name
    if (source.name, shape) not in b.reshaped:
        b.reshaped[source.name, shape] = name = _reshape(b, x, shape)
        b.sources[name] = source
    return b.reshaped[source.name, shape]


def _reshape(b, x, shape):
    """Axes of size 1 come or go; else 0 keeps a size in its place, and one size may be -1: most batches need no computing."""
    follows = [a for a, n in enumerate(shape) if isinstance(n, Size)]
    if len(shape) == 2 < len(x.shape) and follows == [0] and shape[0] == x.shape[0] and 0 not in shape:
        return b.node("Flatten", x, axis=1)
    for op_type, short, long in (("Unsqueeze", x.shape, shape), ("Squeeze", shape, x.shape)):
        if (added := _added_ones(short, long)) is not None:
            return b.node(op_type, x, np.array(added, np.int64))
    loose = [a for a in follows if shape[a] != dict(enumerate(x.shape)).get(a)]
    if 0 in shape or len(loose) > 1:
        return b.node("Reshape", x, b.ints(shape), allowzero=1)
    sizes = [(-1 if a in loose else 0) if a in follows else n for a, n in enumerate(shape)]
    return b.node("Reshape", x, np.array(sizes, np.int64))


def _added_ones(short, long) -> list[int] | None:
    """The axes of size 1 that `long` has in addition to `short`; None where it has others."""
    added, rest = [], list(short)
    for axis, n in enumerate(long):
        if rest and rest[0] == n:
            rest.pop(0)
        elif n == 1:
            added.append(axis)
        else:
            return None
    return None if rest else added


@translates("expand")
def expand(b, x, shape):
    if shape == x.shape:
        return x.name
    lead = len(shape) - len(x.shape)
    sizes = [1 if a >= lead and x.shape[a - lead] == n and n != 0 else n for a, n in enumerate(shape)]
    return b.node("Expand", x, b.ints(sizes))


@translates("slice_view")
def slice_view(b, x, index):
    """Slice what is cut, then drop the axes of integers, then add the new ones."""
    kept = [entry for entry in index if entry is not None]
    starts, stops, axes, steps, dropped = [], [], [], [], []
    for axis, entry in enumerate(kept):
        whole = type(entry) is tuple and entry == (0, x.shape[axis], 1)
        if type(entry) is not tuple:
            dropped.append(axis)
            entry = entry, following(entry), 1
        if not whole:
            starts, stops, steps, axes = [*starts, entry[0]], [*stops, entry[1]], [*steps, entry[2]], [*axes, axis]
    y = x
    if axes:
        axes = None if axes == list(range(len(x.shape))) and steps == [1] * len(axes) else np.array(axes, np.int64)
        y = b.node("Slice", x, b.ints(starts), b.ints(stops), axes, None if set(steps) == {1} else np.array(steps, np.int64))
    if dropped:
        y = b.node("Squeeze", y, np.array(dropped, np.int64))
    added = _new_axes(index)
    if added:
        y = b.node("Unsqueeze", y, np.array(added, np.int64))
    return y.name if isinstance(y, Operand) else y


def following(index: int | Size) -> int | Size:
    """index + 1."""
    return Size(index.per_sample, index.constant + 1) if isinstance(index, Size) else index + 1


def _new_axes(index) -> list[int]:
    """Where the result has new axes."""
    places, axis = [], 0
    for entry in index:
        if entry is None:
            places.append(axis)
        axis += entry is None or type(entry) is tuple
    return places


@translates("concatenate")
def concatenate(b, arrays, axis):
    return b.node("Concat", *arrays, axis=axis)


@translates("flip")
def flip(b, x, axes):
    if not axes:
        return x.name
    count = len(axes)
    return b.node("Slice", x, np.full(count, -1, np.int64), np.full(count, np.iinfo(np.int64).min, np.int64), np.array(axes, np.int64),
                  np.full(count, -1, np.int64))


@translates("reorder")
def reorder(b, x, order):
    """Nothing: ONNX knows no memory order."""
    return x.name


@translates("arange")
def arange(b, start, step, count, dtype):
    return b.initializer(b.inside("arange"), (start + step * np.arange(count)).astype(dtype))
