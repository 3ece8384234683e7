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

if SIMULATED:
    def larger_number(a, b):
        return a if a >= b or a != a else b

    def smaller_number(a, b):
        return a if a <= b or a != a else b

    def halves_of_product(a, b):
        """(the high, the low 32 bits) of a product of two uint32."""
        product = np.uint64(a) * np.uint64(b)
        return np.uint32(product >> np.uint64(32)), np.uint32(product & np.uint64(0xFFFFFFFF))
else:
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    from numbanet.backends.cuda import ptx

    def _extreme(of_float32, compared: str):
        """The number that compares so, NaN where either is one; of float32 one instruction."""
        @intrinsic
        def number(context, a, b):
            kind = types.unliteral(context.unify_types(a, b))

            def generate(lowering, builder, signature, arguments):
                a, b = arguments
                if kind == types.float32:
                    return of_float32(builder, a, b)
                if not isinstance(kind, types.Float):
                    compare = builder.icmp_signed if kind.signed else builder.icmp_unsigned
                    return builder.select(compare(compared, a, b), a, b)
                is_first = builder.or_(builder.fcmp_ordered(compared, a, b), builder.fcmp_unordered("uno", a, a))
                return builder.select(is_first, a, b)
            return kind(kind, kind), generate
        return number

    @intrinsic
    def halves_of_product(context, a, b):
        """(the high, the low 32 bits) of a product of two uint32."""
        def generate(lowering, builder, signature, arguments):
            product, word = ptx.wide_product(builder, *arguments), ir.IntType(32)
            high = builder.trunc(builder.lshr(product, ir.Constant(product.type, 32)), word)
            return lowering.make_tuple(builder, signature.return_type, [high, builder.trunc(product, word)])
        return types.UniTuple(types.uint32, 2)(types.uint32, types.uint32), generate

    larger_number, smaller_number = _extreme(ptx.larger_float, ">="), _extreme(ptx.smaller_float, "<=")


@lanewise
def larger(a, b):
    """The larger of two; NaN where either is."""
    return larger_number(a, b)


@lanewise
def smaller(a, b):
    """The smaller of two; NaN where either is."""
    return smaller_number(a, b)


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
