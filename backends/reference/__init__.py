"""The reference backend: plain NumPy, obvious loops, any float dtype. The specification and the oracle of every test."""

from __future__ import annotations

import importlib

from numbanet.backends.contract import FAMILIES
from numbanet.backends.host import HostBackend
from numbanet.backends.reference.registry import implements


class ReferenceBackend(HostBackend):
    """Arrays are NumPy's; nothing is fast."""

    name = "reference"
    implementations = implements


def create() -> ReferenceBackend:
    """The backend, all its primitives registered."""
    for family in FAMILIES:
        importlib.import_module(f"{__name__}.{family}")
    return ReferenceBackend()
