"""Softmax and its logarithm along one dimension."""

from __future__ import annotations

from numbanet import dtypes
from numbanet._tensor import Tensor
from numbanet.autograd.operation import Operation
from numbanet.errors import IndexRangeError, UsageError

__all__ = ["log_softmax", "softmax", "softmin"]


class Softmax(Operation):
    """exp(x_i) / sum_j exp(x_j)."""

    operation_name = "softmax"

    def forward(self, backend, x, axis):
        y = backend.softmax_forward(x, axis)
        self.save(y, axis)
        return y

    def backward(self, backend, grad_y, needs):
        y, axis = self.saved
        return backend.softmax_backward_input(grad_y, y, axis)


class LogSoftmax(Operation):
    """x_i - log sum_j exp(x_j)."""

    operation_name = "log_softmax"

    def forward(self, backend, x, axis):
        y = backend.log_softmax_forward(x, axis)
        self.save(y, axis)
        return y

    def backward(self, backend, grad_y, needs):
        y, axis = self.saved
        return backend.log_softmax_backward_input(grad_y, y, axis)


def _apply(operation, name, x, dim, dtype):
    if dim is None:
        raise UsageError(f"{name}: expected dim, the dimension along which the values sum to 1; for (N, C) it is 1")
    x = x if dtype is None else x.to(dtypes.as_dtype(dtype))
    rank = x.ndim or 1
    if not -rank <= dim < rank:
        raise IndexRangeError(f"{name}: dim expects a value from {-rank} to {rank - 1}, received {dim} (shape {x.shape})")
    return operation.apply(x, dim % rank) if x.ndim else operation.apply(x.reshape(1), 0).reshape(())


def softmax(x, dim=None, dtype=None):
    """exp(x) divided by its sum along `dim`.

    Raises
    ------
    UsageError
        `dim` is not given.
    """
    return _apply(Softmax, "softmax", x, dim, dtype)


def softmin(x, dim=None, dtype=None):
    """:func:`softmax` of -x."""
    return _apply(Softmax, "softmin", -x, dim, dtype)


def log_softmax(x, dim=None, dtype=None):
    """The logarithm of :func:`softmax`, without the loss of precision of taking it afterwards.

    Raises
    ------
    UsageError
        `dim` is not given.
    """
    return _apply(LogSoftmax, "log_softmax", x, dim, dtype)


Tensor.softmax, Tensor.log_softmax = softmax, log_softmax
