"""Operators that move elements without changing them: reshaping, joining, cutting, padding, indexing; and conversions."""

from __future__ import annotations

import math

import numpy as np

from numbanet import dtypes
from numbanet._tensor import tensor
from numbanet.errors import DTypeError, IndexRangeError, ShapeError, UnsupportedOperationError
from numbanet.nn import functional as F
from numbanet.onnx.operators.registry import operator
from numbanet.onnx.reading import dtype_of
from numbanet.ops import rearrange
from numbanet.ops.factories import full
from numbanet.ops.indexing import gather, index_select


def _ints(values) -> list[int]:
    return [int(n) for n in np.ravel(values)]


def _axis(node, axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise ShapeError(f"{node}: axis {axis} is out of range for {rank} dimensions")
    return axis % rank


# --- shapes ---------------------------------------------------------------------------------------------------------

@operator("Reshape")
def reshape_by_attribute(node, x):
    """x in another shape."""
    return _reshaped(node, x, node.attributes["shape"])


@operator("Reshape", since=5, host=(1,))
def reshape(node, x, shape):
    """x in another shape: 0 keeps a size (unless allowzero), -1 is what is left."""
    return _reshaped(node, x, _ints(shape))


def _reshaped(node, x, shape):
    if not node.attributes.get("allowzero", 0):
        if any(n == 0 and i >= x.ndim for i, n in enumerate(shape)):
            raise ShapeError(f"{node}: shape {shape} copies a size that x {x.shape} does not have")
        copied = [i for i, n in enumerate(shape) if n == 0]
        shape = [x.shape[i] if n == 0 else n for i, n in enumerate(shape)]
        if shape.count(-1) == 1 and any(x.shape[i] == 0 for i in copied):      # of an empty batch the other axes still say what is left
            rest, given = (math.prod(sizes) for sizes in ([n for i, n in enumerate(x.shape) if i not in copied],
                                                          [n for i, n in enumerate(shape) if i not in copied and n != -1]))
            shape = [rest // given if n == -1 and given else n for n in shape]
    return x.reshape(*shape) if shape else x.reshape(())


@operator("Flatten")
def flatten(node, x):
    """x as a matrix: the axes before `axis` are its rows."""
    axis = node.attributes.get("axis", 1)
    if not -x.ndim <= axis <= x.ndim:
        raise ShapeError(f"{node}: axis {axis} is out of range for x {x.shape}")
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@operator("Transpose")
def transpose(node, x):
    """The axes in another order, reversed by default."""
    return x.permute(*node.attributes.get("perm", range(x.ndim)[::-1])) if x.ndim else x


@operator("Squeeze")
def squeeze_by_attribute(node, x):
    """x without axes of size 1."""
    return _squeezed(node, x, node.attributes.get("axes"))


@operator("Squeeze", since=13, host=(1,))
def squeeze(node, x, axes=None):
    """x without axes of size 1."""
    return _squeezed(node, x, None if axes is None else _ints(axes))


def _squeezed(node, x, axes):
    if axes is None:
        removed = {a for a, n in enumerate(x.shape) if n == 1}
    else:
        removed = {_axis(node, a, x.ndim) for a in axes}
        if any(x.shape[a] != 1 for a in removed):
            raise ShapeError(f"{node}: axes {axes} expect sizes of 1, x is {x.shape}")
    return x.reshape(tuple(n for a, n in enumerate(x.shape) if a not in removed))


@operator("Unsqueeze")
def unsqueeze_by_attribute(node, x):
    """x with axes of size 1."""
    return _unsqueezed(node, x, node.attributes["axes"])


@operator("Unsqueeze", since=13, host=(1,))
def unsqueeze(node, x, axes):
    """x with axes of size 1."""
    return _unsqueezed(node, x, _ints(axes))


def _unsqueezed(node, x, axes):
    rank = x.ndim + len(axes)
    added = {_axis(node, a, rank) for a in axes}
    if len(added) != len(axes):
        raise ShapeError(f"{node}: axes {axes} name an axis twice")
    sizes = iter(x.shape)
    return x.reshape(tuple(1 if a in added else next(sizes) for a in range(rank)))


@operator("Expand", since=8, host=(1,))
def expand(node, x, shape):
    """x broadcast against a shape."""
    return x.broadcast_to(np.broadcast_shapes(x.shape, tuple(_ints(shape))))


@operator("Tile")
def tile_axis(node, x, tiles, axis):
    """x repeated along one axis."""
    at = _axis(node, int(axis), x.ndim)
    return rearrange.tile(x, *(int(tiles) if a == at else 1 for a in range(x.ndim)))


@operator("Tile", since=6, host=(1,))
def tile(node, x, repeats):
    """x repeated along every axis."""
    repeats = _ints(repeats)
    if len(repeats) != x.ndim:
        raise ShapeError(f"{node}: repeats expects {x.ndim} values, received {repeats}")
    return rearrange.tile(x, *repeats)


# --- joining and cutting --------------------------------------------------------------------------------------------

@operator("Concat")
def concat(node, *xs):
    """Tensors joined along an axis."""
    return rearrange.cat(list(xs), node.attributes.get("axis", 1)) if len(xs) > 1 else xs[0]


@operator("Split")
def split_by_attribute(node, x, sizes=None):
    """x in parts along an axis, equal ones or of given sizes."""
    sizes = node.attributes.get("split") if sizes is None else _ints(sizes.detach().numpy())
    return _split(node, x, sizes)


@operator("Split", since=13, host=(1,))
def split(node, x, sizes=None):
    """x in parts along an axis: of given sizes, or equal ones, of which the last may be smaller."""
    return _split(node, x, None if sizes is None else _ints(sizes))


def _split(node, x, sizes):
    axis = _axis(node, node.attributes.get("axis", 0), x.ndim)
    n, count = x.shape[axis], len(node.outputs)
    if node.attributes.get("num_outputs", count) != count:
        raise ShapeError(f"{node}: num_outputs expects the number of outputs, {count}, received {node.attributes['num_outputs']}")
    if sizes is None:
        part = -(-n // count)
        sizes = [max(0, min(part, n - i * part)) for i in range(count)]
    if sum(sizes) != n or min(sizes) < 0:
        raise ShapeError(f"{node}: the parts {sizes} expect a sum of {n}")
    return tuple(rearrange.split(x, sizes, axis))


@operator("Slice")
def slice_by_attributes(node, x):
    """Part of each axis from a start to an end."""
    return _sliced(node, x, node.attributes["starts"], node.attributes["ends"], node.attributes.get("axes"), None)


@operator("Slice", since=10, host=(1, 2, 3, 4))
def slice_(node, x, starts, ends, axes=None, steps=None):
    """Part of each axis, in steps that may go backwards."""
    return _sliced(node, x, _ints(starts), _ints(ends), None if axes is None else _ints(axes), None if steps is None else _ints(steps))


def _sliced(node, x, starts, ends, axes, steps):
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise ShapeError(f"{node}: expected as many starts as ends, axes and steps, received {starts}, {ends}, {axes}, {steps}")
    key, turned = [slice(None)] * x.ndim, []
    for start, end, axis, step in zip(starts, ends, axes, steps):
        axis = _axis(node, axis, x.ndim)
        if step == 0:
            raise ShapeError(f"{node}: steps expects values other than 0")
        n = x.shape[axis]
        # Python's rules, but an end of -1 - n or less with a negative step means the beginning.
        bounds = slice(start, None if step < 0 and end < -n else end, step).indices(n)
        kept = range(*bounds)
        if step > 0:
            key[axis] = slice(kept.start, max(kept.start, kept.stop), step)
        else:               # forwards first, then turned
            key[axis] = slice(kept[-1], kept[0] + 1, -step) if kept else slice(0, 0)
            turned.append(axis)
    x = x[tuple(key)]
    return x.flip(turned) if turned else x


# --- padding --------------------------------------------------------------------------------------------------------

@operator("Pad")
def pad_by_attributes(node, x):
    """Elements added around x."""
    pads = node.attributes.get("pads", node.attributes.get("paddings"))
    return _padded(node, x, pads, node.attributes.get("value", 0.0), None)


@operator("Pad", since=11, host=(1, 2, 3))
def pad(node, x, pads, value=None, axes=None):
    """Elements added around x: a constant, or x's own, mirrored, repeated or from the other side."""
    return _padded(node, x, _ints(pads), 0 if value is None or not value.size else value.item(), None if axes is None else _ints(axes))


def _padded(node, x, pads, value, axes):
    axes = list(range(x.ndim)) if axes is None else [_axis(node, a, x.ndim) for a in axes]
    if len(pads) != 2 * len(axes):
        raise ShapeError(f"{node}: pads expects {2 * len(axes)} values, received {pads}")
    mode = node.attributes.get("mode", "constant")
    pairs = {axis: (before, after) for axis, before, after in zip(axes, pads, pads[len(axes):])}
    if mode == "constant":
        amounts = [amount for axis in reversed(range(x.ndim)) for amount in pairs.get(axis, (0, 0))]
        return F.pad(x, amounts, value=value)
    if mode not in ("reflect", "edge", "wrap"):
        raise UnsupportedOperationError(f"{node}: mode expects constant, reflect, edge or wrap, received {mode!r}")
    for axis, (before, after) in pairs.items():
        if before or after:
            kept = np.arange(max(0, -before), x.shape[axis] - max(0, -after))
            x = _selected(x, axis, np.pad(kept, (max(before, 0), max(after, 0)), mode=mode))
    return x


def _selected(x, axis: int, positions: np.ndarray):
    """x at positions along an axis."""
    return index_select(x, axis, tensor(positions.astype(np.int64), device=x.device))


# --- indexing -------------------------------------------------------------------------------------------------------

@operator("Gather")
def gather_(node, x, indices):
    """x at positions along an axis; negative ones count from the end."""
    axis = _axis(node, node.attributes.get("axis", 0), x.ndim)
    flat = _positions(indices.reshape(-1), x.shape[axis])
    y = index_select(x, axis, flat)
    return y.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1:])


@operator("GatherElements", since=11)
def gather_elements(node, x, indices):
    """x at positions along an axis, one for each element."""
    axis = _axis(node, node.attributes.get("axis", 0), x.ndim)
    return gather(x, axis, _positions(indices, x.shape[axis]))


def _positions(indices, n: int):
    """Indices as int64 from 0 to n - 1."""
    indices = indices.long()
    return indices + (indices < 0).long() * n


@operator("DepthToSpace")
def depth_to_space(node, x):
    """Blocks of channels as blocks of pixels."""
    if x.ndim != 4:
        raise ShapeError(f"{node}: expected x (N, C, H, W), received {x.shape}")
    N, C, H, W = x.shape
    b = node.attributes["blocksize"]
    if b < 1 or C % (b * b):
        raise ShapeError(f"{node}: blocksize {b} expects channels in multiples of {b * b}, x is {x.shape}")
    if node.attributes.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, b)
    return x.reshape(N, b, b, C // (b * b), H, W).permute(0, 3, 4, 1, 5, 2).reshape(N, C // (b * b), H * b, W * b)


@operator("SpaceToDepth")
def space_to_depth(node, x):
    """Blocks of pixels as blocks of channels."""
    if x.ndim != 4:
        raise ShapeError(f"{node}: expected x (N, C, H, W), received {x.shape}")
    N, C, H, W = x.shape
    b = node.attributes["blocksize"]
    if b < 1 or H % b or W % b:
        raise ShapeError(f"{node}: blocksize {b} expects sizes in multiples of it, x is {x.shape}")
    blocks = x.reshape(N, C, H // b, b, W // b, b)
    order = (0, 1, 3, 5, 2, 4) if node.attributes.get("mode", "DCR") == "CRD" else (0, 3, 5, 1, 2, 4)
    return blocks.permute(*order).reshape(N, C * b * b, H // b, W // b)


# --- conversion and creation ----------------------------------------------------------------------------------------

@operator("Cast")
def cast(node, x):
    """x in another dtype."""
    to = node.attributes["to"]
    return _converted(node, x, dtypes.as_dtype(to.lower()) if isinstance(to, str) else dtype_of(to, str(node)))


@operator("CastLike", since=15)
def cast_like(node, x, like):
    """x in the dtype of another value."""
    return _converted(node, x, like.dtype)


def _converted(node, x, dtype):
    if dtype.kind in "iu" and dtype not in (dtypes.int64, dtypes.int32, dtypes.uint8):
        raise DTypeError(f"{node}: tensors cannot be of {dtype}")       # its twin computes it
    return x.to(dtype)


@operator("ConstantOfShape", since=9, host=(0,))
def constant_of_shape(node, shape):
    """One value in a shape: a tensor of floats; integers, which mostly serve shapes, as a NumPy array."""
    value = np.asarray(node.attributes.get("value", np.zeros(1, np.float32)))
    if value.size != 1:
        raise ShapeError(f"{node}: value expects one element, received {value.shape}")
    sizes = tuple(_ints(shape))
    if min(sizes, default=0) < 0:
        raise IndexRangeError(f"{node}: expected sizes of at least 0, received {sizes}")
    if not dtypes.is_floating_point(value.dtype):
        return np.full(sizes, value.item(), value.dtype)
    return full(sizes, value.item(), dtype=value.dtype, device=node.device)
