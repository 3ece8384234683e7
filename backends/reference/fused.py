"""What inference fuses, in double precision where that is the point; all else is composed of plain primitives."""

from __future__ import annotations

import numpy as np

from numbanet.backends.reference.registry import implements


@implements
def batch_norm_scale_shift(gamma, beta, mean, variance, epsilon, out):
    scale, shift = out
    exact = 1 / np.sqrt(variance.astype(np.float64) + epsilon) * (1 if gamma is None else gamma)
    scale[...] = exact
    shift[...] = (0 if beta is None else beta) - mean * exact


@implements
def fold_batch_norm(weight, bias, gamma, beta, mean, variance, epsilon, out):
    exact = 1 / np.sqrt(variance.astype(np.float64) + epsilon) * (1 if gamma is None else gamma)
    out[0][...] = weight * exact.reshape(-1, *[1] * (weight.ndim - 1))
    out[1][...] = (0 if beta is None else beta) + ((0 if bias is None else bias) - mean) * exact
