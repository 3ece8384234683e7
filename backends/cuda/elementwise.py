"""Elementwise arithmetic: one thread an element of the output, operands found through their steps.

Operands are brought to the dtype of the arithmetic first, scalars are arguments of the kernel. A function is a helper below; `pointwise.py`
makes the kernels around it.
"""

from __future__ import annotations

import math
import operator

import numpy as np

from numbanet.backends.cuda.compile import Sizes, device, kernel, lanewise
from numbanet.backends.cuda.index import grid_stride, offset
from numbanet.backends.cuda.launch import launch, number
from numbanet.backends.cuda.layout import broadcast_steps, merged
from numbanet.backends.cuda.lists import element_of, together
from numbanet.backends.cuda.mathematics import ceil as ceil_of
from numbanet.backends.cuda.mathematics import clamped, exponential, larger, rint, smaller, square_root
from numbanet.backends.cuda.mathematics import floor as floor_of
from numbanet.backends.cuda.mathematics import power as power_of
from numbanet.backends.cuda.mathematics import trunc as trunc_of
from numbanet.backends.cuda.memory import DeviceArray
from numbanet.backends.cuda.pointwise import BOOL, Arithmetic, Unary, convert, converted
from numbanet.backends.cuda.registry import implements
from numbanet.backends.cuda.wide import pieces
from numbanet.dtypes import is_floating_point, result_type
from numbanet.errors import UsageError

# Arithmetic of two operands

@device
def _add(a, b):
    return a + b


@device
def _subtract(a, b):
    return a - b


@device
def _multiply(a, b):
    return a * b


@device
def _divide(a, b):
    return a / b


@device
def _floor_divide_float(a, b):
    """As NumPy's: from the exact remainder, so that it is right where a / b rounds to an integer."""
    if b == 0.0:
        return a / b
    rest = math.fmod(a, b)
    result = (a - rest) / b
    if rest != 0.0 and (b < 0.0) != (rest < 0.0):
        result -= 1.0
    if result == 0.0:
        return math.copysign(0.0, a / b)
    whole = floor_of(result)
    return whole + 1.0 if result - whole > 0.5 else whole


@device
def _remainder_float(a, b):
    rest = math.fmod(a, b)
    if rest == 0.0:
        return math.copysign(0.0, b)
    return rest + b if (b < 0.0) != (rest < 0.0) and rest == rest and b == b else rest


@device
def _floor_divide_integer(a, b):
    return a // b


@device
def _remainder_integer(a, b):
    return a % b


@device
def _power_integer(a, b):
    """By squaring; what overflows wraps around."""
    result = a * 0 + 1
    while b > 0:
        if b % 2 == 1:
            result *= a
        a *= a
        b //= 2
    return result


@device
def _or(a, b):
    return a or b


@device
def _and(a, b):
    return a and b


@device
def _xor(a, b):
    return a != b


add_of, subtract_of, multiply_of, divide_of = Arithmetic(_add), Arithmetic(_subtract), Arithmetic(_multiply), Arithmetic(_divide)
floor_divide_float, floor_divide_integer = Arithmetic(_floor_divide_float), Arithmetic(_floor_divide_integer)
remainder_float, remainder_integer = Arithmetic(_remainder_float), Arithmetic(_remainder_integer)
power_float, power_integer = Arithmetic(power_of), Arithmetic(_power_integer)
larger_of, smaller_of = Arithmetic(larger), Arithmetic(smaller)
either, both, exactly_one = Arithmetic(_or), Arithmetic(_and), Arithmetic(_xor)


@implements
def add(a, b, out):
    (either if out.dtype == BOOL else add_of)(a, b, out)


@implements
def subtract(a, b, out):
    subtract_of(a, b, out)


@implements
def multiply(a, b, out):
    (both if out.dtype == BOOL else multiply_of)(a, b, out)


@implements
def divide(a, b, out):
    divide_of(a, b, out)


@implements
def floor_divide(a, b, out):
    if out.dtype.kind in "iu":
        _check_divisor("floor_divide", b)
        return floor_divide_integer(a, b, out)
    return floor_divide_float(a, b, out)


@implements
def remainder(a, b, out):
    if out.dtype.kind in "iu":
        _check_divisor("remainder", b)
        return remainder_integer(a, b, out)
    return remainder_float(a, b, out)


@implements
def power(a, b, out):
    if out.dtype.kind in "iu":
        if _any(negative_found, b) if type(b) is DeviceArray else b < 0:
            raise UsageError("power: an integer to a negative power is no integer; convert the base with .float()")
        return power_integer(a, b, out)
    return power_float(a, b, out)


@implements
def maximum(a, b, out):
    (either if out.dtype == BOOL else larger_of)(a, b, out)


@implements
def minimum(a, b, out):
    (both if out.dtype == BOOL else smaller_of)(a, b, out)


# What integers cannot do: the GPU raises nothing, so it is asked first. All threads that find one write the same.

