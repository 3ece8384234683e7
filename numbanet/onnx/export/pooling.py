"""Pooling.

Where `ceil_mode` lets the last windows reach beyond the padding, that reach is written as padding: it adds -inf to a maximum and, not
being counted, nothing to a mean. So no reader has to know by which rule such windows are kept or dropped.
"""

from __future__ import annotations

from math import prod

import numpy as np

from numbanet.onnx.export.convolution import pads
from numbanet.onnx.export.registry import Operand, translates


def _reached(geometry) -> tuple[tuple[int, int], ...]:
    """Padding (before, after) with what the last window needs beyond it."""
    pairs = []
    for n, f, s, (before, after), d, o in zip(geometry.input_size, geometry.kernel_size, geometry.stride, geometry.padding,
                                              geometry.dilation, geometry.output_size):
        needed = (o - 1) * s + d * (f - 1) + 1 - n - before
        unread = after - needed
        pairs.append((before, after if 0 <= unread < s else max(needed, 0)))
    return tuple(pairs)


def _window(geometry, padding) -> dict:
    return {"kernel_shape": geometry.kernel_size, "strides": geometry.stride, "pads": pads(padding)}


def _positions(b, x, indices: str) -> str:
    """From positions in the whole tensor to those in each plane, int32."""
    planes = b.node("Mod", indices, np.asarray(x.shape[2] * x.shape[3], np.int64))
    return b.cast(Operand(planes, (), np.dtype(np.int64)), np.dtype(np.int32))


def _max_pool(b, x, **window):
    if not b.wanted[1]:
        return b.node("MaxPool", x, **window), None
    y, indices = b.node("MaxPool", x, outputs=2, **window)
    return y, _positions(b, x, indices)


@translates("max_pool2d_forward")
def max_pool2d(b, x, geometry):
    return _max_pool(b, x, dilations=geometry.dilation, **_window(geometry, _reached(geometry)))


@translates("avg_pool2d_forward")
def avg_pool2d(b, x, geometry, count_include_pad, divisor_override):
    reached = _reached(geometry)
    if divisor_override is None and (not count_include_pad or reached == geometry.padding):
        counted = count_include_pad and any(map(any, reached))
        return b.node("AveragePool", x, count_include_pad=int(counted) or None, **_window(geometry, reached))
    # Padding that counts becomes elements; of the rest a sum by a fixed divisor counts all, a mean nothing.
    of_sum = divisor_override is not None
    inside = reached if of_sum else geometry.padding
    padded = x
    if any(map(any, inside)):
        padded = b.node("Pad", x, np.array(pads(inside), np.int64), np.asarray(0, x.dtype), np.array([2, 3], np.int64))
    left = tuple((0, after - own) for (_, after), (_, own) in zip(reached, inside))
    y = b.node("AveragePool", padded, **_window(geometry, tuple((0, max(after, 0)) for _, after in left)))
    return b.node("Mul", y, np.asarray(prod(geometry.kernel_size) / divisor_override, x.dtype)) if of_sum else y


def strip(b, rows: str, size: int, before: int, after: int) -> str:
    """Sums over `size` neighbours along axis 2 of (N, 1, C, L), divided by size; those beyond the ends count as 0."""
    return b.node("AveragePool", rows, kernel_shape=(size, 1), pads=(before, 0, after, 0), count_include_pad=1)


def _even(x, output_size) -> tuple[int, int] | None:
    """The window of all outputs, if they have one."""
    return None if any(n % o for n, o in zip(x.shape[2:], output_size)) else tuple(n // o for n, o in zip(x.shape[2:], output_size))


def _windows(size: int, outputs: int) -> list[tuple[int, int]]:
    return [(i * size // outputs, -(-(i + 1) * size // outputs)) for i in range(outputs)]


@translates("adaptive_avg_pool2d_forward")
def adaptive_avg_pool2d(b, x, output_size):
    if output_size == (1, 1):
        return b.node("GlobalAveragePool", x)
    if kernel := _even(x, output_size):
        return b.node("AveragePool", x, kernel_shape=kernel, strides=kernel, pads=(0, 0, 0, 0))
    rows, columns = (_mean_matrix(n, o, x.dtype) for n, o in zip(x.shape[2:], output_size))
    return b.node("MatMul", b.node("MatMul", rows, x), np.ascontiguousarray(columns.T))


def _mean_matrix(size: int, outputs: int, dtype) -> np.ndarray:
    """(outputs, size): 1 / length of the window inside of it."""
    matrix = np.zeros((outputs, size), dtype)
    for row, (start, stop) in zip(matrix, _windows(size, outputs)):
        row[start:stop] = 1 / (stop - start)
    return matrix


@translates("adaptive_max_pool2d_forward")
def adaptive_max_pool2d(b, x, output_size):
    if output_size == (1, 1) and not b.wanted[1]:
        return b.node("GlobalMaxPool", x), None
    if kernel := _even(x, output_size):
        return _max_pool(b, x, dilations=(1, 1), kernel_shape=kernel, strides=kernel, pads=(0, 0, 0, 0))
    y = x.name
    for axis, outputs in zip((2, 3), output_size):
        along = np.array([axis], np.int64)
        parts = [b.node("ReduceMax", b.node("Slice", y, np.array([start], np.int64), np.array([stop], np.int64), along), along)
                 for start, stop in _windows(x.shape[axis], outputs)]
        y = parts[0] if outputs == 1 else b.node("Concat", *parts, axis=axis)
    return y, None
