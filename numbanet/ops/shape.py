"""Views: the same elements under another shape. Each shares memory with its input where strides allow it.

Feature maps are channels-last in memory, so merging channels with pixels copies; `view` does that too, where PyTorch
would ask for `reshape` or for `contiguous()`.
"""

from __future__ import annotations

import operator
from math import prod

from numbanet._tensor import Tensor
from numbanet.autograd.operation import Operation
from numbanet.errors import IndexRangeError, ShapeError
from numbanet.ops.elementwise import reduce_to

__all__ = ["broadcast_tensors", "broadcast_to", "expand", "flatten", "meshgrid", "moveaxis", "movedim", "narrow",
           "permute", "reshape", "select", "squeeze", "swapaxes", "swapdims", "t", "transpose", "unflatten",
           "unsqueeze", "view"]


class Reshape(Operation):
    """The same elements in row-major order under another shape."""

    operation_name = "reshape"
    view = True

    def forward(self, backend, x, shape):
        self.save(x.shape)
        return backend.reshape(x, shape)

    def backward(self, backend, grad_y, needs):
        shape, = self.saved
        return backend.reshape(grad_y, shape)


class Transpose(Operation):
    """Axes in another order."""

    operation_name = "permute"
    view = True

    def forward(self, backend, x, axes):
        self.save(axes)
        return backend.transpose(x, axes)

    def backward(self, backend, grad_y, needs):
        axes, = self.saved
        inverse = tuple(sorted(range(len(axes)), key=axes.__getitem__))
        return backend.transpose(grad_y, inverse)


class Expand(Operation):
    """Axes of size 1 repeated without copying."""

    operation_name = "expand"
    view = True

    def forward(self, backend, x, shape):
        self.save(x.shape)
        return backend.expand(x, shape)

    def backward(self, backend, grad_y, needs):
        shape, = self.saved
        return reduce_to(backend, grad_y, shape)


class Slice(Operation):
    """x[index] of integers, new axes and (start, stop, step), as the primitive `slice_view` takes them."""

    operation_name = "slice"
    view = True

    def forward(self, backend, x, index):
        self.save(index, x.shape)
        return backend.slice_view(x, index)

    def backward(self, backend, grad_y, needs):
        index, shape = self.saved
        return backend.slice_view_backward_input(grad_y, index, shape)


def wrap_dim(operation: str, dim: int, rank: int) -> int:
    """`dim` counted from 0, or an IndexRangeError. A tensor without dimensions counts as of rank 1, as in PyTorch."""
    rank = max(rank, 1)
    if not -rank <= dim < rank:
        raise IndexRangeError(f"{operation}: dim expects a value from {-rank} to {rank - 1}, received {dim}")
    return dim % rank


def wrap_dims(operation: str, dims, rank: int) -> tuple[int, ...]:
    """Several dims, or a ShapeError where one is named twice."""
    wrapped = tuple(wrap_dim(operation, d, rank) for d in dims)
    if len(set(wrapped)) != len(wrapped):
        raise ShapeError(f"{operation}: dims {tuple(dims)} name a dimension twice")
    return wrapped


def sizes_of(sizes: tuple) -> tuple[int, ...]:
    """(2, 3), ((2, 3),) or ([2, 3],): the ways in which sizes are passed."""
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        sizes = sizes[0]
    return tuple([operator.index(n) for n in sizes])


