"""What backends with arrays in host memory share: NumPy arrays, memory, and views."""

from __future__ import annotations

import contextlib
import os
from functools import cache, lru_cache
from pathlib import Path

import numpy as np

from numbanet.backends.interface import Backend, dense_strides
from numbanet.errors import IndexRangeError

CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@cache
def memory_size() -> int | None:
    """Bytes of the machine's memory, or of the container's where that is less; None where the system does not tell."""
    found = []
    with contextlib.suppress(AttributeError, ValueError, OSError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in CONTAINER_LIMITS:
        with contextlib.suppress(OSError, ValueError):          # "max": no limit
            found.append(int(Path(path).read_text()))
    return min(found, default=None)


class HostBackend(Backend):
    """Arrays are NumPy arrays."""

    def memory_size(self):
        return memory_size()

    def empty(self, shape, dtype, order=None):
        if order is None:
            return np.empty(shape, dtype)
        array = np.empty([shape[a] for a in order], dtype)
        return array.transpose(np.argsort(order))

    def carve(self, block, offset, shape, dtype, order=None):
        strides = None if order is None else dense_strides(shape, dtype, order)
        return np.ndarray(shape, dtype, block, offset, strides)

    def from_numpy(self, array):
        return array

    def to_numpy(self, array):
        return array

    def may_share_memory(self, first, second):
        return np.may_share_memory(first, second)


@lru_cache(maxsize=4096)
def basic_key(index: tuple) -> tuple:
    """NumPy's key of the index of `slice_view`; its ellipsis makes the result an array, never a number."""
    return (*[slice(*entry) if type(entry) is tuple else entry for entry in index], ...)


def check_index_range(operation: str, index: np.ndarray, axis: int, size: int, lowest: int = 0) -> None:
    """Raise where an index is not in lowest .. size - 1."""
    if index.size and (index.min() < lowest or index.max() >= size):
        position = np.unravel_index(np.argmax((index < lowest) | (index >= size)), index.shape)
        raise IndexRangeError(f"{operation}: index {index[position]} at position {tuple(map(int, position))} is out "
                              "of range for "
                              f"axis {axis} of size {size}")


def checked_key(operation: str, indices, axes: tuple[int, ...], shape: tuple[int, ...]) -> tuple:
    """NumPy's key of integer arrays at `axes`, all in range."""
    key = [slice(None)] * len(shape)
    for index, axis in zip(indices, axes):
        check_index_range(operation, index, axis, shape[axis], -shape[axis])
        key[axis] = index
    return tuple(key)


def axis_key(operation: str, index: np.ndarray, axis: int, shape: tuple[int, ...]) -> tuple:
    """NumPy's key of x[o, index[o, j, r], r] (see `contract/indexing.py`), all in range."""
    check_index_range(operation, index, axis, shape[axis])
    key = list(np.ogrid[tuple(map(slice, index.shape))])
    key[axis] = index
    return tuple(key)
