"""Losses over class indices: a row is the C logits of one position.

Cross-entropy gives each row to a team of threads (`block.py`), which walk through it together; what a row adds to the loss and to the
total weight is kept for each, and summed in a fixed order afterwards. Gradients: a thread an element, or a piece of classes (`wide.py`). A
label that is no class is marked by whoever meets it, and the entry waits for that mark, since the loss would be wrong.
"""

from __future__ import annotations

import math
from math import prod

import numpy as np
from numba import cuda

from numbanet.backends.contract.loss import label_error
from numbanet.backends.cuda.block import REAL, THREADS_OF_ROW, block_largest, block_sum, elements_of, member, row_launch, rows_of_team
from numbanet.backends.cuda.compile import Sizes, kernel, lanewise
from numbanet.backends.cuda.elementwise import divide_of
from numbanet.backends.cuda.index import grid_stride, offset, split
from numbanet.backends.cuda.lanes import element, lane_numbers, lanes
from numbanet.backends.cuda.launch import launch, number
from numbanet.backends.cuda.layout import merged_in_order
from numbanet.backends.cuda.limits import INFINITY, NAN
from numbanet.backends.cuda.mathematics import exponential, larger
from numbanet.backends.cuda.memory import DeviceArray
from numbanet.backends.cuda.pointwise import on_host
from numbanet.backends.cuda.reduction import sum_of
from numbanet.backends.cuda.registry import implements
from numbanet.backends.cuda.wide import pieces_of_rows
from numbanet.backends.cuda.windows import optional


@kernel(few_turns=True)
def softmax_cross_entropy(x, target, class_weight, log_p, logits, weight_of, losses, weights, wrong, smoothing, ignored, total, team,
                          count, classes, rows: Sizes, x_rows, target_rows, log_p_rows, loss_rows, weight_rows, steps, of_label, has_weight,
                          is_smoothed):
    """x, class_weight and log_p have `count` elements or pieces, in `steps`; logits and weight_of are the first two by class."""
    scratch = cuda.shared.array(THREADS_OF_ROW, REAL)
    t = member(team)
    for row in rows_of_team(total, team):
        here = elements_of(row, total, count)
        begin, out_begin = offset(row, rows, x_rows), offset(row, rows, log_p_rows)
        largest_of, exp_of, all_of = element(log_p, -INFINITY), element(log_p, 0.0), element(log_p, 0.0)
        for c in range(t, here, team):
            largest_of = larger(largest_of, x[begin + c * steps[0]])
        largest = block_largest(largest_of, scratch, team)
        for c in range(t, here, team):
            exp_of += exponential(x[begin + c * steps[0]] - largest)
        logarithm = math.log(block_sum(exp_of, scratch, team))
        for c in range(t, here, team):
            of_class = x[begin + c * steps[0]] - largest - logarithm
            log_p[out_begin + c * steps[2]] = of_class
            if is_smoothed:
                all_of += of_class * class_weight[c * steps[1]] if has_weight else of_class
        value = block_sum(all_of, scratch, team) if is_smoothed else 0.0
        if t == 0 and row < total:
            loss, weight, label = 0.0, 0.0, target[offset(row, rows, target_rows)]
            if label != ignored:
                if label < 0 or label >= classes:
                    wrong[0] = 1
                else:
                    weight = weight_of[label * of_label[1]] if has_weight else 1.0
                    loss = (smoothing - 1.0) * weight * (logits[begin + label * of_label[0]] - largest - logarithm)
                    if is_smoothed:
                        loss -= smoothing / REAL(classes) * value
            losses[offset(row, rows, loss_rows)] = loss
            weights[offset(row, rows, weight_rows)] = weight


