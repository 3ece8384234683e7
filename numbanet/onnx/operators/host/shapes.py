"""Operators that change shapes, in NumPy."""

from __future__ import annotations

import math

import numpy as np

from numbanet.errors import ShapeError
from numbanet.onnx.operators.host.common import normal_axes, normal_axis, operand_or_attribute
from numbanet.onnx.operators.registry import host_operator


@host_operator("Shape", reads_metadata=True)
def shape(node, x):
    """The shape, or its part from `start` to `end`."""
    return np.array(tuple(x.shape)[node.attributes.get("start", 0):node.attributes.get("end")], np.int64)


@host_operator("Size", reads_metadata=True)
def size(node, x):
    """The number of elements."""
    return np.array(math.prod(x.shape), np.int64)


@host_operator("Reshape")
def reshape(node, x, target=None):
    """A new shape; 0 keeps a dimension (unless `allowzero`), -1 takes what is left."""
    target = operand_or_attribute(node, target, "shape")
    if not node.attributes.get("allowzero", 0):
        target = [x.shape[axis] if n == 0 and axis < x.ndim else n for axis, n in enumerate(target)]
    return x.reshape(target)


@host_operator("Flatten")
def flatten(node, x):
    """Two dimensions: those before `axis`, and the rest."""
    axis = node.attributes.get("axis", 1)
    axis = axis if axis == x.ndim else normal_axis(node, axis, x.ndim)
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@host_operator("Transpose")
def transpose(node, x):
    """The axes in the order `perm`, by default reversed."""
    return np.transpose(x, node.attributes.get("perm"))


@host_operator("Squeeze")
def squeeze(node, x, axes=None):
    """Without the axes of length one, all or those given."""
    axes = operand_or_attribute(node, axes, "axes")
    return np.squeeze(x) if axes is None else np.squeeze(x, normal_axes(node, axes, x.ndim))


@host_operator("Unsqueeze")
def unsqueeze(node, x, axes=None):
    """With new axes of length one at the positions `axes` of the result."""
    return np.expand_dims(x, tuple(operand_or_attribute(node, axes, "axes")))


@host_operator("Expand")
def expand(node, x, target):
    """Broadcast with a tensor of shape `target`."""
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(int(n) for n in target)))


@host_operator("Tile")
def tile(node, x, repeats):
    """x repeated along each axis."""
    return np.tile(x, tuple(int(n) for n in repeats))


@host_operator("Concat")
def concat(node, *operands):
    """The operands joined along `axis`."""
    return np.concatenate(operands, node.attributes.get("axis", 1))


@host_operator("Split")
def split(node, x, sizes=None):
    """Parts along `axis`: of the given sizes, or as many as there are outputs, of which only the last may be smaller."""
    axis = normal_axis(node, node.attributes.get("axis", 0), x.ndim)
    sizes = operand_or_attribute(node, sizes, "split")
    if sizes is None:
        parts = len(node.outputs)
        chunk = -(-x.shape[axis] // parts)
        sizes = [chunk] * (parts - 1) + [x.shape[axis] - chunk * (parts - 1)]
    if sum(sizes) != x.shape[axis] or min(sizes, default=0) < 0:
        raise ShapeError(f"{node}: expected sizes that sum to {x.shape[axis]}, the length of axis {axis}, received {sizes}")
    return tuple(np.split(x, np.cumsum(sizes)[:-1], axis))


@host_operator("Slice")
def slice_(node, x, starts=None, ends=None, axes=None, steps=None):
    """x[start:end:step] along the given axes, with NumPy's rule for indices beyond the ends."""
    starts, ends = operand_or_attribute(node, starts, "starts"), operand_or_attribute(node, ends, "ends")
    axes = normal_axes(node, operand_or_attribute(node, axes, "axes") or range(len(starts)), x.ndim)
    steps = [1] * len(starts) if steps is None else [int(step) for step in steps]
    window = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps):
        if step < 0 and end < -x.shape[axis]:
            end = None                          # down to and with the first element
        window[axis] = slice(start, end, step)
    return x[tuple(window)]


@host_operator("Pad")
def pad(node, x, pads=None, value=None, axes=None):
    """More, or with negative numbers fewer, elements at both ends of each axis; pads = begins, then ends."""
    pads = operand_or_attribute(node, pads, "pads")
    axes = normal_axes(node, range(x.ndim) if axes is None else [int(axis) for axis in axes], x.ndim)
    widths = [(0, 0)] * x.ndim
    for axis, begin, end in zip(axes, pads[:len(axes)], pads[len(axes):]):
        widths[axis] = (begin, end)
    mode = node.attributes.get("mode", "constant")
    value = node.attributes.get("value", 0) if value is None or value.size == 0 else value.item()
    extra = {"constant_values": np.asarray(value, x.dtype)} if mode == "constant" else {}
    inner = tuple(slice(max(0, -begin), n - max(0, -end)) for (begin, end), n in zip(widths, x.shape))
    return np.pad(x[inner], [(max(0, begin), max(0, end)) for begin, end in widths], mode, **extra)


@host_operator("DepthToSpace")
def depth_to_space(node, x):
    """Blocks of channels become squares of pixels; DCR: the channel's highest part is the block, CRD: its lowest."""
    N, C, H, W = x.shape
    b = node.attributes["blocksize"]
    if node.attributes.get("mode", "DCR") == "DCR":
        y = x.reshape(N, b, b, C // b**2, H, W).transpose(0, 3, 4, 1, 5, 2)
    else:
        y = x.reshape(N, C // b**2, b, b, H, W).transpose(0, 1, 4, 2, 5, 3)
    return y.reshape(N, C // b**2, H * b, W * b)


@host_operator("SpaceToDepth")
def space_to_depth(node, x):
    """Squares of pixels become channels."""
    N, C, H, W = x.shape
    b = node.attributes["blocksize"]
    y = x.reshape(N, C, H // b, b, W // b, b)
    order = (0, 3, 5, 1, 2, 4) if node.attributes.get("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return y.transpose(order).reshape(N, C * b * b, H // b, W // b)


@host_operator("CenterCropPad")
def center_crop_pad(node, x, target):
    """Each axis cropped to, or padded with zeros to, the target length, around its centre."""
    axes = normal_axes(node, node.attributes.get("axes", range(x.ndim)), x.ndim)
    for axis, n in zip(axes, (int(n) for n in target)):
        missing = n - x.shape[axis]
        window = [slice(None)] * x.ndim
        if missing < 0:
            window[axis] = slice(-missing // 2, -missing // 2 + n)
            x = x[tuple(window)]
        else:
            widths = [(0, 0)] * x.ndim
            widths[axis] = (missing // 2, missing - missing // 2)
            x = np.pad(x, widths)
    return x
