"""Products of matrices, in NumPy."""

from __future__ import annotations

import numpy as np

from numbanet.onnx.operators.registry import host_operator


@host_operator("MatMul")
def mat_mul(node, a, b):
    """Product of matrices, broadcast over the leading axes."""
    return np.matmul(a, b)


@host_operator("Gemm")
def gemm(node, a, b, c=None):
    """alpha * a' @ b' + beta * c."""
    a = a.T if node.attributes.get("transA", 0) else a
    b = b.T if node.attributes.get("transB", 0) else b
    y = node.attributes.get("alpha", 1.0) * (a @ b)
    return np.asarray(y if c is None else y + node.attributes.get("beta", 1.0) * c).astype(a.dtype, copy=False)


@host_operator("Einsum")
def einsum(node, *operands):
    """Einstein's summation."""
    wide = [operand.astype(np.float32) if operand.dtype.kind == "V" else operand for operand in operands]       # bfloat16
    return np.asarray(np.einsum(node.attributes["equation"], *wide, optimize=True)).astype(operands[0].dtype, copy=False)


@host_operator("Det")
def det(node, x):
    """Determinant of each matrix."""
    return np.asarray(np.linalg.det(x.astype(np.float64))).astype(x.dtype)
