"""What inference fuses: a layer, and what follows it element by element, in one pass over the result.

Each primitive here has a composition of plain ones, which also says what it computes, so that a backend needs none of them.
Limits: `minimum` and `maximum` as in `clamp`, None being no limit; a NaN stays NaN. ReLU is (0, None), ReLU6 (0, 6).
Batch norm in inference is one multiplication and one addition a channel:

    (x - mean) / sqrt(variance + epsilon) * gamma + beta  =  x * scale + shift
    scale = gamma / sqrt(variance + epsilon),   shift = beta - mean * scale
"""

from __future__ import annotations

from numbanet.backends.contract.checks import check_float, check_shape
from numbanet.backends.contract.convolution import conv2d_forward
from numbanet.backends.contract.linear import linear_forward
from numbanet.backends.contract.pooling import max_pool2d_forward
from numbanet.backends.interface import Array, Arrays, ArraySpec, channels_last, primitive
from numbanet.errors import ShapeError, UsageError
from numbanet.geometry import ConvGeometry, PoolGeometry


def check_limits(operation: str, minimum: float | None, maximum: float | None) -> None:
    if minimum is not None and maximum is not None and not minimum <= maximum:
        raise UsageError(f"{operation}: minimum expects at most maximum, received {minimum} and {maximum}")


def limited(backend, x, minimum, maximum):
    return x if minimum is None and maximum is None else backend.clamp(x, minimum, maximum)


@primitive(may_overwrite=("residual",))
def conv2d_fused(x: Array, weight: Array, bias: Array | None, residual: Array | None, geometry: ConvGeometry,
                 minimum: float | None, maximum: float | None):
    """y (N, K, OH, OW): `conv2d_forward` plus `residual`, of y's shape, limited to [minimum, maximum]."""
    spec = conv2d_forward.specification(x, weight, bias, geometry)
    check_float("conv2d", x=x, residual=residual)
    check_shape("conv2d", "residual", residual, spec.shape)
    check_limits("conv2d", minimum, maximum)
    return spec


@conv2d_fused.composed
def _conv2d_fused(backend, x, weight, bias, residual, geometry, minimum, maximum):
    y = backend.conv2d_forward(x, weight, bias, geometry)
    if residual is not None:
        y = backend.add(y, residual)
    return limited(backend, y, minimum, maximum)


# name -> (primitive, its arguments behind x)
ACTIVATIONS = {
    "sigmoid": ("sigmoid_forward", ()), "tanh": ("tanh_forward", ()), "silu": ("silu_forward", ()), "gelu": ("gelu_forward", ("none",)),
    "gelu_tanh": ("gelu_forward", ("tanh",)), "hardsigmoid": ("hardsigmoid_forward", ()), "hardswish": ("hardswish_forward", ()),
    "mish": ("mish_forward", ())}


def activated(backend, x, activation: str):
    name, arguments = ACTIVATIONS[activation]
    return getattr(backend, name)(x, *arguments)


def check_activation(operation: str, activation: str) -> None:
    if activation not in ACTIVATIONS:
        raise UsageError(f"{operation}: activation expects one of {', '.join(ACTIVATIONS)}, received {activation!r}")


@primitive(may_overwrite=("residual",))
def conv2d_activated(x: Array, weight: Array, bias: Array | None, residual: Array | None, geometry: ConvGeometry, activation: str):
    """y (N, K, OH, OW): an activation of `ACTIVATIONS` of `conv2d_forward` plus `residual`, of y's shape."""
    check_activation("conv2d", activation)
    return conv2d_fused.specification(x, weight, bias, residual, geometry, None, None)


@conv2d_activated.composed
def _conv2d_activated(backend, x, weight, bias, residual, geometry, activation):
    return activated(backend, backend.conv2d_fused(x, weight, bias, residual, geometry, None, None), activation)


def of_ending(ending) -> tuple[str, tuple]:
    """The primitive that a stage of `conv2d_chain` is by itself, and its last arguments."""
    return ("conv2d_activated", (ending,)) if isinstance(ending, str) else ("conv2d_fused", ending)


