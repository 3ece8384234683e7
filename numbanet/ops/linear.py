"""Matrix products and the linear layer."""

from __future__ import annotations

from math import prod

from numbanet._tensor import Tensor
from numbanet.autograd.operation import Operation
from numbanet.errors import ShapeError
from numbanet.ops.elementwise import reduce_to

__all__ = ["addmm", "baddbmm", "bmm", "dot", "inner", "linear", "matmul", "mm", "mv", "outer"]


class Linear(Operation):
    """x @ weight.T + bias over the last axis of x; see `backends/contract/linear.py`."""

    operation_name = "linear"

    def forward(self, backend, x, weight, bias):
        shape = x.shape
        if len(shape) != 2:
            x = backend.reshape(x, (prod(shape[:-1]), shape[-1]))              # (M, I)
        y = backend.linear_forward(x, weight, bias)                            # (M, O)
        self.save(x, weight, shape, bias is not None)
        return y if len(shape) == 2 else backend.reshape(y, (*shape[:-1], y.shape[1]))

    def backward(self, backend, grad_y, needs):
        return self.backward_linear(backend, grad_y, needs)

    def backward_linear(self, backend, grad_y, needs):
        x, weight, shape, has_bias = self.saved[:4]
        if len(shape) != 2:
            grad_y = backend.reshape(grad_y, (x.shape[0], weight.shape[0]))    # (M, O)
        grad_x = backend.linear_backward_input(grad_y, weight) if needs[0] else None
        if needs[0] and len(shape) != 2:
            grad_x = backend.reshape(grad_x, shape)
        grad_weight = backend.linear_backward_weight(grad_y, x) if needs[1] else None
        if not has_bias:
            return grad_x, grad_weight
        return grad_x, grad_weight, backend.linear_backward_bias(grad_y) if needs[2] else None


class LinearReLU(Linear):
    """:class:`Linear`, then max(y, 0) in the same pass over y."""

    operation_name = "linear_relu"
    overwrites_gradient = True

    def forward(self, backend, x, weight, bias):
        shape = x.shape
        if len(shape) != 2:
            x = backend.reshape(x, (prod(shape[:-1]), shape[-1]))              # (M, I)
        y = backend.linear_fused(x, weight, bias, 0.0, None)                   # (M, O)
        if len(shape) != 2:
            y = backend.reshape(y, (*shape[:-1], y.shape[1]))
        self.save(x, weight, shape, bias is not None, y)
        return y

    def backward(self, backend, grad_y, needs):
        *_, y = self.saved
        return self.backward_linear(backend, backend.relu_backward_input(grad_y, y, out=self.out), needs)


def linear(input, weight, bias=None):
    """input @ weight.T + bias, as in `torch.nn.functional.linear`.

    Parameters
    ----------
    input : Tensor (..., I)
    weight : Tensor (O, I)
    bias : Tensor (O,), optional

    Returns
    -------
    Tensor (..., O)

    Raises
    ------
    ShapeError
        The last axis of `input` is not I, or `weight` or `bias` have another rank.
    """
    _check_linear(input, weight)
    return Linear.apply(input, weight, bias)


def linear_relu(input, weight, bias=None):
    """relu(linear(...)) as one operation: the same numbers, without the matrix between the two."""
    _check_linear(input, weight)
    return LinearReLU.apply(input, weight, bias)


def _check_linear(input, weight) -> None:
    if not input.ndim or weight.ndim != 2 or input.shape[-1] != weight.shape[1]:
        expected = f"(..., {weight.shape[1]})" if weight.ndim == 2 else "(..., I) and weight (O, I)"
        raise ShapeError(f"linear: input expects shape {expected}, received {input.shape} for weight {weight.shape}")


class MatMul(Operation):
    """a @ b of matrices (..., M, K) and (..., K, N) with broadcast batch axes."""

    operation_name = "matmul"

    def forward(self, backend, a, b):
        self.save(a, b)
        return backend.matmul(a, b)

    def backward(self, backend, grad_y, needs):
        a, b = self.saved
        return (reduce_to(backend, backend.matmul(grad_y, _transposed(backend, b)), a.shape) if needs[0] else None,
                reduce_to(backend, backend.matmul(_transposed(backend, a), grad_y), b.shape) if needs[1] else None)


