"""Arithmetic of two operands with broadcasting, selection, comparison and logic.

Operands are tensors, Python scalars (weak: they never widen a tensor's dtype inside its category) or NumPy arrays.
"""

from __future__ import annotations

from math import log as _log

import numpy as np

from numbanet._tensor import Tensor, tensor
from numbanet.autograd.in_place import apply_in_place
from numbanet.autograd.operation import Operation
from numbanet.dtypes import is_floating_point, promote, result_type
from numbanet.errors import DTypeError, ShapeError, UsageError

__all__ = ["add", "clamp", "clip", "div", "divide", "eq", "floor_divide", "fmod", "ge", "greater",
           "greater_equal", "gt", "isfinite", "isinf", "isnan", "le", "less", "less_equal", "logical_and", "logical_not",
           "logical_or", "logical_xor", "lt", "masked_fill", "maximum", "minimum", "mul", "multiply", "ne", "not_equal", "pow",
           "remainder", "rsub", "sub", "subtract", "true_divide", "where"]


def reduce_to(backend, gradient, shape, dtype=None):
    """Sum a gradient over the axes along which an operand of `shape` was broadcast, and return it in its dtype."""
    if gradient.shape != shape:
        lead = len(gradient.shape) - len(shape)
        axes = tuple(range(lead)) + tuple(lead + a for a, n in enumerate(shape) if n == 1 and gradient.shape[lead + a] != 1)
        gradient = backend.reshape(backend.sum(gradient, axes, True), shape)
    return gradient if dtype is None or gradient.dtype == dtype else backend.cast(gradient, dtype)


def _origins(*operands) -> tuple:
    """What gradients have to fit: (shape, dtype) of each array, None for each scalar."""
    return tuple([(x.shape, x.dtype) if hasattr(x, "shape") else None for x in operands])


def _to_operands(backend, origins, needs, *gradients) -> tuple:
    """One gradient per tensor operand; `gradients` compute them in the broadcast shape."""
    needs = iter(needs)
    return tuple([reduce_to(backend, gradient(), *origin) if next(needs) else None
                  for origin, gradient in zip(origins, gradients) if origin is not None])


def _wants(x) -> bool:
    """Whether a gradient of x is wanted, for which the other operand has to be saved."""
    return isinstance(x, Tensor) and x.requires_grad


def _operand(x, *others):
    """x as a tensor or Python scalar; arrays move to the device of the tensor among `others`."""
    if type(x) in (float, int, bool) or isinstance(x, Tensor):
        return x
    if isinstance(x, np.generic):
        return x.item()
    if isinstance(x, np.ndarray):
        return tensor(x, device=next((o.device for o in others if isinstance(o, Tensor)), None))
    raise TypeError(f"expected a tensor or a number, received {type(x).__name__}")


# --- operations -----------------------------------------------------------------------------------------------------

class Add(Operation):
    """a + b."""

    operation_name = "add"

    @classmethod
    def keeps_input(cls, b):
        return False

    def forward(self, backend, a, b):
        self.save(_origins(a, b))
        return backend.add(a, b, out=self.out)

    def backward(self, backend, grad_y, needs):
        origins, = self.saved
        return _to_operands(backend, origins, needs, lambda: grad_y, lambda: grad_y)


class Subtract(Operation):
    """a - b."""

    operation_name = "sub"

    @classmethod
    def keeps_input(cls, b):
        return False

    def forward(self, backend, a, b):
        self.save(_origins(a, b))
        return backend.subtract(a, b, out=self.out)

    def backward(self, backend, grad_y, needs):
        origins, = self.saved
        return _to_operands(backend, origins, needs, lambda: grad_y, lambda: backend.negative(grad_y))


class Multiply(Operation):
    """a * b."""

    operation_name = "mul"

    @classmethod
    def keeps_input(cls, b, save_a, save_b):
        return save_a

    def forward(self, backend, a, b, save_a, save_b):
        self.save(_origins(a, b), a if save_a else None, b if save_b else None)
        return backend.multiply(a, b, out=self.out)

    def backward(self, backend, grad_y, needs):
        origins, a, b = self.saved
        return _to_operands(backend, origins, needs, lambda: backend.multiply(grad_y, b), lambda: backend.multiply(grad_y, a))


class Divide(Operation):
    """a / b."""

    operation_name = "div"

    @classmethod
    def keeps_input(cls, b, save_a, save_b):
        return save_a

    def forward(self, backend, a, b, save_a, save_b):
        self.save(_origins(a, b), a if save_a else None, b if save_b else None)
        return backend.divide(a, b, out=self.out)

    def backward(self, backend, grad_y, needs):
        origins, a, b = self.saved

        def grad_b():
            return backend.negative(backend.divide(backend.multiply(grad_y, backend.divide(a, b)), b))
        return _to_operands(backend, origins, needs, lambda: backend.divide(grad_y, b), grad_b)


