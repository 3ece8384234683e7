"""Activations."""

from __future__ import annotations

from numbanet.autograd.operation import Operation


class ReLU(Operation):
    """max(x, 0) (Nair and Hinton, 2010)."""

    operation_name = "relu"

    def forward(self, backend, x):
        y = backend.relu_forward(x)
        self.save(y)                            # not x: the mask y > 0 is all that backward needs
        return y

    def backward(self, backend, grad_y, needs):
        y, = self.saved
        return backend.relu_backward_input(grad_y, y)


def relu(x):
    """max(x, 0), elementwise."""
    return ReLU.apply(x)
