"""Convolution of integers, pooling with positions and their like, in NumPy."""

from __future__ import annotations

import itertools
import math

import numpy as np

from numbanet.onnx.operators.host.common import is_integer
from numbanet.onnx.operators.host.indices import bounded
from numbanet.onnx.operators.registry import host_operator


def spatial(node, x_sizes, kernel):
    """(strides, dilations, pads before, pads after) of a window operator, `auto_pad` resolved."""
    rank = len(kernel)
    strides = node.attributes.get("strides") or [1] * rank
    dilations = node.attributes.get("dilations") or [1] * rank
    pads = node.attributes.get("pads") or [0] * (2 * rank)
    begins, ends = pads[:rank], pads[rank:]
    mode = node.attributes.get("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        totals = [max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n) for n, k, s, d in zip(x_sizes, kernel, strides, dilations)]
        small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
        begins, ends = (small, large) if mode == "SAME_UPPER" else (large, small)
    elif mode == "VALID":
        begins = ends = [0] * rank
    return strides, dilations, begins, ends


def _counts(sizes, kernel, strides, dilations, begins, ends):
    """How many windows stand along each axis."""
    return [max(0, (n + b + e - (k - 1) * d - 1) // s + 1) for n, k, s, d, b, e in zip(sizes, kernel, strides, dilations, begins, ends)]


def _taps(kernel, strides, dilations, counts):
    """For each place in a window: its coordinates, and the index of the pixels (N, C, O1, O2, ...) that all windows have there."""
    for tap in itertools.product(*map(range, kernel)):
        yield tap, (slice(None), slice(None), *(slice(t * d, t * d + s * (o - 1) + 1, s) if o else slice(0)
                                                for t, d, s, o in zip(tap, dilations, strides, counts)))


@host_operator("ConvInteger")
def conv_integer(node, x, w, x_zero_point=None, w_zero_point=None):
    """Convolution of 8-bit integers, less their zero points, into int32."""
    kernel, groups = w.shape[2:], node.attributes.get("group", 1)
    strides, dilations, begins, ends = spatial(node, x.shape[2:], kernel)
    x = x.astype(np.int32) - (0 if x_zero_point is None else np.int32(x_zero_point))
    w = w.astype(np.int32)
    if w_zero_point is not None:
        w = w - w_zero_point.astype(np.int32).reshape((-1,) + (1,) * (w.ndim - 1))
    counts, C = _counts(x.shape[2:], kernel, strides, dilations, begins, ends), w.shape[1]
    x = np.pad(x, [(0, 0), (0, 0), *zip(begins, ends)])
    y = np.zeros((len(x), *counts, len(w)), np.int32)
    for tap, pixels in _taps(kernel, strides, dilations, counts):
        for g, part in enumerate(np.split(w[(slice(None), slice(None), *tap)], groups)):          # (K / groups, C)
            own = slice(g * len(part), (g + 1) * len(part))
            y[..., own] += np.tensordot(x[pixels][:, g * C:(g + 1) * C], part, (1, 1))
    return np.moveaxis(y, -1, 1)


@host_operator("MaxPool")
def max_pool(node, x):
    """Largest element of each window, and where it is in the flat x: by rows, or with `storage_order` each image by columns."""
    kernel, sizes = node.attributes["kernel_shape"], x.shape[2:]
    strides, dilations, begins, ends = spatial(node, sizes, kernel)
    if node.attributes.get("ceil_mode", 0):
        spans = [n + b + e - (k - 1) * d - 1 for n, b, e, k, d in zip(sizes, begins, ends, kernel, dilations)]
        ends = [e + (-span) % s if (span + (-span) % s) < n + b else e for e, span, s, n, b in zip(ends, spans, strides, sizes, begins)]
    counts = _counts(sizes, kernel, strides, dilations, begins, ends)
    lowest = np.iinfo(x.dtype).min if is_integer(x.dtype) else -np.inf
    padded = np.pad(x, [(0, 0), (0, 0), *zip(begins, ends)], constant_values=lowest)
    y, best = np.full((*x.shape[:2], *counts), lowest, x.dtype), np.zeros((*x.shape[:2], *counts), np.int64)
    for number, (_, pixels) in enumerate(_taps(kernel, strides, dilations, counts)):
        larger = ~(padded[pixels] <= y) & (y == y)                  # the first one, and the first NaN stays
        y, best = np.where(larger, padded[pixels], y), np.where(larger, number, best)
    if not node.wants(1):
        return y
    starts = np.indices(best.shape, sparse=True)
    taps = np.unravel_index(best, kernel)
    places = [start * s + tap * d - b for start, s, tap, d, b in zip(starts[2:], strides, taps, dilations, begins)]
    order = slice(None, None, -1) if node.attributes.get("storage_order", 0) else slice(None)
    plane = np.ravel_multi_index(tuple(places)[order], sizes[order], mode="clip")
    return y, (starts[0] * x.shape[1] + starts[1]) * math.prod(sizes) + plane


@host_operator("MaxUnpool")
def max_unpool(node, x, indices, output_shape=None):
    """Each value of x back at its position in the flat image; zeros elsewhere."""
    kernel = node.attributes["kernel_shape"]
    strides, _, begins, ends = spatial(node, x.shape[2:], kernel)
    sizes = [(n - 1) * s + k - b - e for n, s, k, b, e in zip(x.shape[2:], strides, kernel, begins, ends)]
    inferred = (*x.shape[:2], *sizes)
    target = inferred if output_shape is None else tuple(int(n) for n in output_shape)
    y = np.zeros(inferred, x.dtype)
    y.reshape(-1)[bounded(node, indices, y.size).reshape(-1)] = x.reshape(-1)
    if target == inferred:
        return y
    larger = np.zeros(target, x.dtype)
    larger[tuple(slice(0, n) for n in inferred)] = y
    return larger


@host_operator("Col2Im")
def col2im(node, x, image_shape, block_shape):
    """Sum of columns (N, C * K1 * K2 ..., L) at their places in an image (N, C, D1, D2, ...)."""
    image, block = [int(n) for n in image_shape], [int(n) for n in block_shape]
    strides, dilations, begins, ends = spatial(node, image, block)
    padded = [n + b + e for n, b, e in zip(image, begins, ends)]
    counts = _counts(image, block, strides, dilations, begins, ends)
    columns = x.reshape(len(x), -1, *block, *counts)                                # (N, C, K1, K2, ..., O1, O2, ...)
    y = np.zeros((len(x), columns.shape[1], *padded), x.dtype)
    for tap, pixels in _taps(block, strides, dilations, counts):
        y[pixels] += columns[(slice(None), slice(None), *tap)]
    return y[(slice(None), slice(None), *(slice(b, b + n) for b, n in zip(begins, image)))]
