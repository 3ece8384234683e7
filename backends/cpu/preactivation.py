"""Convolutions of a map that is normalised as it is read: see `contract/preactivation.py`.

Kernels that copy or transform windows of x compute z on the way, for 3 to 6 instructions a vector; others are given z, written before.
"""

from __future__ import annotations

import numpy as np

from numbanet.backends.cpu.convolution import (
    PREACTIVATING,
    WEIGHT_GRADIENTS,
    conv2d_backward_weight,
    conv2d_fused,
    conv2d_with_statistics,
    named,
    prepared,
    weight_gradient_name,
    weight_gradient_of,
    whole,
)
from numbanet.backends.cpu.convolution.forward import (
    F32,
    NO_BIAS,
    channels_last,
    execute,
    execute_with_statistics,
    forward,
    has_adjacent_pixels,
)
from numbanet.backends.cpu.convolution.preactivate import coefficients, preactivated_map
from numbanet.backends.cpu.limits import limits
from numbanet.backends.cpu.normalization.batch import moments_of_map
from numbanet.backends.cpu.prepared import holding, prepares, shared
from numbanet.backends.cpu.registry import implements


def preactivates(geometry, batch: int, in_training: bool) -> bool:
    """Whether a convolution computes z as it goes, in training its weight gradient too, but for small maps.

    Where it packs all windows before any product, z may as well be written: DenseNet-121 at batch 1 would take 1.5% longer. In training
    that is done for the memory of z.
    """
    algorithm = forward(geometry, batch, True)
    if whole.covers_the_map(geometry) or not algorithm.takes_preactivation:
        return False
    if in_training:
        return weight_gradient_of(geometry, batch, True) in (*PREACTIVATING, "product")
    return not algorithm.packs_first


def _z(x, center, scale, shift, lowest, highest):
    """z (N, C, H, W), in memory of its own."""
    if x.dtype == F32:
        return preactivated_map(channels_last(x), coefficients(center, scale, shift, lowest, highest)).transpose(0, 3, 1, 2)
    center, shift = (np.zeros_like(scale) if a is None else a for a in (center, shift))
    return np.clip((x - center[:, None, None]) * scale[:, None, None] + shift[:, None, None], *limits(lowest, highest))


def _takes_z(x, geometry) -> bool:
    """Whether z is written first, for what the primitive without preactivation runs."""
    return x.dtype != F32 or not x.size or whole.covers_the_map(geometry)


def _convolve(plain, run, x, weight, bias, residual, geometry, minimum, maximum, terms, out) -> None:
    """`plain`, a primitive, of z, or `run`, `execute` or its like, of x."""
    if _takes_z(x, geometry):
        return plain(_z(x, *terms), weight, bias, residual, geometry, minimum, maximum, out)
    algorithm = forward(geometry, x.shape[0], has_adjacent_pixels(x))
    packed = algorithm.pack(weight, NO_BIAS if bias is None else bias)
    run(algorithm, packed, x, out, residual, *limits(minimum, maximum), preactivation=coefficients(*terms))


@implements
def conv2d_preactivated(x, weight, bias, residual, geometry, minimum, maximum, center, scale, shift, lowest, highest, out):
    terms = center, scale, shift, lowest, highest
    _convolve(conv2d_fused, execute, x, weight, bias, residual, geometry, minimum, maximum, terms, out)


@implements
def conv2d_preactivated_with_statistics(x, weight, bias, residual, geometry, minimum, maximum, center, scale, shift, lowest, highest, out):
    terms = center, scale, shift, lowest, highest
    _convolve(conv2d_with_statistics, execute_with_statistics, x, weight, bias, residual, geometry, minimum, maximum, terms, out)


@prepares("conv2d_preactivated")
def _prepare(arguments, constant):
    x, weight, bias, _, geometry, minimum, maximum, *terms = arguments
    fixed = [i for i in (7, 8, 9) if arguments[i] is not None]
    if not constant.issuperset(fixed) or _takes_z(x, geometry):
        return None
    preactivation = shared(("preactivation", *terms[3:]), lambda *given: coefficients(*given, *terms[3:]), *terms[:3])
    run = prepared(x, weight, bias, geometry, minimum, maximum, constant, preactivation=preactivation.value)
    if run is None:
        return None

    def call(x, weight, bias, residual, geometry, minimum, maximum, center, scale, shift, lowest, highest, out):
        run(x, residual, out)
    call.kernels = lambda x, weight, bias, residual, *rest: run.kernels(x, residual, rest[-1])
    return holding(named(call, arguments, run.weights), 1, 2, *fixed, weights=run.weights)


@implements
def conv2d_preactivated_backward_weight(grad_y, x, geometry, center, scale, shift, lowest, highest, out):
    terms = center, scale, shift, lowest, highest
    name = weight_gradient_name(geometry, x) if x.dtype == F32 and x.size else None
    if name in PREACTIVATING:
        WEIGHT_GRADIENTS[name](grad_y, x, geometry, out, coefficients(*terms))
    else:
        conv2d_backward_weight(grad_y, _z(x, *terms), geometry, out)


@implements
def batch_norm_statistics(x, out):
    mean, variance = out
    if x.dtype == F32:
        moments_of_map(x, mean, variance)
    else:
        axes = 0, *range(2, x.ndim)
        mean[...], variance[...] = (x.mean(axes), x.var(axes)) if x.size else (np.nan, np.nan)


@implements
def batch_norm_scale(weight, variance, epsilon, out):
    """In the double precision of batch norm's own (`normalization/channels.py`)."""
    factor = 1 / np.sqrt(variance.astype(np.float64) + epsilon)
    out[...] = factor if weight is None else weight * factor
