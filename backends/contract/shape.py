"""Views, and what rearranges elements."""

from __future__ import annotations

from math import prod

from numbanet.backends.interface import Array, ArraySpec, primitive
from numbanet.errors import ShapeError


@primitive(view=True)
def transpose(x: Array, axes: tuple[int, ...]):
    """A view with the axes in another order."""
    if sorted(axes) != list(range(len(x.shape))):
        raise ShapeError(f"transpose: axes expects a permutation of 0..{len(x.shape) - 1}, received {axes}")
    return ArraySpec(tuple(x.shape[a] for a in axes), x.dtype)


@primitive(view=True)
def reshape(x: Array, shape: tuple[int, ...]):
    """The elements in logical (row-major) order under another shape: a view where strides allow it, else a copy."""
    if prod(shape) != prod(x.shape):
        raise ShapeError(f"reshape: shape {x.shape} has {prod(x.shape)} elements, {shape} has {prod(shape)}")
    return ArraySpec(shape, x.dtype)
