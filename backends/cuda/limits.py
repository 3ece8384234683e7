"""Limits as numbers, no limit being infinite: `smaller(larger(x, low), high)` then leaves x as it is, NaN included."""

from __future__ import annotations

import math

INFINITY, NAN = math.inf, math.nan         # in kernels as the kernel's own precision, which `math.inf` itself is not
NO_LIMITS = -INFINITY, INFINITY


def limits(minimum: float | None, maximum: float | None) -> tuple[float, float]:
    """(low, high).

    Examples
    --------
    >>> limits(0.0, None)
    (0.0, inf)
    """
    return NO_LIMITS[0] if minimum is None else minimum, NO_LIMITS[1] if maximum is None else maximum
