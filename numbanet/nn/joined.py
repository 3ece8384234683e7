"""Neighbouring layers that run as one operation.

Between a convolution, the ReLU behind it and the pooling behind that lie two maps that nobody looks at: unless a hook could, or a
graph is traced (whose passes do the same with more), these layers are one operation. Its numbers are the same, gradients included.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from numbanet._tensor import Tensor
from numbanet.nn.layers.activation import ReLU
from numbanet.nn.layers.convolution import Conv2d
from numbanet.nn.layers.linear import Linear
from numbanet.nn.layers.pooling import MaxPool2d
from numbanet.nn.module import Module


class _PerThread(threading.local):
    apart = False


_local = _PerThread()


@contextmanager
def layers_apart() -> Iterator[None]:
    """Every layer is an operation of its own meanwhile, on this thread: for who reads the tape."""
    before, _local.apart = _local.apart, True
    try:
        yield
    finally:
        _local.apart = before


def can_join(x) -> bool:
    """Whether neighbours may be joined on this input."""
    return type(x) is Tensor and not x.backend.is_tracing and not _local.apart


def forward_joined(modules: list[Module], x):
    """x through the modules, neighbours joined where they may be."""
    position = 0
    while position < len(modules):
        module = modules[position]
        if type(module) in (Conv2d, Linear) and can_join(x):
            forward, count = _joined(modules, position)
            x = module.call_as(forward, x) if count > 1 else module(x)
            position += count
        else:
            x = module(x)
            position += 1
    return x


def _joined(modules: list[Module], position: int) -> tuple[Callable, int]:
    """What runs the module at `position` together with those behind it, and how many modules that are."""
    module = modules[position]
    if not (_is_plain(module) and _follows(modules, position + 1, ReLU)):
        return module, 1
    if type(module) is Conv2d and _follows(modules, position + 2, MaxPool2d) and not modules[position + 2].return_indices:
        return lambda x: module.forward_relu_pool(x, modules[position + 2]), 3
    return module.forward_relu, 2


def _follows(modules: list[Module], position: int, kind: type) -> bool:
    return position < len(modules) and type(modules[position]) is kind and _is_plain(modules[position])


def _is_plain(module: Module) -> bool:
    """Whether the module does what its class says, and nobody looks at what comes out."""
    return module._hooks is None and "forward" not in module.__dict__
