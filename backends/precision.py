"""How exact float32 arithmetic is, on every backend.

strict: sums of products, each rounded as float32 does. fast, the default: also algorithms that round differently where
they are faster: Winograd's convolution (relative error 2e-6 instead of 1e-6; a NaN or an infinity fills the 4 x 4 outputs
around it, 2 x 2 with 5 x 5 taps, and in a weight gradient the 3 x 3 taps), TF32 on GPUs.
"""

from __future__ import annotations

from numbanet.errors import UsageError

PRECISIONS = ("strict", "fast")
_precision = "fast"


def set_float32_precision(precision: str) -> None:
    """Choose "strict" or "fast" float32 arithmetic for the whole process, eager and compiled.

    Raises
    ------
    UsageError
        Any other word.
    """
    global _precision
    if precision not in PRECISIONS:
        raise UsageError(f"set_float32_precision: expected 'strict' or 'fast', received {precision!r}")
    _precision = precision


def get_float32_precision() -> str:
    """What :func:`set_float32_precision` chose."""
    return _precision
