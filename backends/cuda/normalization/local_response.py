"""Local response norm: x / (k + alpha / size * sum of x**2 over neighbouring channels)**beta.

A thread an element or a piece of channels (`wide.py`), neighbouring threads neighbouring channels, whose squares come from cache. The
gradient takes two kernels: the first leaves u = grad_y * x * base**(-beta - 1) of every element, the second subtracts
2 alpha beta / size * x * sum of u over the channels that x is a neighbour of. In a wide launch a thread walks through the pieces around
its own, and each of its channels takes those lanes that are in its window, in their order.
"""

from __future__ import annotations

import math
from math import prod

from numbanet.backends.cuda.compile import Sizes, device, kernel, lanewise
from numbanet.backends.cuda.index import extent, grid_stride, narrow, offset, quotient, split
from numbanet.backends.cuda.lanes import element, first_of, lane_numbers, lanes, turned
from numbanet.backends.cuda.launch import launch, number
from numbanet.backends.cuda.layout import merged_in_order
from numbanet.backends.cuda.mathematics import power, product
from numbanet.backends.cuda.pointwise import new_like
from numbanet.backends.cuda.registry import implements
from numbanet.backends.cuda.wide import pieces_of_rows


@lanewise
def with_neighbour(value, other, distance, below, above):
    """value, and `other` where that is so many channels away."""
    return value + other if (-below <= distance) & (distance <= above) else value


@lanewise
def three_quarters(base):
    """base**-0.75, the power of the papers, by two roots."""
    root = math.sqrt(base)
    return 1.0 / (root * math.sqrt(root))


@device
def lowered(base, beta):
    """base**-beta."""
    return three_quarters(base) if beta == 0.75 else power(base, -beta)


@device
def window_sum(out, x, begin, step, c, count, below, above, is_square):
    """The sum of x, or of its squares, over the channels around those of piece c of `count`: `below` before each, `above` behind.

    It is a piece where elements of out are. Squares are rounded before they are added: the same sum whether a compiler has one addition for
    a square or several.
    """
    value = element(out, 0.0)
    width, lane, none = lanes(value), lane_numbers(value), narrow(0, c)
    if below <= width and above <= width:               # of the pieces beside this one, so that who is a neighbour is known beforehand
        for side in range(3):
            p = c + narrow(side - 1, c)
            if 0 <= p < extent(count):
                other = x[begin + p * step]
                if is_square:
                    other = product(other, other)
                for m in range(width):
                    value = with_neighbour(value, first_of(other), (side - 1) * width + m - lane, below, above)
                    other = turned(other)
    else:
        last = min(c + quotient(above + width - 1, width) + 1, extent(count))
        for p in range(max(c - quotient(below + width - 1, width), none), last):
            other = x[begin + p * step]
            if is_square:
                other = product(other, other)
            for m in range(width):
                value = with_neighbour(value, first_of(other), (p - c) * width + m - lane, below, above)
                other = turned(other)
    return value


@kernel
def local_response_norm(x, out, share, beta, k, total, count: Sizes, below, above, rows: Sizes, out_rows, x_rows, out_step, x_step):
    for i in grid_stride(total):
        row, c = split(i, count)
        begin = offset(row, rows, x_rows)
        base = k + share * window_sum(out, x, begin, x_step, c, count, below, above, True)
        out[offset(row, rows, out_rows) + c * out_step] = x[begin + c * x_step] * lowered(base, beta)


@kernel
def local_response_norm_backward(grad_y, x, out, through, share, beta, k, total, count: Sizes, below, above, rows: Sizes, out_rows,
                                 through_rows, grad_rows, x_rows, out_step, through_step, grad_step, x_step):
    """out = grad_y * base**-beta; through = u."""
    for i in grid_stride(total):
        row, c = split(i, count)
        begin = offset(row, rows, x_rows)
        base = k + share * window_sum(out, x, begin, x_step, c, count, below, above, True)
        grad = grad_y[offset(row, rows, grad_rows) + c * grad_step] * lowered(base, beta)
        out[offset(row, rows, out_rows) + c * out_step] = grad
        through[offset(row, rows, through_rows) + c * through_step] = grad * x[begin + c * x_step] / base


@kernel
def local_response_norm_neighbours(x, through, out, factor, total, count: Sizes, below, above, rows: Sizes, out_rows, through_rows, x_rows,
                                   out_step, through_step, x_step):
    for i in grid_stride(total):
        row, c = split(i, count)
        begin = offset(row, rows, through_rows)
        value = window_sum(out, through, begin, through_step, c, count, below, above, False)
        out[offset(row, rows, out_rows) + c * out_step] -= factor * x[offset(row, rows, x_rows) + c * x_step] * value


def _rows(*arrays) -> tuple:
    """(work for how many threads, arrays, what a kernel takes of their places): rows of channels, in pieces where they lie on end."""
    shape = arrays[0].shape
    rows = merged_in_order((shape[0], *shape[2:]), *[(a.steps[0], *a.steps[2:]) for a in arrays])
    _, (shape, *steps), arrays = pieces_of_rows(rows, ((shape[1],), *[(a.steps[1],) for a in arrays]), *arrays)
    return prod(shape), arrays, (shape[-1], shape[:-1], [s[:-1] for s in steps], [s[-1] for s in steps])


@implements
def local_response_norm_forward(x, size, alpha, beta, k, out):
    share, beta, k = (number(v, x.dtype) for v in (alpha / size, beta, k))
    total, (out, x), (count, rows, row_steps, steps) = _rows(out, x)
    launch(local_response_norm, total, x, out, share, beta, k, total, count, size // 2, (size - 1) // 2, rows, *row_steps, *steps)


@implements
def local_response_norm_backward_input(grad_y, x, size, alpha, beta, k, out):
    through, factor = new_like(x), number(2 * alpha * beta / size, x.dtype)
    share, beta, k = (number(v, x.dtype) for v in (alpha / size, beta, k))
    total, (out, through, grad_y, x), (count, rows, row_steps, steps) = _rows(out, through, grad_y, x)
    launch(local_response_norm_backward, total, grad_y, x, out, through, share, beta, k, total, count, size // 2, (size - 1) // 2, rows,
           *row_steps, *steps)
    del row_steps[2], steps[2]                          # of grad_y
    launch(local_response_norm_neighbours, total, x, through, out, factor, total, count, (size - 1) // 2, size // 2, rows, *row_steps,
           *steps)
