"""Indexing: x[...], x[...] = v, and reading and writing at positions that are data."""

from __future__ import annotations

import operator

import numpy as np

from numbanet import dtypes
from numbanet._tensor import Tensor, tensor
from numbanet.autograd.in_place import accept_piece, adopt, check_in_place
from numbanet.autograd.operation import Operation
from numbanet.errors import DTypeError, IndexRangeError, ShapeError, UsageError
from numbanet.ops.elementwise import reduce_to
from numbanet.ops.shape import Slice, broadcast_tensors, expand, reshape, wrap_dim

__all__ = ["argwhere", "gather", "index_add", "index_select", "masked_select", "nonzero", "one_hot", "scatter",
           "scatter_add", "take", "take_along_dim"]


class Index(Operation):
    """x with integer arrays at some axes."""

    operation_name = "index"

    def forward(self, backend, x, axes, *indices):
        self.save(axes, x.shape, *indices)
        return backend.index_get(x, indices, axes)

    def backward(self, backend, grad_y, needs):
        axes, shape, *indices = self.saved
        return backend.index_get_backward_input(grad_y, indices, axes, shape), *[None] * len(indices)


class IndexPut(Operation):
    """x[index][..., indices, ...] = values in place, where x[index] is a view of integers and slices."""

    operation_name = "index_put"

    def forward(self, backend, x, values, index, axes, *indices):
        self.save(index, axes, values.shape, *indices)
        backend.index_put(backend.slice_view(x, index), indices, axes, values, False)
        return x

    def backward(self, backend, grad_y, needs):
        index, axes, shape, *indices = self.saved
        grad_x = grad_values = None
        if needs[1]:
            grad_values = reduce_to(backend, backend.index_get(backend.slice_view(grad_y, index), indices, axes), shape)
        if needs[0]:
            grad_x = backend.copy(grad_y)
            zero = backend.full((), 0.0, grad_y.dtype)
            backend.index_put(backend.slice_view(grad_x, index), indices, axes, zero, False)
        return grad_x, grad_values, *[None] * len(indices)


class SlicePut(Operation):
    """x[index] = values in place; index as of the primitive `slice_view`."""

    operation_name = "slice_put"

    def forward(self, backend, x, values, index):
        self.save(values.shape, index)
        backend.slice_put(x, index, values)
        return x

    def backward(self, backend, grad_y, needs):
        shape, index = self.saved
        grad_x = grad_values = None
        if needs[0]:
            grad_x = backend.copy(grad_y)
            backend.slice_put(grad_x, index, backend.full((), 0.0, grad_y.dtype))
        if needs[1]:
            grad_values = reduce_to(backend, backend.slice_view(grad_y, index), shape)
        return grad_x, grad_values


class Gather(Operation):
    """x at `index` along an axis, position by position."""

    operation_name = "gather"

    def forward(self, backend, x, axis, index):
        self.save(axis, x.shape, index)
        return backend.gather(x, axis, index)

    def backward(self, backend, grad_y, needs):
        axis, shape, index = self.saved
        return backend.scatter(backend.full(shape, 0.0, grad_y.dtype), axis, index, grad_y, True), None


class Scatter(Operation):
    """x with `src` written, or added, at `index` along an axis."""

    operation_name = "scatter"

    def forward(self, backend, x, axis, index, src, accumulate):
        self.save(axis, index, src.shape if hasattr(src, "shape") else None, accumulate)
        return backend.scatter(x, axis, index, src, accumulate)

    def backward(self, backend, grad_y, needs):
        axis, index, src_shape, accumulate = self.saved
        grad_x = grad_src = None
        if needs[0]:
            grad_x = grad_y if accumulate else backend.scatter(grad_y, axis, index, 0.0, False)
        if src_shape is None:
            return grad_x, None
        if needs[2]:
            grad_src = backend.gather(grad_y, axis, index)
            if src_shape != index.shape:
                part = tuple((0, n, 1) for n in index.shape)
                grad_src = backend.slice_view_backward_input(grad_src, part, src_shape)
        return grad_x, None, grad_src


# --- x[key] ---------------------------------------------------------------------------------------------------------

