"""Padding."""

from __future__ import annotations

import numpy as np

from numbanet.onnx.export.convolution import pads
from numbanet.onnx.export.registry import translates

MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}


@translates("pad_forward")
def pad(b, x, padding, mode, value):
    if not any(map(any, padding)):
        return x.name
    if mode == "circular":              # ONNX wraps since opset 19
        y = x.name
        for axis, (before, after) in enumerate(padding):
            y = _wrapped(b, y, axis, x.shape[axis], before, after)
        return y
    axes = [axis for axis, pair in enumerate(padding) if any(pair)]
    value = np.asarray(value, x.dtype) if mode == "constant" else None
    return b.node("Pad", x, np.array(pads([padding[a] for a in axes]), np.int64), value, np.array(axes, np.int64), mode=MODES[mode])


def _wrapped(b, y: str, axis: int, size: int, before: int, after: int) -> str:
    if not before and not after:
        return y
    parts = [y]
    if before:
        parts.insert(0, _slice(b, y, axis, size - before, size))
    if after:
        parts.append(_slice(b, y, axis, 0, after))
    return b.node("Concat", *parts, axis=axis)


def _slice(b, y: str, axis: int, start: int, stop: int) -> str:
    return b.node("Slice", y, *[np.array([n], np.int64) for n in (start, stop, axis)])
