"""Gradients of weight and bias, of normalizations by rows; batch norm sums its own (`batch.py`):

    grad_bias[o] = sum over e of grad_y[o, e],    grad_weight[o] = sum over e of grad_y[o, e] * (x[o, e] - mean) * scale

o: the elements of weight, e: the positions that share one, scale = 1 / sqrt(variance + epsilon). Sums are split into parts by the shape
alone; parts are added up in order.
"""

from __future__ import annotations

import math
from math import prod

from numbanet.backends.cuda.compile import Sizes, kernel
from numbanet.backends.cuda.index import grid_stride, offset, quotient
from numbanet.backends.cuda.launch import launch, number
from numbanet.backends.cuda.layout import merged, merged_in_order
from numbanet.backends.cuda.memory import DeviceArray
from numbanet.backends.cuda.reduction import parts_of, sum_of
from numbanet.backends.cuda.wide import pieces_of_rows


@kernel
def scale_kernel(variance, out, epsilon, total, shape: Sizes, steps, out_steps):
    for i in grid_stride(total):
        out[offset(i, shape, out_steps)] = 1.0 / math.sqrt(variance[offset(i, shape, steps)] + epsilon)


def scale_of(variance: DeviceArray, epsilon: float) -> DeviceArray:
    """1 / sqrt(variance + epsilon), row-major."""
    out = variance.lease.allocator.empty(variance.shape, variance.dtype)
    shape, out_steps, steps = merged(out.shape, out.steps, variance.steps)
    launch(scale_kernel, out.size, variance, out, number(epsilon, out.dtype), out.size, shape, steps, out_steps)
    return out


@kernel
def affine_gradients(grad_y, x, mean, scale, out, total, outputs, parts, count, out_step, kept: Sizes, grad_kept, x_kept, mean_kept,
                     scale_kept, shared: Sizes, grad_shared, x_shared, mean_shared, scale_shared):
    """out (2, parts, outputs): the sums of part p over positions p, p + parts, ... A wide launch counts pieces of outputs."""
    for i in grid_stride(total):
        p = quotient(i, outputs)
        o = i - p * outputs
        grad_begin, x_begin = offset(o, kept, grad_kept), offset(o, kept, x_kept)
        mean_begin, scale_begin = offset(o, kept, mean_kept), offset(o, kept, scale_kept)
        of_bias, of_weight = 0.0, 0.0
        for e in range(p, count, parts):
            grad = grad_y[grad_begin + offset(e, shared, grad_shared)]
            deviation = x[x_begin + offset(e, shared, x_shared)] - mean[mean_begin + offset(e, shared, mean_shared)]
            of_bias += grad
            of_weight += grad * deviation * scale[scale_begin + offset(e, shared, scale_shared)]
        out[i * out_step], out[(total + i) * out_step] = of_bias, of_weight


def affine(grad_y: DeviceArray, x: DeviceArray, mean: DeviceArray, scale: DeviceArray, kept: tuple[int, ...], mean_steps: tuple[int, ...],
           scale_steps: tuple[int, ...], grad_weight: DeviceArray, grad_bias: DeviceArray) -> None:
    """Fill grad_weight and grad_bias, whose elements are the positions along the axes `kept` of x.

    `mean_steps` and `scale_steps` are along all axes of x, 0 where one value is for all.
    """
    steps, shared = (grad_y.steps, x.steps, mean_steps, scale_steps), [a for a in range(x.ndim) if a not in kept]
    outputs, count = prod([x.shape[a] for a in kept]), prod([x.shape[a] for a in shared])
    parts = parts_of(outputs, count)
    partial = x.lease.allocator.empty((2, parts, *[x.shape[a] for a in kept]), scale.dtype)
    of_kept, of_shared = [merged_in_order(tuple([x.shape[a] for a in axes]), *[tuple([s[a] for a in axes]) for s in steps])
                          for axes in (kept, shared)]
    lead, dense = len(of_shared[0]), (*(0,) * (len(of_kept[0]) - 1), 1)
    width, (shape, _, *steps), (written, *given) = pieces_of_rows(
        (of_shared[0], (0,) * lead, *of_shared[1:]), (of_kept[0], dense, *of_kept[1:]), partial, grad_y, x, mean, scale)
    total = parts * outputs // width
    launch(affine_gradients, total, *given, written, total, outputs // width, parts, count, width, shape[lead:], *[s[lead:] for s in steps],
           *of_shared)
    for which, out in enumerate((grad_bias, grad_weight)):
        half = partial.view(partial.shape[1:], partial.strides[1:], which * partial.strides[0])
        sum_of(half, (0,), 0, out)
