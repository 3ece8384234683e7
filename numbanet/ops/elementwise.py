"""Elementwise arithmetic with broadcasting."""

from __future__ import annotations

from numbanet.autograd.operation import Operation


def reduce_to(backend, gradient, shape):
    """Sum a gradient over the axes along which an operand of `shape` was broadcast."""
    if gradient.shape == shape:
        return gradient
    lead = len(gradient.shape) - len(shape)
    axes = tuple(range(lead)) + tuple(lead + a for a, n in enumerate(shape) if n == 1 and gradient.shape[lead + a] != 1)
    return backend.reshape(backend.sum(gradient, axes, True), shape)


class Add(Operation):
    """a + b, either may be a Python scalar."""

    operation_name = "add"

    def forward(self, backend, a, b):
        self.save([x.shape for x in (a, b) if hasattr(x, "shape")])
        return backend.add(a, b)

    def backward(self, backend, grad_y, needs):
        shapes, = self.saved
        return tuple(reduce_to(backend, grad_y, shape) if need else None for shape, need in zip(shapes, needs))


def add(a, b, alpha=1):
    """a + alpha * b, with broadcasting."""
    return Add.apply(a, b if alpha == 1 else b * alpha)
