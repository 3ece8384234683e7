"""Elementwise arithmetic, comparisons and logic with broadcasting (NumPy's rules), and filling, casting and copying.

Operands `a` and `b` are arrays or Python scalars, which are weak (see `numbanet.dtypes`). All operands are converted to the
promoted dtype first. Floating-point arithmetic is IEEE's: division by zero gives inf or NaN, and NaN propagates.
"""

from __future__ import annotations

import numpy as np

from numbanet.backends.interface import Array, Arrays, ArraySpec, Scalar, like, order_of, primitive
from numbanet.dtypes import as_dtype, get_default_dtype, is_floating_point, result_type
from numbanet.errors import DTypeError, ShapeError, UsageError

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
    shape = broadcast_shape(operation, *[x.shape for x in arrays])
    dtype = result_type(*operands) if dtype is None else dtype
    for x in arrays:
        if x.shape == shape:
            return ArraySpec(shape, dtype, order_of(x))
    return ArraySpec(shape, dtype)


def _numeric_spec(operation: str, a, b) -> ArraySpec:
    spec = elementwise_spec(operation, a, b)
    if spec.dtype.kind == "b":
        raise DTypeError(f"{operation}: expected numbers, received booleans; use the logical operations or convert with .long()")
    return spec


def _float_of(x) -> np.dtype:
    return x.dtype if is_floating_point(x.dtype) else get_default_dtype()


# Arithmetic of two operands

@primitive(may_overwrite=("a", "b"))
def add(a: Array | Scalar, b: Array | Scalar):
    """a + b; of booleans, a or b."""
    return elementwise_spec("add", a, b)


@primitive(may_overwrite=("a", "b"))
def subtract(a: Array | Scalar, b: Array | Scalar):
    """a - b."""
    return _numeric_spec("subtract", a, b)


@primitive(may_overwrite=("a", "b"))
def multiply(a: Array | Scalar, b: Array | Scalar):
    """a * b; of booleans, a and b."""
    return elementwise_spec("multiply", a, b)


@primitive(may_overwrite=("a", "b"))
def divide(a: Array | Scalar, b: Array | Scalar):
    """a / b, of integers too: they give the default floating-point dtype."""
    spec = elementwise_spec("divide", a, b)
    return spec if is_floating_point(spec.dtype) else spec._replace(dtype=get_default_dtype())


@primitive(may_overwrite=("a", "b"))
def floor_divide(a: Array | Scalar, b: Array | Scalar):
    """floor(a / b), exact for integers; an integer divided by zero raises."""
    return _numeric_spec("floor_divide", a, b)


@primitive(may_overwrite=("a", "b"))
def remainder(a: Array | Scalar, b: Array | Scalar):
    """a - b * floor(a / b): the sign of the divisor, as Python's %; an integer divided by zero raises."""
    return _numeric_spec("remainder", a, b)


@primitive(may_overwrite=("a", "b"))
def power(a: Array | Scalar, b: Array | Scalar):
    """a ** b; an integer to a negative integer power raises."""
    spec = _numeric_spec("power", a, b)
    if spec.dtype.kind in "iu" and not hasattr(b, "shape") and b < 0:
        raise UsageError(f"power: an integer to the power of {b} is no integer; convert the base with .float()")
    return spec


@primitive(may_overwrite=("a", "b"))
def maximum(a: Array | Scalar, b: Array | Scalar):
    """The larger; NaN where either is NaN."""
    return elementwise_spec("maximum", a, b)


@primitive(may_overwrite=("a", "b"))
def minimum(a: Array | Scalar, b: Array | Scalar):
    """The smaller; NaN where either is NaN."""
    return elementwise_spec("minimum", a, b)


# Comparisons and logic: booleans

@primitive
def equal(a: Array | Scalar, b: Array | Scalar):
    """a == b."""
    return elementwise_spec("equal", a, b, dtype=BOOL)


@primitive
def not_equal(a: Array | Scalar, b: Array | Scalar):
    """a != b."""
    return elementwise_spec("not_equal", a, b, dtype=BOOL)


@primitive
def less(a: Array | Scalar, b: Array | Scalar):
    """a < b."""
    return elementwise_spec("less", a, b, dtype=BOOL)


@primitive
def less_equal(a: Array | Scalar, b: Array | Scalar):
    """a <= b."""
    return elementwise_spec("less_equal", a, b, dtype=BOOL)


@primitive
def greater(a: Array | Scalar, b: Array | Scalar):
    """a > b."""
    return elementwise_spec("greater", a, b, dtype=BOOL)


@primitive
def greater_equal(a: Array | Scalar, b: Array | Scalar):
    """a >= b."""
    return elementwise_spec("greater_equal", a, b, dtype=BOOL)


@primitive
def logical_and(a: Array | Scalar, b: Array | Scalar):
    """Whether both are not 0."""
    return elementwise_spec("logical_and", a, b, dtype=BOOL)


@primitive
def logical_or(a: Array | Scalar, b: Array | Scalar):
    """Whether one or both are not 0."""
    return elementwise_spec("logical_or", a, b, dtype=BOOL)


@primitive
def logical_xor(a: Array | Scalar, b: Array | Scalar):
    """Whether exactly one is not 0."""
    return elementwise_spec("logical_xor", a, b, dtype=BOOL)


