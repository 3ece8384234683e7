"""Reading and writing at positions that are data.

    gather          y[o, j, r] = x[o, index[o, j, r], r]
    scatter_add     y[o, index[o, j, r], r] += x[o, j, r]

x, y (O, A or J, R), index (O, J, R) of any strides: 0 where one index serves a whole row. Serial: a fixed order of
sums, and the work is a few reads. What has neither of these forms goes through NumPy's indexing, as do dtypes without a
kernel: control data.
"""

from __future__ import annotations

from math import prod

import numpy as np

from numbanet.backends.cpu.compile import kernel
from numbanet.backends.cpu.layout import copy_into
from numbanet.backends.cpu.registry import implements
from numbanet.backends.host import axis_key, check_index_range, checked_key
from numbanet.backends.reference import indexing as numpy


@kernel("void(const T[:,:,:], const i8[:,:,:], T[:,:,:])", dtypes=("float32", "float64"))
def gather_rows(x, index, y):
    O, J, R = y.shape
    for o in range(O):
        for j in range(J):
            for r in range(R):
                a = index[o, j, r]
                y[o, j, r] = x[o, a if a >= 0 else a + x.shape[1], r]


@kernel("void(const T[:,:,:], const i8[:,:,:], T[:,:,:])", dtypes=("float32", "float64"))
def scatter_add_rows(x, index, y):
    O, J, R = x.shape
    for o in range(O):
        for j in range(J):
            for r in range(R):
                a = index[o, j, r]
                y[o, a if a >= 0 else a + y.shape[1], r] += x[o, j, r]


def _has_kernel(dtype) -> bool:
    return dtype.char in "fd"


def _rows(x, axis):
    """x as (O, A, R); a copy where strides ask for one."""
    return x.reshape(prod(x.shape[:axis]), x.shape[axis], prod(x.shape[axis + 1:]))


def _everywhere(index, O, R):
    """A vector of indices as (O, J, R), stride 0 along o and r."""
    return np.broadcast_to(index.reshape(1, -1, 1), (O, index.size, R))


@implements
def index_get(x, indices, axes, out):
    key = checked_key("index", indices, axes, x.shape)
    if len(axes) == 1 and _has_kernel(x.dtype) and x.flags.c_contiguous and out.flags.c_contiguous:
        rows, index = _rows(x, axes[0]), indices[0]
        O, _, R = rows.shape
        gather_rows(rows, _everywhere(index, O, R), out.reshape(O, index.size, R))
    else:
        out[...] = x[key]


@implements
def index_get_backward_input(grad_y, indices, axes, shape, out):
    key = checked_key("index_backward_input", indices, axes, shape)
    if not _has_kernel(out.dtype):
        out.fill(0)
        np.add.at(out, key, grad_y)
        return
    # The indexed axes first and as one: index (J,), gradient (J, R), sum (A, R).
    sizes, k = [shape[a] for a in axes], len(axes)
    common = np.broadcast_shapes(*[i.shape for i in indices])
    neighbours = axes == tuple(range(axes[0], axes[0] + k))
    at = axes[0] if neighbours else 0
    gradient = np.moveaxis(grad_y, range(at, at + len(common)), range(len(common)))
    flat = np.zeros(common, np.int64)
    for index, size in zip(indices, sizes):
        flat = flat * size + np.where(index < 0, index + size, index)
    rest = [n for a, n in enumerate(shape) if a not in axes]
    total = np.zeros((1, prod(sizes), prod(rest)), out.dtype)
    scatter_add_rows(gradient.reshape(1, flat.size, prod(rest)), _everywhere(flat, 1, prod(rest)), total)
    copy_into(np.moveaxis(total.reshape(*sizes, *rest), range(k), axes), out)


implements(numpy.index_put)         # writing through several index arrays is control data: NumPy's loops
implements(numpy.slice_put)


@implements
def gather(x, axis, index, out):
    if not _has_kernel(x.dtype):
        out[...] = x[axis_key("gather", index, axis, x.shape)]
        return
    check_index_range("gather", index, axis, x.shape[axis])
    part = x[tuple(slice(None if a == axis else n) for a, n in enumerate(index.shape))]
    target = out if out.flags.c_contiguous else np.empty(out.shape, out.dtype)
    gather_rows(_rows(part, axis), _rows(index, axis), _rows(target, axis))
    if target is not out:
        copy_into(target, out)


@implements
def scatter(x, axis, index, src, accumulate, out):
    if out is not x:
        copy_into(x, out)
    values = np.full(index.shape, src, x.dtype) if np.ndim(src) == 0 and not isinstance(src, np.ndarray) \
        else src[tuple(map(slice, index.shape))]
    key = axis_key("scatter", index, axis, x.shape)
    if not accumulate:
        out[key] = values
        return
    part = out[tuple(slice(None if a == axis else n) for a, n in enumerate(index.shape))]
    if _has_kernel(out.dtype) and part.flags.c_contiguous:
        scatter_add_rows(_rows(values, axis), _rows(index, axis), _rows(part, axis))
    else:
        np.add.at(out, key, values)
