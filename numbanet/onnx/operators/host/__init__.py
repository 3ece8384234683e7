"""Operators in NumPy: logic, integers, indices, shape arithmetic, and rarities around a network.

Each function takes the node and NumPy arrays (None for an absent optional operand) and returns a NumPy array of the dtype that the ONNX
operator specification gives (https://onnx.ai/onnx/operators/), or a tuple of them. Where the same operator exists on tensors, the function
here is its twin: it serves the dtypes that tensors lack, and computes with shapes.
"""

from numbanet.onnx.operators.host import (  # noqa: F401
    constants,
    detection,
    elementwise,
    indices,
    matrices,
    quantisation,
    reductions,
    sampling,
    shapes,
    windows,
)
