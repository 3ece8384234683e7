"""Cases of elementwise arithmetic, functions and conversion."""

import numpy as np

import numbanet.ops.conversion as conversion
import numbanet.ops.elementwise as elementwise
import numbanet.ops.functions as functions
from tests.cases.case import OperationCase, PrimitiveCase, channels_last, floats, integers, strided


def _apart(rng, *shape):
    """Floats whose distance from 0 is at least 0.2, so that differences do not cross it."""
    x = rng.standard_normal(shape)
    return x + np.copysign(0.2, x)


def _positive(rng, *shape):
    return np.abs(rng.standard_normal(shape)) + 0.3


def _pair(name, operation, call, torch=None, make=_apart):
    torch = torch or (lambda a, b: call(a, b))
    return OperationCase(name, (operation,), call, lambda rng: (make(rng, 3, 1, 4), make(rng, 2, 4)), torch)


def _torch(name, *arguments):
    def run(*tensors):
        import torch
        return getattr(torch, name)(*tensors, *arguments)
    return run


def _function(name, operation, make=_apart, torch=None):
    return OperationCase(name, (operation,), getattr(functions, name), lambda rng: (make(rng, 3, 5),), torch or _torch(name))


def _condition(x):
    return x.detach() > 0


OPERATION_CASES = [
    _pair("add", elementwise.Add, lambda a, b: a + b),
    _pair("add-alpha-scalar", elementwise.Add, lambda a, b: (2 + a).add(b, alpha=3)),
    _pair("sub", elementwise.Subtract, lambda a, b: 1 - (a - b)),
    _pair("mul", elementwise.Multiply, lambda a, b: 3 * a * b),
    _pair("div", elementwise.Divide, lambda a, b: 2 / a + a / b / 4),
    _pair("remainder", elementwise.Remainder, lambda a, b: a % b),
    _pair("floor_divide", elementwise.FloorDivide, lambda a, b: (5 * a) // b * b,
          torch=lambda a, b: (5 * a).div(b, rounding_mode="floor") * b),
    _pair("pow", elementwise.Power, lambda a, b: a ** b, make=_positive),
    _pair("pow-scalars", elementwise.Power, lambda a, b: a ** 3 + 2.5 ** b + a ** 0, make=_positive),
    _pair("maximum", elementwise.Extremum, elementwise.maximum, _torch("maximum")),
    _pair("minimum", elementwise.Extremum, elementwise.minimum, _torch("minimum")),
    OperationCase("where", (elementwise.Where,), lambda a, b: elementwise.where(_condition(a), a, b),
                  lambda rng: (_apart(rng, 3, 4), _apart(rng, 4)), lambda a, b: a.where(_condition(a), b)),
    OperationCase("masked_fill", (elementwise.MaskedFill,), lambda a, b: a.masked_fill(_condition(a), 2.0).masked_fill(_condition(-a), b),
                  lambda rng: (_apart(rng, 3, 4), np.array(0.7)),
                  lambda a, b: a.masked_fill(_condition(a), 2.0).masked_fill(_condition(-a), b)),
    OperationCase("clamp", (elementwise.Clamp,), lambda x: x.clamp(-0.5, 0.7) + x.clamp(min=0.1) * x.clamp(max=-0.1),
                  lambda rng: (_apart(rng, 4, 5),), lambda x: x.clamp(-0.5, 0.7) + x.clamp(min=0.1) * x.clamp(max=-0.1)),
    _function("neg", functions.Negative), _function("abs", functions.Absolute), _function("square", functions.Square),
    _function("exp", functions.Exp), _function("expm1", functions.Expm1), _function("log", functions.Log, _positive),
    _function("log1p", functions.Log1p, _positive), _function("log2", functions.Log, _positive),
    _function("log10", functions.Log, _positive), _function("sqrt", functions.Sqrt, _positive),
    _function("rsqrt", functions.Rsqrt, _positive), _function("reciprocal", functions.Reciprocal),
    _function("sin", functions.Sin), _function("cos", functions.Cos), _function("tan", functions.Tan),
    _function("erf", functions.Erf), _function("floor", functions.Step), _function("sign", functions.Step),
    OperationCase("to", (conversion.Cast,), lambda x: x.to("float64").double() * 2, lambda rng: (_apart(rng, 3),), lambda x: x * 2),
    OperationCase("to-device", (conversion.Transfer,), lambda x: (x.to("reference") * 2).to("cpu").to(x.device),
                  lambda rng: (_apart(rng, 3),), lambda x: x * 2),
    OperationCase("copy_", (conversion.CopyFrom,), lambda a, b: (a * 1).copy_(b) + a,
                  lambda rng: (_apart(rng, 3, 4), _apart(rng, 4)), lambda a, b: (a * 1).copy_(b) + a),
    OperationCase("fill_", (conversion.Fill,), lambda a, b: (a * 1).fill_(b) * a, lambda rng: (_apart(rng, 3, 4), np.array(0.7)),
                  lambda a, b: (a * 1).fill_(b) * a),
]


def _binary(name, label, make, exact=True):
    return PrimitiveCase(name, make, exact=exact, label=label, inexact_on=("cuda",) if name == "power" else ())


