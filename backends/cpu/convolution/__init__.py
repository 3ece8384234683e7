"""Convolution: the entries, which bring arrays into layout, choose and allocate. Letters: `walk.py`."""

from __future__ import annotations

import numpy as np

from numbanet.backends.cpu import threads
from numbanet.backends.cpu.convolution import choose
from numbanet.backends.cpu.convolution.bias import conv2d_backward_bias_plain, conv2d_backward_bias_vectors
from numbanet.backends.cpu.convolution.columns import (
    FILTERS,
    HALF,
    TAPS,
    conv2d_backward_weight_columns,
    conv2d_forward_columns,
)
from numbanet.backends.cpu.convolution.depthwise import (
    conv2d_backward_input_depthwise,
    conv2d_backward_weight_depthwise,
    conv2d_forward_depthwise,
)
from numbanet.backends.cpu.convolution.gather import conv2d_forward_gather
from numbanet.backends.cpu.convolution.plain import (
    conv2d_backward_input_plain,
    conv2d_backward_weight_plain,
    conv2d_forward_plain,
)
from numbanet.backends.cpu.convolution.scatter import conv2d_backward_input_scatter, pack_scattered_weights
from numbanet.backends.cpu.convolution.small_groups import (
    conv2d_backward_weight_small_groups,
    conv2d_forward_small_groups,
)
from numbanet.backends.cpu.convolution.walk import forward_walk, mirrored_walk
from numbanet.backends.cpu.convolution.weight_gradient import conv2d_backward_weight_gather
from numbanet.backends.cpu.convolution.weights import pack_weights, packed_size
from numbanet.backends.cpu.convolution.windows import (
    PIXELS,
    conv2d_backward_input_windows,
    conv2d_backward_weight_windows,
    conv2d_forward_windows,
)
from numbanet.backends.cpu.convolution.winograd import conv2d_forward_winograd, transform_weights
from numbanet.backends.cpu.gemm import gemm
from numbanet.backends.cpu.layout import copy_into
from numbanet.backends.cpu.memory import empty
from numbanet.backends.cpu.registry import implements
from numbanet.backends.cpu.simd import L

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
NOTHING = {F32: np.empty(0, F32), F64: np.empty(0, F64)}


@implements
def conv2d_forward(x, weight, bias, geometry, out):
    if bias is None:
        bias = NOTHING[x.dtype]
    if x.dtype == F64:
        conv2d_forward_plain(x, weight, bias, out, forward_walk(geometry))
    elif out.size:
        _with_pixels(out, _forward, _channels_last(x), weight, bias, geometry, forward_walk(geometry))


def _forward(y, x, weight, bias, geometry, walk):
    if choose.is_depthwise(geometry):
        conv2d_forward_depthwise(x, _depthwise_weights(weight, bias), y, walk)
    elif choose.has_small_groups(geometry):
        conv2d_forward_small_groups(x, _small_group_weights(_grouped(weight, geometry), bias), y, walk, 1)
    elif choose.is_narrow(geometry):
        packed, shifts = _column_weights(weight, bias)
        scratch = empty((min(threads.get_num_threads(), x.shape[0]), choose.columns_scratch(geometry)), F32)
        conv2d_forward_columns(x, packed, shifts, y, scratch, walk)
    elif choose.has_few_filters(geometry) and _has_adjacent_pixels(x):
        packed = np.ascontiguousarray(weight.transpose(2, 3, 1, 0))
        slots = min(threads.get_num_threads(), y.shape[0] * y.shape[1])
        conv2d_forward_windows(x, packed, np.ascontiguousarray(bias), y, slots)
    else:
        _product(x, _grouped(weight, geometry), bias, y, walk, geometry)


def _product(x, weight, bias, y, walk, geometry):
    """y (N, OH, OW, K) = the windows of x times weight (G, Kg, Cg, R, S)."""
    plan = choose.winograd_plan(len(x), x.shape[3], y.shape[3], y.shape[1:3]) if choose.may_use_winograd(geometry) else None
    if plan is None:
        _gather(x, weight, bias, y, walk)
        return
    transformed = empty((plan.weights,), F32)
    transform_weights(weight, transformed)
    scratch = empty((min(threads.get_num_threads(), plan.jobs), plan.scratch), F32)
    conv2d_forward_winograd(x, transformed, np.ascontiguousarray(bias), y, scratch, walk, plan.block)


