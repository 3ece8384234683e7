"""Views, and what rearranges elements."""

from __future__ import annotations

import numpy as np

from numbanet.backends.host import basic_key
from numbanet.backends.reference.registry import implements


@implements
def transpose(x, axes):
    return x.transpose(axes)


@implements
def reshape(x, shape):
    return x.reshape(shape)


@implements
def expand(x, shape):
    return np.broadcast_to(x, shape)


@implements
def slice_view(x, index):
    return x[basic_key(index)]


@implements
def slice_view_backward_input(grad_y, index, shape, out):
    out[...] = 0
    out[basic_key(index)] = grad_y


@implements
def concatenate(arrays, axis, out):
    np.concatenate(arrays, axis, out=out)


@implements
def interleave_channels(arrays, out):
    for i, x in enumerate(arrays):
        out[:, i::len(arrays)] = x


@implements
def separate_channels(x, groups, out):
    count = x.shape[1] // groups
    for i in range(groups):
        out[:, i * count:(i + 1) * count] = x[:, i::groups]


@implements
def flip(x, axes, out):
    out[...] = np.flip(x, axes)


@implements
def reorder(x, order, out):
    out[...] = x


@implements
def arange(start, step, count, dtype, out):
    out[...] = start + step * np.arange(count)
