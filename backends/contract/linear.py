"""Matrix products and the linear layer.

    matmul    y[..., m, n] = sum over k of a[..., m, k] * b[..., k, n]
    linear    y[m, o] = bias[o] + sum over i of x[m, i] * weight[o, i]

x (M, I), weight (O, I), bias (O,), y (M, O): the batch, input and output features.
"""

from __future__ import annotations

from numbanet.backends.contract.checks import check_float, check_rank, check_shape
from numbanet.backends.contract.elementwise import broadcast_shape
from numbanet.backends.interface import Array, ArraySpec, primitive
from numbanet.errors import ShapeError


@primitive
def matmul(a: Array, b: Array):
    """Products of matrices (..., M, K) and (..., K, N); the axes before the last two broadcast."""
    check_float("matmul", a=a, b=b)
    if len(a.shape) < 2 or len(b.shape) < 2 or a.shape[-1] != b.shape[-2]:
        raise ShapeError(f"matmul: expected (..., M, K) and (..., K, N), received {a.shape} and {b.shape}")
    batch = () if len(a.shape) == len(b.shape) == 2 else broadcast_shape("matmul", a.shape[:-2], b.shape[:-2])
    return ArraySpec((*batch, a.shape[-2], b.shape[-1]), a.dtype)


@primitive
def linear_forward(x: Array, weight: Array, bias: Array | None):
    """y (M, O); `bias` None adds nothing."""
    check_float("linear", x=x, weight=weight, bias=bias)
    check_rank("linear", "weight", weight, 2, "(O, I)")
    if len(x.shape) != 2 or x.shape[1] != weight.shape[1]:
        raise ShapeError(f"linear: x expects shape (M, {weight.shape[1]}) for weight {weight.shape}, "
                         f"received {x.shape}")
    check_shape("linear", "bias", bias, weight.shape[:1])
    return ArraySpec((x.shape[0], weight.shape[0]), x.dtype)


@primitive
def linear_backward_input(grad_y: Array, weight: Array):
    """Gradient with respect to x, (M, I)."""
    check_float("linear_backward_input", grad_y=grad_y, weight=weight)
    check_shape("linear_backward_input", "grad_y", grad_y, (grad_y.shape[0], weight.shape[0]))
    return ArraySpec((grad_y.shape[0], weight.shape[1]), grad_y.dtype)


@primitive
def linear_backward_weight(grad_y: Array, x: Array):
    """Gradient with respect to weight, (O, I), summed over the batch in a fixed order."""
    check_float("linear_backward_weight", grad_y=grad_y, x=x)
    check_shape("linear_backward_weight", "grad_y", grad_y, (x.shape[0], grad_y.shape[-1]))
    return ArraySpec((grad_y.shape[1], x.shape[1]), x.dtype)


@primitive
def linear_backward_bias(grad_y: Array):
    """Gradient with respect to bias, (O,): the sum of grad_y (M, O) over the batch."""
    check_float("linear_backward_bias", grad_y=grad_y)
    check_rank("linear_backward_bias", "grad_y", grad_y, 2, "(M, O)")
    return ArraySpec(grad_y.shape[1:], grad_y.dtype)


@linear_backward_bias.composed
def _sum_over_batch(backend, grad_y):
    return backend.sum(grad_y, (0,), False)
