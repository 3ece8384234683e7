"""Cross-entropy and negative log-likelihood of class indices.

    log_p[n, c] = x[n, c] - m[n] - log(sum over c of exp(x[n, c] - m[n])),  m[n] the largest x[n, c]
    loss[n]     = -(1 - e) * w[t[n]] * log_p[n, t[n]] - e / C * (sum over c of w[c] * log_p[n, c])

N rows (all positions of the batch), C classes innermost, t the labels, w the class weights (empty: all 1), e the label
smoothing. A row stays in the first-level cache, so its three passes cost one read and one write of memory. Rows are
independent; their losses are summed afterwards, in order, in double precision.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from numbanet.backends.contract.loss import label_error
from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.registry import implements
from numbanet.backends.cpu.simd import (
    L,
    exp,
    fma,
    lane_indices,
    load_partial,
    maximum,
    reduce_add,
    reduce_max,
    select,
    splat,
    store_partial,
)

CHUNK = 8192        # elements of a task; fewer are not worth a second thread
NO_ROWS = {dtype: np.empty((0, 0), dtype) for dtype in (np.dtype(np.float32), np.dtype(np.float64))}
NO_WEIGHTS = {dtype: np.empty(0, dtype) for dtype in NO_ROWS}


@worker
def first_wrong_label(target, classes, ignore_index):
    for n in range(target.shape[0]):
        if target[n] != ignore_index and not 0 <= target[n] < classes:
            return n
    return -1


@worker
def row_loss(log_p, n, label, class_weight, smoothing):
    """(loss, weight) of row n."""
    C = log_p.shape[1]
    weight = class_weight[label] if class_weight.shape[0] else 1.0
    loss = -(1.0 - smoothing) * weight * log_p[n, label]
    if smoothing != 0.0:
        total = 0.0
        for c in range(C):
            total += log_p[n, c] * (class_weight[c] if class_weight.shape[0] else 1.0)
        loss -= smoothing / C * total
    return loss, weight


@worker
def add_up(losses, target, class_weight, ignore_index, mean, totals):
    """totals = (sum or mean of the losses, sum of the weights)."""
    loss, weight = 0.0, 0.0
    for n in range(target.shape[0]):
        if target[n] != ignore_index:
            loss += losses[n]
            weight += class_weight[target[n]] if class_weight.shape[0] else 1.0
    totals[0] = loss / weight if mean else loss
    totals[1] = weight


@worker
def log_softmax_row(x, log_p, n):
    """A row of log_p in float32, L classes at a time."""
    C = x.shape[1]
    begin = n * C
    highest = splat(-np.inf)
    for c in range(0, C, L):
        inside = lane_indices() < np.int32(C - c)
        highest = maximum(highest, select(inside, load_partial(x, begin + c, min(L, C - c)), splat(-np.inf)))
    m = reduce_max(highest)
    total = splat(0.0)
    for c in range(0, C, L):
        inside = lane_indices() < np.int32(C - c)
        total = total + select(inside, exp(load_partial(x, begin + c, min(L, C - c)) - m), splat(0.0))
    log_total = np.float32(math.log(reduce_add(total)))
    for c in range(0, C, L):
        store_partial(log_p, begin + c, (load_partial(x, begin + c, min(L, C - c)) - m) - log_total, min(L, C - c))


@worker
def forward_rows(x, target, class_weight, log_p, losses, ignore_index, smoothing, begin, end):
    """Rows begin to end; without `log_p`, x holds the logarithms already."""
    for n in range(begin, end):
        if log_p.shape[0]:
            log_softmax_row(x, log_p, n)
        losses[n] = 0
        if target[n] != ignore_index:
            if log_p.shape[0]:
                losses[n], _ = row_loss(log_p, n, target[n], class_weight, smoothing)
            else:
                losses[n], _ = row_loss(x, n, target[n], class_weight, smoothing)


@kernel("i8(const T[:,::1], const i8[::1], const T[::1], T[:,::1], T[::1], T[::1], i8, f8, i8)", parallel=True)
def cross_entropy_forward_rows(x, target, class_weight, log_p, losses, totals, ignore_index, smoothing, mean):
    N, C = x.shape
    wrong = first_wrong_label(target, C, ignore_index)
    if wrong >= 0:
        return wrong
    rows = max(1, CHUNK // C)
    tasks = (N + rows - 1) // rows
    if tasks < 2:
        forward_rows(x, target, class_weight, log_p, losses, ignore_index, smoothing, 0, N)
    else:
        for task in prange(tasks):
            forward_rows(x, target, class_weight, log_p, losses, ignore_index, smoothing, task * rows,
                         min(N, (task + 1) * rows))
    add_up(losses, target, class_weight, ignore_index, mean, totals)
    return -1


@kernel("i8(const T[:,::1], const i8[::1], const T[::1], T[:,::1], T[::1], T[::1], i8, f8, i8)", dtypes=("float64",))
def cross_entropy_forward_double(x, target, class_weight, log_p, losses, totals, ignore_index, smoothing, mean):
    N, C = x.shape
    wrong = first_wrong_label(target, C, ignore_index)
    if wrong >= 0:
        return wrong
    for n in range(N):
        if log_p.shape[0]:
            m = x[n, 0]
            for c in range(C):
                m = x[n, c] if x[n, c] > m or x[n, c] != x[n, c] else m
            total = 0.0
            for c in range(C):
                total += math.exp(x[n, c] - m)
            for c in range(C):
                log_p[n, c] = x[n, c] - m - math.log(total)
        losses[n] = 0
        if target[n] != ignore_index:
            if log_p.shape[0]:
                losses[n], _ = row_loss(log_p, n, target[n], class_weight, smoothing)
            else:
                losses[n], _ = row_loss(x, n, target[n], class_weight, smoothing)
    add_up(losses, target, class_weight, ignore_index, mean, totals)
    return -1


@worker
def weights_of_row(label, class_weight, all_weights, smoothing, C):
    """q = `spread` * w[c] everywhere, and `peak` more at the label; the third is the sum of q."""
    weight = class_weight[label] if class_weight.shape[0] else 1.0
    spread, peak = smoothing / C, (1.0 - smoothing) * weight
    return spread, peak, spread * all_weights + peak


@worker
def sum_of(class_weight, C):
    total = 0.0
    for c in range(class_weight.shape[0]):
        total += class_weight[c]
    return total if class_weight.shape[0] else float(C)


@worker
def backward_rows(grad, log_p, target, class_weight, grad_x, ignore_index, smoothing, divisor, begin, end):
    """Rows begin to end of grad_x = grad * (exp(log_p) * (sum of q) - q) in float32; without `log_p`, grad * -q."""
    C = grad_x.shape[1]
    all_weights = sum_of(class_weight, C)
    for n in range(begin, end):
        g = grad[n if grad.shape[0] > 1 else 0] / divisor
        if target[n] == ignore_index:
            for c in range(C):
                grad_x[n, c] = 0
            continue
        spread, peak, total = weights_of_row(target[n], class_weight, all_weights, smoothing, C)
        if log_p.shape[0]:
            factor, low = g * np.float32(total), g * np.float32(spread)
            for c in range(0, C, L):
                count = min(L, C - c)
                p = exp(load_partial(log_p, n * C + c, count))
                w = load_partial(class_weight, c, count) if class_weight.shape[0] else splat(1.0)
                store_partial(grad_x, n * C + c, fma(p, splat(factor), splat(-low) * w), count)
        else:
            for c in range(C):
                grad_x[n, c] = 0
        if peak != 0.0:
            grad_x[n, target[n]] -= g * np.float32(peak)


@kernel("void(const T[::1], const T[:,::1], const i8[::1], const T[::1], T[:,::1], i8, f8, T)", parallel=True)
def cross_entropy_backward_rows(grad, log_p, target, class_weight, grad_x, ignore_index, smoothing, divisor):
    N, C = grad_x.shape
    rows = max(1, CHUNK // C)
    tasks = (N + rows - 1) // rows
    if tasks < 2:
        backward_rows(grad, log_p, target, class_weight, grad_x, ignore_index, smoothing, divisor, 0, N)
    else:
        for task in prange(tasks):
            backward_rows(grad, log_p, target, class_weight, grad_x, ignore_index, smoothing, divisor, task * rows,
                          min(N, (task + 1) * rows))


@kernel("void(const T[::1], const T[:,::1], const i8[::1], const T[::1], T[:,::1], i8, f8, T)", dtypes=("float64",))
def cross_entropy_backward_double(grad, log_p, target, class_weight, grad_x, ignore_index, smoothing, divisor):
    N, C = grad_x.shape
    all_weights = sum_of(class_weight, C)
    for n in range(N):
        g = grad[n if grad.shape[0] > 1 else 0] / divisor
        for c in range(C):
            grad_x[n, c] = 0
        if target[n] != ignore_index:
            spread, peak, total = weights_of_row(target[n], class_weight, all_weights, smoothing, C)
            if log_p.shape[0]:
                for c in range(C):
                    w = class_weight[c] if class_weight.shape[0] else 1.0
                    grad_x[n, c] = g * (math.exp(log_p[n, c]) * total - spread * w)
            if peak != 0.0:
                grad_x[n, target[n]] -= g * peak


def _rows(x):
    """x (N, C, ...) as contiguous rows (all positions, C): a view of channels-last memory, else a copy."""
    last = x if x.ndim == 2 else np.moveaxis(x, 1, -1)
    return np.ascontiguousarray(last).reshape(x.size // x.shape[1], x.shape[1])


def _store_rows(rows, out):
    """Copy rows back where they are not out's own memory."""
    if not np.may_share_memory(rows, out):
        last = out if out.ndim == 2 else np.moveaxis(out, 1, -1)
        np.copyto(last, rows.reshape(last.shape))