@kernel
def nll_loss(log_p, target, class_weight, losses, weights, wrong, ignored, total, classes, rows: Sizes, log_p_rows, target_rows, loss_rows,
             weight_rows, log_p_step, class_step, has_weight):
    for row in grid_stride(total):
        loss, weight, label = 0.0, 0.0, target[offset(row, rows, target_rows)]
        if label != ignored:
            if label < 0 or label >= classes:
                wrong[0] = 1
            else:
                weight = class_weight[label * class_step] if has_weight else 1.0
                loss = -weight * log_p[offset(row, rows, log_p_rows) + label * log_p_step]
        losses[offset(row, rows, loss_rows)] = loss
        weights[offset(row, rows, weight_rows)] = weight


class _Sums:
    """What the rows of one call leave, and what becomes of it."""

    def __init__(self, target: DeviceArray, reduction: str, loss: DeviceArray, total_weight: DeviceArray):
        allocator = target.lease.allocator
        self.target, self.reduction, self.loss, self.total_weight = target, reduction, loss, total_weight
        self.losses = loss if reduction == "none" else allocator.empty(target.shape, loss.dtype)
        self.weights = allocator.empty(target.shape, loss.dtype)
        self.wrong = allocator.zeros(1, np.dtype(np.uint8))

    def finish(self, operation: str, classes: int, ignore_index: int) -> None:
        """Raise where a label is no class; sum the rows."""
        axes = tuple(range(self.target.ndim))
        sum_of(self.weights, axes, 0, self.total_weight)
        if self.reduction != "none":
            sum_of(self.losses, axes, 0, self.loss)
        if self.reduction == "mean":
            divide_of(self.loss, self.total_weight, self.loss)

        def question():
            if self.wrong.lease.allocator.to_numpy(self.wrong)[0]:
                labels = on_host(self.target)
                position = tuple(np.argwhere((labels != ignore_index) & ((labels < 0) | (labels >= classes)))[0])
                raise label_error(operation, position, int(labels[position]), classes, ignore_index)
        self.target.device.check(question)


def _rows(x: DeviceArray, *others: DeviceArray) -> tuple:
    """Shape and steps of the positions of x (N, C, ...), then of `others` (N, ...), or of all classes where they have an axis for them."""
    positions = [(a.steps[0], *a.steps[2:]) if a.ndim == x.ndim else a.steps or (0,) * (x.ndim - 1) for a in (x, *others)]
    return merged_in_order((x.shape[0], *x.shape[2:]), *positions)


@implements
def softmax_cross_entropy_forward(logits, target, class_weight, ignore_index, label_smoothing, reduction, out):
    loss, log_p, total_weight = out
    classes, sums = logits.shape[1], _Sums(target, reduction, loss, total_weight)
    weight, (weight_step, *_), has_weight = optional(class_weight, logits)
    shape, x_rows, target_rows, log_p_rows, *sum_rows = _rows(logits, target, log_p, sums.losses, sums.weights)
    of_classes = (classes,), log_p.steps[1:2], logits.steps[1:2], (weight_step,)
    width, (_, out_places, *places), (log_p, x, by_class) = pieces_of_rows(
        (shape, log_p_rows, x_rows, (0,) * len(shape)), of_classes, log_p, logits, weight)
    steps = *[of[-1] for of in places], out_places[-1]
    team, grid = row_launch(target.size, classes, width)
    launch(softmax_cross_entropy, target.size, x, target, by_class, log_p, logits, weight, sums.losses, sums.weights, sums.wrong,
           number(label_smoothing, logits.dtype), ignore_index, target.size, team, classes // width, classes, shape, x_rows, target_rows,
           log_p_rows, *sum_rows, steps, (logits.steps[1], weight_step), has_weight, int(label_smoothing > 0),
           **grid)
    sums.finish("cross_entropy", classes, ignore_index)


@implements
def nll_loss_forward(log_probabilities, target, class_weight, ignore_index, reduction, out):
    loss, total_weight = out
    log_p, classes, sums = log_probabilities, log_probabilities.shape[1], _Sums(target, reduction, loss, total_weight)
    weight, steps, has_weight = optional(class_weight, log_p)
    launch(nll_loss, target.size, log_p, target, weight, sums.losses, sums.weights, sums.wrong, ignore_index, target.size, classes,
           *_rows(log_p, target, sums.losses, sums.weights), log_p.steps[1], steps[0], has_weight)
    sums.finish("nll_loss", classes, ignore_index)


