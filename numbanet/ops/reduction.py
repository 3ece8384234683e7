"""Reductions over dimensions, and what orders elements along one. Dimensions count from the end where negative.

A tensor without dimensions reduces as one of one element. NaN propagates.
"""

from __future__ import annotations

from typing import NamedTuple

from numbanet import dtypes
from numbanet._tensor import Tensor
from numbanet.autograd.operation import Operation
from numbanet.errors import DTypeError, IndexRangeError, ShapeError, UsageError

__all__ = ["all", "amax", "amin", "any", "argmax", "argmin", "argsort", "count_nonzero", "cumsum", "logsumexp", "max", "mean", "median",
           "min", "norm", "prod", "sort", "std", "std_mean", "sum", "topk", "var", "var_mean"]


class ValuesAndIndices(NamedTuple):
    """Elements and their positions along a dimension (int64)."""

    values: Tensor
    indices: Tensor


def _axes(operation: str, x, dim) -> tuple[int, ...]:
    """Sorted axes counted from 0; None and () are all."""
    rank = x.ndim
    if dim is None or type(dim) in (tuple, list) and not dim:
        return tuple(range(rank))
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    limit = rank or 1
    axes = []
    for d in dims:
        if not -limit <= d < limit:
            raise IndexRangeError(f"{operation}: dim expects a value from {-limit} to {limit - 1}, received {d} (shape {x.shape})")
        axes.append(d % limit)
    if len(set(axes)) != len(axes):
        raise ShapeError(f"{operation}: dim names a dimension twice: {dim}")
    return tuple(sorted(axes)) if rank else ()


def _axis(operation: str, x, dim: int) -> int:
    return _axes(operation, x, dim)[0]


def _kept(backend, array, shape, axes):
    """A reduced array with its axes back, of size 1."""
    return backend.reshape(array, tuple([1 if a in axes else n for a, n in enumerate(shape)]))


def _count(shape, axes) -> int:
    count = 1
    for a in axes:
        count *= shape[a]
    return count


def _divisor(shape, axes, correction) -> float:
    divisor = _count(shape, axes) - correction
    return divisor if divisor > 0 else 0


# --- operations -----------------------------------------------------------------------------------------------------

class Sum(Operation):
    """The sum over axes."""

    operation_name = "sum"

    def forward(self, backend, x, axes, keepdims):
        self.save(x.shape, axes)
        return backend.sum(x, axes, keepdims)

    def backward(self, backend, grad_y, needs):
        shape, axes = self.saved
        return backend.expand(_kept(backend, grad_y, shape, axes), shape)


class Mean(Operation):
    """The mean over axes."""

    operation_name = "mean"

    def forward(self, backend, x, axes, keepdims):
        self.save(x.shape, axes)
        return backend.mean(x, axes, keepdims)

    def backward(self, backend, grad_y, needs):
        shape, axes = self.saved
        share = backend.multiply(grad_y, 1.0 / _count(shape, axes)) if _count(shape, axes) else grad_y
        return backend.expand(_kept(backend, share, shape, axes), shape)


class Prod(Operation):
    """The product over one axis or all."""

    operation_name = "prod"

    def forward(self, backend, x, axes, keepdims):
        self.save(x, axes)
        return backend.prod(x, axes, keepdims)

    def backward(self, backend, grad_y, needs):
        """The product of the others: exact with one or more zeros, where y / x would be NaN."""
        x, axes = self.saved
        grad_y = _kept(backend, grad_y, x.shape, axes)
        zero = backend.equal(x, 0)
        zeros = backend.sum(zero, axes, True)
        product = backend.prod(backend.where(zero, 1.0, x), axes, True)         # of all that are not 0
        of_others = backend.divide(product, backend.where(zero, 1.0, x))
        alone = backend.where(backend.logical_and(zero, backend.equal(zeros, 1)), product, 0.0)
        return backend.multiply(grad_y, backend.where(backend.equal(zeros, 0), of_others, alone))


