"""What backends with arrays in host memory share: NumPy arrays, memory, and views."""

from __future__ import annotations

import numpy as np

from numbanet.backends.interface import Backend


class HostBackend(Backend):
    """Arrays are NumPy arrays."""

    def empty(self, shape, dtype, order=None):
        if order is None:
            return np.empty(shape, dtype)
        array = np.empty([shape[a] for a in order], dtype)
        return array.transpose(np.argsort(order))

    def from_numpy(self, array):
        return array

    def to_numpy(self, array):
        return array

    def may_share_memory(self, first, second):
        return np.may_share_memory(first, second)
