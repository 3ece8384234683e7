"""Resizing: taps for the kernels of `resample.py`."""

from __future__ import annotations

import numpy as np

from numbanet.backends.contract.resize import linear_sources, nearest_sources
from numbanet.backends.cuda.registry import implements
from numbanet.backends.cuda.resample import resample, take


def _nearest(inputs, outputs, scales) -> list[np.ndarray]:
    return [nearest_sources(*sizes) for sizes in zip(inputs, outputs, scales)]


def _linear(inputs, outputs, scales, align_corners, dtype) -> list[tuple]:
    """Of each axis: output positions, input positions and weights of two taps a position."""
    taps = []
    for size, count, scale in zip(inputs, outputs, scales):
        first, second, weight = linear_sources(size, count, scale, align_corners, dtype)
        taps.append((np.tile(np.arange(count), 2), np.concatenate([first, second]), np.concatenate([1 - weight, weight])))
    return taps


@implements
def resize2d_nearest_forward(x, output_size, scales, out):
    take(x, *_nearest(x.shape[2:], output_size, scales), out)


@implements
def resize2d_nearest_backward_input(grad_y, input_size, scales, out):
    resample(grad_y, *[(sources, np.arange(len(sources)), 1) for sources in _nearest(input_size, grad_y.shape[2:], scales)], out)


@implements
def resize2d_bilinear_forward(x, output_size, scales, align_corners, out):
    resample(x, *_linear(x.shape[2:], output_size, scales, align_corners, x.dtype), out)


@implements
def resize2d_bilinear_backward_input(grad_y, input_size, scales, align_corners, out):
    taps = _linear(input_size, grad_y.shape[2:], scales, align_corners, out.dtype)
    resample(grad_y, *[(sources, targets, weights) for targets, sources, weights in taps], out)
