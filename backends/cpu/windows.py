"""Tables of pooling windows along one axis, for kernels: int64 arrays, computed once a geometry.

`windows[o] = (begin, end)`: the positions of window o inside the input (with steps of the dilation).
`covering[i] = (first, last + 1)`: the windows whose span holds input position i; a range, as neither end ever falls.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np


def _covering(windows: np.ndarray, size: int) -> np.ndarray:
    positions = np.arange(size)
    return _readonly(np.stack([np.searchsorted(windows[:, 1], positions, "right"),
                               np.searchsorted(windows[:, 0], positions, "right")], axis=1))


def _readonly(table: np.ndarray) -> np.ndarray:
    table = np.ascontiguousarray(table, dtype=np.int64)
    table.flags.writeable = False
    return table


@lru_cache(maxsize=1024)
def regular(geometry, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """(windows, covering) of one axis of a :class:`PoolGeometry`."""
    size, taps, dilation = geometry.input_size[axis], geometry.kernel_size[axis], geometry.dilation[axis]
    start = np.arange(geometry.output_size[axis]) * geometry.stride[axis] - geometry.padding[axis][0]
    begin = np.where(start < 0, start + -(start // dilation) * dilation, start)          # the first tap inside
    end = np.minimum(start + dilation * (taps - 1) + 1, size)
    windows = _readonly(np.stack([begin, np.maximum(begin, end)], axis=1))
    return windows, _covering(windows, size)


@lru_cache(maxsize=1024)
def adaptive(size: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """(windows, covering) of an axis of `size` elements covered by `outputs` windows."""
    o = np.arange(outputs)
    windows = _readonly(np.stack([o * size // outputs, -(-(o + 1) * size // outputs)], axis=1))
    return windows, _covering(windows, size)


@lru_cache(maxsize=1024)
def divisors(geometry, axis: int, count_include_pad: bool) -> np.ndarray:
    """Number of elements of each window of average pooling along one axis; in padding beyond `ceil_mode` none."""
    size, (before, after) = geometry.input_size[axis], geometry.padding[axis]
    start = np.arange(geometry.output_size[axis]) * geometry.stride[axis] - before
    low, high = (-before, size + after) if count_include_pad else (0, size)
    return _readonly(np.minimum(start + geometry.kernel_size[axis], high) - np.maximum(start, low))


def pairs(windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(window, position) of every element of windows without dilation."""
    lengths = windows[:, 1] - windows[:, 0]
    targets = np.repeat(np.arange(len(windows)), lengths)
    first_pair = np.cumsum(lengths) - lengths
    return targets, np.arange(len(targets)) - first_pair[targets] + windows[targets, 0]
