"""What the functions of this package share: dtypes, axes, and operands that once were attributes."""

from __future__ import annotations

import numpy as np

from numbanet.errors import DTypeError, ShapeError


def dtype_of(number: int) -> np.dtype:
    """The NumPy dtype of an `onnx.TensorProto.DataType`."""
    import onnx
    if number == onnx.TensorProto.STRING:
        raise DTypeError("Cast: there are no tensors of strings")
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(number))


def operand_or_attribute(node, operand, name: str):
    """A list of integers that older opsets hold in an attribute and newer ones in an operand; None where both are absent."""
    if operand is not None:
        return [int(value) for value in np.ravel(operand)]
    value = node.attributes.get(name)
    return None if value is None else [int(entry) for entry in value]


def normal_axis(node, axis: int, rank: int) -> int:
    if not -rank <= axis < max(rank, 1):
        raise ShapeError(f"{node}: axis {axis} is out of range for {rank} dimensions")
    return axis + rank if axis < 0 else axis


def normal_axes(node, axes, rank: int) -> tuple[int, ...]:
    normal = tuple(normal_axis(node, axis, rank) for axis in axes)
    if len(set(normal)) != len(normal):
        raise ShapeError(f"{node}: axes {list(axes)} name one axis twice")
    return normal


def legacy_broadcast(node, a, b):
    """Before opset 7 the attribute `axis` says where the dimensions of b begin in a."""
    axis = node.attributes.get("axis")
    if node.version < 7 and node.attributes.get("broadcast") and axis is not None:
        b = b.reshape(b.shape + (1,) * (a.ndim - normal_axis(node, axis, a.ndim) - b.ndim))
    return a, b


def is_integer(dtype: np.dtype) -> bool:
    return dtype.kind in "iu"