class Remainder(Operation):
    """a - b * floor(a / b)."""

    operation_name = "remainder"

    def forward(self, backend, a, b):
        self.save(_origins(a, b), a, b)
        return backend.remainder(a, b, out=self.out)

    def backward(self, backend, grad_y, needs):
        origins, a, b = self.saved
        return _to_operands(backend, origins, needs, lambda: grad_y,
                            lambda: backend.negative(backend.multiply(grad_y, backend.floor_divide(a, b))))


class FloorDivide(Operation):
    """floor(a / b); the gradients are 0."""

    operation_name = "floor_divide"

    @classmethod
    def keeps_input(cls, b):
        return False

    def forward(self, backend, a, b):
        self.save(_origins(a, b))
        return backend.floor_divide(a, b, out=self.out)

    def backward(self, backend, grad_y, needs):
        origins, = self.saved
        return tuple([None if origin is None else backend.full(origin[0], 0.0, origin[1]) for origin in origins])


class Power(Operation):
    """a ** b. The gradients are 0 where the exponent is 0, and where 0 is raised to a power that is not negative."""

    operation_name = "pow"

    def forward(self, backend, a, b):
        y = backend.power(a, b, out=self.out)
        self.save(_origins(a, b), a, b, y)
        return y

    def backward(self, backend, grad_y, needs):
        origins, a, b, y = self.saved

        def grad_a():
            if not hasattr(b, "shape"):
                if b == 0:
                    return backend.full(grad_y.shape, 0.0, grad_y.dtype)
                return backend.multiply(grad_y, backend.multiply(backend.power(a, b - 1), b))
            slope = backend.multiply(backend.power(a, backend.subtract(b, 1)), b)
            return backend.multiply(grad_y, backend.where(backend.equal(b, 0), 0.0, slope))

        def grad_b():
            if not hasattr(a, "shape"):
                if a == 0:
                    return backend.multiply(grad_y, backend.where(backend.greater_equal(b, 0), 0.0, float("-inf")))
                return backend.multiply(grad_y, backend.multiply(y, _log(a) if a > 0 else float("nan")))
            flat = backend.logical_and(backend.equal(a, 0), backend.greater_equal(b, 0))
            return backend.multiply(grad_y, backend.where(flat, 0.0, backend.multiply(y, backend.log(a))))
        return _to_operands(backend, origins, needs, grad_a, grad_b)


class Extremum(Operation):
    """The larger or the smaller of a and b; equal elements share the gradient."""

    operation_name = "maximum"

    def forward(self, backend, a, b, largest):
        self.save(_origins(a, b), a, b, largest)
        return backend.maximum(a, b, out=self.out) if largest else backend.minimum(a, b, out=self.out)

    def backward(self, backend, grad_y, needs):
        origins, a, b, largest = self.saved

        def share(mine, other):
            """1 - (mine loses + (mine loses or is equal)) / 2: 1, 1/2 or 0, and 1 where NaN decides."""
            lost = backend.less(mine, other) if largest else backend.greater(mine, other)
            tied = backend.less_equal(mine, other) if largest else backend.greater_equal(mine, other)
            losses = backend.add(backend.cast(lost, grad_y.dtype), backend.cast(tied, grad_y.dtype))
            return backend.multiply(grad_y, backend.subtract(1.0, backend.multiply(losses, 0.5)))
        return _to_operands(backend, origins, needs, lambda: share(a, b), lambda: share(b, a))


class Where(Operation):
    """a where the condition holds, else b."""

    operation_name = "where"

    def forward(self, backend, condition, a, b):
        self.save(_origins(a, b), condition)
        return backend.where(condition, a, b)

    def backward(self, backend, grad_y, needs):
        origins, condition = self.saved
        return (None, *_to_operands(backend, origins, needs[1:], lambda: backend.where(condition, grad_y, 0.0),
                                    lambda: backend.where(condition, 0.0, grad_y)))


class MaskedFill(Operation):
    """x, but `value` where the mask holds."""

    operation_name = "masked_fill"

    @classmethod
    def keeps_input(cls, *arguments):
        return False

    def forward(self, backend, x, mask, value):
        self.save(_origins(x, value), mask)
        y = backend.where(mask, value, x)
        return y if self.out is None or y.shape != self.out.shape else backend.copy(y, out=self.out)

    def backward(self, backend, grad_y, needs):
        origins, mask = self.saved
        gradients = _to_operands(backend, origins, (needs[0], *needs[2:]), lambda: backend.where(mask, 0.0, grad_y),
                                 lambda: backend.where(mask, grad_y, 0.0))
        return (gradients[0], None, *gradients[1:])


