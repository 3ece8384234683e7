"""Normalisation: by the batch, a sample, a group, the last axes, or neighbouring channels."""

from __future__ import annotations

import math

from numbanet.errors import ShapeError, UnsupportedOperationError
from numbanet.nn import functional as F
from numbanet.onnx.operators.registry import operator


def _per_channel(values, x):
    """(C,) against x (N, C, ...)."""
    return values.reshape(1, -1, *(1,) * (x.ndim - 2))


@operator("BatchNormalization", state=(3, 4))
def batch_normalization(node, x, scale, bias, mean, var):
    """Each channel normalised by the running statistics; in training by those of the batch, which move the running ones."""
    epsilon, momentum = node.attributes.get("epsilon", 1e-5), node.attributes.get("momentum", 0.9)
    if node.version < 9 and not node.attributes.get("spatial", 1):
        return scale * ((x - mean) / (var + epsilon).sqrt()) + bias         # every element has its own statistics
    if node.attributes.get("training_mode", 0):
        return _with_new_statistics(x, scale, bias, mean, var, epsilon, momentum)
    if mean.shape != scale.shape or x.ndim < 2 or mean.shape != x.shape[1:2]:
        raise ShapeError(f"{node}: expected one element for each channel of x {x.shape}, received mean {mean.shape}, scale {scale.shape}")
    if mean.dtype != x.dtype or scale.dtype != x.dtype:
        scale, bias, mean, var = (t.to(x.dtype) for t in (scale, bias, mean, var))
    return F.batch_norm(x, mean, var, scale, bias, node.training, 1 - momentum, epsilon)


def _with_new_statistics(x, scale, bias, mean, var, epsilon, momentum):
    """(y, running mean, running variance): ONNX weighs the old values with `momentum` and takes the biased variance."""
    axes = [0, *range(2, x.ndim)]
    batch_mean, batch_var = x.mean(axes), x.var(axes, correction=0)
    y = (x - _per_channel(batch_mean, x)) / (_per_channel(batch_var, x) + epsilon).sqrt() * _per_channel(scale, x) + _per_channel(bias, x)
    return y, mean * momentum + batch_mean * (1 - momentum), var * momentum + batch_var * (1 - momentum)


@operator("InstanceNormalization")
def instance_normalization(node, x, scale, bias):
    """Each channel of each sample normalised."""
    epsilon = node.attributes.get("epsilon", 1e-5)
    if math.prod(x.shape[2:]) == 1:         # every element is its mean
        return x * 0 + _per_channel(bias, x)
    return F.instance_norm(x, weight=scale, bias=bias, eps=epsilon)


@operator("LayerNormalization", since=17)
def layer_normalization(node, x, scale, bias=None):
    """The axes from `axis` on normalised together; on request with their mean and inverse deviation."""
    axis = node.attributes.get("axis", -1) % max(x.ndim, 1)
    epsilon, shape = node.attributes.get("epsilon", 1e-5), x.shape[axis:]
    y = F.layer_norm(x, shape, scale, bias, epsilon) if scale.shape == shape and (bias is None or bias.shape == shape) else (
        F.layer_norm(x, shape, None, None, epsilon) * scale + (0 if bias is None else bias))
    if not node.wants(1) and not node.wants(2):
        return y
    axes = list(range(axis, x.ndim))
    return y, x.mean(axes, keepdim=True), (x.var(axes, correction=0, keepdim=True) + epsilon).rsqrt()


@operator("RMSNormalization", since=23)
def rms_normalization(node, x, scale):
    """x by the root of the mean square over the axes from `axis` on (Zhang and Sennrich, 2019)."""
    axes = list(range(node.attributes.get("axis", -1) % max(x.ndim, 1), x.ndim))
    return x * (x.square().mean(axes, keepdim=True) + node.attributes.get("epsilon", 1e-5)).rsqrt() * scale


@operator("GroupNormalization", since=18)
def group_normalization(node, x, scale, bias):
    """Groups of channels of each sample normalised; scale and bias belong to groups before opset 21, to channels since."""
    groups, epsilon = node.attributes["num_groups"], node.attributes.get("epsilon", 1e-5)
    if scale.shape != x.shape[1:2]:
        if scale.shape != (groups,) or bias.shape != (groups,):
            raise ShapeError(f"{node}: scale and bias expect {x.shape[1]} channels or {groups} groups, received {scale.shape}, "
                             f"{bias.shape}")
        scale, bias = (t.repeat_interleave(x.shape[1] // groups) for t in (scale, bias))
    return F.group_norm(x, groups, scale, bias, epsilon)


@operator("LRN")
def lrn(node, x):
    """x / (bias + alpha / size * sum of squares over `size` neighbouring channels)**beta."""
    size, alpha = node.attributes["size"], node.attributes.get("alpha", 1e-4)
    if size > 2 * x.shape[1]:               # every channel sees all others: no larger window changes more than the divisor
        widest = 2 * x.shape[1] + 1
        size, alpha = widest, alpha * widest / size
    arguments = (size, alpha, node.attributes.get("beta", 0.75), node.attributes.get("bias", 1.0))
    if size % 2:
        return F.local_response_norm(x, *arguments)
    return F.local_response_norm(x.flip(1), *arguments).flip(1)     # of an even number of channels ONNX has the odd one behind


@operator("LpNormalization")
def lp_normalization(node, x):
    """x by its 1- or 2-norm along an axis; 0 where that is 0."""
    p, axis = node.attributes.get("p", 2), node.attributes.get("axis", -1)
    if p not in (1, 2):
        raise UnsupportedOperationError(f"{node}: p expects 1 or 2, received {p}")
    norm = x.norm(p, axis, keepdim=True)
    return x / norm.masked_fill(norm == 0, 1.0)


@operator("MeanVarianceNormalization")
def mean_variance_normalization(node, x):
    """(x - mean) / deviation over `axes`."""
    axes = node.attributes.get("axes") or ([0, 2, 3] if node.version >= 9 or node.attributes.get("across_channels") is None else [2, 3])
    deviation = x - x.mean(axes, keepdim=True)
    return deviation / (deviation.square().mean(axes, keepdim=True).sqrt() + 1e-9)