def _transposed(backend, x):
    rank = len(x.shape)
    return backend.transpose(x, (*range(rank - 2), rank - 1, rank - 2))


def matmul(input, other):
    """Matrix product, as in `torch.matmul`.

    Matrices (..., M, K) and (..., K, N) give (..., M, N), their leading axes broadcast. A vector counts as a row on the
    left and as a column on the right, and its axis is absent from the result.

    Raises
    ------
    ShapeError
        A scalar operand, or sizes that do not fit.
    """
    if not input.ndim or not other.ndim:
        raise ShapeError(f"matmul: expected operands with at least one dimension, received {input.shape} and "
                         f"{other.shape}")
    if input.ndim > 1 and other.ndim > 1:
        return MatMul.apply(input, other)
    if input.shape[-1] != other.shape[-2 if other.ndim > 1 else 0]:
        raise ShapeError(f"matmul: expected (..., M, K) and (..., K, N), received {input.shape} and {other.shape}")
    a = input.reshape(1, -1) if input.ndim == 1 else input
    b = other.reshape(-1, 1) if other.ndim == 1 else other
    y = MatMul.apply(a, b)                                                     # with axes of one element to take out
    shape = (*y.shape[:-2], *(() if input.ndim == 1 else y.shape[-2:-1]), *(() if other.ndim == 1 else y.shape[-1:]))
    return y.reshape(shape)


def _ranks(operation: str, input, other, ranks: tuple[int, int]) -> None:
    if (input.ndim, other.ndim) != ranks:
        raise ShapeError(f"{operation}: expected operands with {ranks[0]} and {ranks[1]} dimensions, received shapes "
                         f"{input.shape} and {other.shape}; matmul broadcasts")


def mm(input, mat2):
    """Product of two matrices (M, K) and (K, N)."""
    _ranks("mm", input, mat2, (2, 2))
    return matmul(input, mat2)


def bmm(input, mat2):
    """Products of B pairs of matrices, (B, M, K) and (B, K, N)."""
    _ranks("bmm", input, mat2, (3, 3))
    if input.shape[0] != mat2.shape[0]:
        raise ShapeError(f"bmm: expected equal batch sizes, received {input.shape} and {mat2.shape}; matmul broadcasts")
    return matmul(input, mat2)


def mv(input, vec):
    """Product of a matrix (M, K) and a vector (K,)."""
    _ranks("mv", input, vec, (2, 1))
    return matmul(input, vec)


def dot(input, tensor):
    """Sum of the products of two vectors."""
    _ranks("dot", input, tensor, (1, 1))
    return matmul(input, tensor)


def inner(input, other):
    """Sums of products over the last axes: (..., K) and (..., K) give both leading shapes joined."""
    if not input.ndim or not other.ndim:
        return input * other
    if input.shape[-1] != other.shape[-1]:
        raise ShapeError(f"inner: expected equal last axes, received {input.shape} and {other.shape}")
    y = linear(input, other.reshape(-1, other.shape[-1]))
    return y.reshape((*input.shape[:-1], *other.shape[:-1]))


def outer(input, vec2):
    """Products of all pairs: (M,) and (N,) give (M, N)."""
    _ranks("outer", input, vec2, (1, 1))
    return matmul(input.reshape(-1, 1), vec2.reshape(1, -1))


def addmm(input, mat1, mat2, *, beta=1, alpha=1):
    """beta * input + alpha * (mat1 @ mat2); input broadcasts, and with beta 0 it is not read."""
    return _scaled_sum(input, mm(mat1, mat2), beta, alpha)


def baddbmm(input, batch1, batch2, *, beta=1, alpha=1):
    """beta * input + alpha * (batch1 @ batch2), as :func:`addmm` for batches."""
    return _scaled_sum(input, bmm(batch1, batch2), beta, alpha)


def _scaled_sum(input, product, beta, alpha):
    product = product if alpha == 1 else product * alpha
    return product if beta == 0 else product + (input if beta == 1 else input * beta)


for _name in ("addmm", "baddbmm", "bmm", "dot", "inner", "matmul", "mm", "mv", "outer"):
    setattr(Tensor, _name, globals()[_name])
Tensor.__matmul__ = matmul
