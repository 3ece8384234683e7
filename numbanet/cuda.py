"""What scripts ask `torch.cuda` before they choose a device: ``"cuda" if cuda.is_available() else "cpu"``."""

from __future__ import annotations

from numbanet.backends import get_backend
from numbanet.errors import BackendError
from numbanet.random import manual_seed

__all__ = ["device_count", "is_available", "manual_seed", "manual_seed_all"]


def is_available() -> bool:
    """Whether tensors can be on the device "cuda"; ``numbanet.backends.available_backends()`` says why not."""
    try:
        get_backend("cuda")
    except BackendError:
        return False
    return True


def device_count() -> int:
    """Number of devices: 1 where there is one, else 0."""
    return int(is_available())


def manual_seed_all(seed: int) -> None:
    """The same as :func:`numbanet.manual_seed`: one generator serves all devices."""
    manual_seed(seed)