def _layouts(name, make=integers):
    """Equal layouts in several tasks, broadcast rows, channels, gaps, permuted axes, scalars, nothing."""
    return [
        _binary(name, "flat", lambda rng: (make(rng, 5, 7, 1000), make(rng, 5, 7, 1000))),
        _binary(name, "channels", lambda rng: (channels_last(make(rng, 3, 6, 40, 31)), make(rng, 6, 1, 1))),
        _binary(name, "permuted", lambda rng: (make(rng, 3, 5, 4).transpose(2, 0, 1), strided(make(rng, 4, 1, 5)))),
        _binary(name, "scalar", lambda rng: (2.0, strided(make(rng, 3, 5)))),
        _binary(name, "four-axes", lambda rng: (make(rng, 2, 3, 2, 3, 2), make(rng, 3, 1, 3, 1))),
        _binary(name, "empty", lambda rng: (make(rng, 0, 3), make(rng, 3))),
    ]


def _nonzero(rng, *shape):
    x = integers(rng, *shape)
    return x + (x == 0)


def _special(rng):
    return np.array([0, -0.0, 1, -1, 2.5, np.inf, -np.inf, np.nan, 1e-40, 3e38] * 3, np.float32), None


def _special_pair(rng):
    values, _ = _special(rng)
    return np.repeat(values[:10], 10), np.tile(values[:10], 10)


_COMPARISONS = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "logical_and", "logical_or", "logical_xor")
_ARITHMETIC = ("add", "subtract", "multiply", "divide", "maximum", "minimum", "floor_divide", "remainder", "power")
_ROUNDINGS = ("negative", "absolute", "sign", "square", "floor", "ceil", "round", "trunc", "logical_not", "isnan", "isinf", "isfinite")
_FLOATING = ("exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "reciprocal", "sin", "cos", "tan", "erf")

PRIMITIVE_CASES = [
    *_layouts("add"), *_layouts("multiply"),
    *[_binary(name, "channels", lambda rng: (channels_last(integers(rng, 3, 6, 5, 7)), _nonzero(rng, 6, 1, 1)))
      for name in ("subtract", "divide", "maximum", "minimum", "floor_divide", "remainder", "power", *_COMPARISONS)],
    *[_binary(name, label, make) for name in (*_ARITHMETIC, *_COMPARISONS) for label, make in (
        ("number-left", lambda rng: (3.0, _nonzero(rng, 3, 4))), ("number-right", lambda rng: (_nonzero(rng, 3, 4), 3.0)))],
    *[_binary(name, label, make) for name in ("floor_divide", "remainder", "power") for label, make in (
        ("integer-left", lambda rng: (7, rng.integers(1, 5, (3, 4)))), ("integer-right", lambda rng: (rng.integers(-9, 9, (3, 4)), 3)),
        ("integers", lambda rng: (rng.integers(-9, 9, (3, 4)), rng.integers(1, 5, 4))))],
    *[_binary(name, label, make) for name in ("maximum", "minimum", "multiply") for label, make in (
        ("booleans", lambda rng: (integers(rng, 3, 4) > 0, integers(rng, 4) > 0)),
        ("boolean", lambda rng: (integers(rng, 3, 4) > 0, True)))],
    *[_binary(name, "integers", lambda rng: (rng.integers(-9, 9, (3, 4)),)) for name in ("sign", "absolute", "negative", "square")],
    *[_binary(name, "special", _special_pair) for name in ("subtract", "divide", "maximum", "minimum", *_COMPARISONS)],
    *[_binary(name, "integers", lambda rng: (integers(rng, 3, 4, dtype=np.int64), 3)) for name in ("add", "divide")],
    *[_binary(name, "special", lambda rng: _special(rng)[:1]) for name in _ROUNDINGS],
    *[PrimitiveCase(name, lambda rng: (strided(np.abs(floats(rng, 3, 5, 37)) + 0.1),), label="strided") for name in _FLOATING],
    *[PrimitiveCase(name, lambda rng: (_special(rng)[0][:8],), label="special") for name in ("exp", "expm1", "log", "log1p", "erf")],
    PrimitiveCase("where", lambda rng: (integers(rng, 3, 1) > 0, integers(rng, 3, 4), 2.0), exact=True),
    PrimitiveCase("clamp", lambda rng: (_special(rng)[0], -1.0, 2.0), exact=True),
    PrimitiveCase("clamp", lambda rng: (strided(floats(rng, 3, 4)), None, 0.0), exact=True, label="maximum"),
    PrimitiveCase("cast", lambda rng: (floats(rng, 3, 4), np.dtype(np.int64)), exact=True),
    *[PrimitiveCase("cast_all", lambda rng, dtype=dtype: ([floats(rng, 8, 4), np.asfortranarray(floats(rng, 3, 5)), floats(rng, 0),
                                                           strided(floats(rng, 6, 4)), floats(rng, 64)], np.dtype(dtype)),
                    exact=True, label=np.dtype(dtype).name) for dtype in (np.float64, np.int64, np.bool_)],
    PrimitiveCase("cast_all", lambda rng: ([], np.dtype(np.float64)), exact=True, label="none"),
    PrimitiveCase("copy", lambda rng: (channels_last(floats(rng, 2, 3, 5, 4)),), exact=True),
    PrimitiveCase("copy", lambda rng: (strided(floats(rng, 2, 3)),), exact=True, label="strided"),
    PrimitiveCase("full", lambda rng: ((2, 3), 0.5, np.dtype(np.float32)), exact=True),
]