def parse_key(x, key) -> tuple[tuple, tuple[int, ...], list[Tensor]]:
    """Split a key into a view and what is indexed in it.

    Returns
    -------
    index : of the primitive `slice_view`
    axes : of the view, at which arrays stand
    arrays : int64 tensors, one an axis
    """
    entries = _expand_ellipsis(x, [_entry(x, k) for k in (key if isinstance(key, tuple) else (key,))])
    index, axes, arrays = [], [], []
    axis = out = 0                                  # of x; of the view
    for entry in entries:
        if entry is None:
            index.append(None)
            out += 1
            continue
        size = x.shape[axis]
        if isinstance(entry, slice):
            index.append(_slice(entry, size))
            axis, out = axis + 1, out + 1
        elif isinstance(entry, Tensor):
            for array in _positions(x, axis, entry):
                index.append((0, x.shape[axis], 1))
                axes.append(out)
                arrays.append(array)
                axis, out = axis + 1, out + 1
        else:
            if not -size <= entry < size:
                raise IndexRangeError(f"index: {entry} is out of range for dimension {axis} of size {size}")
            index.append(entry % size)
            axis += 1
    return tuple(index), tuple(axes), arrays


def _entry(x, k):
    """One entry of a key as None, Ellipsis, int, slice, or an index tensor with dimensions or of booleans."""
    if k is None or k is Ellipsis or isinstance(k, slice):
        return k
    if isinstance(k, Tensor) and (k.ndim or k.dtype == dtypes.bool):
        return k
    if isinstance(k, (list, tuple, range, np.ndarray)):
        made = tensor(np.asarray(k, np.int64) if len(k) == 0 else k, device=x.device)
        return made if made.ndim else int(made)
    if isinstance(k, (bool, np.bool_)):
        return tensor(bool(k), device=x.device)
    try:
        return operator.index(k)
    except (TypeError, DTypeError):
        raise UsageError("index: expected integers, slices, None, ..., masks, tensors or lists, received "
                         f"{type(k).__name__}") from None


def _consumed(entry) -> int:
    """How many dimensions of x an entry stands for."""
    if isinstance(entry, Tensor):
        return entry.ndim if entry.dtype == dtypes.bool else 1
    return 0 if entry is None or entry is Ellipsis else 1


def _expand_ellipsis(x, entries) -> list:
    consumed = sum(map(_consumed, entries))
    if consumed > x.ndim:
        raise IndexRangeError(f"index: {consumed} indices for a tensor of {x.ndim} dimensions, shape {x.shape}")
    places = [i for i, e in enumerate(entries) if e is Ellipsis]
    if len(places) > 1:
        raise UsageError("index: expected at most one ellipsis (...)")
    at = places[0] if places else len(entries)
    return [*entries[:at], *[slice(None)] * (x.ndim - consumed), *entries[at + 1:]]


def _slice(entry, size) -> tuple[int, int, int]:
    if entry.step is not None and operator.index(entry.step) < 1:
        raise UsageError(f"index: a slice's step expects a number of at least 1, received {entry.step}; use flip to "
                         "reverse")
    start, stop, step = entry.indices(size)
    return start, max(start, stop), step


def _positions(x, axis, entry) -> list[Tensor]:
    """The int64 tensors that an index tensor means, one a dimension of x; a mask is read on the host."""
    if entry.dtype != dtypes.bool:
        return [as_index(entry, x)]
    if entry.shape != x.shape[axis:axis + entry.ndim]:
        raise IndexRangeError(f"index: a mask of shape {entry.shape} does not fit dimensions {axis}.. of shape "
                              f"{x.shape}")
    return list(nonzero(entry, as_tuple=True))


def as_index(entry, x) -> Tensor:
    """An integer tensor as int64 on the device of x."""
    if entry.dtype.kind not in "iu" or entry.dtype == dtypes.uint8:
        raise DTypeError(f"index: expected int64 (or a bool mask), received {entry.dtype}; convert it with .long() or "
                         ".bool()")
    if entry.dtype != dtypes.int64 or entry.backend is not x.backend and not x.backend.is_tracing:
        return entry.to(device=x.device, dtype=dtypes.int64)
    return entry


