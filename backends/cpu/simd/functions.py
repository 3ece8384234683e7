"""Elementary functions of float vectors, with NaN, inf, signed zeros and denormals as in IEEE 754.

    exp, expm1   x = n ln 2 + r with |r| <= ln 2 / 2, exp(x) = 2^n (1 + r + r^2 P(r))
    log, log1p   x = 2^e m with sqrt(1/2) <= m < sqrt(2), log(x) = e ln 2 + f - f^2 / 2 + f^3 P(f), f = m - 1
    tanh         x + x^3 P(x^2) below 0.625, above it 1 - 2 / (exp(2 x) + 1)
    erf          x + x P(x^2) below 0.92, above it 1 - exp(x P(x))

Errors in units in the last place: below 1 for exp and log, 1.5 for expm1, log1p, tanh and erf, 2.5 for sigmoid. ln 2
is taken in two parts (Cody and Waite 1980). The polynomials of exp, log and tanh are those of the Cephes library
(Moshier 1989: expf, logf, tanhf); those of erf are minimax fits of erf(x) / x - 1 and log(erfc(x)) / x, rounded to
float32. Each function is written over the SIMD vocabulary, so that the same source runs as scalar twin.
"""
from math import inf, nan

from numbanet.backends.cpu import hardware
from numbanet.backends.cpu.compile import worker
from numbanet.backends.cpu.simd.vector import (
    absolute,
    bits,
    copysign,
    fma,
    from_bits,
    select,
    splat,
    times_power_of_two,
    to_float,
)

SCALES = hardware.scales_in_one_instruction()

LOG2_E = 1.44269504
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4      # the first has few bits: its product with n is exact

# Adding 1.5 * 2^23 leaves the nearest whole number in the low bits of the mantissa. (A conversion to integers would be
# undefined for NaN.)
ROUNDER = 12582912.0
ROUNDER_BITS = 0x4B400000

SMALLEST_NORMAL = 1.17549435e-38
SQRT_HALF_BITS = 0x3F3504F3


@worker(inline=True)
def _reduced(x):
    """(n, as float and integer lanes, and exp(r) - 1) with x = n ln 2 + r."""
    shifted = fma(x, LOG2_E, ROUNDER)
    whole = shifted - ROUNDER
    r = fma(whole, -LN2_LOW, fma(whole, -LN2_HIGH, x))
    p = fma(r, 1.9875691500e-4, 1.3981999507e-3)
    p = fma(r, p, 8.3334519073e-3)
    p = fma(r, p, 4.1665795894e-2)
    p = fma(r, p, 1.6666665459e-1)
    p = fma(r, p, 5.0000001201e-1)
    return whole, bits(shifted) - ROUNDER_BITS, fma(p, r * r, r)


@worker(inline=True)
def _power_of_two(n):
    """2^n for -126 <= n <= 127."""
    return from_bits((n + 127) << 23)


@worker(inline=True)
def exp(x):
    """The exponential; inf above 88.73, denormal below -87.34, 0 below -103.98."""
    bounded = select(x > 89.0, 89.0, select(x < -104.0, -104.0, x))
    whole, n, y = _reduced(bounded)
    if SCALES:
        return times_power_of_two(y + 1.0, whole)
    half = n >> 1                                        # 2^n alone would leave the normal numbers
    return (y + 1.0) * _power_of_two(half) * _power_of_two(n - half)


@worker(inline=True)
def expm1(x):
    """exp(x) - 1, accurate near 0."""
    bounded = select(x > 89.0, 89.0, select(x < -50.0, -50.0, x))
    _, n, y = _reduced(bounded)
    half = _power_of_two(n - 1)
    return copysign(2.0 * fma(half, y, half - 0.5), x)


@worker(inline=True)
def log(x):
    """The natural logarithm; -inf at 0, NaN below."""
    denormal = x < SMALLEST_NORMAL
    normal = select(denormal, x * 8388608.0, x)
    exponent = (bits(normal) - SQRT_HALF_BITS) >> 23
    f = from_bits(bits(normal) - (exponent << 23)) - 1.0
    e = to_float(exponent) - select(denormal, 23.0, splat(0.0))
    p = fma(f, 7.0376836292e-2, -1.1514610310e-1)
    p = fma(f, p, 1.1676998740e-1)
    p = fma(f, p, -1.2420140846e-1)
    p = fma(f, p, 1.4249322787e-1)
    p = fma(f, p, -1.6668057665e-1)
    p = fma(f, p, 2.0000714765e-1)
    p = fma(f, p, -2.4999993993e-1)
    p = fma(f, p, 3.3333331174e-1)
    square = f * f
    y = fma(e, LN2_LOW, p * square * f)
    y = fma(e, LN2_HIGH, f + fma(square, -0.5, y))
    y = select(x > 3.4028235e38, x, y)
    y = select(x == 0.0, -inf, y)
    return select(x >= 0.0, y, nan)


@worker(inline=True)
def log1p(x):
    """log(1 + x), accurate near 0."""
    u = x + 1.0
    y = copysign(log(u) + (x - (u - 1.0)) / u, x)        # the second term is what the rounding of u left out
    return select(u > 3.4028235e38, x, select(u == 0.0, -inf, y))


@worker(inline=True)
def tanh(x):
    """The hyperbolic tangent."""
    size, square = absolute(x), x * x
    p = fma(square, -5.70498872745e-3, 2.06390887954e-2)
    p = fma(square, p, -5.37397155531e-2)
    p = fma(square, p, 1.33314422036e-1)
    p = fma(square, p, -3.33332819422e-1)
    y = select(size < 0.625, fma(size * square, p, size), 1.0 - 2.0 / (exp(size + size) + 1.0))
    return copysign(y, x)


@worker(inline=True)
def sigmoid(x):
    """1 / (1 + exp(-x)), without overflow on either side."""
    e = exp(-absolute(x))
    return select(x >= 0.0, 1.0, e) / (e + 1.0)


@worker(inline=True)
def erf(x):
    """The error function."""
    size, square = absolute(x), x * x
    p = fma(square, -5.9645792e-4, 4.9885837e-3)
    p = fma(square, p, -2.6763957e-2)
    p = fma(square, p, 1.1281759e-1)
    p = fma(square, p, -3.7612489e-1)
    p = fma(square, p, 1.2837915e-1)
    t = select(size > 4.0, 4.0, size)                    # beyond it erf rounds to 1
    q = fma(t, -1.0433115e-5, 3.1485810e-4)
    q = fma(t, q, -3.6103420e-3)
    q = fma(t, q, 2.3694566e-2)
    q = fma(t, q, -1.0615905e-1)
    q = fma(t, q, -6.3519806e-1)
    q = fma(t, q, -1.1286371)
    return select(size < 0.92, fma(x, p, x), copysign(1.0 - exp(t * q), x))
