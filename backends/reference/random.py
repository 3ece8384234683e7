"""Random numbers."""

from __future__ import annotations

import numpy as np

from numbanet.backends import philox
from numbanet.backends.reference.registry import implements


@implements
def random_uniform(shape, dtype, low, high, key, out):
    out[...] = philox.uniform(out.size, dtype, low, high, key).reshape(shape)


@implements
def random_normal(shape, dtype, mean, std, key, out):
    out[...] = philox.normal(out.size, dtype, mean, std, key).reshape(shape)


@implements
def random_integers(shape, low, high, key, out):
    out[...] = philox.integers(out.size, low, high, key).reshape(shape)


@implements
def random_permutation(count, key, out):
    out[...] = philox.permutation(count, key)


@implements
def dropout(x, probability, key, out):
    kept = (philox.words(x.size, key) >= philox.threshold(probability)).reshape(x.shape)
    scale = 1 / (1 - probability) if probability < 1 else 0.0
    out[...] = x * np.where(kept, scale, 0.0).astype(x.dtype)