def _scalar_mask(x, key):
    """x[True] and x[False] have a dimension of size 1 or 0 in front."""
    return isinstance(key, (bool, np.bool_)) or isinstance(key, Tensor) and key.ndim == 0 and key.dtype == dtypes.bool


def getitem(x, key):
    """x[key]: a view for integers, slices, None and ...; a copy for masks, lists and index tensors."""
    if _scalar_mask(x, key):
        return Slice.apply(x, (None,)) if key else Slice.apply(Slice.apply(x, (None,)), ((0, 0, 1),))
    index, axes, arrays = parse_key(x, key)
    if not arrays:
        return Slice.apply(x, index)
    is_whole = len(index) == x.ndim and all(e == (0, n, 1) for e, n in zip(index, x.shape))
    return Index.apply(x if is_whole else Slice.apply(x, index), axes, *arrays)


def setitem(x, key, value) -> None:
    """x[key] = value in place; `value` is a tensor, number or array that broadcasts."""
    check_in_place("x[...] = value", x)
    if _scalar_mask(x, key):
        if not key:
            return
        key = ...
    index, axes, arrays = parse_key(x, key)
    if isinstance(value, Tensor) and value.storage is x.storage and not arrays:
        accept_piece(x, value, x.backend.slice_view(x.array, index))
    value = _value_for(x, value)
    adopt(x, IndexPut.apply(x, value, index, axes, *arrays) if arrays else SlicePut.apply(x, value, index))


def _value_for(x, value) -> Tensor:
    """A value to be written into x: of its dtype and device, without leading dimensions of size 1."""
    if not isinstance(value, Tensor):
        value = tensor(value, dtype=x.dtype, device=x.device)
    elif value.dtype != x.dtype:
        value = value.to(dtype=x.dtype)
    lead = next((a for a, n in enumerate(value.shape) if n != 1), value.ndim)
    return reshape(value, value.shape[lead:]) if lead else value


# --- named functions ------------------------------------------------------------------------------------------------

def nonzero(x, as_tuple=False):
    """Positions of elements that are not 0, read on the host: int64 (count, dimensions), or one vector a dimension."""
    positions = np.nonzero(np.atleast_1d(x.detach().numpy()))
    if as_tuple:
        return tuple(tensor(p, device=x.device) for p in positions)
    table = np.stack(positions, 1)[:, :x.ndim]          # without dimensions: (0 or 1, 0)
    return tensor(table, device=x.device)


argwhere = nonzero


def _vector(x):
    """x; a tensor without dimensions as a vector of one element, as which the functions below take it."""
    return reshape(x, 1) if x.ndim == 0 else x


def masked_select(x, mask):
    """The elements of x where `mask` is true, as a vector; both broadcast."""
    if mask.dtype != dtypes.bool:
        raise DTypeError(f"masked_select: mask expects bool, received {mask.dtype}")
    x, mask = broadcast_tensors(x, mask)
    return getitem(x, mask)


def index_select(x, dim, index):
    """Slices of x along `dim` at the positions of the vector `index`."""
    if index.ndim > 1:
        raise ShapeError(f"index_select: index expects a vector, received shape {index.shape}")
    if x.ndim == 0:
        return reshape(index_select(_vector(x), dim, index), ())
    return Index.apply(x, (wrap_dim("index_select", dim, x.ndim),), as_index(reshape(index, -1), x))


def take(x, index):
    """Elements at positions of the flattened x, in the shape of `index`."""
    return Index.apply(reshape(x, -1), (0,), as_index(index, x))


def gather(x, dim, index):
    """out[i][j][k] = x[i][index[i][j][k]][k] for dim=1, and so on.

    Raises
    ------
    IndexRangeError
        An index is negative or too large.
    """
    y = Gather.apply(_vector(x), wrap_dim("gather", dim, x.ndim), as_index(_vector(index), x))
    return y if index.ndim else reshape(y, ())