@lanewise
def at_label(c, label, value):
    """A value where the class is the label, else 0."""
    return value if c == label else 0.0


@lanewise
def nll_slope(grad, q):
    """-grad * q; 0 where nothing depends on it, infinite gradients included."""
    return -grad * q if q != 0.0 else 0.0


@kernel
def classification_gradient(grad_loss, log_p, target, class_weight, weight_of, weight_sum, total_weight, out, smoothing, ignored, total,
                            count: Sizes, classes, rows: Sizes, out_rows, log_p_rows, target_rows, grad_rows, steps, of_label, has_weight,
                            has_softmax, is_mean):
    """With softmax grad * (p * sum of q - q), else -grad * q; NaN where a label is no class, which forward refuses.

    out, log_p and class_weight have `count` elements or pieces, in `steps`; weight_of is the last by class.
    """
    for i in grid_stride(total):
        row, c = split(i, count)
        label, value = target[offset(row, rows, target_rows)], element(out, 0.0)
        if label != ignored:
            value = element(out, NAN)
            if 0 <= label < classes:
                weight = weight_of[label * of_label] if has_weight else 1.0
                q = at_label(c * lanes(value) + lane_numbers(value), label, (1.0 - smoothing) * weight)
                share = smoothing / REAL(classes)
                q += share * class_weight[c * steps[2]] if has_weight else share
                grad = grad_loss[offset(row, rows, grad_rows)]
                if is_mean:
                    grad /= total_weight[0]
                if has_softmax:
                    q_sum = (1.0 - smoothing) * weight + share * (weight_sum[0] if has_weight else REAL(classes))
                    value = grad * (exponential(log_p[offset(row, rows, log_p_rows) + c * steps[1]]) * q_sum - q)
                else:
                    value = nll_slope(grad, q)
        out[offset(row, rows, out_rows) + c * steps[0]] = value


def _backward(grad_loss, log_p, target, class_weight, total_weight, ignore_index, label_smoothing, reduction, has_softmax, out) -> None:
    weight, (weight_step, *_), has_weight = optional(class_weight, log_p)
    weight_sum = total_weight
    if has_weight and has_softmax:
        weight_sum = weight.lease.allocator.empty((), weight.dtype)
        sum_of(weight, (0,), 0, weight_sum)
    smoothing, classes = number(label_smoothing, out.dtype), out.shape[1]
    shape, out_rows, log_p_rows, target_rows, grad_rows = _rows(out, log_p, target, grad_loss)
    of_classes = (classes,), out.steps[1:2], log_p.steps[1:2], (weight_step,)
    _, (shape, *places), (out, log_p, by_class) = pieces_of_rows((shape, out_rows, log_p_rows, (0,) * len(shape)), of_classes, out, log_p,
                                                                 weight)
    total, steps = prod(shape), tuple([of[-1] for of in places])
    launch(classification_gradient, total, grad_loss, log_p, target, by_class, weight, weight_sum, total_weight, out, smoothing,
           ignore_index, total, shape[-1], classes, shape[:-1], places[0][:-1], places[1][:-1], target_rows, grad_rows, steps, weight_step,
           has_weight, int(has_softmax), int(reduction == "mean"))


@implements
def softmax_cross_entropy_backward_input(grad_loss, log_probabilities, target, class_weight, total_weight, ignore_index, label_smoothing,
                                         reduction, out):
    _backward(grad_loss, log_probabilities, target, class_weight, total_weight, ignore_index, label_smoothing, reduction, True, out)


@implements
def nll_loss_backward_input(grad_loss, target, class_weight, total_weight, shape, ignore_index, reduction, out):
    _backward(grad_loss, out, target, class_weight, total_weight, ignore_index, 0.0, reduction, False, out)