@primitive
def logical_not(x: Array):
    """Whether x is 0."""
    return like(x, BOOL)


@primitive
def isnan(x: Array):
    """Whether x is NaN."""
    return like(x, BOOL)


@primitive
def isinf(x: Array):
    """Whether x is infinite."""
    return like(x, BOOL)


@primitive
def isfinite(x: Array):
    """Whether x is neither infinite nor NaN."""
    return like(x, BOOL)


# Functions of one operand that keep its dtype

@primitive(may_overwrite=("x",))
def negative(x: Array):
    """-x."""
    if x.dtype.kind == "b":
        raise DTypeError("negative: expected numbers, received booleans; use logical_not")
    return like(x)


@primitive(may_overwrite=("x",))
def absolute(x: Array):
    """|x|."""
    return like(x)


@primitive(may_overwrite=("x",))
def sign(x: Array):
    """-1, 0 or 1; NaN stays NaN."""
    return like(x)


@primitive(may_overwrite=("x",))
def square(x: Array):
    """x * x."""
    return like(x)


@primitive(may_overwrite=("x",))
def floor(x: Array):
    """The largest integer not above x."""
    return like(x)


@primitive(may_overwrite=("x",))
def ceil(x: Array):
    """The smallest integer not below x."""
    return like(x)


@primitive(may_overwrite=("x",))
def round(x: Array):
    """The nearest integer, the even one of two equally near."""
    return like(x)


@primitive(may_overwrite=("x",))
def trunc(x: Array):
    """The integer part, towards zero."""
    return like(x)


# Functions of one operand with a floating-point result; integers and booleans give the default dtype

@primitive(may_overwrite=("x",))
def exp(x: Array):
    """e ** x."""
    return like(x, _float_of(x))


@primitive(may_overwrite=("x",))
def expm1(x: Array):
    """e ** x - 1, accurate near 0."""
    return like(x, _float_of(x))


@primitive(may_overwrite=("x",))
def log(x: Array):
    """The natural logarithm: -inf at 0, NaN below."""
    return like(x, _float_of(x))


@primitive(may_overwrite=("x",))
def log1p(x: Array):
    """log(1 + x), accurate near 0."""
    return like(x, _float_of(x))


@primitive(may_overwrite=("x",))
def sqrt(x: Array):
    """The square root: NaN below 0."""
    return like(x, _float_of(x))


@primitive(may_overwrite=("x",))
def rsqrt(x: Array):
    """1 / sqrt(x)."""
    return like(x, _float_of(x))


@primitive(may_overwrite=("x",))
def reciprocal(x: Array):
    """1 / x."""
    return like(x, _float_of(x))


@primitive(may_overwrite=("x",))
def sin(x: Array):
    """The sine of x radians."""
    return like(x, _float_of(x))


@primitive(may_overwrite=("x",))
def cos(x: Array):
    """The cosine of x radians."""
    return like(x, _float_of(x))


@primitive(may_overwrite=("x",))
def tan(x: Array):
    """The tangent of x radians."""
    return like(x, _float_of(x))


@primitive(may_overwrite=("x",))
def erf(x: Array):
    """The error function, 2 / sqrt(pi) times the integral of e ** -t**2 from 0 to x."""
    return like(x, _float_of(x))


# Selecting, filling, copying

@primitive
def where(condition: Array, a: Array | Scalar, b: Array | Scalar):
    """a where `condition` (boolean) holds, else b."""
    if condition.dtype.kind != "b":
        raise DTypeError(f"where: condition expects booleans, received {condition.dtype}; compare it, as in x != 0")
    return elementwise_spec("where", condition, a, b, dtype=result_type(a, b))


@primitive(may_overwrite=("x",))
def clamp(x: Array, minimum: Scalar | None, maximum: Scalar | None):
    """x limited to [minimum, maximum]; None is no limit; NaN stays NaN. A minimum above the maximum gives the maximum."""
    if minimum is None and maximum is None:
        raise UsageError("clamp: expected a minimum, a maximum or both, received neither")
    return like(x, result_type(x, *[limit for limit in (minimum, maximum) if limit is not None]))


@primitive
def cast(x: Array, dtype: np.dtype):
    """The same values in another dtype: floats are truncated towards zero to integers, numbers are True where not 0."""
    return like(x, as_dtype(dtype))


@primitive
def cast_all(arrays: Arrays, dtype: np.dtype):
    """`cast` of each array, all of one dtype: the weights of a network, for a step in mixed precision."""
    for x in arrays:
        if x.dtype != arrays[0].dtype:
            raise DTypeError(f"cast_all: expected arrays of one dtype, received {x.dtype} beside {arrays[0].dtype}")
    return tuple([like(x, as_dtype(dtype)) for x in arrays])


@cast_all.composed
def _cast_each(backend, arrays, dtype):
    return tuple([backend.cast(x, dtype) for x in arrays])


@primitive
def copy(x: Array):
    """The same values in memory of their own, in x's order unless `out` has another."""
    return like(x)


@primitive
def full(shape: tuple[int, ...], value: Scalar, dtype: np.dtype):
    """A row-major array filled with `value`."""
    return ArraySpec(shape, dtype)
