"""Elementwise arithmetic with broadcasting (NumPy's rules), and filling and copying."""

from __future__ import annotations

import numpy as np

from numbanet.backends.interface import Array, ArraySpec, Scalar, like, order_of, primitive
from numbanet.dtypes import result_type
from numbanet.errors import ShapeError

BOOL = np.dtype(np.bool_)


def broadcast_shape(operation: str, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The common shape of operands, or a ShapeError that names them."""
    first = shapes[0]
    if all(s == first for s in shapes):
        return first
    rank = max(map(len, shapes))
    result = []
    for axis in range(-rank, 0):
        sizes = {s[axis] for s in shapes if len(s) >= -axis} - {1}
        if len(sizes) > 1:
            raise ShapeError(f"{operation}: shapes {' and '.join(map(str, shapes))} do not broadcast: axis {axis} has sizes "
                             f"{sorted(sizes)}; they must be equal or 1")
        result.append(sizes.pop() if sizes else 1)
    return tuple(result)


def elementwise_spec(operation: str, *operands, dtype=None) -> ArraySpec:
    """Broadcast shape, promoted dtype, and the memory order of the first operand that has the whole shape."""
    arrays = [x for x in operands if hasattr(x, "shape")]
    shape = broadcast_shape(operation, *(x.shape for x in arrays))
    dtype = result_type(*operands) if dtype is None else dtype
    for x in arrays:
        if x.shape == shape:
            return ArraySpec(shape, dtype, order_of(x))
    return ArraySpec(shape, dtype)


@primitive(may_overwrite=("a", "b"))
def add(a: Array | Scalar, b: Array | Scalar):
    """a + b."""
    return elementwise_spec("add", a, b)


@primitive(may_overwrite=("a", "b"))
def multiply(a: Array | Scalar, b: Array | Scalar):
    """a * b."""
    return elementwise_spec("multiply", a, b)


@primitive
def copy(x: Array):
    """The same values in memory of their own, in x's order unless `out` has another; casts where `out` has another dtype."""
    return like(x)


@primitive
def full(shape: tuple[int, ...], value: Scalar, dtype: np.dtype):
    """A row-major array filled with `value`."""
    return ArraySpec(shape, dtype)
