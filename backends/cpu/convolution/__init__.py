"""Convolution: the entries, which choose, allocate and run. Letters: `walk.py`."""

from __future__ import annotations

import importlib

import numpy as np

from numbanet.backends.contract.fused import of_ending
from numbanet.backends.cpu import activating, threads
from numbanet.backends.cpu.convolution import choose, whole
from numbanet.backends.cpu.convolution.bias import conv2d_backward_bias_plain, conv2d_backward_bias_vectors
from numbanet.backends.cpu.convolution.chaining import chain_plan
from numbanet.backends.cpu.convolution.columns import FILTERS, HALF, TAPS, conv2d_backward_weight_columns
from numbanet.backends.cpu.convolution.depthwise_gradient import conv2d_backward_weight_depthwise
from numbanet.backends.cpu.convolution.forward import (
    F32,
    NO_BIAS,
    backward_input,
    chain_endings,
    chain_kernels,
    channels_last,
    execute,
    execute_with_statistics,
    forward,
    grouped,
    has_adjacent_pixels,
    hold_chain,
    kernels,
    pack_chain,
    run_chain,
)
from numbanet.backends.cpu.convolution.plain import (
    conv2d_backward_input_plain,
    conv2d_backward_weight_plain,
    conv2d_forward_plain,
)
from numbanet.backends.cpu.convolution.preactivate import NOTHING
from numbanet.backends.cpu.convolution.scatter import conv2d_backward_input_scatter, pack_scattered_weights
from numbanet.backends.cpu.convolution.small_groups import conv2d_backward_weight_small_groups
from numbanet.backends.cpu.convolution.walk import forward_walk
from numbanet.backends.cpu.convolution.weight_gradient import conv2d_backward_weight_gather
from numbanet.backends.cpu.convolution.windows import PIXELS, conv2d_backward_input_windows, conv2d_backward_weight_windows
from numbanet.backends.cpu.convolution.winograd_gradient import conv2d_backward_weight_winograd
from numbanet.backends.cpu.elementwise import add
from numbanet.backends.cpu.gemm import gemm
from numbanet.backends.cpu.layout import copy_into
from numbanet.backends.cpu.limits import limits
from numbanet.backends.cpu.memory import empty
from numbanet.backends.cpu.normalization.batch import moments_of_map
from numbanet.backends.cpu.prepared import holding, prepares, shared
from numbanet.backends.cpu.registry import implements
from numbanet.backends.cpu.simd import L
from numbanet.geometry import ConvGeometry

F64 = np.dtype(np.float64)
NHWC = (0, 2, 3, 1)
NO_BIAS_64 = np.empty(0, F64)


@implements
def conv2d_forward(x, weight, bias, geometry, out):
    conv2d_fused(x, weight, bias, None, geometry, None, None, out)


@implements
def conv2d_fused(x, weight, bias, residual, geometry, minimum, maximum, out):
    if x.dtype == F64:
        residual = _apart(residual, out)
        conv2d_forward_plain(x, weight, NO_BIAS_64 if bias is None else bias, out, forward_walk(geometry))
        if residual is not None:
            np.add(out, residual, out=out)
        np.clip(out, minimum, maximum, out=out)
    elif out.size and residual is None and whole.covers_the_map(geometry):
        whole.forward(x, weight, bias, minimum, maximum, out)
    elif out.size:
        algorithm = forward(geometry, x.shape[0], has_adjacent_pixels(x))
        packed = algorithm.pack(weight, NO_BIAS if bias is None else bias)
        execute(algorithm, packed, x, out, residual, *limits(minimum, maximum))


def _apart(added, out):
    """What is added to `out` afterwards, in memory of its own."""
    return added.copy() if added is not None and np.may_share_memory(added, out) else added


@implements
def conv2d_with_statistics(x, weight, bias, residual, geometry, minimum, maximum, out):
    y, mean, variance = out
    if x.dtype == F64:
        conv2d_fused(x, weight, bias, residual, geometry, minimum, maximum, y)
        mean[...], variance[...] = (y.mean((0, 2, 3)), y.var((0, 2, 3))) if y.size else (np.nan, np.nan)
    elif not y.size or residual is None and whole.covers_the_map(geometry):
        conv2d_fused(x, weight, bias, residual, geometry, minimum, maximum, y)
        moments_of_map(y, mean, variance)
    else:
        algorithm = forward(geometry, x.shape[0], has_adjacent_pixels(x))
        packed = algorithm.pack(weight, NO_BIAS if bias is None else bias)
        execute_with_statistics(algorithm, packed, x, out, residual, *limits(minimum, maximum))


