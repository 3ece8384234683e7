"""Limits of fused kernels: each element to [low, high], infinite where there is none."""

from __future__ import annotations

import numpy as np

from numbanet.backends.cpu.compile import worker
from numbanet.backends.cpu.simd import L, load_partial, select, store_partial


def limits(minimum: float | None, maximum: float | None) -> tuple[float, float]:
    """(low, high) for kernels."""
    return -np.inf if minimum is None else minimum, np.inf if maximum is None else maximum


@worker(inline=True)
def limited(value, low, high):
    """value limited to [low, high] lane by lane; a NaN stays as it is, and so does everything between -inf and inf."""
    value = select(value < low, low, value)
    return select(value > high, high, value)


@worker
def limit_run(array, offset, count, low, high):
    """Limit `count` neighbouring floats in place."""
    for i in range(0, count, L):
        store_partial(array, offset + i, limited(load_partial(array, offset + i, count - i), low, high), count - i)
