"""Elementwise arithmetic, comparisons and logic. ONNX broadcasts as NumPy does, but converts no dtypes."""

from __future__ import annotations

import numpy as np
import onnx

from numbanet.backends.contract.elementwise import BOOL
from numbanet.dtypes import get_default_dtype, is_floating_point, result_type
from numbanet.onnx.export.registry import Operand, translates

INT32 = np.dtype(np.int32)


def converted(b, x, dtype) -> str | np.ndarray:
    """An operand, or a Python scalar, in `dtype`."""
    return b.cast(x, dtype) if isinstance(x, Operand) else np.asarray(x, dtype)


def _float_of(x) -> np.dtype:
    return x.dtype if is_floating_point(x.dtype) else get_default_dtype()


def _register_arithmetic(primitive: str, op_type: str, of_booleans: str | None = None) -> None:
    @translates(primitive)
    def translation(b, x, y):
        dtype = result_type(x, y)
        return b.node(of_booleans if dtype == BOOL else op_type, converted(b, x, dtype), converted(b, y, dtype))


_register_arithmetic("add", "Add", "Or")
_register_arithmetic("subtract", "Sub")
_register_arithmetic("multiply", "Mul", "And")
_register_arithmetic("power", "Pow")
_register_arithmetic("maximum", "Max", "Or")
_register_arithmetic("minimum", "Min", "And")


@translates("divide")
def divide(b, x, y):
    dtype = result_type(x, y)
    dtype = dtype if is_floating_point(dtype) else get_default_dtype()
    return b.node("Div", converted(b, x, dtype), converted(b, y, dtype))


@translates("floor_divide")
def floor_divide(b, x, y):
    dtype = result_type(x, y)
    x, y = converted(b, x, dtype), converted(b, y, dtype)
    if is_floating_point(dtype):
        return b.node("Floor", b.node("Div", x, y))
    rest = b.node("Mod", x, y)                          # of the divisor's sign, so that x - rest is a multiple of y
    return b.node("Div", b.node("Sub", x, rest), y)


@translates("remainder")
def remainder(b, x, y):
    dtype = result_type(x, y)
    x, y = converted(b, x, dtype), converted(b, y, dtype)
    if not is_floating_point(dtype):
        return b.node("Mod", x, y)
    rest, zero = b.node("Mod", x, y, fmod=1), np.asarray(0, dtype)          # of the dividend's sign
    differs = b.node("Xor", b.node("Less", rest, zero), b.node("Less", y, zero))
    moved = b.node("And", differs, b.node("Not", b.node("Equal", rest, zero)))
    return b.node("Where", moved, b.node("Add", rest, y), rest)


def _register_comparison(primitive: str, op_type: str) -> None:
    @translates(primitive)
    def translation(b, x, y):
        dtype = result_type(x, y)
        dtype = INT32 if dtype.itemsize == 1 else dtype         # of booleans and bytes ONNX compares few
        return b.node(op_type, converted(b, x, dtype), converted(b, y, dtype))


_register_comparison("equal", "Equal")
_register_comparison("less", "Less")
_register_comparison("less_equal", "LessOrEqual")
_register_comparison("greater", "Greater")
_register_comparison("greater_equal", "GreaterOrEqual")


@translates("not_equal")
def not_equal(b, x, y):
    dtype = result_type(x, y)
    return b.node("Not", b.node("Equal", converted(b, x, dtype), converted(b, y, dtype)))


def _register_logic(primitive: str, op_type: str) -> None:
    @translates(primitive)
    def translation(b, *operands):
        return b.node(op_type, *[converted(b, x, BOOL) for x in operands])


_register_logic("logical_and", "And")
_register_logic("logical_or", "Or")
_register_logic("logical_xor", "Xor")
_register_logic("logical_not", "Not")


def _in_float(b, x) -> str:
    return converted(b, x, _float_of(x))


