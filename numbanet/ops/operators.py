"""Tensor's operators and methods of elementwise arithmetic and conversion."""

from __future__ import annotations

import numpy as np

from numbanet._tensor import Tensor
from numbanet.autograd.in_place import apply_in_place
from numbanet.ops import conversion, elementwise, functions


def _operator(function, swapped=False):
    """An operator method: NotImplemented for operands that are no numbers, so that Python asks the other one."""
    def method(x, other):
        if not isinstance(other, (Tensor, float, int, np.ndarray, np.generic)):
            return NotImplemented
        return function(other, x) if swapped else function(x, other)
    method.__name__ = function.__name__
    method.__doc__ = function.__doc__
    return method


_BINARY = {"add": (elementwise.add, elementwise.add_), "sub": (elementwise.sub, elementwise.sub_),
           "mul": (elementwise.mul, elementwise.mul_), "truediv": (elementwise.div, elementwise.div_),
           "floordiv": (elementwise.floor_divide, elementwise.floor_divide_), "mod": (elementwise.remainder, elementwise.remainder_),
           "pow": (elementwise.pow, elementwise.pow_)}
for _name, (_function, _in_place) in _BINARY.items():
    setattr(Tensor, f"__{_name}__", _operator(_function))
    setattr(Tensor, f"__r{_name}__", _operator(_function, swapped=True))
    setattr(Tensor, f"__i{_name}__", _operator(_in_place))

for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(Tensor, f"__{_name}__", _operator(getattr(elementwise, _name)))


def _logic(function, bitwise: str):
    """& | ^ of booleans; bitwise operations on integers are not offered."""
    def method(x, other):
        for operand in (x, other):
            if getattr(operand, "dtype", np.dtype(type(operand))).kind != "b":
                raise TypeError(f"{bitwise}: expected booleans, received {getattr(operand, 'dtype', type(operand).__name__)}")
        return function(x, other)
    return method


for _name, _function, _sign in (("and", elementwise.logical_and, "&"), ("or", elementwise.logical_or, "|"),
                                ("xor", elementwise.logical_xor, "^")):
    setattr(Tensor, f"__{_name}__", _logic(_function, _sign))
    setattr(Tensor, f"__r{_name}__", _logic(_function, _sign))


def _invert(x):
    """Not x, of booleans."""
    if x.dtype.kind != "b":
        raise TypeError(f"~: expected booleans, received {x.dtype}; use logical_not")
    return elementwise.logical_not(x)


Tensor.__neg__, Tensor.__pos__, Tensor.__abs__, Tensor.__invert__ = functions.neg, lambda x: x, functions.abs, _invert
Tensor.__hash__ = lambda x: id(x)               # a class that compares with == would lose it

for _name in elementwise.__all__:
    if _name not in ("where", "rsub"):
        setattr(Tensor, _name, getattr(elementwise, _name))
Tensor.where = lambda x, condition, other: elementwise.where(condition, x, other)
for _name in functions.__all__:
    setattr(Tensor, _name, getattr(functions, _name))
for _name in ("add_", "sub_", "mul_", "div_", "remainder_", "floor_divide_", "pow_", "clamp_", "masked_fill_"):
    setattr(Tensor, _name, getattr(elementwise, _name))
Tensor.clip_, Tensor.multiply_, Tensor.divide_, Tensor.subtract_ = (
    elementwise.clamp_, elementwise.mul_, elementwise.div_, elementwise.sub_)
for _name in ("to", "type", "float", "double", "half", "bfloat16", "long", "int", "bool", "byte", "fill_", "zero_", "copy_"):
    setattr(Tensor, _name, getattr(conversion, _name))


def _clamp_min(x, min):
    """The larger of x and `min`."""
    return elementwise.clamp(x, min=min)


def _clamp_max(x, max):
    """The smaller of x and `max`."""
    return elementwise.clamp(x, max=max)


Tensor.clamp_min, Tensor.clamp_max = _clamp_min, _clamp_max


def _in_place_of(operation_class, *arguments):
    def method(x):
        return apply_in_place(operation_class, x, *arguments)
    method.__doc__ = f"In place: {operation_class.__doc__}"
    return method


for _name, _operation in (("neg_", functions.Negative), ("abs_", functions.Absolute), ("square_", functions.Square),
                          ("exp_", functions.Exp), ("log_", functions.Log), ("sqrt_", functions.Sqrt), ("rsqrt_", functions.Rsqrt),
                          ("reciprocal_", functions.Reciprocal), ("sin_", functions.Sin), ("cos_", functions.Cos)):
    setattr(Tensor, _name, _in_place_of(_operation))
for _name in ("sign", "floor", "ceil", "round", "trunc"):
    setattr(Tensor, f"{_name}_", _in_place_of(functions.Step, _name))
