"""Views, which are NumPy's, and copies (see `layout.py`).

The hot one is `reshape` of a channels-last feature map to rows, before a linear layer: it moves every element.
"""

from __future__ import annotations

import numpy as np

from numbanet.backends.cpu import interleaving  # noqa: F401
from numbanet.backends.cpu.layout import copy_into, copy_into_zeros, copy_kernels
from numbanet.backends.cpu.registry import implements
from numbanet.backends.host import basic_key
from numbanet.backends.interface import channels_last


@implements
def transpose(x, axes):
    return x.transpose(axes)


@implements
def reshape(x, shape):
    if x.ndim > 2 and x.dtype.char == "f" and not x.flags.c_contiguous and _flattens_channels_last(x, shape):
        rows = np.empty(x.shape, x.dtype)
        copy_into(x, rows)
        return rows.reshape(shape)
    return x.reshape(shape)


def _flattens_channels_last(x, shape) -> bool:
    """(N, C, H, W) in memory N, H, W, C to (N, C*H*W): certainly no view, and worth a kernel."""
    return len(shape) == 2 and shape[0] == x.shape[0] and x.transpose(channels_last(x.ndim)).flags.c_contiguous


@implements
def expand(x, shape):
    return np.broadcast_to(x, shape)


@implements
def slice_view(x, index):
    return x[basic_key(index)]


@implements
def slice_view_backward_input(grad_y, index, shape, out):
    part = out[basic_key(index)]
    if not copy_into_zeros(grad_y, part, out):
        out.fill(0)
        copy_into(grad_y, part)


@implements
def concatenate(arrays, axis, out):
    for x, part in zip(arrays, _parts(arrays, axis, out)):
        copy_into(x, part)


def _parts(arrays, axis, out):
    """Where each array belongs."""
    begin, lead = 0, (slice(None),) * axis
    for x in arrays:
        end = begin + x.shape[axis]
        yield out[(*lead, slice(begin, end))]
        begin = end


def _kernels(arrays, axis, out) -> list | None:
    """What `concatenate` runs where kernels copy all: see `program.joined`."""
    copies = [copy_kernels(x, part) for x, part in zip(arrays, _parts(arrays, axis, out)) if x.size]
    return None if not copies or None in copies else [call for calls in copies for call in calls]


concatenate.kernels = _kernels


@implements
def flip(x, axes, out):
    copy_into(np.flip(x, axes), out)


@implements
def reorder(x, order, out):
    copy_into(x, out)


@implements
def arange(start, step, count, dtype, out):
    out[...] = start + step * np.arange(count)      # control data
