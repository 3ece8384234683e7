"""Group and layer norm: a team of threads a row (`block.py`): a group of channels of one sample, or one position of the leading axes.

    forward    y = (x - mean) * scale * weight + bias,   scale = 1 / sqrt(variance + epsilon)
    backward   grad_x = scale * (g - mean of g - normal * mean of g * normal)
               g = grad_y * weight, normal = (x - mean) * scale

The threads of a team walk through the row together, in the order of memory; their sums meet in a fixed order. The mean is corrected by the
mean of the deviations from it, so that its rounding does not reach the variance.
"""

from __future__ import annotations

import math
from math import prod

from numba import cuda

from numbanet.backends.cuda.block import REAL, THREADS_OF_ROW, block_sum, elements_of, member, row_launch, rows_of_team
from numbanet.backends.cuda.compile import Sizes, kernel
from numbanet.backends.cuda.index import offset
from numbanet.backends.cuda.lanes import element
from numbanet.backends.cuda.launch import launch, number
from numbanet.backends.cuda.layout import merged, merged_in_order
from numbanet.backends.cuda.memory import DeviceArray
from numbanet.backends.cuda.normalization.gradients import affine, scale_of
from numbanet.backends.cuda.registry import implements
from numbanet.backends.cuda.wide import pieces_of_rows
from numbanet.backends.cuda.windows import optional


@kernel(few_turns=True)
def row_norm(x, weight, bias, out, mean, variance, epsilon, total, team, size, count, rows: Sizes, out_rows, x_rows, weight_rows, bias_rows,
             mean_rows, variance_rows, elements: Sizes, out_elements, x_elements, weight_elements, bias_elements, has_weight, has_bias):
    scratch = cuda.shared.array(THREADS_OF_ROW, REAL)
    t = member(team)
    for row in rows_of_team(total, team):
        here = elements_of(row, total, count)
        begin, values, deviations, squares = offset(row, rows, x_rows), element(out, 0.0), element(out, 0.0), element(out, 0.0)
        for e in range(t, here, team):
            values += x[begin + offset(e, elements, x_elements)]
        center = block_sum(values, scratch, team) / size
        for e in range(t, here, team):
            deviation = x[begin + offset(e, elements, x_elements)] - center
            deviations += deviation
            squares += deviation * deviation
        rest = block_sum(deviations, scratch, team)
        correction = rest / size
        center, spread = center + correction, (block_sum(squares, scratch, team) - rest * correction) / size
        if t == 0 and row < total:
            mean[offset(row, rows, mean_rows)] = center
            variance[offset(row, rows, variance_rows)] = spread
        scale = 1.0 / math.sqrt(spread + epsilon)
        out_begin = offset(row, rows, out_rows)
        weight_begin, bias_begin = offset(row, rows, weight_rows), offset(row, rows, bias_rows)
        for e in range(t, here, team):
            value = (x[begin + offset(e, elements, x_elements)] - center) * scale
            if has_weight:
                value *= weight[weight_begin + offset(e, elements, weight_elements)]
            if has_bias:
                value += bias[bias_begin + offset(e, elements, bias_elements)]
            out[out_begin + offset(e, elements, out_elements)] = value


@kernel(few_turns=True)
def row_norm_backward(grad_y, x, weight, mean, scale, out, total, team, size, count, rows: Sizes, out_rows, grad_rows, x_rows, weight_rows,
                      mean_rows, scale_rows, elements: Sizes, out_elements, grad_elements, x_elements, weight_elements, has_weight):
    scratch = cuda.shared.array(THREADS_OF_ROW, REAL)
    t = member(team)
    for row in rows_of_team(total, team):
        here, known = elements_of(row, total, count), min(row, total - 1)
        center, factor = mean[offset(known, rows, mean_rows)], scale[offset(known, rows, scale_rows)]
        begin, grad_begin, weight_begin = offset(row, rows, x_rows), offset(row, rows, grad_rows), offset(row, rows, weight_rows)
        of_grad, of_product = element(out, 0.0), element(out, 0.0)
        for e in range(t, here, team):
            grad = grad_y[grad_begin + offset(e, elements, grad_elements)]
            if has_weight:
                grad *= weight[weight_begin + offset(e, elements, weight_elements)]
            of_grad += grad
            of_product += grad * (x[begin + offset(e, elements, x_elements)] - center) * factor
        mean_grad, mean_product = block_sum(of_grad, scratch, team) / size, block_sum(of_product, scratch, team) / size
        out_begin = offset(row, rows, out_rows)
        for e in range(t, here, team):
            grad = grad_y[grad_begin + offset(e, elements, grad_elements)]
            if has_weight:
                grad *= weight[weight_begin + offset(e, elements, weight_elements)]
            normal = (x[begin + offset(e, elements, x_elements)] - center) * factor
            out[out_begin + offset(e, elements, out_elements)] = factor * (grad - mean_grad - normal * mean_product)


