"""Softmax and its logarithm along one axis: a team a row (`block.py`), three walks along it; see `contract/softmax.py` for formulas."""

from __future__ import annotations

import math

from numba import cuda

from numbanet.backends.cuda.block import REAL, THREADS_OF_ROW, block_largest, block_sum, elements_of, member, row_launch, rows_of_team
from numbanet.backends.cuda.compile import Sizes, kernel
from numbanet.backends.cuda.index import offset
from numbanet.backends.cuda.lanes import element
from numbanet.backends.cuda.launch import launch
from numbanet.backends.cuda.layout import merged_in_order
from numbanet.backends.cuda.mathematics import INFINITY, exponential, larger
from numbanet.backends.cuda.registry import implements
from numbanet.backends.cuda.wide import pieces_of_rows


@kernel(few_turns=True)
def softmax(x, out, is_log, total, team, count, rows: Sizes, x_rows, out_rows, x_step, out_step):
    scratch = cuda.shared.array(THREADS_OF_ROW, REAL)
    t = member(team)
    for row in rows_of_team(total, team):
        here = elements_of(row, total, count)
        begin, out_begin = offset(row, rows, x_rows), offset(row, rows, out_rows)
        largest_of, exp_of = element(out, -INFINITY), element(out, 0.0)
        for e in range(t, here, team):
            largest_of = larger(largest_of, x[begin + e * x_step])
        largest = block_largest(largest_of, scratch, team)
        for e in range(t, here, team):
            exp_of += exponential(x[begin + e * x_step] - largest)
        total_exp = block_sum(exp_of, scratch, team)
        for e in range(t, here, team):
            shifted = x[begin + e * x_step] - largest
            out[out_begin + e * out_step] = shifted - math.log(total_exp) if is_log else exponential(shifted) / total_exp


@kernel(few_turns=True)
def softmax_backward(grad_y, y, out, is_log, total, team, count, rows: Sizes, grad_rows, y_rows, out_rows, grad_step, y_step, out_step):
    scratch = cuda.shared.array(THREADS_OF_ROW, REAL)
    t = member(team)
    for row in rows_of_team(total, team):
        here = elements_of(row, total, count)
        grad_begin, y_begin, out_begin = offset(row, rows, grad_rows), offset(row, rows, y_rows), offset(row, rows, out_rows)
        of_row = element(out, 0.0)
        for e in range(t, here, team):
            grad = grad_y[grad_begin + e * grad_step]
            of_row += grad if is_log else grad * y[y_begin + e * y_step]
        value = block_sum(of_row, scratch, team)
        for e in range(t, here, team):
            grad, of_y = grad_y[grad_begin + e * grad_step], y[y_begin + e * y_step]
            out[out_begin + e * out_step] = grad - exponential(of_y) * value if is_log else (grad - value) * of_y


def _launch(kernel_of, axis: int, out, is_log: bool, *given) -> None:
    """Rows along an axis of `given` and out, in pieces where they lie on end."""
    rest, count = [a for a in range(len(out.shape)) if a != axis], out.shape[axis]
    total, arrays = out.size // max(count, 1), (out, *given)
    rows = merged_in_order(tuple([out.shape[a] for a in rest]), *[tuple([x.steps[a] for a in rest]) for x in arrays])
    width, (shape, *steps), arrays = pieces_of_rows(rows, ((count,), *[(x.steps[axis],) for x in arrays]), *arrays)
    (out, *given), steps = arrays, (*steps[1:], steps[0])
    team, grid = row_launch(total, count, width)
    launch(kernel_of, total, *given, out, int(is_log), total, team, shape[-1], shape[:-1], *[s[:-1] for s in steps],
           *[s[-1] for s in steps], **grid)


@implements
def softmax_forward(x, axis, out):
    _launch(softmax, axis, out, False, x)


@implements
def softmax_backward_input(grad_y, y, axis, out):
    _launch(softmax_backward, axis, out, False, grad_y, y)


@implements
def log_softmax_forward(x, axis, out):
    _launch(softmax, axis, out, True, x)


@implements
def log_softmax_backward_input(grad_y, y, axis, out):
    _launch(softmax_backward, axis, out, True, grad_y, y)
