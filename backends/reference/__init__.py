"""The reference backend: plain NumPy, obvious loops, any float dtype. The specification and the oracle of every test."""

from __future__ import annotations

import importlib

import numpy as np

from numbanet.backends.contract import FAMILIES
from numbanet.backends.host import HostBackend
from numbanet.backends.reference.registry import implements


class ReferenceBackend(HostBackend):
    """Arrays are NumPy's; nothing is fast."""

    name = "reference"
    implementations = implements

    def bind(self, declared):
        """Infinities and NaN are results like others: NumPy warns of none."""
        return np.errstate(all="ignore")(super().bind(declared))


def create() -> ReferenceBackend:
    """The backend, all its primitives registered."""
    for family in FAMILIES:
        importlib.import_module(f"{__name__}.{family}")
    return ReferenceBackend()