def _gather(x, weight, bias, y, walk):
    G, Kg, Cg, R, S = weight.shape
    with_bias = 1 if bias.size else 0
    rows = y.reshape(-1, y.shape[3])
    plan = choose.gather_plan(rows.shape[0], Cg, Kg, R * S)
    packed = empty((packed_size(G, Kg, R * S * Cg + with_bias),), F32)
    pack_weights(weight, bias, packed, plan.chunk, with_bias)
    scratch = empty((min(threads.get_num_threads(), plan.jobs), plan.scratch), F32)
    conv2d_forward_gather(x, packed, rows, scratch, walk, plan.block, plan.chunk, plan.parts, with_bias)


@implements
def conv2d_backward_input(grad_y, weight, geometry, out):
    if grad_y.dtype == F64:
        conv2d_backward_input_plain(grad_y, weight, out, forward_walk(geometry))
    elif out.size:
        _with_pixels(out, _backward_input, _channels_last(grad_y), weight, geometry)


def _backward_input(grad_x, grad_y, weight, geometry):
    if choose.is_depthwise(geometry):
        if choose.has_unit_stride(geometry):
            weight = _depthwise_weights(weight[:, :, ::-1, ::-1], NOTHING[F32])
            conv2d_forward_depthwise(grad_y, weight, grad_x, mirrored_walk(geometry))
        else:
            weight = _depthwise_weights(weight, NOTHING[F32])
            conv2d_backward_input_depthwise(grad_y, weight, grad_x, forward_walk(geometry))
    elif choose.has_small_groups(geometry) and geometry.stride[0] == geometry.stride[1]:
        weight = _small_group_weights(_mirrored(weight, geometry), NOTHING[F32])
        conv2d_forward_small_groups(grad_y, weight, grad_x, mirrored_walk(geometry), geometry.stride[0])
    elif choose.folds(geometry):
        packed = np.ascontiguousarray(weight.transpose(2, 0, 3, 1))
        slots = min(threads.get_num_threads(), grad_y.shape[0])
        scratch = empty((slots, geometry.output_size[1] * 4 * L), F32)
        conv2d_backward_input_windows(grad_y, packed, grad_x, scratch)
    elif choose.mirrors(geometry):
        _product(grad_y, _mirrored(weight, geometry), NOTHING[F32], grad_x, mirrored_walk(geometry), geometry)
    else:
        plan = choose.scatter_plan(geometry, grad_y.shape[0])
        packed = empty(plan.packed, F32)
        pack_scattered_weights(_grouped(weight, geometry), packed, plan.chunk)
        scratch = empty((min(threads.get_num_threads(), plan.jobs), plan.scratch), F32)
        conv2d_backward_input_scatter(grad_y, packed, grad_x, scratch, forward_walk(geometry), plan.chunk, plan.images,
                                      plan.block)