@kernel
def zero_found(x, found, total, shape: Sizes, steps):
    for i in grid_stride(total):
        if x[offset(i, shape, steps)] == 0:
            found[0] = 1


@kernel
def negative_found(x, found, total, shape: Sizes, steps):
    for i in grid_stride(total):
        if x[offset(i, shape, steps)] < 0:
            found[0] = 1


def _any(finder, x: DeviceArray) -> bool:
    """Whether a thread of `finder` found an element, waiting for the answer."""
    found = x.lease.allocator.from_numpy(np.zeros(1, np.uint8))
    shape, steps = merged(x.shape, x.steps)
    launch(finder, x.size, x, found, x.size, shape, steps)
    return bool(x.lease.allocator.to_numpy(found)[0])


def _check_divisor(operation: str, b) -> None:
    if _any(zero_found, b) if type(b) is DeviceArray else not b:
        raise UsageError(f"{operation}: an integer is divided by zero; convert the dividend with .float() to get inf")


# Comparisons and logic

class Comparison(Arithmetic):
    """out = whether the relation holds, in the operands' common dtype."""

    def __init__(self, function, relation):
        super().__init__(function)
        self.relation = relation

    def __call__(self, a, b, out):
        dtype = result_type(a, b)
        if dtype.kind in "iu":                          # a Python integer beyond the dtype compares exactly
            number = b if type(a) is DeviceArray else a
            if type(number) is not DeviceArray and not _holds(dtype, number):
                dtype = np.dtype(np.int64)
                if not _holds(dtype, number):
                    return full(out.shape, self.relation(*[0 if type(x) is DeviceArray else x for x in (a, b)]), out.dtype, out)
        return super().__call__(a, b, out, dtype)


def _holds(dtype: np.dtype, number: int) -> bool:
    return np.iinfo(dtype).min <= number <= np.iinfo(dtype).max


@device
def _equal(a, b):
    return a == b


@device
def _not_equal(a, b):
    return a != b


@device
def _less(a, b):
    return a < b


@device
def _less_equal(a, b):
    return a <= b


@device
def _greater(a, b):
    return a > b


@device
def _greater_equal(a, b):
    return a >= b


equal_of, not_equal_of = Comparison(_equal, operator.eq), Comparison(_not_equal, operator.ne)
less_of, less_equal_of = Comparison(_less, operator.lt), Comparison(_less_equal, operator.le)
greater_of, greater_equal_of = Comparison(_greater, operator.gt), Comparison(_greater_equal, operator.ge)


@implements
def equal(a, b, out):
    equal_of(a, b, out)


@implements
def not_equal(a, b, out):
    not_equal_of(a, b, out)


@implements
def less(a, b, out):
    less_of(a, b, out)


@implements
def less_equal(a, b, out):
    less_equal_of(a, b, out)


@implements
def greater(a, b, out):
    greater_of(a, b, out)


@implements
def greater_equal(a, b, out):
    greater_equal_of(a, b, out)


@implements
def logical_and(a, b, out):
    both(a, b, out)


@implements
def logical_or(a, b, out):
    either(a, b, out)


@implements
def logical_xor(a, b, out):
    exactly_one(a, b, out)


# Functions of one operand

@device
def _is_zero(x):
    return x == 0


@device
def _isnan(x):
    return x != x


@device
def _isinf(x):
    return math.isinf(x)


@device
def _isfinite(x):
    return x - x == 0.0


@device
def _negative(x):
    return -x


@device
def _absolute(x):
    return abs(x)


@device
def _sign_float(x):
    return 1.0 if x > 0.0 else -1.0 if x < 0.0 else x * 0.0 if x == x else x


@device
def _sign_integer(x):
    return 1 if x > 0 else -1 if x < 0 else 0


@device
def _square(x):
    return x * x


@device
def _floor(x):
    return floor_of(x)


@device
def _ceil(x):
    return ceil_of(x)


@device
def _round(x):
    return rint(x)


@device
def _trunc(x):
    return trunc_of(x)


@device
def _expm1(x):
    return math.expm1(x)


@device
def _log(x):
    return math.log(x)


@device
def _log1p(x):
    return math.log1p(x)


@device
def _rsqrt(x):
    return 1.0 / math.sqrt(x)


@device
def _reciprocal(x):
    return 1.0 / x


@device
def _sin(x):
    return math.sin(x)


@device
def _cos(x):
    return math.cos(x)


@device
def _tan(x):
    return math.tan(x)


@device
def _erf(x):
    return math.erf(x)


is_zero, isnan_of, isinf_of, isfinite_of = Unary(_is_zero), Unary(_isnan), Unary(_isinf), Unary(_isfinite)
negative_of, absolute_of, square_of = Unary(_negative), Unary(_absolute), Unary(_square)
sign_float, sign_integer = Unary(_sign_float), Unary(_sign_integer)
ROUNDED = {name: Unary(function) for name, function in (("floor", _floor), ("ceil", _ceil), ("round", _round), ("trunc", _trunc))}
REAL = {name: Unary(function) for name, function in (
    ("exp", exponential), ("expm1", _expm1), ("log", _log), ("log1p", _log1p), ("sqrt", square_root), ("rsqrt", _rsqrt),
    ("reciprocal", _reciprocal), ("sin", _sin), ("cos", _cos), ("tan", _tan), ("erf", _erf))}


