"""Elementwise arithmetic: NumPy's functions on operands of the promoted dtype."""

from __future__ import annotations

import math

import numpy as np

from numbanet.backends.reference.registry import implements
from numbanet.dtypes import result_type
from numbanet.errors import UsageError

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _converted(dtype, *operands):
    """Arrays in `dtype`; Python scalars stay, being weak in NumPy too, unless they are of a higher category."""
    return [x.astype(dtype, copy=False) if hasattr(x, "shape") else dtype.type(x) for x in operands]


def _binary(function, a, b, out):
    a, b = _converted(out.dtype, a, b)
    with np.errstate(all="ignore"):
        out[...] = function(a, b)


def _compare(function, a, b, out):
    if hasattr(a, "shape") and hasattr(b, "shape") or result_type(a, b).kind == "f":
        a, b = _converted(result_type(a, b), a, b)      # a Python integer beyond an integer dtype compares exactly
    out[...] = function(a, b)


def _unary(function, x, out):
    with np.errstate(all="ignore"):
        out[...] = function(x.astype(out.dtype, copy=False))


def _round(function, x, out):
    out[...] = x if x.dtype.kind in "iub" else function(x)


def _check_divisor(operation, b, out):
    if out.dtype.kind in "iu" and not np.all(b):
        raise UsageError(f"{operation}: an integer is divided by zero; convert the dividend with .float() to get inf")


@implements
def add(a, b, out):
    _binary(np.add, a, b, out)


@implements
def subtract(a, b, out):
    _binary(np.subtract, a, b, out)


@implements
def multiply(a, b, out):
    _binary(np.multiply, a, b, out)


@implements
def divide(a, b, out):
    _binary(np.divide, a, b, out)


@implements
def floor_divide(a, b, out):
    _check_divisor("floor_divide", b, out)
    _binary(np.floor_divide, a, b, out)


@implements
def remainder(a, b, out):
    _check_divisor("remainder", b, out)
    _binary(np.remainder, a, b, out)


@implements
def power(a, b, out):
    if out.dtype.kind in "iu" and np.any(np.less(b, 0)):
        raise UsageError("power: an integer to a negative power is no integer; convert the base with .float()")
    _binary(np.power, a, b, out)


@implements
def maximum(a, b, out):
    _binary(np.maximum, a, b, out)


@implements
def minimum(a, b, out):
    _binary(np.minimum, a, b, out)


@implements
def equal(a, b, out):
    _compare(np.equal, a, b, out)


@implements
def not_equal(a, b, out):
    _compare(np.not_equal, a, b, out)


@implements
def less(a, b, out):
    _compare(np.less, a, b, out)


@implements
def less_equal(a, b, out):
    _compare(np.less_equal, a, b, out)


@implements
def greater(a, b, out):
    _compare(np.greater, a, b, out)


@implements
def greater_equal(a, b, out):
    _compare(np.greater_equal, a, b, out)


@implements
def logical_and(a, b, out):
    np.logical_and(a, b, out=out)


@implements
def logical_or(a, b, out):
    np.logical_or(a, b, out=out)


@implements
def logical_xor(a, b, out):
    np.logical_xor(a, b, out=out)


@implements
def logical_not(x, out):
    np.logical_not(x, out=out)


@implements
def isnan(x, out):
    np.isnan(x, out=out)


@implements
def isinf(x, out):
    np.isinf(x, out=out)


@implements
def isfinite(x, out):
    np.isfinite(x, out=out)


@implements
def negative(x, out):
    np.negative(x, out=out)


@implements
def absolute(x, out):
    np.absolute(x, out=out)


@implements
def sign(x, out):
    np.copyto(out, x) if x.dtype.kind == "b" else np.sign(x, out=out)


@implements
def square(x, out):
    _unary(np.square, x, out)


@implements
def floor(x, out):
    _round(np.floor, x, out)


@implements
def ceil(x, out):
    _round(np.ceil, x, out)


@implements
def round(x, out):
    _round(np.rint, x, out)


@implements
def trunc(x, out):
    _round(np.trunc, x, out)


@implements
def exp(x, out):
    _unary(np.exp, x, out)


@implements
def expm1(x, out):
    _unary(np.expm1, x, out)


@implements
def log(x, out):
    _unary(np.log, x, out)


@implements
def log1p(x, out):
    _unary(np.log1p, x, out)


@implements
def sqrt(x, out):
    _unary(np.sqrt, x, out)


@implements
def rsqrt(x, out):
    _unary(lambda v: 1 / np.sqrt(v), x, out)


@implements
def reciprocal(x, out):
    _unary(lambda v: 1 / v, x, out)


@implements
def sin(x, out):
    _unary(np.sin, x, out)


@implements
def cos(x, out):
    _unary(np.cos, x, out)


@implements
def tan(x, out):
    _unary(np.tan, x, out)


@implements
def erf(x, out):
    _unary(_erf, x, out)


@implements
def where(condition, a, b, out):
    a, b = _converted(out.dtype, a, b)
    out[...] = np.where(condition, a, b)


@implements
def clamp(x, minimum, maximum, out):
    x = x.astype(out.dtype, copy=False)
    if minimum is not None:
        x = np.maximum(x, out.dtype.type(minimum))
    out[...] = x if maximum is None else np.minimum(x, out.dtype.type(maximum))


@implements
def cast(x, dtype, out):
    with np.errstate(all="ignore"):
        np.copyto(out, x, casting="unsafe")


@implements
def copy(x, out):
    np.copyto(out, x, casting="unsafe")


@implements
def full(shape, value, dtype, out):
    out.fill(value)