@translates("isnan")
def isnan(b, x):
    return b.node("IsNaN", _in_float(b, x))


@translates("isinf")
def isinf(b, x):
    return b.node("IsInf", _in_float(b, x))


@translates("isfinite")
def isfinite(b, x):
    x = _in_float(b, x)
    return b.node("Not", b.node("Or", b.node("IsNaN", x), b.node("IsInf", x)))


def _register_same_dtype(primitive: str, op_type: str, of_integers: bool = True) -> None:
    @translates(primitive)
    def translation(b, x):
        return b.node(op_type, x) if is_floating_point(x.dtype) or of_integers and x.dtype != BOOL else x.name


_register_same_dtype("negative", "Neg")
_register_same_dtype("absolute", "Abs")
_register_same_dtype("sign", "Sign")
_register_same_dtype("floor", "Floor", of_integers=False)
_register_same_dtype("ceil", "Ceil", of_integers=False)
_register_same_dtype("round", "Round", of_integers=False)


@translates("square")
def square(b, x):
    return b.node("And" if x.dtype == BOOL else "Mul", x, x)


@translates("trunc")
def trunc(b, x):
    return b.node("Mul", b.node("Sign", x), b.node("Floor", b.node("Abs", x))) if is_floating_point(x.dtype) else x.name


def _register_float(primitive: str, op_type: str) -> None:
    @translates(primitive)
    def translation(b, x):
        return b.node(op_type, _in_float(b, x))


_register_float("exp", "Exp")
_register_float("log", "Log")
_register_float("sqrt", "Sqrt")
_register_float("reciprocal", "Reciprocal")
_register_float("sin", "Sin")
_register_float("cos", "Cos")
_register_float("tan", "Tan")
_register_float("erf", "Erf")


@translates("rsqrt")
def rsqrt(b, x):
    return b.node("Reciprocal", b.node("Sqrt", _in_float(b, x)))


@translates("expm1")
def expm1(b, x):
    """tanh(x / 2) * (exp(x) + 1), for exp(x) - 1 loses all digits near 0."""
    dtype, x = _float_of(x), _in_float(b, x)
    return b.node("Mul", b.node("Tanh", b.node("Mul", x, np.asarray(0.5, dtype))),
                  b.node("Add", b.node("Exp", x), np.asarray(1, dtype)))


@translates("log1p")
def log1p(b, x):
    """log(u) * x / (u - 1), u = 1 + x rounded, which mends the rounding (Kahan); x where u is 1, log(u) where u is x."""
    dtype, x = _float_of(x), _in_float(b, x)
    one = np.asarray(1, dtype)
    u = b.node("Add", x, one)
    mended = b.node("Mul", b.node("Log", u), b.node("Div", x, b.node("Sub", u, one)))
    mended = b.node("Where", b.node("Equal", u, x), b.node("Log", u), mended)
    return b.node("Where", b.node("Equal", u, one), x, mended)


@translates("where")
def where(b, condition, x, y):
    dtype = result_type(x, y)
    return b.node("Where", condition, converted(b, x, dtype), converted(b, y, dtype))


@translates("clamp")
def clamp(b, x, minimum, maximum):
    dtype = result_type(x, *[limit for limit in (minimum, maximum) if limit is not None])
    return b.node("Clip", converted(b, x, dtype), *[None if v is None else np.asarray(v, dtype) for v in (minimum, maximum)])


@translates("cast")
def cast(b, x, dtype):
    return b.cast(x, np.dtype(dtype))


@translates("copy")
def copy(b, x):
    """Nothing: values of an ONNX graph never change."""
    return x.name


@translates("full")
def full(b, shape, value, dtype):
    sizes = b.ints(shape)
    if isinstance(sizes, np.ndarray):
        return b.initializer(b.inside("full"), np.full(shape, value, dtype))
    return b.node("ConstantOfShape", sizes, value=onnx.numpy_helper.from_array(np.array([value], dtype)))
