"""Reading and writing at positions that are data."""

from __future__ import annotations

import numpy as np

from numbanet.backends.host import axis_key, basic_key, checked_key
from numbanet.backends.reference.registry import implements


@implements
def index_get(x, indices, axes, out):
    out[...] = x[checked_key("index", indices, axes, x.shape)]


@implements
def index_get_backward_input(grad_y, indices, axes, shape, out):
    out[...] = 0
    np.add.at(out, checked_key("index_backward_input", indices, axes, shape), grad_y)


@implements
def index_put(x, indices, axes, values, accumulate):
    key = checked_key("index_put", indices, axes, x.shape)
    if accumulate:
        np.add.at(x, key, values)
    else:
        x[key] = values


@implements
def slice_put(x, index, values):
    x[basic_key(index)] = values


@implements
def gather(x, axis, index, out):
    out[...] = x[axis_key("gather", index, axis, x.shape)]


@implements
def scatter(x, axis, index, src, accumulate, out):
    out[...] = x
    key = axis_key("scatter", index, axis, x.shape)
    values = np.broadcast_to(src, index.shape) if np.ndim(src) == 0 else src[tuple(map(slice, index.shape))]
    if accumulate:
        np.add.at(out, key, values)
    else:
        out[key] = values
