"""Triangles and diagonals of matrices, as compositions."""

from __future__ import annotations

from numbanet._tensor import Tensor
from numbanet.errors import ShapeError
from numbanet.ops.factories import arange, zeros
from numbanet.ops.shape import unsqueeze, wrap_dims

__all__ = ["diag", "diagonal", "tril", "triu"]


def _offsets(x, rows: int, columns: int) -> Tensor:
    """Column minus row, (rows, columns)."""
    return unsqueeze(arange(columns, device=x.device), 0) - unsqueeze(arange(rows, device=x.device), 1)


def _kept(operation: str, x, keep):
    from numbanet.ops.elementwise import where
    if x.ndim < 2:
        raise ShapeError(f"{operation}: x expects at least 2 dimensions, received shape {x.shape}")
    return where(keep(_offsets(x, *x.shape[-2:])), x, 0)


def tril(x, diagonal=0):
    """The lower triangle of matrices (..., rows, columns), 0 above the diagonal; `diagonal` 1 is above the main one."""
    return _kept("tril", x, lambda offsets: offsets <= diagonal)


def triu(x, diagonal=0):
    """The upper triangle of matrices (..., rows, columns), 0 below the diagonal."""
    return _kept("triu", x, lambda offsets: offsets >= diagonal)


def _positions(x, count: int, offset: int) -> tuple[Tensor, Tensor]:
    """Rows and columns of the first `count` elements of a diagonal."""
    steps = arange(count, device=x.device)
    return steps + max(0, -offset), steps + max(0, offset)


def diagonal(x, offset=0, dim1=0, dim2=1):
    """The diagonal of two dimensions, as the last dimension of a copy (PyTorch gives a view)."""
    x = x.movedim(wrap_dims("diagonal", (dim1, dim2), x.ndim), (-2, -1))
    rows, columns = x.shape[-2:]
    count = min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns)
    return x[(..., *_positions(x, max(0, count), offset))]


_diagonal = diagonal        # `diag` has an argument of that name, as in PyTorch


def diag(x, diagonal=0):
    """A matrix with the vector x on its diagonal, or the diagonal of the matrix x."""
    if x.ndim == 2:
        return _diagonal(x, diagonal)
    if x.ndim != 1:
        raise ShapeError(f"diag: x expects a vector or a matrix, received shape {x.shape}")
    size = x.shape[0] + abs(diagonal)
    matrix = zeros(size, size, dtype=x.dtype, device=x.device)
    matrix[_positions(x, x.shape[0], diagonal)] = x
    return matrix


for _function in (diag, diagonal, tril, triu):
    setattr(Tensor, _function.__name__, _function)