@implements
def logical_not(x, out):
    is_zero(x, out)


def _of_floats(function: Unary, of_others: bool, x, out):
    if is_floating_point(x.dtype):
        function(x, out)
    else:
        full(out.shape, of_others, out.dtype, out)


@implements
def isnan(x, out):
    _of_floats(isnan_of, False, x, out)


@implements
def isinf(x, out):
    _of_floats(isinf_of, False, x, out)


@implements
def isfinite(x, out):
    _of_floats(isfinite_of, True, x, out)


@implements
def negative(x, out):
    negative_of(x, out)


@implements
def absolute(x, out):
    (copy if x.dtype.kind in "bu" else absolute_of)(x, out)


@implements
def sign(x, out):
    (copy if x.dtype == BOOL else sign_float if is_floating_point(x.dtype) else sign_integer)(x, out)


@implements
def square(x, out):
    (copy if x.dtype == BOOL else square_of)(x, out)


def _implement_rounding(name):
    def rounded(x, out):
        (ROUNDED[name] if is_floating_point(x.dtype) else copy)(x, out)
    implements(rounded, name)


def _implement_real(name):
    def real(x, out):
        REAL[name](converted(x, out.dtype), out)
    implements(real, name)


for _name in ROUNDED:
    _implement_rounding(_name)
for _name in REAL:
    _implement_real(_name)


# Selecting, filling, copying

@lanewise
def _chosen(condition, a, b):
    return a if condition else b


@kernel
def choose_kernel(condition, a, b, out, total, shape: Sizes, condition_steps, a_steps, b_steps, out_steps):
    for i in grid_stride(total):
        condition_of, a_of, b_of = offset(i, shape, condition_steps), offset(i, shape, a_steps), offset(i, shape, b_steps)
        out[offset(i, shape, out_steps)] = _chosen(condition[condition_of], a[a_of], b[b_of])


@kernel
def clamp_kernel(x, out, low, high, total, shape: Sizes, x_steps, out_steps):
    for i in grid_stride(total):
        out[offset(i, shape, out_steps)] = clamped(x[offset(i, shape, x_steps)], low, high)


@kernel
def full_kernel(out, value, total, shape: Sizes, out_steps):
    for i in grid_stride(total):
        out[offset(i, shape, out_steps)] = value


@implements
def where(condition, a, b, out):
    a, b = [converted(x, out.dtype) if type(x) is DeviceArray else _scalar_array(x, out) for x in (a, b)]
    places = merged(out.shape, out.steps, *[broadcast_steps(x, out.shape) for x in (condition, a, b)])
    total, (shape, out_steps, *steps), (out, *given) = pieces(places, out, condition, a, b)
    launch(choose_kernel, total, *given, out, total, shape, *steps, out_steps)


def _scalar_array(value, out: DeviceArray) -> DeviceArray:
    made = out.lease.allocator.empty((), out.dtype)
    full((), value, out.dtype, made)
    return made


@implements
def clamp(x, minimum, maximum, out):
    if out.dtype == BOOL:
        lowest, highest = False, True
    elif is_floating_point(out.dtype):
        lowest, highest = -np.inf, np.inf
    else:
        lowest, highest = np.iinfo(out.dtype).min, np.iinfo(out.dtype).max
    x = converted(x, out.dtype)
    low, high = (number(limit if given is None else given, out.dtype) for limit, given in ((lowest, minimum), (highest, maximum)))
    total, (shape, out_steps, x_steps), (out, x) = pieces(merged(out.shape, out.steps, x.steps), out, x)
    launch(clamp_kernel, total, x, out, low, high, total, shape, x_steps, out_steps)


@implements
def cast(x, dtype, out):
    convert(x, out)


@kernel
def cast_list(arrays, out, starts, count, step, total):
    for i in grid_stride(total):
        k, e = element_of(i, starts, count, step)
        out[k][e] = arrays[k][e]


@implements
def cast_all(arrays, dtype, out):
    alike = []
    for x, y in zip(arrays, out):
        if x.size and x.is_dense and x.steps == y.steps and y.dtype != BOOL:
            alike.append((x, y))
        else:
            convert(x, y)
    if alike:
        for members, step, (given, made), starts, total in together([list(of) for of in zip(*alike)]):
            launch(cast_list, total, given, made, starts, len(members), step, total)


@implements
def copy(x, out):
    convert(x, out)


@implements
def full(shape, value, dtype, out):
    value = number(value, out.dtype)
    total, (merged_shape, out_steps), (out,) = pieces(merged(out.shape, out.steps), out)
    launch(full_kernel, total, out, value, total, merged_shape, out_steps)