@primitive
def conv2d_chain(x: Array, weights: Arrays, biases: Arrays, residual: Array | None, geometries: tuple[ConvGeometry, ...],
                 endings: tuple[tuple[float | None, float | None] | str, ...]):
    """Convolutions one after the other, each a `conv2d_fused` or `conv2d_activated`: its (minimum, maximum) or activation is that of
    `endings`; the last adds `residual`."""
    counts = {"weights": len(weights), "biases": len(biases), "endings": len(endings)}
    if not geometries or any(n != len(geometries) for n in counts.values()):
        raise ShapeError(f"conv2d_chain: expects as many weights, biases and endings as geometries, and one at least, received "
                         f"{len(geometries)} geometries, " + ", ".join(f"{n} {name}" for name, n in counts.items()))
    spec = x
    for weight, bias, geometry, ending in zip(weights, biases, geometries, endings):
        name, arguments = of_ending(ending)
        spec = {"conv2d_fused": conv2d_fused, "conv2d_activated": conv2d_activated}[name].specification(
            spec, weight, bias, None, geometry, *arguments)
    check_float("conv2d_chain", x=x, residual=residual)
    check_shape("conv2d_chain", "residual", residual, spec.shape)
    return spec


@conv2d_chain.composed
def _conv2d_chain(backend, x, weights, biases, residual, geometries, endings):
    last = len(geometries) - 1
    for i, (weight, bias, geometry, ending) in enumerate(zip(weights, biases, geometries, endings)):
        name, arguments = of_ending(ending)
        x = getattr(backend, name)(x, weight, bias, residual if i == last else None, geometry, *arguments)
    return x


@primitive
def linear_fused(x: Array, weight: Array, bias: Array | None, minimum: float | None, maximum: float | None):
    """y (M, O): `linear_forward`, limited to [minimum, maximum]."""
    check_limits("linear", minimum, maximum)
    return linear_forward.specification(x, weight, bias)


@linear_fused.composed
def _linear_fused(backend, x, weight, bias, minimum, maximum):
    return limited(backend, backend.linear_forward(x, weight, bias), minimum, maximum)


@primitive
def linear_activated(x: Array, weight: Array, bias: Array | None, activation: str):
    """y (M, O): an activation of `ACTIVATIONS` of `linear_forward`."""
    check_activation("linear", activation)
    return linear_forward.specification(x, weight, bias)


@linear_activated.composed
def _linear_activated(backend, x, weight, bias, activation):
    return activated(backend, backend.linear_forward(x, weight, bias), activation)


@primitive
def round_to_bfloat16(x: Array):
    """x rounded to the nearest numbers of 8 significant bits, ties to even; a NaN stays NaN."""
    check_float("round_to_bfloat16", x=x)
    return ArraySpec(x.shape, x.dtype)


@primitive
def linear_fused_bfloat16(x: Array, weight: Array, bias: Array | None, minimum: float | None, maximum: float | None):
    """y (M, O): `linear_fused` with `weight` rounded to bfloat16; products and sums are those of x's dtype."""
    check_limits("linear", minimum, maximum)
    return linear_forward.specification(x, weight, bias)


@linear_fused_bfloat16.composed
def _linear_fused_bfloat16(backend, x, weight, bias, minimum, maximum):
    return backend.linear_fused(x, backend.round_to_bfloat16(weight), bias, minimum, maximum)


@primitive(may_overwrite=("x",))
def channel_affine(x: Array, scale: Array, shift: Array, minimum: float | None, maximum: float | None):
    """x (N, C) or (N, C, ...) times scale (C,) plus shift (C,), limited to [minimum, maximum]."""
    check_float("channel_affine", x=x, scale=scale, shift=shift)
    if len(x.shape) < 2:
        raise ShapeError(f"channel_affine: x expects (N, C) or (N, C, ...), received shape {x.shape}")
    check_shape("channel_affine", "scale", scale, x.shape[1:2])
    check_shape("channel_affine", "shift", shift, x.shape[1:2])
    check_limits("channel_affine", minimum, maximum)
    return ArraySpec(x.shape, x.dtype, channels_last(len(x.shape)))


