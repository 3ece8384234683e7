"""Views and rearrangements."""

from __future__ import annotations

from math import prod

from numbanet.autograd.operation import Operation
from numbanet.errors import ShapeError


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


def reshape(x, *shape):
    """Another shape; one size may be -1. Shares memory where strides allow it."""
    shape = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    if -1 in shape:
        known = -prod(shape)
        if shape.count(-1) > 1 or known == 0 or x.numel() % known:
            raise ShapeError(f"reshape: shape {shape} does not fit {x.numel()} elements of shape {x.shape}")
        shape = tuple(x.numel() // known if n == -1 else n for n in shape)
    return Reshape.apply(x, shape)


def flatten(x, start_dim=0, end_dim=-1):
    """Merge the dimensions from `start_dim` to `end_dim`."""
    rank = max(x.ndim, 1)
    start, end = start_dim % rank, end_dim % rank
    return reshape(x, *x.shape[:start], prod(x.shape[start:end + 1]), *x.shape[end + 1:])
