"""Softmax and its logarithm."""

from __future__ import annotations

from numbanet.onnx.export.registry import translates


@translates("softmax_forward")
def softmax(b, x, axis):
    return b.node("Softmax", x, axis=axis)


@translates("log_softmax_forward")
def log_softmax(b, x, axis):
    return b.node("LogSoftmax", x, axis=axis)
