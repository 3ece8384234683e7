"""An own operation with an own kernel: snake, y = x + sin(a x)^2 / a (Ziyin, Hartwig and Ueda, 2020).

Run me: python examples/own_operation.py
"""

from __future__ import annotations

import numpy as np
from numba import njit

import numbanet
from numbanet import nn
from numbanet.autograd import Operation, gradient_check
from numbanet.backends import Array, like, primitive, register_primitive


@primitive                                      # what every backend is asked for: shapes and dtypes in, shape and dtype out
def snake_forward(x: Array, a: float):
    """x + sin(a x)^2 / a."""
    return like(x)


@register_primitive("snake_forward", "reference")
def snake_in_numpy(x, a, out):
    out[...] = x + np.sin(a * x) ** 2 / a


@register_primitive("snake_forward", "cpu")     # `out` is allocated already; arrays may have any strides
@njit(nogil=True)
def snake_in_numba(x, a, out):
    for index in np.ndindex(x.shape):
        out[index] = x[index] + np.sin(a * x[index]) ** 2 / a


class Snake(Operation):
    """Arrays are touched through primitives of `backend` only, so it also runs on other backends, and traces."""

    def forward(self, backend, x, a):
        self.save(x, a)
        return backend.snake_forward(x, a)

    def backward(self, backend, grad_y, needs):
        x, a = self.saved                       # dy/dx = 1 + sin(2 a x), of numbanet's own primitives
        slope = backend.add(backend.sin(backend.multiply(x, 2 * a)), 1.0)
        return backend.multiply(grad_y, slope)


class SnakeLayer(nn.Module):
    def forward(self, x):
        return Snake.apply(x, 1.5)


if __name__ == "__main__":
    for device in ("reference", "cpu"):
        x = numbanet.randn(3, 4, dtype=numbanet.float64, device=device, requires_grad=True)
        print(device, "gradient agrees with finite differences:", gradient_check(lambda x: Snake.apply(x, 1.5), x))
    model = nn.Sequential(nn.Linear(4, 8), SnakeLayer(), nn.Linear(8, 2))
    print(numbanet.trace(model, numbanet.zeros(1, 4)))
    print(numbanet.summarize(model, numbanet.zeros(1, 4)))
