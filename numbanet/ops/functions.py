"""Functions of one operand, elementwise. Integers give the default floating-point dtype where the result is not whole."""

from __future__ import annotations

from math import pi
from math import sqrt as _sqrt

from numbanet.autograd.operation import Operation

__all__ = ["abs", "absolute", "ceil", "cos", "erf", "exp", "expm1", "floor", "log", "log10", "log1p", "log2", "neg", "negative",
           "reciprocal", "round", "rsqrt", "sign", "sin", "sqrt", "square", "tan", "trunc"]


class _KeepsNothing(Operation):
    """Base of operations whose backward does not read the input."""

    @classmethod
    def keeps_input(cls, *arguments):
        return False


class Negative(_KeepsNothing):
    """-x."""

    operation_name = "neg"

    def forward(self, backend, x):
        return backend.negative(x, out=self.out)

    def backward(self, backend, grad_y, needs):
        return backend.negative(grad_y)


class Absolute(Operation):
    """|x|; the gradient at 0 is 0."""

    operation_name = "abs"

    def forward(self, backend, x):
        self.save(x)
        return backend.absolute(x, out=self.out)

    def backward(self, backend, grad_y, needs):
        x, = self.saved
        return backend.multiply(grad_y, backend.sign(x))


class Square(Operation):
    """x * x."""

    operation_name = "square"

    def forward(self, backend, x):
        self.save(x)
        return backend.square(x, out=self.out)

    def backward(self, backend, grad_y, needs):
        x, = self.saved
        return backend.multiply(backend.multiply(grad_y, 2.0), x)


class Exp(_KeepsNothing):
    """e ** x."""

    operation_name = "exp"

    def forward(self, backend, x):
        y = backend.exp(x, out=self.out)
        self.save(y)
        return y

    def backward(self, backend, grad_y, needs):
        y, = self.saved
        return backend.multiply(grad_y, y)


class Expm1(_KeepsNothing):
    """e ** x - 1."""

    operation_name = "expm1"

    def forward(self, backend, x):
        y = backend.expm1(x, out=self.out)
        self.save(y)
        return y

    def backward(self, backend, grad_y, needs):
        y, = self.saved
        return backend.multiply(grad_y, backend.add(y, 1.0))


class Log(Operation):
    """The natural logarithm."""

    operation_name = "log"

    def forward(self, backend, x):
        self.save(x)
        return backend.log(x, out=self.out)

    def backward(self, backend, grad_y, needs):
        x, = self.saved
        return backend.divide(grad_y, x)


class Log1p(Operation):
    """log(1 + x)."""

    operation_name = "log1p"

    def forward(self, backend, x):
        self.save(x)
        return backend.log1p(x, out=self.out)

    def backward(self, backend, grad_y, needs):
        x, = self.saved
        return backend.divide(grad_y, backend.add(x, 1.0))


class Sqrt(_KeepsNothing):
    """The square root."""

    operation_name = "sqrt"

    def forward(self, backend, x):
        y = backend.sqrt(x, out=self.out)
        self.save(y)
        return y

    def backward(self, backend, grad_y, needs):
        y, = self.saved
        return backend.divide(backend.multiply(grad_y, 0.5), y)


class Rsqrt(_KeepsNothing):
    """1 / sqrt(x)."""

    operation_name = "rsqrt"

    def forward(self, backend, x):
        y = backend.rsqrt(x, out=self.out)
        self.save(y)
        return y

    def backward(self, backend, grad_y, needs):
        y, = self.saved
        return backend.multiply(backend.multiply(grad_y, -0.5), backend.multiply(backend.square(y), y))


class Reciprocal(_KeepsNothing):
    """1 / x."""

    operation_name = "reciprocal"

    def forward(self, backend, x):
        y = backend.reciprocal(x, out=self.out)
        self.save(y)
        return y

    def backward(self, backend, grad_y, needs):
        y, = self.saved
        return backend.negative(backend.multiply(grad_y, backend.square(y)))


