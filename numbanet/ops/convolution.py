"""Convolution and transposed convolution."""

from __future__ import annotations

from numbanet.autograd.operation import Operation
from numbanet.errors import ShapeError
from numbanet.geometry import conv_geometry


class Conv2d(Operation):
    """Cross-correlation of (N, C, H, W) with (K, C/G, R, S); see `backends/contract/convolution.py`."""

    operation_name = "conv2d"

    def forward(self, backend, x, weight, bias, geometry):
        y = backend.conv2d_forward(x, weight, bias, geometry)       # (N, K, OH, OW)
        self.save(x, weight, geometry, bias is not None)
        return y

    def backward(self, backend, grad_y, needs):
        x, weight, geometry, has_bias = self.saved
        grad_x = backend.conv2d_backward_input(grad_y, weight, geometry) if needs[0] else None
        grad_weight = backend.conv2d_backward_weight(grad_y, x, geometry) if needs[1] else None
        if not has_bias:
            return grad_x, grad_weight
        return grad_x, grad_weight, backend.conv2d_backward_bias(grad_y) if needs[2] else None


def conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Two-dimensional convolution (cross-correlation), as in `torch.nn.functional.conv2d`.

    Parameters
    ----------
    x : Tensor (N, C, H, W), or (C, H, W) without a batch
    weight : Tensor (K, C / groups, R, S)
    bias : Tensor (K,), optional
    stride, padding, dilation : int or a pair; `padding` also "same", "valid" or ((top, bottom), (left, right))
    groups : int

    Returns
    -------
    Tensor (N, K, OH, OW), each size floor((size + padding - dilation * (kernel - 1) - 1) / stride) + 1

    Raises
    ------
    ShapeError
        Ranks, channels or sizes do not fit.
    """
    if x.ndim == 3:
        return conv2d(x.unsqueeze(0), weight, bias, stride, padding, dilation, groups).squeeze(0)
    _check_ranks("conv2d", x, weight)
    if x.shape[1] != weight.shape[1] * groups:
        raise ShapeError(f"conv2d: weight expects {weight.shape[1] * groups} input channels, x has {x.shape[1]} "
                         f"(x {x.shape}, weight {weight.shape}, groups={groups})")
    geometry = conv_geometry(x.shape[1], weight.shape[0], x.shape[2:], weight.shape[2:], stride, padding, dilation, groups)
    return Conv2d.apply(x, weight, bias, geometry)


def _check_ranks(operation: str, x, weight) -> None:
    if x.ndim != 4 or weight.ndim != 4:
        raise ShapeError(f"{operation}: expected x (N, C, H, W) and weight with 4 dimensions, received {x.shape} and {weight.shape}")
