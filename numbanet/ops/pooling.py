"""Pooling."""

from __future__ import annotations

from numbanet.autograd.operation import Operation
from numbanet.geometry import pool_geometry


class MaxPool2d(Operation):
    """Maximum over each window; on a tie the first element in row-major order takes the gradient."""

    operation_name = "max_pool2d"

    def forward(self, backend, x, geometry):
        y, argmax = backend.max_pool2d_forward(x, geometry)        # both (N, C, OH, OW)
        self.save(argmax, geometry)                                # not x: backward never reads it
        return y

    def backward(self, backend, grad_y, needs):
        argmax, geometry = self.saved
        return backend.max_pool2d_backward_input(grad_y, argmax, geometry)


def max_pool2d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """Maximum over windows of (N, C, H, W), as in `torch.nn.functional.max_pool2d`; `stride` None is the window's size."""
    geometry = pool_geometry(x.shape[2:], kernel_size, stride, padding, dilation, ceil_mode, "max_pool2d")
    return MaxPool2d.apply(x, geometry)
