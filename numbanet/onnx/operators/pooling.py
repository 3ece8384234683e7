"""Pooling: windows over one to three spatial axes, and over all of them."""

from __future__ import annotations

import itertools
import math

from numbanet import dtypes
from numbanet.errors import ShapeError, UnsupportedOperationError
from numbanet.nn import functional as F
from numbanet.onnx.operators.registry import operator
from numbanet.onnx.operators.windows import padding_of, per_axis, positive
from numbanet.ops.factories import arange, ones

MOST_TAPS = 4096            # of a window that is summed tap by tap


def _window(node, x):
    """(axes, kernel, stride, padding, dilation), checked; ceil_mode with auto_pad means nothing, since sizes are given by it."""
    axes = x.ndim - 2
    if axes not in (1, 2, 3):
        raise UnsupportedOperationError(f"{node}: expected x with 1 to 3 spatial axes, received {x.shape}")
    if "kernel_shape" not in node.attributes:
        raise ShapeError(f"{node}: the attribute kernel_shape is missing")
    kernel = per_axis(node, "kernel_shape", axes)
    stride, dilation = per_axis(node, "strides", axes), per_axis(node, "dilations", axes)
    positive(node, kernel_shape=kernel, strides=stride, dilations=dilation)
    return axes, kernel, stride, padding_of(node, x.shape[2:], kernel, stride, dilation), dilation


def _padded(x, padding, value):
    """x with the padding as elements."""
    return F.pad(x, [amount for pair in reversed(padding) for amount in pair], value=value)


def _is_native(padding, kernel, axes: int) -> bool:
    """Whether the pooling functions take this padding: at most half of the window; in three axes the same on both sides."""
    return all(0 <= 2 * max(pair) <= f for pair, f in zip(padding, kernel)) and (axes < 3 or all(p == q for p, q in padding))


def _as_map(x, *per_axis_values):
    """One spatial axis as two: (N, C, 1, L), with windows of one row."""
    return x.reshape(*x.shape[:2], 1, x.shape[2]), *((neutral, *values) for neutral, values in per_axis_values)


@operator("MaxPool")
def max_pool(node, x):
    """The maximum of each window, and on request its position in the flattened x."""
    if not dtypes.is_floating_point(x.dtype):
        if x.element_size() > 1:
            raise UnsupportedOperationError(f"{node}: expected floating point or 8-bit integers, received {x.dtype}")
        y, indices = _max_pool(node, x.float())
        return y.to(x.dtype), indices
    return _max_pool(node, x)


def _max_pool(node, x):
    axes, kernel, stride, padding, dilation = _window(node, x)
    sizes, wanted, ceil_mode = x.shape[2:], node.wants(1), bool(node.attributes.get("ceil_mode", 0))
    offset, grown = (0,) * axes, sizes
    if not _is_native(padding, kernel, axes):
        x, offset = _padded(x, padding, -math.inf), tuple(p for p, _ in padding)
        grown, padding = x.shape[2:], ((0, 0),) * axes
    if axes == 3:
        result = F.max_pool3d(x, kernel, stride, tuple(p for p, _ in padding), dilation, ceil_mode, wanted)
    elif axes == 2:
        result = F.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode, wanted)
    else:
        x, kernel, stride, padding, dilation = _as_map(x, (1, kernel), (1, stride), ((0, 0), padding), (1, dilation))
        result = F.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode, wanted)
        result = tuple(r.squeeze(2) for r in result) if wanted else result.squeeze(2)
    if not wanted:
        return result, None
    y, position = result
    coordinates = []
    for n, before in zip(reversed(grown), reversed(offset)):            # from the last axis on
        coordinates.append(position % n - before)
        position = position // n
    # Row-major: the last axis runs fastest. storage_order 1: the first spatial axis does.
    order = coordinates if not node.attributes.get("storage_order", 0) else coordinates[::-1]
    lengths = sizes[::-1] if order is coordinates else sizes
    indices, step = 0, 1
    for coordinate, n in zip(order, lengths):
        indices, step = coordinate * step + indices, step * n
    planes = arange(math.prod(y.shape[:2]), device=y.device).reshape(*y.shape[:2], *(1,) * axes)
    return y, indices + planes * step


