"""Arithmetic, comparison and logic, element by element, with NumPy's broadcasting."""

from __future__ import annotations

import functools

from numbanet import dtypes, ops
from numbanet.onnx.operators.registry import operator
from numbanet.ops import elementwise, functions, linear


def legacy_broadcast(node, a, b):
    """b against a before opset 7: the attribute `axis` says where its dimensions begin."""
    axis = node.attributes.get("axis")
    if axis is None or not node.attributes.get("broadcast") or b.ndim == 0:
        return b
    axis %= max(a.ndim, 1)
    return b.reshape(*b.shape, *(1,) * (a.ndim - axis - b.ndim))


def _binary(op_type: str, function) -> None:
    def legacy(node, a, b):
        return function(node, a, legacy_broadcast(node, a, b))
    legacy.__doc__ = function.__doc__
    operator(op_type)(legacy)
    operator(op_type, since=7)(function)


def _divide(node, a, b):
    """a / b; of integers towards zero."""
    if dtypes.is_floating_point(a.dtype):
        return a / b
    return ops.elementwise.div(a, b, rounding_mode="trunc")


def _power(node, a, b):
    """a ** b in the dtype of a."""
    return (a ** b.to(a.dtype) if a.dtype != b.dtype else a ** b).to(a.dtype)


def _of_two(function, doc: str):
    def compute(node, a, b):
        return function(a, b)
    compute.__doc__ = doc
    return compute


for _name, _function, _text in (
        ("Add", elementwise.add, "a + b."), ("Sub", elementwise.sub, "a - b."), ("Mul", elementwise.mul, "a * b."),
        ("Equal", elementwise.eq, "a == b."), ("Less", elementwise.lt, "a < b."), ("Greater", elementwise.gt, "a > b."),
        ("And", elementwise.logical_and, "Both."), ("Or", elementwise.logical_or, "One or both."),
        ("Xor", elementwise.logical_xor, "Exactly one.")):
    _binary(_name, _of_two(_function, _text))
_binary("Div", _divide)
_binary("Pow", _power)


@operator("LessOrEqual", since=12)
def less_or_equal(node, a, b):
    """a <= b."""
    return a <= b


@operator("GreaterOrEqual", since=12)
def greater_or_equal(node, a, b):
    """a >= b."""
    return a >= b


@operator("Mod", since=10)
def mod(node, a, b):
    """The remainder: of the sign of b, or with fmod of the sign of a."""
    return elementwise.fmod(a, b) if node.attributes.get("fmod", 0) else a % b


@operator("Where", since=9)
def where(node, condition, a, b):
    """a where the condition holds, else b."""
    return elementwise.where(condition, a, b)


@operator("Not")
def logical_not(node, x):
    """Whether x is False."""
    return elementwise.logical_not(x)


@operator("IsNaN", since=9)
def is_nan(node, x):
    """Whether x is NaN."""
    return elementwise.isnan(x)


@operator("IsInf", since=10)
def is_inf(node, x):
    """Whether x is infinite, of the signs that are asked for."""
    positive, negative = node.attributes.get("detect_positive", 1), node.attributes.get("detect_negative", 1)
    if positive and negative:
        return elementwise.isinf(x)
    infinity = float("inf") if positive else float("-inf")
    return x == infinity if positive or negative else elementwise.isinf(x) & False


def _of_one(function, doc: str):
    def compute(node, x):
        return function(x)
    compute.__doc__ = doc
    return compute


for _name, _function, _text in (
        ("Neg", functions.neg, "-x."), ("Abs", functions.abs, "|x|."), ("Reciprocal", functions.reciprocal, "1 / x."),
        ("Floor", functions.floor, "The largest integer not above x."), ("Ceil", functions.ceil, "The smallest integer not below x."),
        ("Round", functions.round, "The nearest integer, the even one of two."), ("Sqrt", functions.sqrt, "The square root."),
        ("Exp", functions.exp, "e ** x."), ("Log", functions.log, "The natural logarithm."), ("Erf", functions.erf, "The error function."),
        ("Sin", functions.sin, "The sine."), ("Cos", functions.cos, "The cosine."), ("Tan", functions.tan, "The tangent."),
        ("Sign", functions.sign, "-1, 0 or 1.")):
    operator(_name)(_of_one(_function, _text))


@operator("Identity")
def identity(node, x):
    """x."""
    return x


@operator("Sum")
def sum_(node, *xs):
    """The sum of all operands."""
    return functools.reduce(elementwise.add, xs)


@operator("Mean")
def mean(node, *xs):
    """The mean of all operands."""
    return functools.reduce(elementwise.add, xs) / len(xs)


@operator("Max")
def max_(node, *xs):
    """The largest of all operands."""
    return functools.reduce(elementwise.maximum, xs)


@operator("Min")
def min_(node, *xs):
    """The smallest of all operands."""
    return functools.reduce(elementwise.minimum, xs)


@operator("Clip")
def clip_by_attributes(node, x):
    """x limited to [min, max]."""
    return _clipped(x, node.attributes.get("min"), node.attributes.get("max"))


@operator("Clip", since=11, host=(1, 2))
def clip(node, x, minimum=None, maximum=None):
    """x limited to [min, max], each a number or absent."""
    return _clipped(x, *(None if limit is None else limit.item() for limit in (minimum, maximum)))


def _clipped(x, minimum, maximum):
    if minimum is not None and maximum is not None:
        minimum = min(minimum, maximum)         # the upper limit wins
    return x if minimum is None and maximum is None else elementwise.clamp(x, minimum, maximum)


@operator("MatMul")
def matmul(node, a, b):
    """The matrix product of the last two axes."""
    return linear.matmul(a, b)


@operator("Gemm", since=7)
def gemm(node, a, b, c=None):
    """alpha * a @ b + beta * c, with a and b transposed where asked for."""
    attributes = node.attributes
    a = a.transpose(0, 1) if attributes.get("transA", 0) else a
    alpha, beta = attributes.get("alpha", 1.0), attributes.get("beta", 1.0)
    if attributes.get("transB", 0) and alpha == beta == 1 and (c is None or c.shape == b.shape[:1]):
        return linear.linear(a, b, c)
    y = linear.mm(a, b.transpose(0, 1) if attributes.get("transB", 0) else b)
    y = y if alpha == 1 else y * alpha
    return y if c is None else y + (c if beta == 1 else c * beta)


@operator("Gemm")
def gemm_legacy(node, a, b, c):
    """:func:`gemm` before opset 7."""
    return gemm(node, a, b, c)
