"""Reductions over axes, and what orders elements along one.

`axes` is a sorted tuple of axes counted from 0; reduced axes are dropped, or kept with size 1. NaN propagates; it counts as
the largest and the smallest element. Of equal elements the first one counts.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from numbanet.backends.contract.checks import check_axis
from numbanet.backends.interface import Array, Arrays, ArraySpec, like, primitive
from numbanet.dtypes import is_floating_point
from numbanet.errors import DTypeError, ShapeError

BOOL, INT64 = np.dtype(np.bool_), np.dtype(np.int64)


@lru_cache(maxsize=4096)
def reduced_shape(operation: str, shape: tuple[int, ...], axes: tuple[int, ...], keepdims: bool) -> tuple[int, ...]:
    """The shape after reduction over `axes`."""
    for axis in axes:
        check_axis(operation, axis, len(shape))
    if len(set(axes)) != len(axes):
        raise ShapeError(f"{operation}: axes expects each axis once, received {axes}")
    if keepdims:
        return tuple([1 if a in axes else n for a, n in enumerate(shape)])
    return tuple([n for a, n in enumerate(shape) if a not in axes])


def _nonempty(operation: str, x, axes) -> None:
    if 0 in [x.shape[a] for a in axes]:
        raise ShapeError(f"{operation}: nothing to choose from: axes {axes} of shape {x.shape} hold no elements")


def _sum_dtype(x) -> np.dtype:
    return x.dtype if is_floating_point(x.dtype) else INT64


def _check_float(operation: str, x) -> None:
    if not is_floating_point(x.dtype):
        raise DTypeError(f"{operation}: x expects a floating-point dtype, received {x.dtype}; convert it with .float()")


@primitive
def sum(x: Array, axes: tuple[int, ...], keepdims: bool):
    """The sum; of integers and booleans in int64; 0 of no elements."""
    return ArraySpec(reduced_shape("sum", x.shape, axes, keepdims), _sum_dtype(x))


@primitive
def mean(x: Array, axes: tuple[int, ...], keepdims: bool):
    """The sum divided by the number of elements; NaN of no elements."""
    _check_float("mean", x)
    return ArraySpec(reduced_shape("mean", x.shape, axes, keepdims), x.dtype)


@primitive
def prod(x: Array, axes: tuple[int, ...], keepdims: bool):
    """The product; of integers and booleans in int64; 1 of no elements."""
    return ArraySpec(reduced_shape("prod", x.shape, axes, keepdims), _sum_dtype(x))


@primitive
def max_reduce(x: Array, axes: tuple[int, ...], keepdims: bool):
    """The largest element."""
    _nonempty("amax", x, axes)
    return ArraySpec(reduced_shape("amax", x.shape, axes, keepdims), x.dtype)


@primitive
def min_reduce(x: Array, axes: tuple[int, ...], keepdims: bool):
    """The smallest element."""
    _nonempty("amin", x, axes)
    return ArraySpec(reduced_shape("amin", x.shape, axes, keepdims), x.dtype)


@primitive
def any(x: Array, axes: tuple[int, ...], keepdims: bool):
    """Whether one element or more is not 0."""
    return ArraySpec(reduced_shape("any", x.shape, axes, keepdims), BOOL)


@primitive
def all(x: Array, axes: tuple[int, ...], keepdims: bool):
    """Whether no element is 0."""
    return ArraySpec(reduced_shape("all", x.shape, axes, keepdims), BOOL)


@primitive
def var(x: Array, axes: tuple[int, ...], correction: float, keepdims: bool):
    """The sum of squared deviations from the mean, divided by max(count - correction, 0)."""
    _check_float("var", x)
    return ArraySpec(reduced_shape("var", x.shape, axes, keepdims), x.dtype)


@var.composed
def _var(backend, x, axes, correction, keepdims):
    count = 1
    for a in axes:
        count *= x.shape[a]
    squares = backend.square(backend.subtract(x, backend.mean(x, axes, True)))      # two passes: exact where mean >> deviation
    total = backend.sum(squares, axes, keepdims)
    # 0 / 0 is NaN and x / 0 is inf, as the definition says; in an array, for a Python scalar would not divide by 0
    return backend.divide(total, backend.full((), float(max(count - correction, 0)), x.dtype))


@primitive
def sum_of_squares(arrays: Arrays):
    """The sum of the squares of all elements of all arrays, of one floating-point dtype: what a common norm is the root of."""
    if not arrays:
        raise ShapeError("sum_of_squares: arrays expects at least one array, received none")
    for x in arrays:
        _check_float("sum_of_squares", x)
        if x.dtype != arrays[0].dtype:
            raise DTypeError(f"sum_of_squares: arrays expects one dtype, received {arrays[0].dtype} and {x.dtype}")
    return ArraySpec((), arrays[0].dtype)


@sum_of_squares.composed
def _sum_of_squares(backend, arrays):
    total = None
    for x in arrays:
        part = backend.sum(backend.multiply(x, x), tuple(range(len(x.shape))), False)
        total = part if total is None else backend.add(total, part)
    return total


@primitive
def argmax(x: Array, axis: int, keepdims: bool):
    """The position of the largest element along `axis`, int64."""
    _nonempty("argmax", x, (axis,))
    return ArraySpec(reduced_shape("argmax", x.shape, (axis,), keepdims), INT64)


@primitive
def argmin(x: Array, axis: int, keepdims: bool):
    """The position of the smallest element along `axis`, int64."""
    _nonempty("argmin", x, (axis,))
    return ArraySpec(reduced_shape("argmin", x.shape, (axis,), keepdims), INT64)


@primitive
def max_with_index(x: Array, axis: int, keepdims: bool):
    """The largest element along `axis` and its position: (values, indices int64)."""
    _nonempty("max", x, (axis,))
    shape = reduced_shape("max", x.shape, (axis,), keepdims)
    return ArraySpec(shape, x.dtype), ArraySpec(shape, INT64)


@primitive
def min_with_index(x: Array, axis: int, keepdims: bool):
    """The smallest element along `axis` and its position: (values, indices int64)."""
    _nonempty("min", x, (axis,))
    shape = reduced_shape("min", x.shape, (axis,), keepdims)
    return ArraySpec(shape, x.dtype), ArraySpec(shape, INT64)


@primitive
def cumsum(x: Array, axis: int):
    """y[i] = x[0] + ... + x[i] along `axis`; of integers and booleans in int64."""
    check_axis("cumsum", axis, len(x.shape))
    return like(x, _sum_dtype(x))


@primitive
def topk(x: Array, k: int, axis: int, largest: bool):
    """The k largest (or smallest) elements along `axis`, in order, and their positions: (values, indices int64)."""
    check_axis("topk", axis, len(x.shape))
    if not 0 <= k <= x.shape[axis]:
        raise ShapeError(f"topk: k expects 0 to {x.shape[axis]}, the size of axis {axis} of shape {x.shape}, received {k}")
    shape = (*x.shape[:axis], k, *x.shape[axis + 1:])
    return ArraySpec(shape, x.dtype), ArraySpec(shape, INT64)


@primitive
def sort(x: Array, axis: int, descending: bool):
    """The elements in order along `axis`, equal ones as before, NaN as the largest: (values, indices int64)."""
    check_axis("sort", axis, len(x.shape))
    return ArraySpec(x.shape, x.dtype), ArraySpec(x.shape, INT64)
