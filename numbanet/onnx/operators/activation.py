"""Activations, softmax and dropout."""

from __future__ import annotations

import math

from numbanet import dtypes
from numbanet.errors import ShapeError
from numbanet.nn import functional as F
from numbanet.onnx.operators.registry import operator
from numbanet.ops.elementwise import where
from numbanet.ops.factories import full, ones_like

SELU_ALPHA, SELU_GAMMA = 1.6732631921768188, 1.0507010221481323     # of F.selu, in float32


@operator("Relu")
def relu(node, x):
    """max(x, 0)."""
    return F.relu(x)


@operator("LeakyRelu")
def leaky_relu(node, x):
    """x, or alpha * x below 0."""
    return F.leaky_relu(x, node.attributes.get("alpha", 0.01))


@operator("PRelu")
def prelu_per_channel(node, x, slope):
    """x, or slope * x below 0; before opset 7 the slope has one element for each channel."""
    return F.prelu(x, slope.reshape(-1))


@operator("PRelu", since=7)
def prelu(node, x, slope):
    """x, or slope * x below 0; the slope broadcasts."""
    channels = x.shape[1] if x.ndim > 1 else 1
    if slope.numel() == 1 or x.ndim > 1 and slope.shape == (channels, *(1,) * (x.ndim - 2)):
        return F.prelu(x, slope.reshape(-1))
    return where(x < 0, x * slope, x)


@operator("Elu")
def elu(node, x):
    """x, or alpha * (e**x - 1) below 0."""
    return F.elu(x, node.attributes.get("alpha", 1.0))


@operator("Selu")
def selu(node, x):
    """gamma * elu(x, alpha) (Klambauer et al., 2017)."""
    alpha, gamma = node.attributes.get("alpha", SELU_ALPHA), node.attributes.get("gamma", SELU_GAMMA)
    return F.elu(x, alpha) * gamma


@operator("Celu", since=12)
def celu(node, x):
    """max(0, x) + min(0, alpha * (e**(x / alpha) - 1))."""
    return F.celu(x, node.attributes.get("alpha", 1.0))


@operator("Sigmoid")
def sigmoid(node, x):
    """1 / (1 + e**-x)."""
    return F.sigmoid(x)


@operator("Tanh")
def tanh(node, x):
    """The hyperbolic tangent."""
    return F.tanh(x)


@operator("HardSigmoid")
def hard_sigmoid(node, x):
    """alpha * x + beta, limited to [0, 1]."""
    alpha, beta = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return F.hardsigmoid(x)
    return (x * alpha + beta).clamp(0.0, 1.0)


@operator("HardSwish", since=14)
def hard_swish(node, x):
    """x * min(max(x + 3, 0), 6) / 6."""
    return F.hardswish(x)


@operator("Softplus")
def softplus(node, x):
    """log(1 + e**x)."""
    return F.softplus(x)


@operator("Softsign")
def softsign(node, x):
    """x / (1 + |x|)."""
    return F.softsign(x)


@operator("Mish", since=18)
def mish(node, x):
    """x * tanh(softplus(x))."""
    return F.mish(x)


@operator("Gelu", since=20)
def gelu(node, x):
    """x times the normal distribution function of x, or its approximation by tanh."""
    return F.gelu(x, node.attributes.get("approximate", "none"))


@operator("Swish", since=24)
def swish(node, x):
    """x * sigmoid(alpha * x)."""
    alpha = node.attributes.get("alpha", 1.0)
    return F.silu(x) if alpha == 1 else x * F.sigmoid(x * alpha)


@operator("ThresholdedRelu", since=10)
def thresholded_relu(node, x):
    """x above alpha, else 0."""
    return F.threshold(x, node.attributes.get("alpha", 1.0), 0.0)


@operator("Shrink", since=9)
def shrink(node, x):
    """x + bias below -lambd, x - bias above lambd, else 0."""
    bias, limit = node.attributes.get("bias", 0.0), node.attributes.get("lambd", 0.5)
    return where(x < -limit, x + bias, where(x > limit, x - bias, x * 0)).to(x.dtype)


def _flattened(function, node, x):
    """Before opset 13: over all axes from `axis` on."""
    axis = node.attributes.get("axis", 1)
    if not -x.ndim <= axis <= x.ndim:
        raise ShapeError(f"{node}: axis {axis} is out of range for x {x.shape}")
    axis = axis + x.ndim if axis < 0 else axis
    return function(x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:])), 1).reshape(x.shape)


@operator("Softmax")
def softmax_flattened(node, x):
    """Softmax over all axes from `axis` on."""
    return _flattened(F.softmax, node, x)


@operator("Softmax", since=13)
def softmax(node, x):
    """Softmax over one axis."""
    return F.softmax(x, node.attributes.get("axis", -1))


@operator("LogSoftmax")
def log_softmax_flattened(node, x):
    """The logarithm of softmax over all axes from `axis` on."""
    return _flattened(F.log_softmax, node, x)


@operator("LogSoftmax", since=13)
def log_softmax(node, x):
    """The logarithm of softmax over one axis."""
    return F.log_softmax(x, node.attributes.get("axis", -1))


@operator("Dropout")
def dropout_by_attribute(node, x):
    """Dropout in training; the mask is of x's dtype before opset 10."""
    return _dropped(node, x, node.attributes.get("ratio", 0.5), node.training, x.dtype if node.version < 10 else dtypes.bool)


@operator("Dropout", since=12, host=(1, 2))
def dropout(node, x, ratio=None, training_mode=None):
    """Dropout where the operand or the module says that it is training."""
    training = node.training or training_mode is not None and bool(training_mode)
    return _dropped(node, x, 0.5 if ratio is None else float(ratio), training, dtypes.bool)


def _dropped(node, x, ratio, training, mask_dtype):
    if not training or ratio == 0:
        return x, ones_like(x, dtype=mask_dtype) if node.wants(1) else None
    kept = F.dropout(full(x.shape, 1.0, dtype=x.dtype, device=x.device), ratio)         # 0 or 1 / (1 - ratio)
    return x * kept, (kept != 0).to(mask_dtype) if node.wants(1) else None