class Clamp(Operation):
    """x limited to [minimum, maximum]; the gradient passes where x lies inside, ends included."""

    operation_name = "clamp"

    def forward(self, backend, x, minimum, maximum):
        self.save(x, minimum, maximum)
        return backend.clamp(x, minimum, maximum, out=self.out)

    def backward(self, backend, grad_y, needs):
        x, minimum, maximum = self.saved
        inside = None if minimum is None else backend.greater_equal(x, minimum)
        if maximum is not None:
            below = backend.less_equal(x, maximum)
            inside = below if inside is None else backend.logical_and(inside, below)
        return backend.where(inside, grad_y, 0.0)


class Compare(Operation):
    """A primitive of two operands with boolean results, by name."""

    operation_name = "compare"
    differentiable = False

    def forward(self, backend, a, b, primitive):
        return getattr(backend, primitive)(a, b)


class Test(Operation):
    """A primitive of one operand with boolean results, by name."""

    operation_name = "test"
    differentiable = False

    def forward(self, backend, x, primitive):
        return getattr(backend, primitive)(x)


# --- functions ------------------------------------------------------------------------------------------------------

def add(a, b, *, alpha=1):
    """a + alpha * b, with broadcasting."""
    a, b = _operand(a, b), _operand(b, a)
    return Add.apply(a, b if alpha == 1 else mul(b, alpha))


def sub(a, b, *, alpha=1):
    """a - alpha * b, with broadcasting."""
    a, b = _operand(a, b), _operand(b, a)
    return Subtract.apply(a, b if alpha == 1 else mul(b, alpha))


def rsub(a, b, *, alpha=1):
    """b - alpha * a."""
    return sub(b, a, alpha=alpha)


def mul(a, b):
    """a * b, with broadcasting."""
    a, b = _operand(a, b), _operand(b, a)
    return Multiply.apply(a, b, _wants(b), _wants(a)) if isinstance(a, Tensor) or isinstance(b, Tensor) else a * b


def div(a, b, *, rounding_mode=None):
    """a / b, with broadcasting; integers give floating point.

    Parameters
    ----------
    rounding_mode : None, "floor" (as Python's //) or "trunc" (towards zero)
    """
    a, b = _operand(a, b), _operand(b, a)
    if rounding_mode == "floor":
        return floor_divide(a, b)
    if rounding_mode not in (None, "trunc"):
        raise UsageError(f"div: rounding_mode expects None, 'floor' or 'trunc', received {rounding_mode!r}")
    y = Divide.apply(a, b, _wants(b), _wants(a) or _wants(b))
    return y if rounding_mode is None else y.trunc().to(result_type(a, b))


def floor_divide(a, b):
    """floor(a / b); the gradient is 0.

    Raises
    ------
    UsageError
        An integer is divided by zero.
    """
    return FloorDivide.apply(_operand(a, b), _operand(b, a))


def remainder(a, b):
    """a - b * floor(a / b): the sign of the divisor, as Python's %.

    Raises
    ------
    UsageError
        An integer is divided by zero.
    """
    return Remainder.apply(_operand(a, b), _operand(b, a))


def fmod(a, b):
    """a - b * trunc(a / b): the sign of the dividend, as C's fmod."""
    return sub(a, mul(div(a, b, rounding_mode="trunc"), b))


def pow(a, exponent):
    """a ** exponent, with broadcasting.

    Raises
    ------
    UsageError
        An integer is raised to a negative power.
    """
    a, exponent = _operand(a, exponent), _operand(exponent, a)
    if isinstance(exponent, (int, float)) and isinstance(a, Tensor):
        if exponent == 2:
            return a.square()
        if exponent == 0.5:
            return a.sqrt()
    return Power.apply(a, exponent)


def maximum(a, b):
    """The larger of a and b; NaN where either is NaN."""
    return Extremum.apply(_operand(a, b), _operand(b, a), True)


def minimum(a, b):
    """The smaller of a and b; NaN where either is NaN."""
    return Extremum.apply(_operand(a, b), _operand(b, a), False)


def where(condition, a=None, b=None):
    """a where `condition` (boolean) holds, else b, with broadcasting; the positions of True where only it is given."""
    if a is None and b is None:
        return condition.nonzero(as_tuple=True)
    return Where.apply(condition, _operand(a, condition), _operand(b, condition))


def masked_fill(x, mask, value):
    """x, but `value` (a number or a tensor without dimensions) where `mask` (boolean) holds."""
    return MaskedFill.apply(x, *_mask_and_value(x, mask, value))