def takes_statistics(geometry, batch: int) -> bool:
    """Whether `conv2d_with_statistics` spares a pass over y."""
    return not whole.covers_the_map(geometry) and forward(geometry, batch, True).counts is not None


@implements
def conv2d_activated(x, weight, bias, residual, geometry, activation, out):
    if x.dtype == F64:
        conv2d_fused(x, weight, bias, residual, geometry, None, None, out)
        activating.run(activation, out)
    elif out.size:
        algorithm = forward(geometry, x.shape[0], has_adjacent_pixels(x))
        execute(algorithm, algorithm.pack(weight, NO_BIAS if bias is None else bias), x, out, residual, activation=activation)


@prepares("conv2d_activated")
def _prepare_activated(arguments, constant):
    x, weight, bias, _, geometry, activation = arguments
    run = prepared(x, weight, bias, geometry, None, None, constant, activation)

    def call(x, weight, bias, residual, geometry, activation, out):
        run(x, residual, out)
    call.kernels = lambda x, weight, bias, residual, geometry, activation, out: run.kernels(x, residual, out)
    return run and named(call, arguments, run.weights)


@prepares("conv2d_fused")
def _prepare_fused(arguments, constant):
    x, weight, bias, _, geometry, minimum, maximum = arguments
    run = prepared(x, weight, bias, geometry, minimum, maximum, constant)

    def call(x, weight, bias, residual, geometry, minimum, maximum, out):
        run(x, residual, out)
    call.kernels = lambda x, weight, bias, residual, geometry, minimum, maximum, out: run.kernels(x, residual, out)
    return run and named(call, arguments, run.weights)


@prepares("conv2d_forward")
def _prepare_forward(arguments, constant):
    run = prepared(*arguments, None, None, constant)

    def call(x, weight, bias, geometry, out):
        run(x, None, out)
    call.kernels = lambda x, weight, bias, geometry, out: run.kernels(x, None, out)
    return run and named(call, arguments, run.weights)


def named(call, arguments, weights):
    """The call, which says what it runs."""
    x, geometry = arguments[0], next(a for a in arguments if isinstance(a, ConvGeometry))
    packing = forward(geometry, x.shape[0], has_adjacent_pixels(x), True).packing
    call.kernel = f"conv2d {packing if isinstance(packing, str) else packing[0]}"
    return holding(call, 1, 2, weights=weights)


def prepared(x, weight, bias, geometry, minimum, maximum, constant, activation=None, preactivation=NOTHING):
    """A function (x, residual, out), or None where weights change or nothing is packed; `preactivation`: see `preactivate.py`."""
    if not (1 in constant and (bias is None or 2 in constant) and x.dtype == F32 and 0 not in x.shape):
        return None
    algorithm = forward(geometry, x.shape[0], has_adjacent_pixels(x), True)
    packed = shared(algorithm.packing, lambda weight, bias: algorithm.pack(weight, NO_BIAS if bias is None else bias), weight, bias)
    low, high = limits(minimum, maximum)

    def run(x, residual, out):
        execute(algorithm, packed.value, x, out, residual, low, high, activation, preactivation=preactivation)
    run.kernels = lambda x, residual, out: kernels(algorithm, packed.value, x, out, residual, low, high, activation, preactivation)
    run.weights = {1: algorithm.hold(packed)} if algorithm.hold else None
    return run


@implements
def conv2d_chain(x, weights, biases, residual, geometries, endings, out):
    plan = chain_plan(geometries, x.shape[0]) if x.dtype == F32 else None
    if plan is not None and out.size:
        run_chain(plan, pack_chain(plan, geometries, weights, biases), *chain_endings(plan, endings), x, residual, out)
        return
    for i, (weight, bias, geometry, ending) in enumerate(zip(weights, biases, geometries, endings)):
        is_last = i == len(geometries) - 1
        y = out if is_last else empty((x.shape[0], geometry.filters, *geometry.output_size), x.dtype, NHWC)
        name, arguments = of_ending(ending)
        implements[name](x, weight, bias, residual if is_last else None, geometry, *arguments, y)
        x = y


