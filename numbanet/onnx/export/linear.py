"""Matrix products and the linear layer."""

from __future__ import annotations

from numbanet.onnx.export.registry import translates


@translates("linear_forward")
def linear(b, x, weight, bias):
    return b.node("Gemm", x, weight, bias, transB=1)


@translates("matmul")
def matmul(b, x, y):
    return b.node("MatMul", x, y)
