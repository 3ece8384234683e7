"""Numbers in 8 bits, in NumPy."""

from __future__ import annotations

import numpy as np

from numbanet.errors import DTypeError
from numbanet.onnx.operators.host.common import dtype_of, normal_axis
from numbanet.onnx.operators.host.windows import conv_integer
from numbanet.onnx.operators.registry import host_operator


def _along(node, x, values):
    """A scale or zero point in a shape that broadcasts with x: of the tensor, of one axis, or of blocks of an axis."""
    if values.size == 1 and values.ndim <= 1:
        return values.reshape(())
    axis = normal_axis(node, node.attributes.get("axis", 1), x.ndim)
    if values.ndim == 1:
        return values.reshape((-1,) + (1,) * (x.ndim - 1 - axis))
    block = node.attributes.get("block_size", 0) or -(-x.shape[axis] // values.shape[axis])
    return np.take(np.repeat(values, block, axis), np.arange(x.shape[axis]), axis)


_QUANTISED = ("int8", "uint8", "int16", "uint16", "int32")


def _saturate(node, x, dtype: np.dtype):
    if dtype.name not in _QUANTISED:
        raise DTypeError(f"{node}: expected one of {', '.join(_QUANTISED)} as the quantised dtype, received {dtype}")
    return np.clip(np.rint(x), np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)


@host_operator("QuantizeLinear")
def quantize_linear(node, x, scale, zero_point=None):
    """saturate(round(x / scale) + zero_point), rounding to even."""
    number = node.attributes.get("output_dtype", 0)
    dtype = zero_point.dtype if zero_point is not None else dtype_of(number) if number else np.dtype(np.uint8)
    y = np.rint(x.astype(scale.dtype) / _along(node, x, scale)).astype(np.float64)
    return _saturate(node, y + (0 if zero_point is None else _along(node, x, zero_point).astype(np.float64)), dtype)


@host_operator("DequantizeLinear")
def dequantize_linear(node, x, scale, zero_point=None):
    """(x - zero_point) * scale."""
    if x.dtype.name not in _QUANTISED:
        raise DTypeError(f"{node}: expected one of {', '.join(_QUANTISED)}, received {x.dtype}")
    y = x.astype(np.int64) - (0 if zero_point is None else _along(node, x, zero_point).astype(np.int64))
    number = node.attributes.get("output_dtype", 0)
    return (y.astype(np.float32) * _along(node, x, scale).astype(np.float32)).astype(dtype_of(number) if number else scale.dtype)


@host_operator("DynamicQuantizeLinear")
def dynamic_quantize_linear(node, x):
    """x as uint8, with the scale and the zero point that its own range gives; zero stays exact."""
    low, high = np.minimum(x.min(initial=0), 0), np.maximum(x.max(initial=0), 0)
    scale = np.float32((high - low) / np.float32(255)) or np.float32(1)
    zero_point = _saturate(node, -low / scale, np.dtype(np.uint8))
    return _saturate(node, np.rint(x / scale) + zero_point, np.dtype(np.uint8)), np.asarray(scale, np.float32), np.asarray(zero_point)


def _rows(x, zero_point, axis: int):
    """Integers less their zero point, of the tensor or of each row or column."""
    x = x.astype(np.int32)
    if zero_point is None:
        return x
    zero_point = zero_point.astype(np.int32)
    if zero_point.ndim == 1 and zero_point.size > 1 and axis == -2:
        zero_point = zero_point[:, None]
    return x - zero_point


@host_operator("MatMulInteger")
def mat_mul_integer(node, a, b, a_zero_point=None, b_zero_point=None):
    """Product of matrices of 8-bit integers, less their zero points, into int32."""
    return np.matmul(_rows(a, a_zero_point, -2), _rows(b, b_zero_point, -1))


@host_operator("QLinearMatMul")
def q_linear_mat_mul(node, a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale, y_zero_point):
    """MatMulInteger, scaled and quantised again."""
    y = mat_mul_integer(node, a, b, a_zero_point, b_zero_point).astype(np.float64)
    scale = a_scale.astype(np.float64) * b_scale.astype(np.float64) / y_scale.astype(np.float64)
    return _saturate(node, np.rint(y * scale) + y_zero_point.astype(np.float64), y_zero_point.dtype)


@host_operator("QLinearConv")
def q_linear_conv(node, x, x_scale, x_zero_point, w, w_scale, w_zero_point, y_scale, y_zero_point, bias=None):
    """ConvInteger, scaled by output channel and quantised again."""
    y = conv_integer(node, x, w, x_zero_point, w_zero_point).astype(np.float64)
    channel = (-1,) + (1,) * (x.ndim - 2)
    y = y if bias is None else y + bias.reshape(channel)
    scale = x_scale.astype(np.float64) * w_scale.astype(np.float64).reshape(channel) / y_scale.astype(np.float64)
    return _saturate(node, np.rint(y * scale) + float(np.ravel(y_zero_point)[0]), y_zero_point.dtype)
