"""Random numbers of a key (seed, stream); see `philox.py` for which numbers a key means."""

from __future__ import annotations

import numpy as np

from numbanet.backends.contract.checks import check_float
from numbanet.backends.interface import Array, ArraySpec, like, primitive
from numbanet.dtypes import is_floating_point
from numbanet.errors import DTypeError, UsageError

Key = tuple[int, int]


def _check_floating(operation: str, dtype) -> None:
    if not is_floating_point(dtype):
        raise DTypeError(f"{operation}: dtype expects a floating-point dtype, received {dtype}")


@primitive(random=True)
def random_uniform(shape: tuple[int, ...], dtype: np.dtype, low: float, high: float, key: Key):
    """Uniform in [low, high)."""
    _check_floating("random_uniform", dtype)
    if not low <= high:
        raise UsageError(f"random_uniform: expected low <= high, received {low} and {high}")
    return ArraySpec(shape, dtype)


@primitive(random=True)
def random_normal(shape: tuple[int, ...], dtype: np.dtype, mean: float, std: float, key: Key):
    """Normal with this mean and standard deviation."""
    _check_floating("random_normal", dtype)
    if not std >= 0:
        raise UsageError(f"random_normal: std expects a number of at least 0, received {std}")
    return ArraySpec(shape, dtype)


@primitive(random=True)
def random_integers(shape: tuple[int, ...], low: int, high: int, key: Key):
    """int64 in low .. high - 1."""
    if not low < high:
        raise UsageError(f"random_integers: expected low < high, received {low} and {high}")
    return ArraySpec(shape, np.dtype(np.int64))


@primitive(random=True)
def random_permutation(count: int, key: Key):
    """0 .. count - 1 in random order, int64: the stable order of `count` random numbers of 64 bits."""
    return ArraySpec((count,), np.dtype(np.int64))


@primitive(random=True, may_overwrite=("x",))
def dropout(x: Array, probability: float, key: Key):
    """x / (1 - probability), times 0 where the word of the element's position is of the lowest fraction `probability`.

    It is its own gradient: the same call on grad_y.
    """
    check_float("dropout", x=x)
    if not 0 <= probability <= 1:
        raise UsageError(f"dropout: p expects a probability from 0 to 1, received {probability}")
    return like(x)
