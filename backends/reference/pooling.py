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


@implements
def max_pool2d_forward(x, geometry, out):
    y, argmax = out
    W = geometry.input_size[1]
    for oh, ow, rows, columns in windows(geometry):
        positions = np.array([h * W + w for h in rows for w in columns])
        values = x[:, :, [[h] for h in rows], columns].reshape(*x.shape[:2], -1)
        first = np.argmax(values, axis=2)                                         # NumPy: the first NaN, else the first maximum
        y[:, :, oh, ow] = np.take_along_axis(values, first[..., None], 2)[..., 0]
        argmax[:, :, oh, ow] = positions[first]


@implements
def max_pool2d_backward_input(grad_y, argmax, geometry, out):
    out[...] = 0
    N, C = grad_y.shape[:2]
    n, c = np.arange(N)[:, None], np.arange(C)[None]
    W = geometry.input_size[1]
    for oh, ow, _, _ in windows(geometry):
        position = argmax[:, :, oh, ow]
        out[n, c, position // W, position % W] += grad_y[:, :, oh, ow]
