"""Convolution with max pooling behind it: what runs in one, and the entries. Kernels: `pooled.py`, `pooled_gradient.py`."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from numbanet.backends.cpu import activating, threads, windows
from numbanet.backends.cpu.compile import alone
from numbanet.backends.cpu.convolution import choose
from numbanet.backends.cpu.convolution.band import conv2d_forward_band
from numbanet.backends.cpu.convolution.columns import FILTERS
from numbanet.backends.cpu.convolution.forward import (
    F32,
    NO_BIAS,
    NO_RESIDUAL,
    band_arguments,
    channels_last,
    has_adjacent_pixels,
    pack_band,
)
from numbanet.backends.cpu.convolution.pooled import (
    COLUMNS_SCRATCH,
    POSITIONS,
    conv2d_max_pool_columns,
    conv2d_max_pool_windows,
    pack_columns,
    pack_windows,
)
from numbanet.backends.cpu.convolution.pooled_gradient import (
    BLOCK,
    CELL,
    INTERLEAVED,
    PATCHES,
    bias_sums,
    conv2d_max_pool_input_gradient,
    conv2d_max_pool_weight_gradient,
    image_pitch,
    interleaves,
    map_pitch,
    map_rows,
    patch_size,
)
from numbanet.backends.cpu.convolution.statistics import NO_MOMENTS
from numbanet.backends.cpu.convolution.unpacking import read_packed
from numbanet.backends.cpu.convolution.walk import forward_walk
from numbanet.backends.cpu.hardware import cache_sizes
from numbanet.backends.cpu.layout import are_pixels, copy_into
from numbanet.backends.cpu.limits import limits
from numbanet.backends.cpu.memory import empty
from numbanet.backends.cpu.prepared import Held, holding, prepares, shared
from numbanet.backends.cpu.registry import implements
from numbanet.backends.cpu.simd import L
from numbanet.geometry import ConvGeometry, PoolGeometry

I32 = np.dtype(np.int32)
NO_POSITIONS = np.empty((0, 0, 0, 0), I32)
COLUMNS, WINDOWS, BAND = "columns", "windows", "band"


def pools(geometry: ConvGeometry, pooling: PoolGeometry, for_values: bool = False) -> str | None:
    """The tiles by which a convolution and the pooling behind it run as one, or None; `for_values`: without positions and gradients.

    Windows of 2 x 2 pixels side by side, and convolutions with so few channels and filters that reading and writing the map costs as
    much as computing it: LeNet-5's two, forward in 5.2 and 5.5 us an image instead of 6.6 and 5.5, backward in less than half of the
    time. For values alone also bands of a first layer, whose map is the network's largest.
    """
    if for_values and choose.takes_bands(geometry) and pooling.dilation == (1, 1):
        return BAND
    if (pooling.kernel_size, pooling.stride, pooling.dilation, pooling.ceil_mode) != ((2, 2), (2, 2), (1, 1), False):
        return None
    if any(sum(pair) for pair in pooling.padding) or _lists(geometry) * choose.FLOAT > cache_sizes().l2 // 4:
        return None
    if choose.is_narrow(geometry):
        return COLUMNS
    return WINDOWS if choose.has_few_filters_and_pixels(geometry) else None


def _lists(geometry: ConvGeometry) -> int:
    """Entries of an image."""
    return geometry.output_size[0] // 2 * (geometry.output_size[1] // 2) * -(-geometry.filters // 2) * 2


class GradientSizes(NamedTuple):
    """Numbers of scratch for each thread, and of sums for each part."""

    planes: int
    lists: int
    sums: int
    packed: int             # weights as patches
    patches: int            # scratch of the gradient for x


@lru_cache(maxsize=1024)
def gradient_sizes(geometry: ConvGeometry) -> GradientSizes:
    walk = forward_walk(geometry)
    C, K, R, S = geometry.channels, geometry.filters, *geometry.kernel_size
    PH, PW = (n // 2 for n in geometry.output_size)
    rows, columns = (n + sum(pair) for n, pair in zip(geometry.input_size, geometry.padding))
    if interleaves(walk):
        pitch, runs, width = choose._up(columns + 3 * L, L), 1, S * INTERLEAVED
        planes = pitch * (geometry.output_size[0] * INTERLEAVED + rows + INTERLEAVED * geometry.dilation[0])
    else:
        runs, width = R, S * C
        planes = int(image_pitch(walk)) * rows
    cells = -(-K // 2) * runs * -(-width // (2 * L))
    down, across = map(int, patch_size(walk))
    blocks = -(-down * across * C // (BLOCK * L))
    together = max(1, PATCHES // PW) * PW
    patches = int(map_rows(walk) * map_pitch(walk)) + together * (blocks * BLOCK * L + K) + 4 * L
    lists = max(PH * PW * -(-K // 2) * 2, together * K) + 2 * L
    return GradientSizes(*(choose._up(n, 16) for n in (planes + 4 * L, lists, int(bias_sums(K)) + cells * CELL,
                                                         blocks * 4 * K * BLOCK * L, patches)))


def _kernel(name, packed, x, geometry, pooling, low, high, y, argmax) -> tuple:
    """What fills y and argmax (N, PH, PW, K), dense, as (kernel, arguments); an empty argmax is not wanted."""
    if name == BAND:
        tables = (windows.regular(pooling, axis)[0] for axis in (0, 1))
        return conv2d_forward_band, (x, packed, y, NO_RESIDUAL, low, high, activating.NONE, NO_MOMENTS, *band_arguments(
            forward_walk(geometry), choose.band_plan(geometry, x.shape[0], pooling), *tables))
    if name == COLUMNS:
        slots = min(threads.get_num_threads(), x.shape[0])
        scratch = empty((slots, choose.columns_scratch(geometry) + COLUMNS_SCRATCH), F32)
        return conv2d_max_pool_columns, (x, *packed, y, argmax, low, high, scratch, empty((slots, POSITIONS), I32), forward_walk(geometry))
    OW, slots = geometry.output_size[1], min(threads.get_num_threads(), y.shape[0] * y.shape[1])
    return conv2d_max_pool_windows, (x, *packed, y, argmax, low, high, OW, empty((slots, 2 * OW * L), F32))


def _is_small(name, geometry, batch) -> bool:
    return batch == 1 and name != BAND or choose.is_small(geometry, batch)


def _name(x, geometry, pooling, for_values: bool) -> str | None:
    name = pools(geometry, pooling, for_values) if x.dtype == F32 and 0 not in x.shape else None
    return None if name == WINDOWS and not has_adjacent_pixels(x) else name


def _packing(name, weight, bias, geometry) -> tuple[tuple, tuple]:
    """Packed weights, still to be filled, and (kernel, arguments) that fills them."""
    bias = NO_BIAS if bias is None else np.ascontiguousarray(bias)
    if name == COLUMNS:
        blocks, steps = -(-geometry.filters // FILTERS), geometry.channels * geometry.kernel_size[0] * geometry.kernel_size[1]
        packed = empty((blocks, steps, FILTERS), F32), empty((blocks * FILTERS,), F32)
        return packed, (pack_columns, (weight, bias, *packed))
    packed = empty((*geometry.kernel_size, geometry.channels, geometry.filters), F32)
    return (packed, bias), (pack_windows, (weight, packed))


def _pack(name, weight, bias, geometry) -> tuple | np.ndarray:
    if name == BAND:
        return pack_band(weight, NO_BIAS if bias is None else bias)
    packed, (kernel, arguments) = _packing(name, weight, bias, geometry)
    kernel(*arguments)
    return packed


def _forward(name, packed, x, geometry, pooling, minimum, maximum, out, argmax=None) -> None:
    y, places = (None if a is None else a.transpose(0, 2, 3, 1) for a in (out, argmax))
    dense = [a if a is None or a.flags.c_contiguous else empty(a.shape, a.dtype) for a in (y, places)]
    pixels = x.transpose(0, 2, 3, 1) if name == BAND else channels_last(x)
    kernel, arguments = _kernel(name, packed, pixels, geometry, pooling, *limits(minimum, maximum), dense[0],
                                NO_POSITIONS if argmax is None else dense[1])
    alone(kernel, _is_small(name, geometry, x.shape[0]))(*arguments)
    for made, target in zip(dense, (y, places)):
        if made is not target:
            copy_into(made, target)


def _forward_kernels(name, packed, x, geometry, pooling, minimum, maximum, out, argmax=None) -> list | None:
    """What `_forward` runs, where that needs no copies: see `program.joined`."""
    y, places = (NO_POSITIONS if a is None else a.transpose(0, 2, 3, 1) for a in (out, argmax))
    if not (y.flags.c_contiguous and places.flags.c_contiguous and (name == BAND or are_pixels(x))):
        return None
    made = _kernel(name, packed, x.transpose(0, 2, 3, 1), geometry, pooling, *limits(minimum, maximum), y, places)
    return [(*made, not _is_small(name, geometry, x.shape[0]))]


@implements
def conv2d_max_pool_forward(x, weight, bias, geometry, pooling, minimum, maximum, out):
    name = _name(x, geometry, pooling, False)
    if name is None:
        m = _whole(x, weight, bias, geometry, minimum, maximum)
        implements["max_pool2d_forward"](m, pooling, out)
    else:
        _forward(name, _pack(name, weight, bias, geometry), x, geometry, pooling, minimum, maximum, *out)


def _kernels_of_forward(x, weight, bias, geometry, pooling, minimum, maximum, out):
    name = _name(x, geometry, pooling, False)
    if name is None or (bias is not None and not bias.flags.c_contiguous):
        return None
    packed, packing = _packing(name, weight, bias, geometry)
    run = _forward_kernels(name, packed, x, geometry, pooling, minimum, maximum, *out)
    return run and [packing, *run]


conv2d_max_pool_forward.kernels = _kernels_of_forward


@implements
def conv2d_max_pool_values(x, weight, bias, geometry, pooling, minimum, maximum, out):
    name = _name(x, geometry, pooling, True)
    if name is None:
        implements["max_pool2d_values"](_whole(x, weight, bias, geometry, minimum, maximum), pooling, out)
    else:
        _forward(name, _pack(name, weight, bias, geometry), x, geometry, pooling, minimum, maximum, out)


@prepares("conv2d_max_pool_values")
def _prepare_values(arguments, constant):
    x, weight, bias, geometry, pooling, minimum, maximum = arguments
    name = _name(x, geometry, pooling, True) if 1 in constant and (bias is None or 2 in constant) else None
    if name is None:
        return None
    packed = shared(name, lambda weight, bias: _pack(name, weight, bias, geometry), weight, bias)

    def call(x, weight, bias, geometry, pooling, minimum, maximum, out):
        _forward(name, packed.value, x, geometry, pooling, minimum, maximum, out)

    def kernels(x, weight, bias, geometry, pooling, minimum, maximum, out):
        return _forward_kernels(name, packed.value, x, geometry, pooling, minimum, maximum, out)
    call.kernels, call.kernel = kernels, f"conv2d {name}, pooled"
    return holding(call, 1, 2, weights={1: Held(packed, 1, read_packed(geometry.channels))} if name == BAND else None)


def _whole(x, weight, bias, geometry, minimum, maximum):
    """The map, for geometries that do not run as one."""
    m = empty((x.shape[0], geometry.filters, *geometry.output_size), x.dtype, (0, 2, 3, 1))
    implements["conv2d_fused"](x, weight, bias, None, geometry, minimum, maximum, m)
    return m


def _whole_gradient(grad_y, y, argmax, pooling, minimum, maximum):
    """The gradient of the map."""
    stopped = np.zeros(y.shape, bool)
    if minimum is not None:
        stopped |= y <= minimum
    if maximum is not None:
        stopped |= y >= maximum
    passed = np.where(stopped, np.zeros((), grad_y.dtype), grad_y)
    grad_m = empty((*grad_y.shape[:2], *pooling.input_size), grad_y.dtype, (0, 2, 3, 1))
    implements["max_pool2d_backward_input"](passed, argmax, pooling, grad_m)
    return grad_m


@implements
def conv2d_max_pool_backward_weight(grad_y, y, argmax, x, geometry, pooling, minimum, maximum, out):
    grad_weight, grad_bias = out
    if x.dtype != F32 or not x.size or pools(geometry, pooling) is None:
        grad_m = _whole_gradient(grad_y, y, argmax, pooling, minimum, maximum)
        implements["conv2d_backward_weight"](grad_m, x, geometry, grad_weight)
        implements["conv2d_backward_bias"](grad_m, grad_bias)
        return
    run, arguments = _weight_gradient(grad_y, channels_last(y), channels_last(argmax), channels_last(x), geometry, minimum, maximum, out)
    run(*arguments)


def _weight_gradient(grad_y, y, argmax, x, geometry, minimum, maximum, out) -> tuple:
    """(kernel, arguments), y, argmax and x being channels-last."""
    sizes, parts = gradient_sizes(geometry), min(x.shape[0], choose.WANTED_JOBS)
    slots = min(threads.get_num_threads(), parts)
    return conv2d_max_pool_weight_gradient, (
        grad_y.transpose(0, 2, 3, 1), y, argmax, x, *out, *limits(minimum, maximum), empty((slots, sizes.planes), F32),
        empty((slots, sizes.lists), F32), empty((slots, sizes.lists), I32), empty((parts, sizes.sums), F32), forward_walk(geometry))


def _kernels_of_weight_gradient(grad_y, y, argmax, x, geometry, pooling, minimum, maximum, out):
    if x.dtype != F32 or 0 in x.shape or pools(geometry, pooling) is None or not are_pixels(y, argmax, x):
        return None
    last = (a.transpose(0, 2, 3, 1) for a in (y, argmax, x))
    return [(*_weight_gradient(grad_y, *last, geometry, minimum, maximum, out), True)]


conv2d_max_pool_backward_weight.kernels = _kernels_of_weight_gradient


@implements
def conv2d_max_pool_backward_input(grad_y, y, argmax, weight, geometry, pooling, minimum, maximum, out):
    if grad_y.dtype != F32 or not grad_y.size or pools(geometry, pooling) is None:
        implements["conv2d_backward_input"](_whole_gradient(grad_y, y, argmax, pooling, minimum, maximum), weight, geometry, out)
        return
    grad_x = out.transpose(0, 2, 3, 1)
    dense = grad_x if grad_x.flags.c_contiguous else empty(grad_x.shape, F32)
    run, arguments = _input_gradient(grad_y, channels_last(y), channels_last(argmax), weight, geometry, minimum, maximum, dense)
    run(*arguments)
    if dense is not grad_x:
        copy_into(dense, grad_x)


def _input_gradient(grad_y, y, argmax, weight, geometry, minimum, maximum, grad_x) -> tuple:
    """(kernel, arguments), y, argmax and grad_x being channels-last."""
    sizes, slots = gradient_sizes(geometry), min(threads.get_num_threads(), grad_y.shape[0])
    return conv2d_max_pool_input_gradient, (
        grad_y.transpose(0, 2, 3, 1), y, argmax, weight, grad_x, *limits(minimum, maximum), empty((sizes.packed,), F32),
        empty((slots, sizes.patches), F32), empty((slots, sizes.lists), I32), forward_walk(geometry))


def _kernels_of_input_gradient(grad_y, y, argmax, weight, geometry, pooling, minimum, maximum, out):
    grad_x = out.transpose(0, 2, 3, 1)
    if (grad_y.dtype != F32 or 0 in grad_y.shape or pools(geometry, pooling) is None or not grad_x.flags.c_contiguous
            or not are_pixels(y, argmax)):
        return None
    last = (a.transpose(0, 2, 3, 1) for a in (y, argmax))
    return [(*_input_gradient(grad_y, *last, weight, geometry, minimum, maximum, grad_x), True)]


conv2d_max_pool_backward_input.kernels = _kernels_of_input_gradient
