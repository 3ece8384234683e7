"""Ranges, windows and random numbers, in NumPy."""

from __future__ import annotations

import math

import numpy as np

from numbanet.errors import UsageError
from numbanet.onnx.operators.host.common import dtype_of
from numbanet.onnx.operators.registry import host_operator
from numbanet.random import next_key


@host_operator("Range")
def range_(node, start, limit, delta):
    """start, start + delta, ... below limit."""
    if delta.item() == 0:
        raise UsageError(f"{node}: expected a delta other than 0")
    count = max(0, math.ceil((limit.item() - start.item()) / delta.item()))
    return (start + np.arange(count) * delta).astype(start.dtype)


@host_operator("EyeLike")
def eye_like(node, x):
    """Ones on the k-th diagonal, of x's shape."""
    number = node.attributes.get("dtype", 0)
    return np.eye(*x.shape, k=node.attributes.get("k", 0), dtype=dtype_of(number) if number else x.dtype)


@host_operator("ConstantOfShape")
def constant_of_shape(node, target):
    """One value in a given shape; float32 zero unless `value` says otherwise."""
    value = node.attributes.get("value")
    value = np.zeros(1, np.float32) if value is None else value
    return np.full(tuple(int(n) for n in target), value.reshape(-1)[0], value.dtype)


def _register_window(name: str, *coefficients: float) -> None:
    def window(node, length):
        """Sum of cosines over one period; periodic, or symmetric as filters want it."""
        n = int(length)
        phase = 2 * np.pi * np.arange(n) / max(1, n if node.attributes.get("periodic", 1) else n - 1)
        y = sum((-1) ** order * c * np.cos(order * phase) for order, c in enumerate(coefficients))
        return np.asarray(y).astype(dtype_of(node.attributes.get("output_datatype", 1)))
    host_operator(name)(window)


_register_window("HannWindow", 0.5, 0.5)
_register_window("HammingWindow", 25 / 46, 21 / 46)
_register_window("BlackmanWindow", 0.42, 0.5, 0.08)


def _generator(node) -> np.random.Generator:
    """Seeded by the attribute, else by the thread's generator, which `numbanet.manual_seed` sets."""
    seed = node.attributes.get("seed")
    return np.random.default_rng(next_key() if seed is None else int(np.float32(seed).view(np.uint32)))


def _draw(node, target, dtype: np.dtype, draw):
    number = node.attributes.get("dtype", 0)
    return np.asarray(draw(_generator(node), tuple(int(n) for n in target))).astype(dtype_of(number) if number else dtype)


def _normal(node):
    return lambda generator, target: generator.normal(node.attributes.get("mean", 0.0), node.attributes.get("scale", 1.0), target)


def _uniform(node):
    return lambda generator, target: generator.uniform(node.attributes.get("low", 0.0), node.attributes.get("high", 1.0), target)


@host_operator("RandomNormal")
def random_normal(node):
    """Normal numbers of a given shape."""
    return _draw(node, node.attributes["shape"], np.dtype(np.float32), _normal(node))


@host_operator("RandomUniform")
def random_uniform(node):
    """Uniform numbers of a given shape."""
    return _draw(node, node.attributes["shape"], np.dtype(np.float32), _uniform(node))


@host_operator("RandomNormalLike")
def random_normal_like(node, x):
    """Normal numbers of x's shape."""
    return _draw(node, x.shape, x.dtype, _normal(node))


@host_operator("RandomUniformLike")
def random_uniform_like(node, x):
    """Uniform numbers of x's shape."""
    return _draw(node, x.shape, x.dtype, _uniform(node))


@host_operator("Bernoulli")
def bernoulli(node, x):
    """One with the probability that x gives, else zero."""
    return _draw(node, x.shape, x.dtype, lambda generator, target: generator.random(target) < x)


@host_operator("Multinomial")
def multinomial(node, x):
    """Classes drawn from rows of unnormalised log-probabilities: (N, sample_size)."""
    samples = node.attributes.get("sample_size", 1)
    weights = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    edges = np.cumsum(weights, 1)                                           # (N, classes)

    def draw(generator, target):
        return (generator.random(target)[:, :, None] * edges[:, None, -1:] >= edges[:, None, :]).sum(-1)
    return _draw(node, (len(x), samples), np.dtype(np.int32), draw)