def _forward(x, weight, bias, epsilon, leading: int, out, parameter_steps) -> None:
    """Rows are the first `leading` axes; `parameter_steps(array)` are the steps of weight or bias along all axes."""
    y, mean, variance = out
    weight, has_weight, weight_steps = _parameter(weight, x, parameter_steps)
    bias, has_bias, bias_steps = _parameter(bias, x, parameter_steps)
    steps = y.steps, x.steps, weight_steps, bias_steps
    rows = merged_in_order(x.shape[:leading], *[s[:leading] for s in steps], mean.steps, variance.steps)
    elements = merged(x.shape[leading:], *[s[leading:] for s in steps])
    total, count = prod(x.shape[:leading]), prod(x.shape[leading:])
    width, elements, (y, x, weight, bias) = _pieces(rows, elements, y, x, weight, bias)
    epsilon, size = number(epsilon, mean.dtype), number(count, mean.dtype)
    team, grid = row_launch(total, count, width)
    launch(row_norm, total, x, weight, bias, y, mean, variance, epsilon, total, team, size, count // width, *rows, *elements, has_weight,
           has_bias, **grid)


def _backward_input(grad_y, x, weight, mean, scale, leading: int, out, parameter_steps) -> None:
    weight, has_weight, weight_steps = _parameter(weight, x, parameter_steps)
    steps = out.steps, grad_y.steps, x.steps, weight_steps
    rows = merged_in_order(x.shape[:leading], *[s[:leading] for s in steps], mean.steps, scale.steps)
    elements = merged(x.shape[leading:], *[s[leading:] for s in steps])
    total, count = prod(x.shape[:leading]), prod(x.shape[leading:])
    width, elements, (out, grad_y, x, weight) = _pieces(rows, elements, out, grad_y, x, weight)
    team, grid = row_launch(total, count, width)
    launch(row_norm_backward, total * count, grad_y, x, weight, mean, scale, out, total, team, number(count, mean.dtype), count // width,
           *rows, *elements, has_weight, **grid)


def _pieces(rows: tuple, elements: tuple, *arrays) -> tuple[int, tuple, tuple]:
    """(elements of a piece, the places of a row's elements, arrays)."""
    width, places, arrays = pieces_of_rows(rows[:1 + len(arrays)], elements, *arrays)
    return width, tuple([of[len(rows[0]):] for of in places]), arrays


def _parameter(array, x, parameter_steps) -> tuple:
    """(the array or a stand-in, whether it is there, its steps along the axes of x)."""
    given, _, is_there = optional(array, x)
    return given, is_there, parameter_steps(array) if is_there else (0,) * x.ndim


def grouped(x: DeviceArray, groups: int) -> DeviceArray:
    """A view (N, G, C/G, ...) of x (N, C, ...)."""
    size = x.shape[1] // groups
    return x.view((x.shape[0], groups, size, *x.shape[2:]), (x.strides[0], size * x.strides[1], x.strides[1], *x.strides[2:]))


def _along_groups(x: DeviceArray, groups: int):
    """The steps of a parameter (C,) along the axes of `grouped(x)`."""
    size, rest = x.shape[1] // groups, (0,) * (x.ndim - 2)
    return lambda parameter: (0, size * parameter.steps[0], parameter.steps[0], *rest)


@implements
def group_norm_forward(x, groups, weight, bias, epsilon, out):
    y, mean, variance = out
    _forward(grouped(x, groups), weight, bias, epsilon, 2, (grouped(y, groups), mean, variance), _along_groups(x, groups))


@implements
def group_norm_backward(grad_y, x, weight, mean, variance, groups, epsilon, out):
    grad_x, grad_weight, grad_bias = out
    scale, of_x, of_grad = scale_of(variance, epsilon), grouped(x, groups), grouped(grad_y, groups)
    _backward_input(of_grad, of_x, weight, mean, scale, 2, grouped(grad_x, groups), _along_groups(x, groups))
    rest, size = (0,) * (x.ndim - 1), x.shape[1] // groups
    affine(of_grad, of_x, mean, scale, (1, 2), (*mean.steps, *rest), (*scale.steps, *rest), _halves(grad_weight, groups, size),
           _halves(grad_bias, groups, size))


def _halves(parameter: DeviceArray, groups: int, size: int) -> DeviceArray:
    """A view (G, C/G) of a parameter (C,)."""
    (stride,) = parameter.strides
    return parameter.view((groups, size), (size * stride, stride))


def _along_last(x: DeviceArray, axes: int):
    """The steps of a parameter of the shape of the last axes along all axes of x."""
    return lambda parameter: (*(0,) * (x.ndim - axes), *parameter.steps)


@implements
def layer_norm_forward(x, axes, weight, bias, epsilon, out):
    _forward(x, weight, bias, epsilon, x.ndim - axes, out, _along_last(x, axes))


@implements
def layer_norm_backward(grad_y, x, weight, mean, variance, axes, epsilon, out):
    grad_x, grad_weight, grad_bias = out
    leading, rest, scale = x.ndim - axes, (0,) * axes, scale_of(variance, epsilon)
    _backward_input(grad_y, x, weight, mean, scale, leading, grad_x, _along_last(x, axes))
    affine(grad_y, x, mean, scale, tuple(range(leading, x.ndim)), (*mean.steps, *rest), (*scale.steps, *rest), grad_weight, grad_bias)