@implements
def conv2d_backward_weight(grad_y, x, geometry, out):
    walk = forward_walk(geometry)
    if x.dtype == F64:
        conv2d_backward_weight_plain(grad_y, x, out, walk)
        return
    N = x.shape[0]
    if N == 0:
        out.fill(0)
        return
    grad_y, x = _channels_last(grad_y), _channels_last(x)
    if choose.is_depthwise(geometry):
        T = geometry.kernel_size[0] * geometry.kernel_size[1]
        parts = choose.row_parts(N, geometry.output_size[0])
        sums = empty((parts, T, -(-geometry.channels // L) * L), F32)
        conv2d_backward_weight_depthwise(grad_y, x, out, sums, walk)
    elif choose.has_small_groups(geometry):
        rows = geometry.kernel_size[0] * geometry.kernel_size[1] * geometry.channels_per_group
        sums = empty((choose.row_parts(N, geometry.output_size[0]), rows, -(-geometry.filters // L) * L), F32)
        conv2d_backward_weight_small_groups(grad_y, x, out, sums, walk)
    elif choose.is_narrow(geometry):
        parts = min(N, choose.WANTED_JOBS)
        blocks = -(-geometry.filters // FILTERS) * FILTERS // HALF, -(-geometry.kernel_size[1] // TAPS)
        rows = geometry.channels * geometry.kernel_size[0]
        sums = empty((parts, blocks[0], rows, blocks[1], TAPS * HALF, L), F32)
        scratch = empty((min(threads.get_num_threads(), parts), choose.columns_scratch(geometry)), F32)
        conv2d_backward_weight_columns(grad_y, x, out, scratch, sums, walk)
    elif choose.is_product_of_few_pixels(geometry, N):
        gemm(grad_y.reshape(-1, geometry.filters).T, x.reshape(-1, geometry.channels), out[:, :, 0, 0])
    elif choose.has_few_filters_and_pixels(geometry) and _has_adjacent_pixels(x):
        blocks = -(-geometry.kernel_size[1] * geometry.channels // PIXELS)
        sums = empty((min(N, choose.WANTED_JOBS), geometry.kernel_size[0], blocks, PIXELS, L), F32)
        conv2d_backward_weight_windows(grad_y, x, out, sums)
    else:
        plan = choose.weight_plan(geometry, N)
        scratch = empty((min(threads.get_num_threads(), plan.jobs), plan.scratch), F32)
        conv2d_backward_weight_gather(grad_y, x, out, scratch, empty(plan.sums, F32), walk, plan.chunk, plan.parts,
                                      plan.block)


@implements
def conv2d_backward_bias(grad_y, out):
    N, K, OH, _ = grad_y.shape
    if grad_y.dtype == F64:
        conv2d_backward_bias_plain(grad_y.transpose(0, 2, 3, 1), out)
    else:
        sums = empty((choose.row_parts(N, OH), -(-K // L) * L), F32)
        conv2d_backward_bias_vectors(_channels_last(grad_y), out, sums)


def _channels_last(x):
    """x (N, C, H, W) as (N, H, W, C) with neighbouring channels: a view, or a copy where its order is another."""
    if x.strides[1] == x.itemsize or x.shape[1] == 1:
        return x.transpose(0, 2, 3, 1)
    N, C, H, W = x.shape
    copy = empty((N, H, W, C), x.dtype)
    copy_into(x, copy.transpose(0, 3, 1, 2))
    return copy


def _has_adjacent_pixels(x):
    """Whether the pixels of a row of x (N, H, W, C) lie side by side, as they do unless x is a slice of channels."""
    return x.strides[2] == x.shape[3] * x.itemsize


def _with_pixels(out, compute, *arguments):
    """Let `compute` fill `out` as (N, H, W, C) in one piece; through a copy where `out` has gaps or another order."""
    y = out.transpose(0, 2, 3, 1)
    if y.flags.c_contiguous:
        compute(y, *arguments)
        return
    y = empty(y.shape, y.dtype)
    compute(y, *arguments)
    copy_into(y.transpose(0, 3, 1, 2), out)


def _grouped(weight, geometry):
    """weight (K, Cg, R, S) as (G, Kg, Cg, R, S)."""
    return weight.reshape(geometry.groups, geometry.filters_per_group, *weight.shape[1:])


def _mirrored(weight, geometry):
    """weight (K, Cg, R, S) as (G, Cg, Kg, R, S), taps in reverse: that of the convolution which is backward-input."""
    return _grouped(weight, geometry)[:, :, :, ::-1, ::-1].transpose(0, 2, 1, 3, 4)


def _small_group_weights(weight, bias):
    """weight (G, width, width, R, S) and bias as (T * width + 1, G * width, rounded up to L)."""
    G, width, _, R, S = weight.shape
    packed = np.zeros((R * S * width + 1, -(-G * width // L) * L), F32)
    packed[:-1, :G * width] = weight.transpose(3, 4, 2, 0, 1).reshape(R * S * width, G * width)
    if bias.size:
        packed[-1, :G * width] = bias
    return packed


def _column_weights(weight, bias):
    """weight (K, C, R, S) as (K rounded up / FILTERS, C * R * S, FILTERS) and bias as (K rounded up,)."""
    K, steps = len(weight), weight[0].size
    blocks = -(-K // FILTERS)
    rows, shifts = np.zeros((blocks * FILTERS, steps), F32), np.zeros(blocks * FILTERS, F32)
    rows[:K] = weight.reshape(K, steps)
    if bias.size:
        shifts[:K] = bias
    return np.ascontiguousarray(rows.reshape(blocks, FILTERS, steps).transpose(0, 2, 1)), shifts


def _depthwise_weights(weight, bias):
    """weight (C, 1, R, S) and bias as (T + 1, C)."""
    C, _, R, S = weight.shape
    packed = empty((R * S + 1, C), F32)
    packed[:-1] = weight.reshape(C, R * S).T
    packed[-1] = bias if bias.size else 0
    return packed
