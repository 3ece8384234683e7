"""Elementwise arithmetic."""

from __future__ import annotations

import numpy as np

from numbanet.backends.reference.registry import implements


@implements
def add(a, b, out):
    np.add(a, b, out=out, casting="unsafe")


@implements
def multiply(a, b, out):
    np.multiply(a, b, out=out, casting="unsafe")


@implements
def copy(x, out):
    np.copyto(out, x, casting="unsafe")


@implements
def full(shape, value, dtype, out):
    out.fill(value)
