"""Reading and writing at positions that are data.

index_get     y = x[:, i, j, :]                                integer arrays at some axes, whole slices at the others
gather        y[o, j, r] = x[o, index[o, j, r], r]             the axis in the middle, o and r all other axes
scatter       y[o, index[o, j, r], r] = or += src[o, j, r]

Indices are int64; an index out of range raises an IndexRangeError. Sums are taken in row-major order of the index.
"""

from __future__ import annotations

from functools import lru_cache

from numbanet.backends.contract.checks import check_axis
from numbanet.backends.contract.elementwise import broadcast_shape
from numbanet.backends.contract.shape import sliced_shape
from numbanet.backends.interface import Array, Arrays, ArraySpec, Scalar, like, order_of, primitive
from numbanet.errors import DTypeError, ShapeError


def _check_index(operation: str, *indices: Array) -> None:
    for index in indices:
        if index.dtype.name != "int64":
            raise DTypeError(f"{operation}: index expects int64, received {index.dtype}")


@lru_cache(maxsize=4096)
def indexed_shape(operation: str, shape: tuple, index_shapes: tuple, axes: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of x[..., indices, ...]: the indices' common shape stands where they are neighbours, else first."""
    for axis in axes:
        check_axis(operation, axis, len(shape))
    common, first = broadcast_shape(operation, *index_shapes), axes[0]
    rest = [n for a, n in enumerate(shape) if a not in axes]
    at = first if axes == tuple(range(first, first + len(axes))) else 0
    return (*rest[:at], *common, *rest[at:])


def _selected(operation: str, shape, indices, axes) -> tuple[int, ...]:
    _check_index(operation, *indices)
    return indexed_shape(operation, shape, tuple([i.shape for i in indices]), axes)


@primitive
def index_get(x: Array, indices: Arrays, axes: tuple[int, ...]):
    """x with integer arrays `indices`, which broadcast, at the ascending `axes`; negative ones count from the end."""
    shape = _selected("index", x.shape, indices, axes)
    return ArraySpec(shape, x.dtype, order_of(x) if len(shape) == len(x.shape) else None)


@primitive
def index_get_backward_input(grad_y: Array, indices: Arrays, axes: tuple[int, ...], shape: tuple[int, ...]):
    """An array of `shape`: grad_y added at the indexed positions, 0 elsewhere."""
    expected = _selected("index_backward_input", shape, indices, axes)
    if grad_y.shape != expected:
        raise ShapeError(f"index_backward_input: grad_y expects shape {expected}, received {grad_y.shape}")
    return ArraySpec(shape, grad_y.dtype, order_of(grad_y) if len(shape) == len(grad_y.shape) else None)


@primitive(mutates=("x",))
def index_put(x: Array, indices: Arrays, axes: tuple[int, ...], values: Array, accumulate: bool) -> None:
    """x[..., indices, ...] = values (or += values, where repeated positions add up), in place; `values` broadcast."""
    shape = _selected("index_put", x.shape, indices, axes)
    if broadcast_shape("index_put", values.shape, shape) != shape:
        raise ShapeError(f"index_put: values of shape {values.shape} do not broadcast to the indexed shape {shape}")
    if values.dtype != x.dtype:
        raise DTypeError(f"index_put: values expect {x.dtype} like x, received {values.dtype}")


@primitive(mutates=("x",))
def slice_put(x: Array, index: tuple, values: Array) -> None:
    """x[index] = values in place; `index` as of `slice_view`; `values` broadcast."""
    shape = sliced_shape("slice_put", x.shape, index)
    if broadcast_shape("slice_put", values.shape, shape) != shape:
        raise ShapeError(f"slice_put: values of shape {values.shape} do not broadcast to the sliced shape {shape}")


def _check_fits(operation: str, index, shape, axis: int) -> None:
    _check_index(operation, index)
    check_axis(operation, axis, len(shape))
    if len(index.shape) != len(shape) or any(a != axis and n > m for a, (n, m) in enumerate(zip(index.shape, shape))):
        raise ShapeError(f"{operation}: index expects a shape that fits into {shape} except along axis {axis}, "
                         f"received {index.shape}")


@primitive
def gather(x: Array, axis: int, index: Array):
    """x at `index` along `axis`, position by position; along other axes `index` may be shorter than x."""
    _check_fits("gather", index, x.shape, axis)
    return ArraySpec(index.shape, x.dtype)


@primitive(may_overwrite=("x",))
def scatter(x: Array, axis: int, index: Array, src: Array | Scalar, accumulate: bool):
    """x with `src` written (or added) at `index` along `axis`; of several values for one position the last counts."""
    _check_fits("scatter", index, x.shape, axis)
    if hasattr(src, "shape"):
        if len(src.shape) != len(index.shape) or any(n > m for n, m in zip(index.shape, src.shape)):
            raise ShapeError(f"scatter: src expects at least the shape of index, {index.shape}, received {src.shape}")
        if src.dtype != x.dtype:
            raise DTypeError(f"scatter: src expects {x.dtype} like x, received {src.dtype}")
    return like(x)