def take_along_dim(x, indices, dim=None):
    """As :func:`gather`, with broadcasting along the other dimensions; None takes from the flattened x.

    Indices may be negative: they count from the end.
    """
    if dim is None:
        x, indices, dim = reshape(x, -1), reshape(indices, -1), 0
    dim = wrap_dim("take_along_dim", dim, x.ndim)
    if indices.ndim != x.ndim:
        raise ShapeError(f"take_along_dim: indices expects {x.ndim} dimensions like x, received shape {indices.shape}")
    indices = as_index(indices, x).remainder(x.shape[dim]) if x.shape[dim] else indices
    sizes = tuple(n if m == 1 else m for n, m in zip(x.shape, indices.shape))

    def widened(t):
        return expand(t, tuple(t.shape[a] if a == dim else n for a, n in enumerate(sizes)))

    return gather(widened(x), dim, widened(indices))


def scatter(x, dim, index, src=None, *, value=None, reduce=None):
    """x with `src` (a tensor or number) written at `index` along `dim`; `reduce="add"` adds instead.

    Of several values for one position the last one counts, but the gradient goes to all of them, as in PyTorch.
    """
    if reduce not in (None, "add"):
        raise UsageError(f"scatter: reduce expects None or 'add', received {reduce!r}")
    src = value if src is None else src
    if src is None:
        raise UsageError("scatter: expected src or value")
    if isinstance(src, Tensor) and src.ndim == 0 and index.ndim > 0:
        src = src.item()
    src = _vector(src) if isinstance(src, Tensor) else src
    y = Scatter.apply(_vector(x), wrap_dim("scatter", dim, x.ndim), as_index(_vector(index), x), src, reduce == "add")
    return y if x.ndim else reshape(y, ())


def scatter_add(x, dim, index, src):
    """x with `src` added at `index` along `dim`."""
    return scatter(x, dim, index, src, reduce="add")


def index_add(x, dim, index, source, *, alpha=1):
    """x with the slices of alpha * `source` added at the positions of the vector `index` along `dim`."""
    dim = wrap_dim("index_add", dim, x.ndim)
    if x.ndim == 0:
        return reshape(index_add(_vector(x), dim, _vector(index), _vector(source), alpha=alpha), ())
    index, source = _vector(index), _vector(source)
    if source.ndim != x.ndim or index.shape != (source.shape[dim],):
        raise ShapeError(f"index_add: index expects shape ({source.shape[dim] if source.ndim > dim else '?'},), one "
                         "for each slice of "
                         f"source (shape {source.shape}), received {index.shape}")
    shape = tuple(n if a == dim else 1 for a, n in enumerate(source.shape))
    return scatter_add(x, dim, expand(reshape(index, shape), source.shape), source if alpha == 1 else source * alpha)


def one_hot(index, num_classes=-1):
    """int64 (..., classes): 1 at each index, 0 elsewhere; -1 classes are as many as the largest index needs.

    Raises
    ------
    IndexRangeError
        An index is negative or not below `num_classes`.
    """
    if num_classes == -1:
        if index.numel() == 0:
            raise UsageError("one_hot: num_classes cannot be found from an empty tensor; pass it")
        num_classes = int(index.detach().numpy().max()) + 1
    zeros = Tensor._wrap(index.backend.full((*index.shape, num_classes), 0, dtypes.int64), index.backend)
    return Scatter.apply(zeros, index.ndim, as_index(reshape(index, *index.shape, 1), zeros), 1, False)


def _in_place(function):
    def changed(x, *args, **kwargs):
        check_in_place(f"{function.__name__}_", x)
        result = function(x, *args, **kwargs)
        x.backend.copy(result.array, out=x.array)
        return adopt(x, result)
    changed.__name__, changed.__doc__ = f"{function.__name__}_", f"In place: {function.__doc__}"
    return changed


for _function in (gather, index_add, index_select, masked_select, nonzero, scatter, scatter_add, take, take_along_dim):
    setattr(Tensor, _function.__name__, _function)
Tensor.argwhere = argwhere
for _function in (index_add, scatter, scatter_add):
    setattr(Tensor, f"{_function.__name__}_", _in_place(_function))
Tensor.__getitem__, Tensor.__setitem__ = getitem, setitem
