"""Calls that run again and again with the same weights: packed once, every choice made. See `Backend.prepare`.

Packed weights are shared by all prepared calls, of whatever batch, that pack the same arrays in the same way, as long as one
of these calls lives. A checksum tells whether an array still holds what was packed.
"""

from __future__ import annotations

import weakref
import zlib
from collections.abc import Callable, Hashable

import numpy as np

PREPARERS: dict[str, Callable] = {}


def prepares(name: str) -> Callable:
    """Register (decorator) what prepares a primitive: a function (arguments, constant) -> callable or None."""
    def register(function):
        PREPARERS[name] = function
        return function
    return register


class Packed:
    """Packed weights, in a holder that a weak reference can point to."""

    __slots__ = ("__weakref__", "sources", "value")

    def __init__(self, value, sources):
        self.value = value
        self.sources = sources          # keeps them alive, so that their identities stay theirs


_shared: weakref.WeakValueDictionary[Hashable, Packed] = weakref.WeakValueDictionary()


def shared(packing: Hashable, pack: Callable, *sources) -> Packed:
    """pack(*sources), or what an equal call gave before and somebody still holds; sources are arrays, or None."""
    key = (packing, *[None if s is None else (id(s), zlib.crc32(np.ascontiguousarray(s))) for s in sources])
    found = _shared.get(key)
    if found is None:
        found = _shared[key] = Packed(pack(*sources), sources)
    return found
