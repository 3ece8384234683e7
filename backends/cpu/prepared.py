"""Calls that run again and again with the same weights: packed once, every choice made. See `Backend.prepare`.

Packed weights are shared by all prepared calls, of whatever batch, that pack the same numbers in the same way, as long as one
of these calls lives. Their digest stands for them, so that the arrays themselves may go.
"""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections.abc import Callable, Hashable
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

PREPARERS: dict[str, Callable] = {}
OFFERS: dict[str, Callable] = {}


def prepares(name: str) -> Callable:
    """Register (decorator) what prepares a primitive: a function (arguments, constant) -> callable or None."""
    def register(function):
        PREPARERS[name] = function
        return function
    return register


def offers(*names: str) -> Callable:
    """Register (decorator) what knows of other algorithms: a function (arguments, constant) -> dict of name -> function that prepares."""
    def register(function):
        for name in names:
            OFFERS[name] = function
        return function
    return register


class Packed:
    """Packed weights, in a holder that a weak reference can point to."""

    __slots__ = ("__weakref__", "value")

    def __init__(self, value):
        self.value = value


_shared: weakref.WeakValueDictionary[Hashable, Packed] = weakref.WeakValueDictionary()


_consumed = threading.local()


@contextmanager
def consuming(arrays: list):
    """See `Backend.consuming`."""
    _consumed.arrays = arrays
    try:
        yield
    finally:
        del _consumed.arrays


def may_overwrite(array) -> bool:
    """Whether nobody reads an array once the call that is being prepared is."""
    return any(a is array for a in getattr(_consumed, "arrays", ()))


class Held(NamedTuple):
    """Packed weights, and how to read them as the operand that they were made of: what `Backend.recovery` starts from.

    Attributes
    ----------
    packed : Packed
    groups : int
        Filters are read within one group at a time.
    read : function (packed value, shape (K, ...) of the operand, first filter, rows)
        Fills rows (filters, numbers of one), float64, to the last bits at least; the first filter begins a strip of its group.
    """

    packed: Packed
    groups: int
    read: Callable


def holding(call: Callable, *positions: int, weights: dict[int | tuple[int, int], Held] | None = None) -> Callable:
    """The call, which no longer reads the operands at these positions.

    weights: what it holds of them, by position, or by that of a list and the position in it.
    """
    call.unread, call.weights = positions, weights or {}
    return call


def shared(packing: Hashable, pack: Callable, *sources) -> Packed:
    """pack(*sources), or what an equal call gave before and somebody still holds; sources are arrays, or None."""
    key = (packing, *[None if s is None else (s.shape, s.dtype, hashlib.sha256(np.ascontiguousarray(s)).digest()) for s in sources])
    found = _shared.get(key)
    if found is None:
        found = _shared[key] = Packed(pack(*sources))
    return found
