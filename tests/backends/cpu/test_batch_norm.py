"""Batch norm in float32: results that are written past the caches, and masks that forward and backward agree on."""

from __future__ import annotations

import numpy as np
import pytest

from numbanet.backends import get_backend
from numbanet.backends.cpu.normalization import batch
from numbanet.backends.cpu.simd import L

CPU = get_backend("cpu")
LAST = (0, 2, 3, 1)         # channels-last


def _map(rng, *shape):
    x = CPU.empty(shape, np.dtype(np.float32), LAST)
    x[...] = rng.standard_normal(shape)
    return x


def _both(x, residual, grad_y, weight, bias):
    """All results of forward and backward, in fresh memory that starts as NaN."""
    def fresh(*shape):
        made = CPU.empty(shape, np.dtype(np.float32), LAST if len(shape) == 4 else None)
        made.fill(np.nan)
        return made
    C = x.shape[1]
    y, mean, variance = fresh(*x.shape), fresh(C), fresh(C)
    CPU.batch_norm_fused_forward(x, weight, bias, residual, 1e-5, 0.0, 1.5, out=(y, mean, variance))
    gradients = fresh(*x.shape), fresh(C), fresh(C), None if residual is None else fresh(*x.shape)
    CPU.batch_norm_fused_backward(grad_y, None if residual is None else y, x, weight, bias, mean, variance, 1e-5, 0.0, 1.5, out=gradients)
    return [a.copy() for a in (y, mean, variance, *gradients) if a is not None]


@pytest.mark.parametrize("channels, aligned", [(2 * L, True), (3 * L + 5, False)])
@pytest.mark.parametrize("with_residual", [False, True])
def test_results_past_the_caches_have_the_same_bits(channels, aligned, with_residual, rng, monkeypatch):
    x, grad_y, residual = (_map(rng, 3, channels, 7, 8) for _ in range(3))
    weight, bias = (rng.standard_normal(channels).astype(np.float32) for _ in range(2))
    arguments = x, residual if with_residual else None, grad_y, weight, bias
    expected = _both(*arguments)
    asked, is_streamed = [], batch._is_streamed
    monkeypatch.setattr(batch, "cache_sizes", lambda: type("Caches", (), {"l3": 1024}))
    monkeypatch.setattr(batch, "_is_streamed", lambda rows: asked.append(is_streamed(rows)) or asked[-1])
    for received, wanted in zip(_both(*arguments), expected, strict=True):
        np.testing.assert_array_equal(received, wanted)
    assert asked == [aligned, aligned]      # rows that begin anywhere take the ordinary way, however large the map


def test_backward_stops_just_what_forward_limited(rng):
    """The limit is told by x again, bit by bit: where y is at it, no gradient passes; where it is inside, one does."""
    x, grad_y = _map(rng, 5, 2 * L, 9, 9), _map(rng, 5, 2 * L, 9, 9)
    x.transpose(LAST)[..., 0] = 1e4 + rng.integers(-3, 4, (5, 9, 9))       # many equal values, some of them near the mean
    weight, bias = rng.standard_normal(2 * L).astype(np.float32), np.zeros(2 * L, np.float32)
    y, mean, variance = CPU.batch_norm_fused_forward(x, weight, bias, None, 1e-5, 0.0, None)
    _, _, grad_bias, _ = CPU.batch_norm_fused_backward(np.ones_like(grad_y), None, x, weight, bias, mean, variance, 1e-5, 0.0, None)
    np.testing.assert_array_equal(grad_bias, (y > 0).sum((0, 2, 3)))        # of ones: small integers, exact
