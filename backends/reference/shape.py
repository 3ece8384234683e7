"""Views, and what rearranges elements."""

from __future__ import annotations

from numbanet.backends.reference.registry import implements


@implements
def transpose(x, axes):
    return x.transpose(axes)


@implements
def reshape(x, shape):
    return x.reshape(shape)