@prepares("conv2d_chain")
def _prepare_chain(arguments, constant):
    x, weights, biases, _, geometries, endings = arguments
    plan = chain_plan(geometries, x.shape[0]) if {1, 2} <= constant and x.dtype == F32 and 0 not in x.shape else None
    if plan is None:
        return None
    half, (bounds, table) = len(geometries), chain_endings(plan, endings)
    packed = shared(("chain", plan.packed, geometries), lambda *sources: pack_chain(plan, geometries, sources[:half], sources[half:]),
                    *weights, *biases)

    def call(x, weights, biases, residual, geometries, endings, out):
        run_chain(plan, packed.value, bounds, table, x, residual, out)
    call.kernels = lambda x, weights, biases, residual, geometries, endings, out: chain_kernels(plan, packed.value, bounds, table, x,
                                                                                              residual, out)
    call.kernel = f"conv2d chain of {half}"
    return holding(call, 1, 2, weights={(1, i): held for i, held in enumerate(hold_chain(plan, geometries, packed))})


@implements
def conv2d_backward_input(grad_y, weight, geometry, out):
    conv2d_backward_input_added(grad_y, weight, None, geometry, out)


@implements
def conv2d_backward_input_added(grad_y, weight, added, geometry, out):
    if out.size and grad_y.dtype == F32 and added is None and whole.covers_the_map(geometry):
        whole.backward_input(grad_y, weight, out)
        return
    if out.size and grad_y.dtype == F32 and choose.is_forward_over_gradients(geometry):
        algorithm = backward_input(geometry, grad_y.shape[0])
        execute(algorithm, algorithm.pack(weight, NO_BIAS), grad_y, out, added)
        return
    added = _apart(added, out)
    if grad_y.dtype == F64:
        conv2d_backward_input_plain(grad_y, weight, out, forward_walk(geometry))
    elif out.size:
        _with_pixels(out, _fold if choose.folds(geometry) else _scatter, channels_last(grad_y), weight, geometry)
    if added is not None:
        add(out, added, out)


def scattered_input_gradient(grad_y, weight, added, geometry, out):
    """`conv2d_backward_input_added` by scattering, whatever the geometry."""
    added = _apart(added, out)
    _with_pixels(out, _scatter, channels_last(grad_y), weight, geometry)
    if added is not None:
        add(out, added, out)


def _fold(grad_x, grad_y, weight, geometry):
    packed = np.ascontiguousarray(weight.transpose(2, 0, 3, 1))
    slots = min(threads.get_num_threads(), grad_y.shape[0])
    scratch = empty((slots, geometry.output_size[1] * 4 * L), F32)
    conv2d_backward_input_windows(grad_y, packed, grad_x, scratch)


def _scatter(grad_x, grad_y, weight, geometry):
    plan = choose.scatter_plan(geometry, grad_y.shape[0])
    packed = empty(plan.packed, F32)
    pack_scattered_weights(grouped(weight, geometry), packed, plan.chunk)
    scratch = empty((min(threads.get_num_threads(), plan.jobs), plan.scratch), F32)
    conv2d_backward_input_scatter(grad_y, packed, grad_x, scratch, forward_walk(geometry), plan.chunk, plan.images, plan.block)


@implements
def conv2d_backward_weight(grad_y, x, geometry, out):
    if x.dtype == F64:
        conv2d_backward_weight_plain(grad_y, x, out, forward_walk(geometry))
    elif x.shape[0] == 0:
        out.fill(0)
    else:
        WEIGHT_GRADIENTS[weight_gradient_name(geometry, x)](grad_y, x, geometry, out)


def weight_gradient_name(geometry, x) -> str:
    """Which of `WEIGHT_GRADIENTS` a float32 weight gradient takes."""
    is_copied = x.strides[1] != x.dtype.itemsize and x.shape[1] != 1        # by `channels_last`
    return weight_gradient_of(geometry, x.shape[0], is_copied or has_adjacent_pixels(x))


def weight_gradient_of(geometry, N: int, adjacent_pixels: bool) -> str:
    """As `weight_gradient_name`, of N images, where pixels lie side by side."""
    if whole.covers_the_map(geometry):
        return "whole"
    if choose.is_depthwise(geometry):
        return "depthwise"
    if choose.has_small_groups(geometry):
        return "small groups"
    if choose.is_narrow(geometry):
        return "columns"
    if choose.is_product_of_few_pixels(geometry, N):
        return "product"
    if choose.has_few_filters_and_pixels(geometry) and adjacent_pixels:
        return "windows"
    if choose.may_use_winograd_gradient(geometry) and choose.winograd_gradient_plan(geometry, N) is not None:
        return "winograd"
    return "gather"