def reshape(x, *shape):
    """Another shape; one size may be -1. Shares memory where strides allow it, else copies."""
    shape = wanted = sizes_of(shape)
    if min(shape, default=0) < 0:
        if min(shape) < -1 or shape.count(-1) > 1:
            raise ShapeError(f"reshape: shape expects sizes of at least 0 and at most one -1, received {wanted}")
        known = -prod(shape)
        if known == 0 or x.numel() % known:
            raise ShapeError(f"reshape: shape {wanted} does not fit the {x.numel()} elements of shape {x.shape}")
        shape = tuple(x.numel() // known if n == -1 else n for n in shape)
    return Reshape.apply(x, shape)


def view(x, *shape):
    """As :func:`reshape`: where strides forbid a view it copies, for users do not choose the memory order of maps."""
    return reshape(x, *shape)


def flatten(x, start_dim=0, end_dim=-1):
    """Merge the dimensions from `start_dim` to `end_dim`."""
    start, end = wrap_dim("flatten", start_dim, x.ndim), wrap_dim("flatten", end_dim, x.ndim)
    if start > end:
        raise ShapeError(f"flatten: start_dim expects a dimension before end_dim, received {start_dim} and {end_dim}")
    return Reshape.apply(x, (*x.shape[:start], prod(x.shape[start:end + 1]), *x.shape[end + 1:]))


def unflatten(x, dim, sizes):
    """Split one dimension into several; one of `sizes` may be -1."""
    dim = wrap_dim("unflatten", dim, x.ndim)
    return reshape(x, *x.shape[:dim], *_fill(tuple(sizes), x.shape[dim]), *x.shape[dim + 1:])


def _fill(sizes, total):
    known = -prod(sizes)
    filled = tuple(total // known if n == -1 and known > 0 else n for n in sizes)
    if prod(filled) != total:
        raise ShapeError(f"unflatten: sizes {sizes} do not multiply to {total}")
    return filled


def squeeze(x, dim=None):
    """Drop all dimensions of size 1, or those of `dim` (an int or several) that have size 1."""
    if dim is None:
        return Reshape.apply(x, tuple(n for n in x.shape if n != 1))
    dims = wrap_dims("squeeze", (dim,) if isinstance(dim, int) else dim, x.ndim)
    return Reshape.apply(x, tuple(n for a, n in enumerate(x.shape) if a not in dims or n != 1))


def unsqueeze(x, dim):
    """A new dimension of size 1 at `dim`."""
    dim = wrap_dim("unsqueeze", dim, x.ndim + 1)
    return Reshape.apply(x, (*x.shape[:dim], 1, *x.shape[dim:]))


def permute(x, *dims):
    """The dimensions in another order."""
    dims = sizes_of(dims)
    if len(dims) != x.ndim:
        raise ShapeError(f"permute: dims expects {x.ndim} dimensions for shape {x.shape}, received {dims}")
    return Transpose.apply(x, wrap_dims("permute", dims, x.ndim) if dims else ())


def transpose(x, dim0, dim1):
    """Exchange two dimensions."""
    a, b = wrap_dim("transpose", dim0, x.ndim), wrap_dim("transpose", dim1, x.ndim)
    axes = list(range(x.ndim))
    if axes:
        axes[a], axes[b] = b, a
    return Transpose.apply(x, tuple(axes))


swapaxes = swapdims = transpose


def movedim(x, source, destination):
    """Move dimensions (an int or several) to other places; the rest keep their order."""
    source = wrap_dims("movedim", (source,) if isinstance(source, int) else source, x.ndim)
    destination = wrap_dims("movedim", (destination,) if isinstance(destination, int) else destination, x.ndim)
    if len(source) != len(destination):
        raise ShapeError(f"movedim: source and destination expect equally many dimensions, received {source} and "
                         f"{destination}")
    axes = [a for a in range(x.ndim) if a not in source]
    for place, axis in sorted(zip(destination, source)):
        axes.insert(place, axis)
    return Transpose.apply(x, tuple(axes))


moveaxis = movedim


def t(x):
    """The transposed matrix; a vector stays as it is."""
    if x.ndim > 2:
        raise ShapeError(f"t: x expects at most 2 dimensions, received shape {x.shape}; use .mT or permute")
    return transpose(x, 0, 1) if x.ndim == 2 else x


def _T(x):
    """All dimensions reversed."""
    return Transpose.apply(x, tuple(range(x.ndim))[::-1])


def _mT(x):
    """The last two dimensions exchanged."""
    if x.ndim < 2:
        raise ShapeError(f"mT: x expects at least 2 dimensions, received shape {x.shape}")
    return transpose(x, -2, -1)


def expand(x, *sizes):
    """Repeat dimensions of size 1 without copying; -1 keeps a size, new dimensions come first."""
    sizes = sizes_of(sizes)
    lead = len(sizes) - x.ndim
    return Expand.apply(x, tuple(x.shape[a - lead] if n == -1 and a >= lead else n for a, n in enumerate(sizes)))


def broadcast_to(x, shape):
    """x expanded to `shape`."""
    return expand(x, tuple(shape))


def broadcast_tensors(*tensors):
    """All expanded to their common shape."""
    from numbanet.backends.contract.elementwise import broadcast_shape
    shape = broadcast_shape("broadcast_tensors", *(x.shape for x in tensors))
    return tuple(expand(x, shape) for x in tensors)


def meshgrid(*vectors, indexing="ij"):
    """Each vector expanded over a grid of all: "ij" has the first along the first dimension, "xy" along the second."""
    vectors = vectors[0] if len(vectors) == 1 and isinstance(vectors[0], (tuple, list)) else vectors
    if indexing not in ("ij", "xy") or any(v.ndim > 1 for v in vectors):
        raise ShapeError("meshgrid: expected vectors and indexing 'ij' or 'xy', received shapes "
                         f"{[v.shape for v in vectors]} and "
                         f"{indexing!r}")
    rank = len(vectors)
    columns = [reshape(v, (1,) * a + (-1,) + (1,) * (rank - a - 1)) for a, v in enumerate(vectors)]
    if indexing == "xy" and rank > 1:
        columns = [transpose(c, 0, 1) for c in columns]
    return broadcast_tensors(*columns)


def whole(shape) -> list[tuple[int, int, int]]:
    """The index of `slice_view` that takes everything."""
    return [(0, n, 1) for n in shape]


def narrow(x, dim, start, length):
    """`length` elements of dimension `dim` from `start`."""
    if x.ndim == 0:
        raise ShapeError("narrow: expected at least one dimension, received a tensor without any")
    dim, start = wrap_dim("narrow", dim, x.ndim), operator.index(start)
    size, first = x.shape[dim], start + x.shape[dim] if start < 0 else start
    if not 0 <= first <= size or length < 0 or first + length > size:
        raise IndexRangeError(f"narrow: start {start} and length {length} exceed dimension {dim} of size {size}")
    return Slice.apply(x, (*whole(x.shape[:dim]), (first, first + length, 1)))


def select(x, dim, index):
    """The elements at one position of dimension `dim`, which vanishes."""
    if x.ndim == 0:
        raise ShapeError("select: expected at least one dimension, received a tensor without any")
    dim, index = wrap_dim("select", dim, x.ndim), operator.index(index)
    size = x.shape[dim]
    if not -size <= index < size:
        raise IndexRangeError(f"select: index {index} is out of range for dimension {dim} of size {size}")
    return Slice.apply(x, (*whole(x.shape[:dim]), index % size))


for _function in (broadcast_to, expand, flatten, narrow, permute, reshape, select, squeeze, t, transpose, unflatten,
                  unsqueeze, view):
    setattr(Tensor, _function.__name__, _function)
Tensor.movedim, Tensor.moveaxis, Tensor.swapaxes, Tensor.swapdims = movedim, movedim, transpose, transpose
Tensor.view_as = Tensor.reshape_as = lambda x, other: reshape(x, other.shape)
Tensor.expand_as = lambda x, other: expand(x, other.shape)
Tensor.ravel = flatten
Tensor.T, Tensor.mT = property(_T), property(_mT)
