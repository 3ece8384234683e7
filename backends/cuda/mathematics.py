"""Functions that kernels call and `math` has not, or has with an integer as result."""

from __future__ import annotations

import math

import numpy as np

from numbanet.backends.cuda.compile import SIMULATED, PerReal, lanewise

INFINITY = float("inf")         # a constant of a module takes the kernel's precision; `math.inf` would be float64

if SIMULATED:
    floor, ceil, trunc, rint, rounded_product = (PerReal(f, f) for f in (np.floor, np.ceil, np.trunc, np.rint, np.multiply))
else:
    from numba.cuda import libdevice
    floor = PerReal(libdevice.floorf, libdevice.floor)
    ceil = PerReal(libdevice.ceilf, libdevice.ceil)
    trunc = PerReal(libdevice.truncf, libdevice.trunc)
    rint = PerReal(libdevice.rintf, libdevice.rint)
    rounded_product = PerReal(libdevice.fmul_rn, libdevice.dmul_rn)


@lanewise
def larger(a, b):
    """The larger of two; NaN where either is."""
    return a if a >= b or a != a else b


@lanewise
def smaller(a, b):
    """The smaller of two; NaN where either is."""
    return a if a <= b or a != a else b


@lanewise
def clamped(x, low, high):
    """x brought within limits; NaN where it is."""
    return smaller(larger(x, low), high)


@lanewise
def square_root(x):
    """The square root, of pieces too."""
    return math.sqrt(x)


@lanewise
def exponential(x):
    """The exponential function, of pieces too."""
    return math.exp(x)


@lanewise
def power(a, b):
    """a to the power of b, of pieces too."""
    return math.pow(a, b)


@lanewise
def product(a, b):
    """a * b rounded, never contracted with an addition, as on the host."""
    return rounded_product(a, b)
