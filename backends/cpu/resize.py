"""Resizing on the CPU: taps for the kernel of `resample.py`, cached by sizes."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from numbanet.backends.contract.resize import linear_sources, nearest_sources
from numbanet.backends.cpu.registry import implements
from numbanet.backends.cpu.resample import Taps, make_taps, resample


@lru_cache(maxsize=1024)
def _nearest_taps(size: int, outputs: int, scale: float | None, backward: bool, dtype) -> Taps:
    targets, sources = np.arange(outputs), nearest_sources(size, outputs, scale)
    return make_taps(sources, targets, 1, size, dtype) if backward else make_taps(targets, sources, 1, outputs, dtype)


@lru_cache(maxsize=1024)
def _linear_taps(size: int, outputs: int, scale: float | None, align_corners: bool, backward: bool, dtype) -> Taps:
    first, second, weight = linear_sources(size, outputs, scale, align_corners, dtype)
    targets, sources = np.tile(np.arange(outputs), 2), np.concatenate([first, second])
    weights = np.concatenate([1 - weight, weight])
    if backward:
        return make_taps(sources, targets, weights, size, dtype)
    return make_taps(targets, sources, weights, outputs, dtype)


@implements
def resize2d_nearest_forward(x, output_size, scales, out):
    rows, columns = (_nearest_taps(*sizes, False, out.dtype) for sizes in zip(x.shape[2:], output_size, scales))
    resample(x, rows, columns, None, out)


@implements
def resize2d_nearest_backward_input(grad_y, input_size, scales, out):
    rows, columns = (_nearest_taps(*sizes, True, out.dtype) for sizes in zip(input_size, grad_y.shape[2:], scales))
    resample(grad_y, rows, columns, None, out)


@implements
def resize2d_bilinear_forward(x, output_size, scales, align_corners, out):
    rows, columns = (_linear_taps(*sizes, align_corners, False, out.dtype)
                     for sizes in zip(x.shape[2:], output_size, scales))
    resample(x, rows, columns, None, out)


@implements
def resize2d_bilinear_backward_input(grad_y, input_size, scales, align_corners, out):
    rows, columns = (_linear_taps(*sizes, align_corners, True, out.dtype)
                     for sizes in zip(input_size, grad_y.shape[2:], scales))
    resample(grad_y, rows, columns, None, out)
