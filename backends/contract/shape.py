"""Views, and what rearranges elements."""

from __future__ import annotations

from math import prod

from numbanet.backends.contract.checks import check_axis
from numbanet.backends.interface import Array, Arrays, ArraySpec, channels_last, like, order_of, primitive
from numbanet.errors import DTypeError, IndexRangeError, ShapeError


def sliced_shape(operation: str, shape: tuple[int, ...], index: tuple) -> tuple[int, ...]:
    """The shape of x[index]; entries of `index` are ints, None (a new axis) or (start, stop, step), not negative."""
    result, axis = [], 0
    for entry in index:
        if entry is None:
            result.append(1)
            continue
        if axis == len(shape):
            raise IndexRangeError(f"{operation}: too many indices for shape {shape}")
        size = shape[axis]
        if type(entry) is tuple:
            start, stop, step = entry
            if not 0 <= start <= stop <= size or step < 1:
                raise IndexRangeError(f"{operation}: slice {entry} does not fit axis {axis} of size {size}; expected "
                                      "0 <= start <= stop <= size and step >= 1")
            result.append(-(-(stop - start) // step))
        elif not 0 <= entry < size:
            raise IndexRangeError(f"{operation}: index {entry} is out of range for axis {axis} of size {size}")
        axis += 1
    return (*result, *shape[axis:])


@primitive(view=True)
def transpose(x: Array, axes: tuple[int, ...]):
    """A view with the axes in another order."""
    if sorted(axes) != list(range(len(x.shape))):
        raise ShapeError(f"transpose: axes expects a permutation of 0..{len(x.shape) - 1}, received {axes}")
    return ArraySpec(tuple([x.shape[a] for a in axes]), x.dtype)


@primitive(view=True)
def reshape(x: Array, shape: tuple[int, ...]):
    """The elements in logical (row-major) order under another shape: a view where strides allow it, else a copy."""
    if prod(shape) != prod(x.shape):
        raise ShapeError(f"reshape: shape {x.shape} has {prod(x.shape)} elements, {shape} has {prod(shape)}")
    return ArraySpec(shape, x.dtype)


@primitive(view=True)
def expand(x: Array, shape: tuple[int, ...]):
    """A view that repeats axes of size 1, and x as a whole along new leading axes, without copying."""
    lead = len(shape) - len(x.shape)
    if lead < 0 or any(n != 1 and n != shape[lead + a] for a, n in enumerate(x.shape)):
        raise ShapeError(f"expand: shape {x.shape} cannot be expanded to {shape}; sizes must be equal or 1, new axes "
                         "come first")
    return ArraySpec(shape, x.dtype)


@primitive(view=True)
def slice_view(x: Array, index: tuple):
    """The view x[index]; entries are ints, None (a new axis) or (start, stop, step), not negative."""
    return ArraySpec(sliced_shape("slice", x.shape, index), x.dtype)


@primitive
def slice_view_backward_input(grad_y: Array, index: tuple, shape: tuple[int, ...]):
    """An array of `shape`, grad_y at [index] and 0 elsewhere."""
    if grad_y.shape != sliced_shape("slice_view_backward_input", shape, index):
        raise ShapeError(f"slice_view_backward_input: grad_y of shape {grad_y.shape} is not shape {shape} at {index}")
    return ArraySpec(shape, grad_y.dtype, order_of(grad_y) if len(shape) == len(grad_y.shape) else None)


@primitive
def concatenate(arrays: Arrays, axis: int):
    """Arrays of one dtype one after another along `axis`, in the first one's memory order."""
    first = arrays[0]
    check_axis("concatenate", axis, len(first.shape))
    size = 0
    for i, x in enumerate(arrays):
        same = [a == axis or n == m for a, (n, m) in enumerate(zip(x.shape, first.shape))]
        if len(x.shape) != len(first.shape) or not all(same):
            raise ShapeError(f"concatenate: arrays expect equal shapes except along axis {axis}, received "
                             f"{first.shape} and, "
                             f"at position {i}, {x.shape}")
        if x.dtype != first.dtype:
            raise DTypeError(f"concatenate: arrays expect one dtype, received {first.dtype} and, at position {i}, "
                             f"{x.dtype}")
        size += x.shape[axis]
    return ArraySpec((*first.shape[:axis], size, *first.shape[axis + 1:]), first.dtype, order_of(first))


@primitive
def interleave_channels(arrays: Arrays):
    """y (N, g * C, ...) of g maps (N, C, ...) of one dtype: y[:, j * g + i] = arrays[i][:, j]. y is channels-last in memory."""
    spec = concatenate.specification(arrays, 1)
    if any(x.shape != arrays[0].shape for x in arrays):
        raise ShapeError(f"interleave_channels: arrays expect one shape, received {', '.join(str(x.shape) for x in arrays)}")
    return ArraySpec(spec.shape, spec.dtype, channels_last(len(spec.shape)))


@primitive
def separate_channels(x: Array, groups: int):
    """y, of x's shape (N, g * C, ...): the inverse of `interleave_channels` of g = `groups` maps, one after another, channels-last."""
    if len(x.shape) < 2 or groups < 1 or x.shape[1] % groups:
        raise ShapeError(f"separate_channels: x expects (N, C, ...), C divisible by groups {groups}, received shape {x.shape}")
    return ArraySpec(x.shape, x.dtype, channels_last(len(x.shape)))


@primitive
def flip(x: Array, axes: tuple[int, ...]):
    """The elements in reverse order along `axes`."""
    for axis in axes:
        check_axis("flip", axis, len(x.shape))
    return like(x)


@primitive
def reorder(x: Array, order: tuple[int, ...] | None):
    """A copy in the given memory order (see `ArraySpec`)."""
    return ArraySpec(x.shape, x.dtype, order)


@primitive
def arange(start: float, step: float, count: int, dtype):
    """start + step * i for i < count."""
    if count < 0:
        raise ShapeError(f"arange: count expects a value of at least 0, received {count}")
    return ArraySpec((count,), dtype)