def _mask_and_value(x, mask, value):
    value = _operand(value, x)
    if isinstance(value, Tensor) and value.ndim:
        raise ShapeError(f"masked_fill: value expects a number or a tensor without dimensions, received shape {value.shape}")
    if not isinstance(value, Tensor) and isinstance(value, float) and not is_floating_point(x.dtype):
        raise DTypeError(f"masked_fill: value {value} cannot be held by {x.dtype}; convert x with .float()")
    return mask, value


def clamp(x, min=None, max=None):
    """x limited to [min, max], each a number, a tensor or None.

    Raises
    ------
    UsageError
        Neither limit is given.
    """
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        x = x if min is None else maximum(x, min)
        return x if max is None else minimum(x, max)
    return Clamp.apply(x, min, max)


def _comparison(name: str, primitive: str, text: str):
    def compare(a, b):
        return Compare.apply(_operand(a, b), _operand(b, a), primitive)
    compare.__name__ = compare.__qualname__ = name
    compare.__doc__ = f"Whether {text}, elementwise, with broadcasting; booleans."
    return compare


eq = _comparison("eq", "equal", "a == b")
ne = _comparison("ne", "not_equal", "a != b")
lt = _comparison("lt", "less", "a < b")
le = _comparison("le", "less_equal", "a <= b")
gt = _comparison("gt", "greater", "a > b")
ge = _comparison("ge", "greater_equal", "a >= b")
logical_and = _comparison("logical_and", "logical_and", "both are not 0")
logical_or = _comparison("logical_or", "logical_or", "one or both are not 0")
logical_xor = _comparison("logical_xor", "logical_xor", "exactly one is not 0")


def logical_not(x):
    """Whether x is 0."""
    return Test.apply(x, "logical_not")


def isnan(x):
    """Whether x is NaN."""
    return Test.apply(x, "isnan")


def isinf(x):
    """Whether x is infinite."""
    return Test.apply(x, "isinf")


def isfinite(x):
    """Whether x is neither infinite nor NaN."""
    return Test.apply(x, "isfinite")


multiply, divide, true_divide, subtract, clip = mul, div, div, sub, clamp
not_equal, less, less_equal, greater, greater_equal = ne, lt, le, gt, ge


# --- in place -------------------------------------------------------------------------------------------------------

def _held(name: str, x, other, dtype=None):
    """`other` as an operand whose result fits into x, or an error that says why none does."""
    other = _operand(other, x)
    if isinstance(other, Tensor):
        lead = x.ndim - other.ndim
        if lead < 0 or any(n != 1 and n != x.shape[lead + a] for a, n in enumerate(other.shape)):
            raise ShapeError(f"{name}: x of shape {x.shape} cannot hold the result with an operand of shape {other.shape}; "
                             "use the out-of-place operation")
    dtype = result_type(x, other) if dtype is None else dtype
    if promote(dtype, x.dtype) != x.dtype and not is_floating_point(x.dtype) and (is_floating_point(dtype) or x.dtype.kind == "b"):
        raise DTypeError(f"{name}: x of {x.dtype} cannot hold the result, which is {dtype}; convert x first")
    return other.to(x.dtype) if isinstance(other, Tensor) and dtype != x.dtype else other


def add_(x, other, *, alpha=1):
    """x += alpha * other."""
    other = _held("add_", x, other)
    return apply_in_place(Add, x, other if alpha == 1 else mul(other, alpha))


def sub_(x, other, *, alpha=1):
    """x -= alpha * other."""
    other = _held("sub_", x, other)
    return apply_in_place(Subtract, x, other if alpha == 1 else mul(other, alpha))


def mul_(x, other):
    """x *= other."""
    other = _held("mul_", x, other)
    return apply_in_place(Multiply, x, other, _wants(other), _wants(x))


def div_(x, other, *, rounding_mode=None):
    """x /= other; x is of a floating-point dtype unless `rounding_mode` says how to round."""
    if rounding_mode is not None:
        return x.copy_(div(x, _held("div_", x, other), rounding_mode=rounding_mode))
    other = _held("div_", x, other, result_type(x, 1.0))
    return apply_in_place(Divide, x, other, _wants(other), _wants(x) or _wants(other))


def remainder_(x, other):
    """x %= other."""
    return apply_in_place(Remainder, x, _held("remainder_", x, other))


def floor_divide_(x, other):
    """x //= other."""
    return apply_in_place(FloorDivide, x, _held("floor_divide_", x, other))


def pow_(x, exponent):
    """x **= exponent."""
    return apply_in_place(Power, x, _held("pow_", x, exponent))


def clamp_(x, min=None, max=None):
    """:func:`clamp` in place; the limits are numbers."""
    return apply_in_place(Clamp, x, min, max)


def masked_fill_(x, mask, value):
    """:func:`masked_fill` in place."""
    return apply_in_place(MaskedFill, x, *_mask_and_value(x, mask, value))
