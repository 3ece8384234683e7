"""The reference backend: plain NumPy, obvious loops, any float dtype. The specification and the oracle of every test."""

from __future__ import annotations

from numbanet.backends.host import HostBackend
from numbanet.backends.reference.registry import implements


class ReferenceBackend(HostBackend):
    """Arrays are NumPy's; nothing is fast."""

    name = "reference"
    implementations = implements


def create() -> ReferenceBackend:
    """The backend, all its primitives registered."""
    from numbanet.backends.reference import (  # noqa: F401
        activation,
        convolution,
        elementwise,
        loss,
        pooling,
        shape,
    )
    return ReferenceBackend()