@operator("AveragePool")
def average_pool(node, x):
    """The mean of each window; padding counts where count_include_pad says so."""
    axes, kernel, stride, padding, dilation = _window(node, x)
    include, ceil_mode = bool(node.attributes.get("count_include_pad", 0)), bool(node.attributes.get("ceil_mode", 0))
    if max(dilation) == 1 and _is_native(padding, kernel, axes):
        if axes == 3:
            return F.avg_pool3d(x, kernel, stride, tuple(p for p, _ in padding), ceil_mode, include)
        if axes == 2:
            return F.avg_pool2d(x, kernel, stride, padding, ceil_mode, include)
        x, kernel, stride, padding = _as_map(x, (1, kernel), (1, stride), ((0, 0), padding))
        return F.avg_pool2d(x, kernel, stride, padding, ceil_mode, include).squeeze(2)
    counted = ones(1, 1, *x.shape[2:], dtype=x.dtype, device=x.device)
    counts = _window_sums(counted, kernel, stride, padding, dilation, ceil_mode, border=float(include))
    return _window_sums(x, kernel, stride, padding, dilation, ceil_mode) / counts


def _window_sums(x, kernel, stride, padding, dilation, ceil_mode, border=0.0):
    """The sum of each window, tap by tap, where the pooling kernels do not take it; padding is filled with `border`."""
    if math.prod(kernel) > MOST_TAPS:
        raise UnsupportedOperationError(f"pooling: with these paddings or dilations windows of at most {MOST_TAPS} elements are supported, "
                                        f"received {kernel}")
    rounding = math.ceil if ceil_mode else math.floor
    sizes, beyond = [], []
    for n, f, s, (before, after), d in zip(x.shape[2:], kernel, stride, padding, dilation):
        o = rounding((n + before + after - d * (f - 1) - 1) / s) + 1
        o -= ceil_mode and (o - 1) * s >= n + before        # the last window must start inside of x or before it
        sizes.append(o)
        beyond.append((0, max(0, (o - 1) * s + d * (f - 1) + 1 - n - before - after)))      # reached by ceil_mode only
    if min(sizes) < 1:
        raise ShapeError(f"pooling: the output would be of size {tuple(sizes)}, expected at least 1: x {x.shape}, window {kernel}")
    x, total = _padded(_padded(x, padding, border), beyond, 0.0), None
    for tap in itertools.product(*map(range, kernel)):
        window = [slice(t * d, t * d + (o - 1) * s + 1, s) for t, d, o, s in zip(tap, dilation, sizes, stride)]
        part = x[(slice(None), slice(None), *window)]
        total = part if total is None else total + part
    return total


@operator("LpPool")
def lp_pool(node, x):
    """(sum |x|**p)**(1/p) of each window."""
    _, kernel, stride, padding, dilation = _window(node, x)
    p = node.attributes.get("p", 2)
    sums = _window_sums(x.abs()**p, kernel, stride, padding, dilation, bool(node.attributes.get("ceil_mode", 0)))
    return sums**(1 / p)


def _spatial(x) -> list[int]:
    if x.ndim < 3:
        raise ShapeError(f"global pooling: expected x (N, C, ...) of at least 3 dimensions, received {x.shape}")
    return list(range(2, x.ndim))


@operator("GlobalAveragePool")
def global_average_pool(node, x):
    """The mean of each channel."""
    return x.mean(_spatial(x), keepdim=True)


@operator("GlobalMaxPool")
def global_max_pool(node, x):
    """The maximum of each channel."""
    return x.amax(_spatial(x), keepdim=True)


@operator("GlobalLpPool")
def global_lp_pool(node, x):
    """(sum |x|**p)**(1/p) of each channel."""
    p = node.attributes.get("p", 2)
    return (x.abs()**p).sum(_spatial(x), keepdim=True)**(1 / p)
