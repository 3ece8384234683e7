"""Local response norm: x / (k + alpha / size * sum of x**2 over neighbouring channels)**beta.

A thread an element, neighbouring threads neighbouring channels, whose squares come from cache. The gradient takes two kernels: the first
leaves u = grad_y * x * base**(-beta - 1) of every element, the second subtracts 2 alpha beta / size * x * sum of u over the channels
that x is a neighbour of.
"""

from __future__ import annotations

import math

from numbanet.backends.cuda.compile import device, kernel
from numbanet.backends.cuda.index import offset, quotient, thread, threads
from numbanet.backends.cuda.launch import launch, number
from numbanet.backends.cuda.layout import merged_in_order
from numbanet.backends.cuda.registry import implements


@device
def base_of(x, begin, step, c, channels, size, share, k):
    """k + alpha / size * sum of squares around channel c."""
    value = 0.0
    for j in range(max(c - size // 2, 0), min(c + (size - 1) // 2 + 1, channels)):
        value += x[begin + j * step] * x[begin + j * step]
    return k + share * value


@kernel
def local_response_norm(x, out, share, beta, k, total, channels, size, rows, x_rows, out_rows, x_step, out_step):
    for i in range(thread(), total, threads()):
        row = quotient(i, channels)
        c, begin = i - row * channels, offset(row, rows, x_rows)
        base = base_of(x, begin, x_step, c, channels, size, share, k)
        out[offset(row, rows, out_rows) + c * out_step] = x[begin + c * x_step] / math.pow(base, beta)


@kernel
def local_response_norm_backward(grad_y, x, out, through, share, beta, k, total, channels, size, rows, grad_rows, x_rows, out_rows,
                                 grad_step, x_step, out_step):
    """out = grad_y * base**-beta; through (rows, C) = u."""
    for i in range(thread(), total, threads()):
        row = quotient(i, channels)
        c, begin = i - row * channels, offset(row, rows, x_rows)
        base = base_of(x, begin, x_step, c, channels, size, share, k)
        grad = grad_y[offset(row, rows, grad_rows) + c * grad_step] * math.pow(base, -beta)
        out[offset(row, rows, out_rows) + c * out_step] = grad
        through[i] = grad * x[begin + c * x_step] / base


@kernel
def local_response_norm_neighbours(x, through, out, factor, total, channels, size, rows, x_rows, out_rows, x_step, out_step):
    for i in range(thread(), total, threads()):
        row = quotient(i, channels)
        c, value = i - row * channels, 0.0
        for j in range(max(c - (size - 1) // 2, 0), min(c + size // 2 + 1, channels)):
            value += through[row * channels + j]
        out[offset(row, rows, out_rows) + c * out_step] -= factor * x[offset(row, rows, x_rows) + c * x_step] * value


def _rows(*arrays) -> tuple:
    """Shape and steps of what is not the channel axis, then the steps along that."""
    shape = arrays[0].shape
    return (*merged_in_order((shape[0], *shape[2:]), *[(a.steps[0], *a.steps[2:]) for a in arrays]), *[a.steps[1] for a in arrays])


@implements
def local_response_norm_forward(x, size, alpha, beta, k, out):
    share, beta, k = (number(v, x.dtype) for v in (alpha / size, beta, k))
    launch(local_response_norm, out.size, x, out, share, beta, k, out.size, x.shape[1], size, *_rows(x, out))


@implements
def local_response_norm_backward_input(grad_y, x, size, alpha, beta, k, out):
    through = x.lease.allocator.empty((x.size,), x.dtype)
    factor = number(2 * alpha * beta / size, x.dtype)
    share, beta, k = (number(v, x.dtype) for v in (alpha / size, beta, k))
    launch(local_response_norm_backward, out.size, grad_y, x, out, through, share, beta, k, out.size, x.shape[1], size,
           *_rows(grad_y, x, out))
    launch(local_response_norm_neighbours, out.size, x, through, out, factor, out.size, x.shape[1], size, *_rows(x, out))
