"""Pooling, one window at a time."""

from __future__ import annotations

import numpy as np

from numbanet.backends.reference.registry import implements


def windows(geometry):
    """For each output position (oh, ow): the input rows and columns of its window that exist."""
    (H, W), (R, S) = geometry.input_size, geometry.kernel_size
    (top, _), (left, _) = geometry.padding
    for oh in range(geometry.output_size[0]):
        rows = [h for r in range(R) if 0 <= (h := oh * geometry.stride[0] + r * geometry.dilation[0] - top) < H]
        for ow in range(geometry.output_size[1]):
            columns = [w for s in range(S) if 0 <= (w := ow * geometry.stride[1] + s * geometry.dilation[1] - left) < W]
            yield oh, ow, rows, columns


def adaptive_windows(input_size, output_size):
    """As :func:`windows`, of adaptive pooling."""
    (H, W), (OH, OW) = input_size, output_size
    for oh in range(OH):
        rows = list(range(oh * H // OH, -((-(oh + 1) * H) // OH)))
        for ow in range(OW):
            yield oh, ow, rows, list(range(ow * W // OW, -((-(ow + 1) * W) // OW)))


def divisors(geometry, count_include_pad, divisor_override):
    """For each output position in order: what the sum over its window is divided by."""
    sizes = []
    for axis in range(2):
        n, (before, after), f = geometry.input_size[axis], geometry.padding[axis], geometry.kernel_size[axis]
        low, high = (-before, n + after) if count_include_pad else (0, n)
        starts = [o * geometry.stride[axis] - before for o in range(geometry.output_size[axis])]
        sizes.append([min(start + f, high) - max(start, low) for start in starts])
    return [divisor_override or rows * columns for rows in sizes[0] for columns in sizes[1]]


def _maxima(x, all_windows, out):
    y, argmax = out
    W = x.shape[3]
    for oh, ow, rows, columns in all_windows:
        positions = np.array([h * W + w for h in rows for w in columns])
        if not len(positions):
            y[:, :, oh, ow], argmax[:, :, oh, ow] = -np.inf, -1
            continue
        values = x[:, :, [[h] for h in rows], columns].reshape(*x.shape[:2], len(positions))
        first = np.argmax(values, axis=2)                     # NumPy: the first NaN, else the first maximum
        y[:, :, oh, ow] = np.take_along_axis(values, first[..., None], 2)[..., 0]
        argmax[:, :, oh, ow] = positions[first]


def _to_maxima(grad_y, argmax, out):
    out[...] = 0
    W = out.shape[3]
    for n, c, oh, ow in np.ndindex(*grad_y.shape):
        position = argmax[n, c, oh, ow]
        if position >= 0:
            out[n, c, position // W, position % W] += grad_y[n, c, oh, ow]


@implements
def max_pool2d_forward(x, geometry, out):
    _maxima(x, windows(geometry), out)


@implements
def max_pool2d_backward_input(grad_y, argmax, geometry, out):
    _to_maxima(grad_y, argmax, out)


@implements
def avg_pool2d_forward(x, geometry, count_include_pad, divisor_override, out):
    counts = divisors(geometry, count_include_pad, divisor_override)
    for (oh, ow, rows, columns), divisor in zip(windows(geometry), counts):
        out[:, :, oh, ow] = x[:, :, [[h] for h in rows], columns].sum((2, 3)) / divisor


@implements
def avg_pool2d_backward_input(grad_y, geometry, count_include_pad, divisor_override, out):
    out[...] = 0
    counts = divisors(geometry, count_include_pad, divisor_override)
    for (oh, ow, rows, columns), divisor in zip(windows(geometry), counts):
        out[:, :, [[h] for h in rows], columns] += (grad_y[:, :, oh, ow] / divisor)[..., None, None]


@implements
def adaptive_max_pool2d_forward(x, output_size, out):
    _maxima(x, adaptive_windows(x.shape[2:], output_size), out)


@implements
def adaptive_max_pool2d_backward_input(grad_y, argmax, input_size, out):
    _to_maxima(grad_y, argmax, out)


@implements
def adaptive_avg_pool2d_forward(x, output_size, out):
    for oh, ow, rows, columns in adaptive_windows(x.shape[2:], output_size):
        out[:, :, oh, ow] = x[:, :, rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1].mean((2, 3))


@implements
def adaptive_avg_pool2d_backward_input(grad_y, input_size, out):
    out[...] = 0
    for oh, ow, rows, columns in adaptive_windows(input_size, grad_y.shape[2:]):
        share = grad_y[:, :, oh, ow] / (len(rows) * len(columns))
        out[:, :, rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1] += share[..., None, None]