def _labels(target):
    return np.ascontiguousarray(target, np.int64).reshape(-1)


def _weights(class_weight, dtype):
    return NO_WEIGHTS[dtype] if class_weight is None else np.ascontiguousarray(class_weight)


def _forward(operation, x, target, class_weight, log_probabilities, ignore_index, label_smoothing, reduction,
             loss, total_weight):
    dtype = x.dtype
    run = cross_entropy_forward_rows if dtype == np.float32 else cross_entropy_forward_double
    rows, totals, losses = _rows(x), np.empty(2, dtype), np.empty(target.size, dtype)
    log_p = NO_ROWS[dtype] if log_probabilities is None else _rows(log_probabilities)
    wrong = run(rows, _labels(target), _weights(class_weight, dtype), log_p, losses, totals, ignore_index,
                label_smoothing, reduction == "mean")
    if wrong >= 0:
        position = np.unravel_index(wrong, target.shape)
        raise label_error(operation, position, int(target[position]), x.shape[1], ignore_index)
    if log_probabilities is not None:
        _store_rows(log_p, log_probabilities)
    loss[...] = losses.reshape(loss.shape) if reduction == "none" else totals[0]
    total_weight[...] = totals[1]


def _backward(grad_loss, log_probabilities, target, class_weight, total_weight, ignore_index, label_smoothing,
              reduction, out):
    dtype = out.dtype
    run = cross_entropy_backward_rows if dtype == np.float32 else cross_entropy_backward_double
    divisor = float(total_weight) if reduction == "mean" else 1.0
    log_p = NO_ROWS[dtype] if log_probabilities is None else _rows(log_probabilities)
    rows = _rows(out)
    run(np.ascontiguousarray(grad_loss).reshape(-1), log_p, _labels(target), _weights(class_weight, dtype), rows,
        ignore_index, label_smoothing, divisor)
    _store_rows(rows, out)


@implements
def softmax_cross_entropy_forward(logits, target, class_weight, ignore_index, label_smoothing, reduction, out):
    loss, log_probabilities, total_weight = out
    _forward("cross_entropy", logits, target, class_weight, log_probabilities, ignore_index, label_smoothing,
             reduction, loss, total_weight)


@implements
def softmax_cross_entropy_backward_input(grad_loss, log_probabilities, target, class_weight, total_weight, ignore_index,
                                         label_smoothing, reduction, out):
    _backward(grad_loss, log_probabilities, target, class_weight, total_weight, ignore_index, label_smoothing,
              reduction, out)


@implements
def nll_loss_forward(log_probabilities, target, class_weight, ignore_index, reduction, out):
    loss, total_weight = out
    _forward("nll_loss", log_probabilities, target, class_weight, None, ignore_index, 0.0, reduction, loss,
             total_weight)


@implements
def nll_loss_backward_input(grad_loss, target, class_weight, total_weight, shape, ignore_index, reduction, out):
    _backward(grad_loss, None, target, class_weight, total_weight, ignore_index, 0.0, reduction, out)