class ExtremumOver(Operation):
    """The largest or smallest element over axes; equal ones share the gradient evenly."""

    operation_name = "amax"

    def forward(self, backend, x, axes, keepdims, largest):
        y = backend.max_reduce(x, axes, keepdims) if largest else backend.min_reduce(x, axes, keepdims)
        self.save(x, y, axes)
        return y

    def backward(self, backend, grad_y, needs):
        x, y, axes = self.saved
        y, grad_y = _kept(backend, y, x.shape, axes), _kept(backend, grad_y, x.shape, axes)
        chosen = backend.cast(backend.equal(x, y), x.dtype)
        return backend.multiply(chosen, backend.divide(grad_y, backend.sum(chosen, axes, True)))


class Select(Operation):
    """Elements along one axis and their positions, by a primitive's name; the gradient goes where they stood."""

    operation_name = "select_along"

    def forward(self, backend, x, primitive, axis, *attributes):
        values, indices = getattr(backend, primitive)(x, *attributes)
        self.save(x.shape, axis, indices)
        return values, indices

    def backward(self, backend, grad_values, grad_indices, needs):
        shape, axis, indices = self.saved
        if len(indices.shape) != len(shape):
            indices, grad_values = _kept(backend, indices, shape, (axis,)), _kept(backend, grad_values, shape, (axis,))
        return backend.scatter(backend.full(shape, 0.0, grad_values.dtype), axis, indices, grad_values, True)


class Position(Operation):
    """The position of the largest or smallest element along an axis."""

    operation_name = "argmax"
    differentiable = False

    def forward(self, backend, x, axis, keepdims, largest):
        return backend.argmax(x, axis, keepdims) if largest else backend.argmin(x, axis, keepdims)


class Logical(Operation):
    """any or all, by the primitive's name."""

    operation_name = "any"
    differentiable = False

    def forward(self, backend, x, primitive, axes, keepdims):
        return getattr(backend, primitive)(x, axes, keepdims)


class Variance(Operation):
    """The mean squared deviation from the mean, with Bessel's correction where it is 1."""

    operation_name = "var"

    def forward(self, backend, x, axes, correction, keepdims):
        self.save(x, axes, correction)
        return backend.var(x, axes, correction, keepdims)

    def backward(self, backend, grad_y, needs):
        x, axes, correction = self.saved
        deviation = backend.subtract(x, backend.mean(x, axes, True))
        count = backend.full((), float(_divisor(x.shape, axes, correction)), x.dtype)
        slope = backend.multiply(deviation, backend.divide(2.0, count))
        return backend.multiply(slope, _kept(backend, grad_y, x.shape, axes))


class CumulativeSum(Operation):
    """y[i] = x[0] + ... + x[i] along an axis."""

    operation_name = "cumsum"

    def forward(self, backend, x, axis):
        self.save(axis)
        return backend.cumsum(x, axis)

    def backward(self, backend, grad_y, needs):
        axis, = self.saved
        return backend.flip(backend.cumsum(backend.flip(grad_y, (axis,)), axis), (axis,))


# --- functions ------------------------------------------------------------------------------------------------------

def _cast(x, dtype):
    return x if dtype is None else x.to(dtypes.as_dtype(dtype))


def sum(x, dim=None, keepdim=False, *, dtype=None):
    """The sum over `dim` (an int, several, or None for all); integers and booleans give int64."""
    x = _cast(x, dtype)
    return Sum.apply(x, _axes("sum", x, dim), keepdim)


def mean(x, dim=None, keepdim=False, *, dtype=None):
    """The mean over `dim` (an int, several, or None for all).

    Raises
    ------
    DTypeError
        x is not of a floating-point dtype.
    """
    x = _cast(x, dtype)
    return Mean.apply(x, _axes("mean", x, dim), keepdim)


def prod(x, dim=None, keepdim=False, *, dtype=None):
    """The product over `dim`, or of all elements."""
    x = _cast(x, dtype)
    return Prod.apply(x, _axes("prod", x, dim), keepdim)


