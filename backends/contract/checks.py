"""Checks that several declarations share. Each raises before any kernel runs."""

from __future__ import annotations

from numbanet.dtypes import is_floating_point
from numbanet.errors import DTypeError, ShapeError


def check_float(operation: str, **arrays) -> None:
    """All given arrays (None is skipped) are of one dtype: float32 or float64, or 16 bits where the arrays' device computes with them.

    Arrays of such a device have `computes_16_bit`.
    """
    first = None
    for name, x in arrays.items():
        if x is None:
            continue
        if x.dtype.char not in "fd" and not is_16_bit(x):       # `dtype.name` would cost a microsecond
            raise DTypeError(f"{operation}: {name} expects float32 or float64, received {x.dtype}; convert it with "
                             ".float() (16-bit floats are for storage)")
        if first is None:
            first = name, x.dtype
        elif x.dtype != first[1]:
            raise DTypeError(f"{operation}: {name} expects {first[1]} like {first[0]}, received {x.dtype}; "
                             f"convert one of them with .to()")


def is_16_bit(x) -> bool:
    """Whether an array is of float16 or bfloat16, on a device that computes with them."""
    return x.dtype.itemsize == 2 and getattr(x, "computes_16_bit", False) and is_floating_point(x.dtype)


def check_rank(operation: str, name: str, x, rank: int, legend: str) -> None:
    if len(x.shape) != rank:
        raise ShapeError(f"{operation}: {name} expects {rank} dimensions {legend}, received shape {x.shape}")


def check_shape(operation: str, name: str, x, shape: tuple) -> None:
    if x is not None and x.shape != tuple(shape):
        raise ShapeError(f"{operation}: {name} expects shape {tuple(shape)}, received {x.shape}")


def check_axis(operation: str, axis: int, rank: int) -> None:
    if not 0 <= axis < rank:
        raise ShapeError(f"{operation}: axis expects a value from 0 to {rank - 1}, received {axis}")
