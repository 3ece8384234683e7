"""Normalization. See `backends/contract/normalization.py` for the formula."""

from __future__ import annotations

from math import prod

import numpy as np

from numbanet.onnx.export.pooling import strip
from numbanet.onnx.export.registry import Operand, translates
from numbanet.onnx.export.shape import reshape


def _or_else(given, shape, value: float, dtype) -> Operand | np.ndarray:
    return np.full(shape, value, dtype) if given is None else given


def _shaped(b, y: str, shape, x) -> str:
    """y, of `shape`, in x's shape."""
    return reshape(b, Operand(y, shape, x.dtype), x.shape)


def _affine(b, y: str, weight, bias, axes: int) -> str:
    """y * weight + bias, either of which may be None; both (C,) before `axes` more axes."""
    for op_type, values in (("Mul", weight), ("Add", bias)):
        if values is not None:
            y = b.node(op_type, y, b.node("Unsqueeze", values, np.arange(1, axes + 1)) if axes else values)
    return y


@translates("batch_norm_inference_forward")
def batch_norm_inference(b, x, weight, bias, mean, variance, epsilon):
    weight, bias = _or_else(weight, mean.shape, 1, x.dtype), _or_else(bias, mean.shape, 0, x.dtype)
    return b.node("BatchNormalization", x, weight, bias, mean, variance, epsilon=epsilon)


@translates("batch_norm_forward")
def batch_norm(b, x, weight, bias, epsilon):
    """By the statistics of the batch itself: a layer without running statistics."""
    axes = np.array([a for a in range(len(x.shape)) if a != 1], np.int64)
    mean = b.node("ReduceMean", x, axes)
    deviation = b.node("Sub", x, mean)
    variance = b.node("ReduceMean", b.node("Mul", deviation, deviation), axes)
    scale = b.node("Sqrt", b.node("Add", variance, np.asarray(epsilon, x.dtype)))
    y = _affine(b, b.node("Div", deviation, scale), weight, bias, len(x.shape) - 2)
    return y, *[b.node("Squeeze", v, axes) if wanted else None for v, wanted in zip((mean, variance), b.wanted[1:])]


@translates("group_norm_forward")
def group_norm(b, x, groups, weight, bias, epsilon):
    """InstanceNormalization of groups as channels; ONNX's own GroupNormalization had another meaning before opset 21."""
    channels, spatial = x.shape[1], len(x.shape) - 2
    if groups == channels and spatial:
        weight, bias = _or_else(weight, (channels,), 1, x.dtype), _or_else(bias, (channels,), 0, x.dtype)
        return b.node("InstanceNormalization", x, weight, bias, epsilon=epsilon), None, None
    shape = x.shape[0], groups, prod(x.shape[1:]) // groups
    grouped = reshape(b, x, shape)
    ones, zeros = np.ones(groups, x.dtype), np.zeros(groups, x.dtype)
    y = b.node("InstanceNormalization", grouped, ones, zeros, epsilon=epsilon)
    return _affine(b, _shaped(b, y, shape, x), weight, bias, spatial), None, None


@translates("layer_norm_forward")
def layer_norm(b, x, axes, weight, bias, epsilon):
    return b.node("LayerNormalization", x, _or_else(weight, x.shape[-axes:], 1, x.dtype), bias, axis=-axes, epsilon=epsilon), None, None


@translates("local_response_norm_forward")
def local_response_norm(b, x, size, alpha, beta, k):
    """LRN has the same window for odd sizes; else an average over channels, which stand as rows of a map, is taken apart."""
    if size % 2 and len(x.shape) == 4:
        return b.node("LRN", x, size=size, alpha=alpha, beta=beta, bias=k)
    N, C, *spatial = x.shape
    rows = reshape(b, Operand(b.node("Mul", x, x), x.shape, x.dtype), (N, 1, C, prod(spatial)))
    means = _shaped(b, strip(b, rows, size, size // 2, (size - 1) // 2), (N, 1, C, prod(spatial)), x)
    base = b.node("Add", b.node("Mul", means, np.asarray(alpha, x.dtype)), np.asarray(k, x.dtype))
    return b.node("Div", x, b.node("Pow", base, np.asarray(beta, x.dtype)))
