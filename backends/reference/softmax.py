"""Softmax along one axis. See `contract/softmax.py` for the formula."""

from __future__ import annotations

import numpy as np

from numbanet.backends.reference.registry import implements


def _shifted(x, axis):
    return x - x.max(axis, keepdims=True, initial=-np.inf)


@implements
def softmax_forward(x, axis, out):
    with np.errstate(invalid="ignore"):
        exponentials = np.exp(_shifted(x, axis))
        out[...] = exponentials / exponentials.sum(axis, keepdims=True)


@implements
def softmax_backward_input(grad_y, y, axis, out):
    out[...] = (grad_y - (grad_y * y).sum(axis, keepdims=True)) * y


@implements
def log_softmax_forward(x, axis, out):
    with np.errstate(invalid="ignore"):
        shifted = _shifted(x, axis)
        out[...] = shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))


@implements
def log_softmax_backward_input(grad_y, y, axis, out):
    out[...] = grad_y - np.exp(y) * grad_y.sum(axis, keepdims=True)