def amax(x, dim=None, keepdim=False):
    """The largest element over `dim` (an int, several, or None for all); equal ones share the gradient."""
    return ExtremumOver.apply(x, _axes("amax", x, dim), keepdim, True)


def amin(x, dim=None, keepdim=False):
    """The smallest element over `dim` (an int, several, or None for all); equal ones share the gradient."""
    return ExtremumOver.apply(x, _axes("amin", x, dim), keepdim, False)


def _along(x, dim, keepdim, primitive):
    operation = primitive.partition("_")[0]
    if not x.ndim:
        return ValuesAndIndices(x.clone(), x.detach().to(dtypes.int64) * 0)
    axis = _axis(operation, x, dim)
    return ValuesAndIndices(*Select.apply(x, primitive, axis, axis, keepdim))


def _check_tensor(operation: str, x) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"{operation}: expected a tensor, received {type(x).__name__}")


def max(x, dim=None, keepdim=False):
    """The largest element; with `dim`, the named tuple (values, indices); with a tensor, :func:`maximum`."""
    _check_tensor("max", x)
    if isinstance(dim, Tensor):
        return x.maximum(dim)
    return amax(x) if dim is None else _along(x, dim, keepdim, "max_with_index")


def min(x, dim=None, keepdim=False):
    """The smallest element; with `dim`, the named tuple (values, indices); with a tensor, :func:`minimum`."""
    _check_tensor("min", x)
    if isinstance(dim, Tensor):
        return x.minimum(dim)
    return amin(x) if dim is None else _along(x, dim, keepdim, "min_with_index")


def _position(x, dim, keepdim, largest):
    if dim is None:
        flat = Position.apply(x.reshape(-1), 0, False, largest)
        return flat.reshape((1,) * x.ndim) if keepdim else flat
    if not x.ndim:
        _axes("argmax", x, dim)
        return _position(x, None, keepdim, largest)
    return Position.apply(x, _axis("argmax", x, dim), keepdim, largest)


def argmax(x, dim=None, keepdim=False):
    """The position of the largest element along `dim`, or in the flattened tensor; the first of equal ones."""
    return _position(x, dim, keepdim, True)


def argmin(x, dim=None, keepdim=False):
    """The position of the smallest element along `dim`, or in the flattened tensor; the first of equal ones."""
    return _position(x, dim, keepdim, False)


def any(x, dim=None, keepdim=False):
    """Whether one element or more over `dim` is not 0."""
    return Logical.apply(x, "any", _axes("any", x, dim), keepdim)


def all(x, dim=None, keepdim=False):
    """Whether no element over `dim` is 0."""
    return Logical.apply(x, "all", _axes("all", x, dim), keepdim)


def count_nonzero(x, dim=None):
    """How many elements over `dim` are not 0."""
    return sum(x != 0, dim)


def _correction(unbiased, correction):
    if isinstance(unbiased, bool):
        return 1 if unbiased else 0
    return 1 if correction is None else correction


def var(x, dim=None, unbiased=None, keepdim=False, *, correction=None):
    """The squared deviation from the mean, summed over `dim` and divided by count - correction (1, Bessel's, by default).

    ``var(x, False)`` and `unbiased` are PyTorch's older way to say correction=0.
    """
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    return Variance.apply(x, _axes("var", x, dim), _correction(unbiased, correction), keepdim)


def std(x, dim=None, unbiased=None, keepdim=False, *, correction=None):
    """The square root of :func:`var`."""
    return var(x, dim, unbiased, keepdim, correction=correction).sqrt()


def var_mean(x, dim=None, unbiased=None, keepdim=False, *, correction=None):
    """(:func:`var`, :func:`mean`)."""
    return var(x, dim, unbiased, keepdim, correction=correction), mean(x, None if isinstance(dim, bool) else dim, keepdim)


def std_mean(x, dim=None, unbiased=None, keepdim=False, *, correction=None):
    """(:func:`std`, :func:`mean`)."""
    return std(x, dim, unbiased, keepdim, correction=correction), mean(x, None if isinstance(dim, bool) else dim, keepdim)


