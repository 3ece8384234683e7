"""Activations."""

from __future__ import annotations

import numpy as np

from numbanet.backends.reference.registry import implements


@implements
def relu_forward(x, out):
    np.maximum(x, 0, out=out)


@implements
def relu_backward_input(grad_y, y, out):
    out[...] = np.where(y > 0, grad_y, 0)
