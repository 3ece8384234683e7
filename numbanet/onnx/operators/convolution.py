"""Conv and ConvTranspose, of one to three spatial axes."""

from __future__ import annotations

from numbanet.errors import OnnxError, ShapeError, UnsupportedOperationError
from numbanet.nn import functional as F
from numbanet.onnx.operators.registry import operator
from numbanet.onnx.operators.windows import halves, padding_of, per_axis, positive

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def _attributes(node, x, w):
    """(axes, kernel, stride, dilation, groups), checked."""
    axes = x.ndim - 2
    if axes not in CONVOLUTIONS or w.ndim != x.ndim:
        raise UnsupportedOperationError(f"{node}: expected x and w with 1 to 3 spatial axes, received {x.shape} and {w.shape}")
    kernel = tuple(w.shape[2:])
    if tuple(node.attributes.get("kernel_shape", kernel)) != kernel:
        raise ShapeError(f"{node}: kernel_shape {node.attributes['kernel_shape']} is not that of w {w.shape}")
    stride, dilation = per_axis(node, "strides", axes), per_axis(node, "dilations", axes)
    positive(node, strides=stride, dilations=dilation, kernel_shape=kernel)
    return axes, kernel, stride, dilation, node.attributes.get("group", 1)


@operator("Conv")
def conv(node, x, w, b=None):
    """Convolution (cross-correlation): x (N, C, ...), w (K, C / group, ...)."""
    axes, kernel, stride, dilation, groups = _attributes(node, x, w)
    padding = padding_of(node, x.shape[2:], kernel, stride, dilation)
    return CONVOLUTIONS[axes](x, w, b, stride, padding, dilation, groups)


@operator("ConvTranspose")
def conv_transpose(node, x, w, b=None):
    """Transposed convolution: x (N, C, ...), w (C, K / group, ...)."""
    axes, kernel, stride, dilation, groups = _attributes(node, x, w)
    extra = per_axis(node, "output_padding", axes, 0)
    if min(extra) < 0:
        raise ShapeError(f"{node}: output_padding expects values of at least 0, received {list(extra)}")
    # All rows that a tap of some window reaches; padding cuts rows off, and output_padding adds some at the far side.
    full = tuple((n - 1) * s + d * (f - 1) + 1 for n, s, d, f in zip(x.shape[2:], stride, dilation, kernel))
    pads = _padding(node, x.shape[2:], full, stride, extra)
    sizes = tuple(n - p - q + e for n, (p, q), e in zip(full, pads, extra))
    if min(sizes) < 1:
        raise ShapeError(f"{node}: the output would be of size {sizes}, expected at least 1: x {x.shape}, pads {pads}")
    if axes < 3 and all(p == q and e < max(s, d) for (p, q), e, s, d in zip(pads, extra, stride, dilation)) and max(extra) == 0:
        function = F.conv_transpose1d if axes == 1 else F.conv_transpose2d
        return function(x, w, b, stride, tuple(p for p, _ in pads), 0, groups, dilation)
    y = _full(x, w, stride, dilation, groups)
    cut = [amount for (p, _), n, size in zip(pads[::-1], full[::-1], sizes[::-1]) for amount in (-p, size + p - n)]
    y = F.pad(y, cut) if any(cut) else y
    return y if b is None else y + b.reshape(1, -1, *(1,) * axes)


def _padding(node, sizes, full, stride, extra):
    shape, auto = node.attributes.get("output_shape"), node.attributes.get("auto_pad", "NOTSET")
    if shape is None and auto in ("SAME_UPPER", "SAME_LOWER"):
        shape = [n * s for n, s in zip(sizes, stride)]
    if shape is None:
        return padding_of(node, sizes, (1,) * len(sizes), stride, (1,) * len(sizes))
    shape = shape[-len(sizes):]
    if len(shape) != len(sizes):
        raise OnnxError(f"{node}: output_shape expects {len(sizes)} values, received {shape}")
    totals = [n + e - wanted for n, e, wanted in zip(full, extra, shape)]
    # Unlike elsewhere, NOTSET puts the odd row before (the formula of the operator's page).
    return tuple(halves(total, "SAME_UPPER" if auto == "SAME_UPPER" else "SAME_LOWER") for total in totals)


def _full(x, w, stride, dilation, groups):
    """The transposed convolution without padding and bias."""
    axes = x.ndim - 2
    if axes < 3:
        function = F.conv_transpose1d if axes == 1 else F.conv_transpose2d
        return function(x, w, None, stride, 0, 0, groups, dilation)
    # Three axes: a convolution of x with zeros between its elements by the mirrored filters.
    for axis, s in enumerate(stride, 2):
        if s > 1:
            n = x.shape[axis]
            x = F.pad(x.unsqueeze(axis + 1), [0, 0] * (x.ndim - axis - 1) + [0, s - 1])             # (..., n, s, ...)
            x = x.flatten(axis, axis + 1).narrow(axis, 0, (n - 1) * s + 1)
    C, per_group = w.shape[:2]
    w = w.reshape(groups, C // groups, per_group, *w.shape[2:]).transpose(1, 2)
    w = w.reshape(groups * per_group, C // groups, *w.shape[3:]).flip(2, 3, 4)
    return F.conv3d(x, w, None, 1, tuple(d * (f - 1) for d, f in zip(dilation, w.shape[2:])), dilation, groups)
