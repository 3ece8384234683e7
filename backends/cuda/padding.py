"""Padding: copies of whole regions for a constant, else taps for the kernels of `resample.py`."""

from __future__ import annotations

import numpy as np

from numbanet.backends.contract.padding import padding_sources
from numbanet.backends.cuda.elementwise import full
from numbanet.backends.cuda.pointwise import convert
from numbanet.backends.cuda.registry import implements
from numbanet.backends.cuda.resample import resample, take
from numbanet.backends.cuda.shape import sliced
from numbanet.backends.reference.padding import kept


def _index(slices) -> tuple:
    return tuple([(s.start, s.stop, 1) for s in slices])


@implements
def pad_forward(x, padding, mode, value, out):
    if mode == "constant":
        inner, outer = kept(x.shape, padding)
        full(out.shape, value, out.dtype, out)
        if all(s.stop > s.start for s in inner):
            convert(sliced(x, _index(inner)), sliced(out, _index(outer)))
    else:
        take(x, *[padding_sources(size, *pair, mode) for size, pair in zip(x.shape[2:], padding[2:])], out)


@implements
def pad_backward_input(grad_y, padding, mode, out):
    if mode == "constant":
        inner, outer = kept(out.shape, padding)
        full(out.shape, 0, out.dtype, out)
        if all(s.stop > s.start for s in inner):
            convert(sliced(grad_y, _index(outer)), sliced(out, _index(inner)))
    else:
        tables = [padding_sources(size, *pair, mode) for size, pair in zip(out.shape[2:], padding[2:])]
        resample(grad_y, *[(sources, np.arange(len(sources)), 1) for sources in tables], out)