def _weight_by_depthwise(grad_y, x, geometry, out, preactivation=NOTHING):
    plan = choose.depthwise_gradient_plan(geometry, x.shape[0])
    parts, blocks = plan.parts, -(-geometry.channels // L)
    sums = empty((parts, blocks, geometry.kernel_size[0] * geometry.kernel_size[1], L), F32)
    slots = min(threads.get_num_threads(), parts * blocks)
    conv2d_backward_weight_depthwise(channels_last(grad_y), channels_last(x), preactivation, out, sums, empty((slots, plan.scratch), F32),
                                     empty((slots, plan.table), np.int64), forward_walk(geometry))


def _weight_by_small_groups(grad_y, x, geometry, out):
    rows = geometry.kernel_size[0] * geometry.kernel_size[1] * geometry.channels_per_group
    sums = empty((choose.row_parts(x.shape[0], geometry.output_size[0]), rows, -(-geometry.filters // L) * L), F32)
    conv2d_backward_weight_small_groups(channels_last(grad_y), channels_last(x), out, sums, forward_walk(geometry))


def _weight_by_columns(grad_y, x, geometry, out):
    parts = min(x.shape[0], choose.WANTED_JOBS)
    blocks = -(-geometry.filters // FILTERS) * FILTERS // HALF, -(-geometry.kernel_size[1] // TAPS)
    rows = geometry.channels * geometry.kernel_size[0]
    sums = empty((parts, blocks[0], rows, blocks[1], TAPS * HALF, L), F32)
    scratch = empty((min(threads.get_num_threads(), parts), choose.columns_scratch(geometry)), F32)
    conv2d_backward_weight_columns(channels_last(grad_y), channels_last(x), out, scratch, sums, forward_walk(geometry))


def _weight_by_product(grad_y, x, geometry, out):
    gemm(channels_last(grad_y).reshape(-1, geometry.filters).T, channels_last(x).reshape(-1, geometry.channels), out[:, :, 0, 0])


def _weight_by_windows(grad_y, x, geometry, out):
    blocks = -(-geometry.kernel_size[1] * geometry.channels // PIXELS)
    sums = empty((min(x.shape[0], choose.WANTED_JOBS), geometry.kernel_size[0], blocks, PIXELS, L), F32)
    conv2d_backward_weight_windows(channels_last(grad_y), channels_last(x), out, sums, min(threads.get_num_threads(), sums.shape[0]))


def _weight_by_winograd(grad_y, x, geometry, out, preactivation=NOTHING):
    plan = choose.winograd_gradient_plan(geometry, x.shape[0])
    slots = min(threads.get_num_threads(), plan.jobs)
    sums = empty((plan.jobs if plan.parts > 1 else slots, plan.sums), F32)
    conv2d_backward_weight_winograd(channels_last(grad_y), channels_last(x), preactivation, out, empty((slots, plan.scratch), F32), sums,
                                    forward_walk(geometry), plan.filters, plan.channels, plan.parts)


def _weight_by_gather(grad_y, x, geometry, out, preactivation=NOTHING):
    plan = choose.weight_plan(geometry, x.shape[0])
    scratch = empty((min(threads.get_num_threads(), plan.jobs), plan.scratch), F32)
    conv2d_backward_weight_gather(channels_last(grad_y), channels_last(x), preactivation, out, scratch, empty(plan.sums, F32),
                                  forward_walk(geometry), plan.filters, plan.chunk, plan.parts, plan.block)


def _weight_by_whole(grad_y, x, geometry, out):
    whole.backward_weight(grad_y, x, out)


WEIGHT_GRADIENTS = {"whole": _weight_by_whole, "depthwise": _weight_by_depthwise, "small groups": _weight_by_small_groups,
                    "columns": _weight_by_columns, "product": _weight_by_product, "windows": _weight_by_windows,
                    "winograd": _weight_by_winograd, "gather": _weight_by_gather}
PREACTIVATING = "depthwise", "winograd", "gather"      # those that take `preactivation` too: see `preactivate.py`


@implements
def conv2d_backward_bias(grad_y, out):
    N, K, OH, _ = grad_y.shape
    if grad_y.dtype == F64:
        conv2d_backward_bias_plain(grad_y.transpose(0, 2, 3, 1), out)
    else:
        sums = empty((choose.row_parts(N, OH), -(-K // L) * L), F32)
        conv2d_backward_bias_vectors(channels_last(grad_y), out, sums)


def _with_pixels(out, compute, *arguments):
    """Let `compute` fill `out` as (N, H, W, C) in one piece; through a copy where `out` has gaps or another order."""
    y = out.transpose(0, 2, 3, 1)
    if y.flags.c_contiguous:
        compute(y, *arguments)
        return
    y = empty(y.shape, y.dtype)
    compute(y, *arguments)
    copy_into(y.transpose(0, 3, 1, 2), out)


importlib.import_module(f"{__name__}.candidates")      # registers what autotune measures; it needs the functions above
importlib.import_module(f"{__name__}.max_pooling")