@channel_affine.composed
def _channel_affine(backend, x, scale, shift, minimum, maximum):
    per_channel = (scale.shape[0], *[1] * (len(x.shape) - 2))
    y = backend.multiply(x, backend.reshape(scale, per_channel))
    return limited(backend, backend.add(y, backend.reshape(shift, per_channel)), minimum, maximum)


def _check_statistics(operation: str, channels: int, **per_channel) -> None:
    for name, values in per_channel.items():
        check_shape(operation, name, values, (channels,))


@primitive
def batch_norm_scale_shift(gamma: Array | None, beta: Array | None, mean: Array, variance: Array, epsilon: float):
    """(scale (C,), shift (C,)) of batch norm by the given statistics; `gamma` None counts as 1, `beta` None as 0."""
    check_float("batch_norm_scale_shift", mean=mean, variance=variance, gamma=gamma, beta=beta)
    if len(mean.shape) != 1:
        raise ShapeError(f"batch_norm_scale_shift: mean expects shape (C,), received {mean.shape}")
    _check_statistics("batch_norm_scale_shift", mean.shape[0], variance=variance, gamma=gamma, beta=beta)
    spec = ArraySpec(mean.shape, mean.dtype)
    return spec, spec


@batch_norm_scale_shift.composed
def _batch_norm_scale_shift(backend, gamma, beta, mean, variance, epsilon):
    scale = backend.rsqrt(backend.add(variance, epsilon))
    if gamma is not None:
        scale = backend.multiply(scale, gamma)
    shift = backend.negative(backend.multiply(mean, scale))
    return scale, shift if beta is None else backend.add(shift, beta)


@primitive
def fold_batch_norm(weight: Array, bias: Array | None, gamma: Array | None, beta: Array | None, mean: Array,
                    variance: Array, epsilon: float):
    """(weight', bias' (K,)) of a layer that does what the one with `weight` (K, ...) and a batch norm behind it do."""
    check_float("fold_batch_norm", weight=weight, bias=bias, mean=mean, variance=variance, gamma=gamma, beta=beta)
    if len(weight.shape) < 2:
        raise ShapeError(f"fold_batch_norm: weight expects (K, ...), one filter for each channel, received shape {weight.shape}")
    _check_statistics("fold_batch_norm", weight.shape[0], bias=bias, mean=mean, variance=variance, gamma=gamma, beta=beta)
    return ArraySpec(weight.shape, weight.dtype), ArraySpec((weight.shape[0],), weight.dtype)


@fold_batch_norm.composed
def _fold_batch_norm(backend, weight, bias, gamma, beta, mean, variance, epsilon):
    scale, shift = backend.batch_norm_scale_shift(gamma, beta, mean, variance, epsilon)
    if bias is not None:
        shift = backend.add(shift, backend.multiply(bias, scale))
    return backend.multiply(weight, backend.reshape(scale, (weight.shape[0], *[1] * (len(weight.shape) - 1)))), shift


@primitive
def max_pool2d_values(x: Array, geometry: PoolGeometry):
    """y of `max_pool2d_forward`, without the positions."""
    return max_pool2d_forward.specification(x, geometry)[0]


@max_pool2d_values.composed
def _max_pool2d_values(backend, x, geometry):
    return backend.max_pool2d_forward(x, geometry)[0]


@primitive
def conv2d_max_pool_values(x: Array, weight: Array, bias: Array | None, geometry: ConvGeometry, pooling: PoolGeometry,
                           minimum: float | None, maximum: float | None):
    """`max_pool2d_values` of `conv2d_fused` of x without a residual."""
    return max_pool2d_values.specification(conv2d_fused.specification(x, weight, bias, None, geometry, minimum, maximum), pooling)


@conv2d_max_pool_values.composed
def _conv2d_max_pool_values(backend, x, weight, bias, geometry, pooling, minimum, maximum):
    return backend.max_pool2d_values(backend.conv2d_fused(x, weight, bias, None, geometry, minimum, maximum), pooling)
