"""Arithmetic, comparisons, logic, bits and casts in NumPy."""

from __future__ import annotations

import math

import numpy as np

from numbanet.errors import DTypeError
from numbanet.onnx.operators.host.common import dtype_of, is_integer, legacy_broadcast
from numbanet.onnx.operators.registry import host_operator


def _register_unary(name: str, compute) -> None:
    def unary(node, x):
        with np.errstate(all="ignore"):
            return np.asarray(compute(x)).astype(x.dtype, copy=False)
    unary.__doc__ = f"{name} of each element."
    host_operator(name)(unary)


def _wide(function):
    """float16 and bfloat16 are computed in float32."""
    return lambda x: function(x.astype(np.float32) if x.dtype.itemsize == 2 else x)


for _name, _function in {
        "Abs": np.abs, "Neg": np.negative, "Sign": np.sign, "Ceil": np.ceil, "Floor": np.floor, "Round": np.rint, "Identity": np.array,
        "Reciprocal": lambda x: 1 / x, "Relu": lambda x: np.maximum(x, x.dtype.type(0)), "Not": np.logical_not, "BitwiseNot": np.invert,
        "Sqrt": np.sqrt, "Exp": _wide(np.exp), "Log": _wide(np.log), "Sin": _wide(np.sin), "Cos": _wide(np.cos), "Tan": _wide(np.tan),
        "Asin": _wide(np.arcsin), "Acos": _wide(np.arccos), "Atan": _wide(np.arctan), "Sinh": _wide(np.sinh), "Cosh": _wide(np.cosh),
        "Tanh": _wide(np.tanh), "Asinh": _wide(np.arcsinh), "Acosh": _wide(np.arccosh), "Atanh": _wide(np.arctanh)}.items():
    _register_unary(_name, _function)


@host_operator("Erf")
def erf(node, x):
    """The error function, by the C library's, element by element."""
    return np.vectorize(math.erf, otypes=[np.float64])(x).astype(x.dtype)


def _divide(a, b):
    return (a - np.fmod(a, b)) // b if is_integer(a.dtype) else a / b     # integers: towards zero


def _power(a, b):
    if is_integer(a.dtype) and is_integer(b.dtype) and (b.size == 0 or b.min() >= 0):
        return np.power(a, b.astype(a.dtype))
    return np.power(a.astype(np.float64), b) if is_integer(a.dtype) else np.power(a, b)


def _register_binary(name: str, compute, keeps_dtype: bool = True) -> None:
    def binary(node, a, b):
        a, b = legacy_broadcast(node, a, b)
        with np.errstate(all="ignore"):
            y = np.asarray(compute(a, b))
        return y.astype(a.dtype, copy=False) if keeps_dtype else y
    binary.__doc__ = f"{name} of two operands, broadcast."
    host_operator(name)(binary)


for _name, _function in {
        "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": _divide, "Pow": _power, "And": np.logical_and, "Or": np.logical_or,
        "Xor": np.logical_xor, "BitwiseAnd": np.bitwise_and, "BitwiseOr": np.bitwise_or, "BitwiseXor": np.bitwise_xor}.items():
    _register_binary(_name, _function)
for _name, _function in {"Equal": np.equal, "Greater": np.greater, "GreaterOrEqual": np.greater_equal, "Less": np.less,
                         "LessOrEqual": np.less_equal}.items():
    _register_binary(_name, _function, keeps_dtype=False)


@host_operator("Mod")
def mod(node, a, b):
    """Remainder with the divisor's sign, or with `fmod` the dividend's."""
    with np.errstate(all="ignore"):
        return np.asarray((np.fmod if node.attributes.get("fmod", 0) else np.mod)(a, b)).astype(a.dtype, copy=False)


@host_operator("BitShift")
def bit_shift(node, a, b):
    """Shift of integers; bits that leave are lost, and negative numbers shifted right stay negative, for any b."""
    width = 8 * a.dtype.itemsize
    within = np.minimum(b, width - 1)
    if node.attributes["direction"] == "LEFT":
        return np.where(b < width, np.left_shift(a, within), a.dtype.type(0))
    return np.where((b < width) | (a < 0), np.right_shift(a, within), a.dtype.type(0))


def _register_variadic(name: str, compute, mean: bool = False) -> None:
    def variadic(node, *operands):
        y = operands[0]
        for operand in operands[1:]:
            y = compute(y, operand)
        y = y / len(operands) if mean else y
        return np.array(y, dtype=operands[0].dtype)
    variadic.__doc__ = f"{name} over the operands, broadcast."
    host_operator(name)(variadic)


_register_variadic("Max", np.maximum)
_register_variadic("Min", np.minimum)
_register_variadic("Sum", np.add)
_register_variadic("Mean", np.add, mean=True)


@host_operator("Clip")
def clip(node, x, low=None, high=None):
    """min(max(x, low), high)."""
    low = node.attributes.get("min") if low is None else low
    high = node.attributes.get("max") if high is None else high
    if low is not None:
        x = np.maximum(x, np.asarray(low, x.dtype))
    return x if high is None else np.minimum(x, np.asarray(high, x.dtype))


@host_operator("PRelu")
def prelu(node, x, slope):
    """x where it is positive, slope * x elsewhere."""
    return np.where(x < 0, x * slope, x).astype(x.dtype)


@host_operator("Where")
def where(node, condition, a, b):
    """a where the condition holds, b elsewhere, broadcast."""
    return np.where(condition, a, b)


@host_operator("IsNaN")
def is_nan(node, x):
    """Whether each element is not a number."""
    return np.isnan(x)


@host_operator("IsInf")
def is_inf(node, x):
    """Whether each element is infinite, of the signs asked for."""
    positive, negative = node.attributes.get("detect_positive", 1), node.attributes.get("detect_negative", 1)
    return np.isinf(x) & (((x > 0) & bool(positive)) | ((x < 0) & bool(negative)))


def _cast(x, dtype: np.dtype):
    with np.errstate(invalid="ignore", over="ignore"):
        return x.astype(dtype)


@host_operator("Cast")
def cast(node, x):
    """Conversion to the dtype `to`; floats become integers towards zero."""
    return _cast(x, dtype_of(node.attributes["to"]))


@host_operator("CastLike")
def cast_like(node, x, target):
    """Conversion to the dtype of `target`."""
    return _cast(x, target.dtype)


@host_operator("BitCast")
def bit_cast(node, x):
    """The same bits as another dtype of the same width."""
    dtype = dtype_of(node.attributes["to"])
    if dtype.itemsize != x.dtype.itemsize:
        raise DTypeError(f"{node}: expected a dtype of {8 * x.dtype.itemsize} bits as {x.dtype}, received {dtype}")
    return np.ascontiguousarray(x).view(dtype).reshape(x.shape)
