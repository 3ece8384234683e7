"""What inference fuses, in double precision where that is the point; all else is composed of plain primitives."""

from __future__ import annotations

import numpy as np

from numbanet.backends.reference.registry import implements

AT_ONCE = 1 << 20


def exact_scale(gamma, variance, epsilon) -> np.ndarray:
    """What batch norm in inference multiplies each channel with, float64."""
    return 1 / np.sqrt(variance.astype(np.float64) + epsilon) * (1 if gamma is None else gamma)


@implements
def batch_norm_scale_shift(gamma, beta, mean, variance, epsilon, out):
    scale, shift = out
    exact = exact_scale(gamma, variance, epsilon)
    scale[...] = exact
    shift[...] = (0 if beta is None else beta) - mean * exact


def to_bfloat16(x: np.ndarray) -> np.ndarray:
    """x as bfloat16: the upper halves, as uint16, of float32 rounded to nearest, ties to even. A NaN stays one."""
    single = np.ascontiguousarray(x, np.float32).reshape(-1)
    halves = np.empty(single.shape, np.uint16)
    for begin in range(0, single.size, AT_ONCE):            # a whole matrix would need several times its memory meanwhile
        part = single[begin:begin + AT_ONCE]
        bits = part.view(np.uint32)
        halves[begin:begin + AT_ONCE] = np.where(np.isnan(part), bits >> 16 | 0x40, (bits + (0x7FFF + (bits >> 16 & 1))) >> 16)
    return halves.reshape(x.shape)


@implements
def round_to_bfloat16(x, out):
    out[...] = (to_bfloat16(x).astype(np.uint32) << 16).view(np.float32)


@implements
def fold_batch_norm(weight, bias, gamma, beta, mean, variance, epsilon, out):
    exact = exact_scale(gamma, variance, epsilon)
    np.multiply(weight, exact.reshape(-1, *[1] * (weight.ndim - 1)), out=out[0], casting="same_kind")       # without a map in float64
    out[1][...] = (0 if beta is None else beta) + ((0 if bias is None else bias) - mean) * exact