def norm(x, p="fro", dim=None, keepdim=False):
    """(sum |x|**p)**(1/p) over `dim`; p = 2 ("fro"), inf, -inf, 0 (elements that are not 0) or another number."""
    if p in ("fro", 2, None):
        return Norm.apply(x, _axes("norm", x, dim), keepdim)
    if not isinstance(p, (int, float)):
        raise UsageError(f"norm: p expects a number or 'fro', received {p!r}")
    if p == float("inf"):
        return amax(x.abs(), dim, keepdim)
    if p == float("-inf"):
        return amin(x.abs(), dim, keepdim)
    if p == 0:
        return sum(x != 0, dim, keepdim).to(x.dtype)
    if p == 1:
        return sum(x.abs(), dim, keepdim)
    return sum(x.abs() ** p, dim, keepdim) ** (1 / p)


class Norm(Operation):
    """The Euclidean norm over axes; its gradient at 0 is 0."""

    operation_name = "norm"

    def forward(self, backend, x, axes, keepdims):
        if x.dtype.kind != "f":
            raise DTypeError(f"norm: x expects a floating-point dtype, received {x.dtype}; convert it with .float()")
        y = backend.sqrt(backend.sum(backend.square(x), axes, keepdims))
        self.save(x, y, axes)
        return y

    def backward(self, backend, grad_y, needs):
        x, y, axes = self.saved
        share = backend.where(backend.equal(y, 0), 0.0, backend.divide(grad_y, y))
        return backend.multiply(x, _kept(backend, share, x.shape, axes))


def logsumexp(x, dim, keepdim=False):
    """log(sum exp(x)) over `dim`, without overflow."""
    highest = amax(x.detach(), dim, True)
    highest = highest.masked_fill(highest.isinf(), 0.0)             # inf - inf would be NaN
    y = sum((x - highest).exp(), dim, True).log() + highest
    return y if keepdim else y.reshape([n for a, n in enumerate(x.shape) if a not in _axes("logsumexp", x, dim)])


def cumsum(x, dim, *, dtype=None):
    """The sum of the elements up to each one along `dim`."""
    x = _cast(x, dtype)
    return CumulativeSum.apply(x, _axis("cumsum", x, dim)) if x.ndim else x.clone()


def _ordered(operation: str, x, dim, *attributes):
    """A primitive along a dimension; `attributes`: for topk the count, then the direction. Without dimensions x is of one element."""
    if x.ndim == 0:
        return ValuesAndIndices(*[t.reshape(()) for t in _ordered(operation, x.reshape(1), dim, *attributes)])
    axis = _axis(operation, x, dim)
    *counts, direction = attributes
    return ValuesAndIndices(*Select.apply(x, operation, axis, *counts, axis, direction))


def topk(x, k, dim=-1, largest=True, sorted=True):
    """The k largest (or smallest) elements along `dim`, in order: the named tuple (values, indices)."""
    return _ordered("topk", x, dim, k, largest)


def sort(x, dim=-1, descending=False, stable=True):
    """The elements in order along `dim`, equal ones as before: the named tuple (values, indices)."""
    return _ordered("sort", x, dim, descending)


def argsort(x, dim=-1, descending=False, stable=True):
    """The positions that sort along `dim`."""
    return sort(x, dim, descending).indices


def median(x, dim=None, keepdim=False):
    """The lower median of all elements; with `dim`, the named tuple (values, indices)."""
    if dim is None:
        return median(x.reshape(-1), 0).values
    if x.ndim == 0:
        return sort(x, dim)
    axis = _axis("median", x, dim)
    middle = (x.shape[axis] - 1) // 2
    values, indices = (t.narrow(axis, middle, 1) for t in sort(x, axis))
    return ValuesAndIndices(values, indices) if keepdim else ValuesAndIndices(values.squeeze(axis), indices.squeeze(axis))


for _name in __all__:
    setattr(Tensor, _name, globals()[_name])