class Sin(Operation):
    """The sine of x radians."""

    operation_name = "sin"

    def forward(self, backend, x):
        self.save(x)
        return backend.sin(x, out=self.out)

    def backward(self, backend, grad_y, needs):
        x, = self.saved
        return backend.multiply(grad_y, backend.cos(x))


class Cos(Operation):
    """The cosine of x radians."""

    operation_name = "cos"

    def forward(self, backend, x):
        self.save(x)
        return backend.cos(x, out=self.out)

    def backward(self, backend, grad_y, needs):
        x, = self.saved
        return backend.negative(backend.multiply(grad_y, backend.sin(x)))


class Tan(_KeepsNothing):
    """The tangent of x radians."""

    operation_name = "tan"

    def forward(self, backend, x):
        y = backend.tan(x, out=self.out)
        self.save(y)
        return y

    def backward(self, backend, grad_y, needs):
        y, = self.saved
        return backend.multiply(grad_y, backend.add(backend.square(y), 1.0))


class Erf(Operation):
    """The error function."""

    operation_name = "erf"

    def forward(self, backend, x):
        self.save(x)
        return backend.erf(x, out=self.out)

    def backward(self, backend, grad_y, needs):
        x, = self.saved
        slope = backend.multiply(backend.exp(backend.negative(backend.square(x))), 2 / _sqrt(pi))
        return backend.multiply(grad_y, slope)


class Step(_KeepsNothing):
    """A function that is constant between steps, by its primitive's name; the gradient is 0."""

    operation_name = "step"

    def forward(self, backend, x, primitive):
        return getattr(backend, primitive)(x, out=self.out)

    def backward(self, backend, grad_y, needs):
        return backend.full(grad_y.shape, 0.0, grad_y.dtype)


def neg(x):
    """-x."""
    return Negative.apply(x)


def abs(x):
    """|x|."""
    return Absolute.apply(x)


def square(x):
    """x * x."""
    return Square.apply(x)


def exp(x):
    """e ** x."""
    return Exp.apply(x)


def expm1(x):
    """e ** x - 1, accurate near 0."""
    return Expm1.apply(x)


def log(x):
    """The natural logarithm: -inf at 0, NaN below."""
    return Log.apply(x)


def log2(x):
    """The logarithm to base 2."""
    return Log.apply(x) * 1.4426950408889634


def log10(x):
    """The logarithm to base 10."""
    return Log.apply(x) * 0.4342944819032518


def log1p(x):
    """log(1 + x), accurate near 0."""
    return Log1p.apply(x)


def sqrt(x):
    """The square root: NaN below 0."""
    return Sqrt.apply(x)


def rsqrt(x):
    """1 / sqrt(x)."""
    return Rsqrt.apply(x)


def reciprocal(x):
    """1 / x."""
    return Reciprocal.apply(x)


def sin(x):
    """The sine of x radians."""
    return Sin.apply(x)


def cos(x):
    """The cosine of x radians."""
    return Cos.apply(x)


def tan(x):
    """The tangent of x radians."""
    return Tan.apply(x)


def erf(x):
    """The error function."""
    return Erf.apply(x)


def sign(x):
    """-1, 0 or 1; NaN stays NaN."""
    return Step.apply(x, "sign")


def floor(x):
    """The largest integer not above x."""
    return Step.apply(x, "floor")


def ceil(x):
    """The smallest integer not below x."""
    return Step.apply(x, "ceil")


def round(x, *, decimals=0):
    """The nearest number of `decimals` decimals, the even one of two equally near."""
    return Step.apply(x, "round") if decimals == 0 else Step.apply(x * 10.0**decimals, "round") / 10.0**decimals


def trunc(x):
    """The integer part, towards zero."""
    return Step.apply(x, "trunc")


absolute, negative = abs, neg
