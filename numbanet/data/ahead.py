"""Batches on their way to a GPU while the one before is worked on: what `DataLoader(pin_memory=True, pin_memory_device="cuda")` does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numbanet._tensor import Tensor
from numbanet.backends import get_backend
from numbanet.errors import UsageError


def check_device(device: str) -> None:
    """Raise unless batches can be copied ahead to it."""
    if not hasattr(get_backend(device), "from_numpy_ahead"):
        raise UsageError(f"DataLoader: pin_memory_device expects a GPU, such as 'cuda' or 'cuda:0', received {device!r}; leave it out")


def ahead(batches: Iterator[Any], device: str) -> Iterator[Any]:
    """The batches, tensors of them on the device; each is asked for, and its copy begun, before the one before is handed out."""
    backend, waiting = get_backend(device), []
    try:
        for batch in batches:
            ready: list = []
            waiting.append((_moved(batch, backend, ready), ready))
            if len(waiting) == 2:
                yield _arrived(waiting.pop(0))
        while waiting:
            yield _arrived(waiting.pop(0))
    finally:
        for one in waiting:                 # the loop was left: memory must not be reused while a copy is under way
            _arrived(one)
        batches.close()


def _arrived(one: tuple[Any, list]) -> Any:
    batch, ready = one
    for wait in ready:
        wait()
    return batch


def _moved(value: Any, backend, ready: list) -> Any:
    if isinstance(value, Tensor):
        if value.backend is backend:
            return value
        array, wait = backend.from_numpy_ahead(value.detach().numpy())
        ready.append(wait)
        return Tensor._wrap(array, backend)
    if isinstance(value, dict):
        return type(value)((name, _moved(part, backend, ready)) for name, part in value.items())
    if isinstance(value, (tuple, list)):
        parts = [_moved(part, backend, ready) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value
