"""The forward algorithms, each with its choices made: how it packs weights, and how it runs on packed ones.

Packing and running are apart, so that whoever runs a layer again and again packs once. Letters: `walk.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache
from math import gcd, prod
from typing import NamedTuple

import numpy as np

from numbanet.backends.cpu import activating, threads
from numbanet.backends.cpu.compile import alone
from numbanet.backends.cpu.convolution import choose
from numbanet.backends.cpu.convolution.band import conv2d_forward_band
from numbanet.backends.cpu.convolution.chain import ACTIVATION, DEPTHWISE, KIND, WEIGHTS, conv2d_chain_bands
from numbanet.backends.cpu.convolution.columns import FILTERS, conv2d_forward_columns
from numbanet.backends.cpu.convolution.depthwise import conv2d_forward_depthwise
from numbanet.backends.cpu.convolution.gather import CORNER, conv2d_forward_gather
from numbanet.backends.cpu.convolution.preactivate import NOTHING, preactivated_map
from numbanet.backends.cpu.convolution.small_groups import conv2d_forward_small_groups
from numbanet.backends.cpu.convolution.statistics import NO_MOMENTS
from numbanet.backends.cpu.convolution.unpacking import read_packed, read_small_groups, read_taps, read_transformed
from numbanet.backends.cpu.convolution.walk import forward_walk, make_walk, mirrored_walk
from numbanet.backends.cpu.convolution.weights import pack_weights, packed_size
from numbanet.backends.cpu.convolution.windows import conv2d_forward_windows
from numbanet.backends.cpu.convolution.winograd import conv2d_forward_winograd, conv2d_forward_winograd_phases, transform_weights
from numbanet.backends.cpu.layout import are_pixels, copy_into
from numbanet.backends.cpu.limits import limits
from numbanet.backends.cpu.memory import empty
from numbanet.backends.cpu.memory import scratch as borrowed
from numbanet.backends.cpu.normalization.batch import moments_of_map
from numbanet.backends.cpu.normalization.moments import merge_block_moments
from numbanet.backends.cpu.prepared import Held, Packed
from numbanet.backends.cpu.simd import L
from numbanet.backends.precision import get_float32_precision

F32 = np.dtype(np.float32)
NO_WINDOWS = np.empty((0, 2), np.int64)
NO_BIAS, NO_RESIDUAL, NO_ROWS = np.empty(0, F32), np.empty((0, 0, 0, 0), F32), np.empty((0, 0), F32)


class Algorithm(NamedTuple):
    """One algorithm for one geometry and batch."""

    packing: Hashable           # equal where packed weights are the same
    pack: Callable              # (weight (K, Cg, R, S), bias (K,) or empty) -> packed
    # (x (N, H, W, C), packed, y (N, OH, OW, K), residual as y or empty, low, high, activation's address, moments[, preactivation])
    run: Callable
    fits: Callable              # whether `run` can write a y with these strides
    takes_residual: bool = True
    tell: Callable | None = None    # (as `run`) -> the one (kernel, arguments, on all threads) that it is
    takes_activation: bool = False
    hold: Callable | None = None    # (Packed) -> Held, where the weights can be read back
    counts: np.ndarray | None = None    # pixels of each block whose statistics `run` can take, into moments (len(counts), 3, K)
    takes_planes: bool = False  # whether x may have any strides, not neighbouring channels only
    takes_preactivation: bool = False   # whether `run` reads z of x where it is given `preactivation`: see `preactivate.py`
    packs_first: bool = False   # whether all windows are packed before any product
    adds_in_place: bool = False # whether y may be the residual's memory: each number of y is written once, after its residual is read


def execute(algorithm: Algorithm, packed, x, out, residual=None, low=-np.inf, high=np.inf, activation: str | None = None,
            moments=NO_MOMENTS, preactivation=NOTHING) -> None:
    """Fill `out` (N, K, OH, OW) from x (N, C, H, W): in place where the algorithm can, otherwise through a copy."""
    if activation is not None and not algorithm.takes_activation:
        execute(algorithm, packed, x, out, residual, low, high, preactivation=preactivation)
        return activating.run(activation, out)
    function = activating.NONE if activation is None else activating.address(activation)
    y = out.transpose(0, 2, 3, 1)
    is_copy = not algorithm.fits(y)
    if is_copy:
        y = empty(y.shape, F32)
    residual = NO_RESIDUAL if residual is None else channels_last(residual)
    if residual is not NO_RESIDUAL and not algorithm.adds_in_place and np.may_share_memory(y, residual):
        residual = residual.copy()
    x = x.transpose(0, 2, 3, 1) if algorithm.takes_planes and not preactivation.size else channels_last(x)
    if preactivation.size and not algorithm.takes_preactivation:
        x, preactivation = preactivated_map(x, preactivation), NOTHING
    if residual is not NO_RESIDUAL and residual.size and not algorithm.takes_residual:
        algorithm.run(x, packed, y, NO_RESIDUAL, -np.inf, np.inf, activating.NONE, NO_MOMENTS)
        np.add(y, residual, out=y)
        np.clip(y, np.float32(low), np.float32(high), out=y)
    else:
        algorithm.run(x, packed, y, residual, low, high, function, moments, *([preactivation] if preactivation.size else []))
    if is_copy:
        copy_into(y.transpose(0, 3, 1, 2), out)


def execute_with_statistics(algorithm: Algorithm, packed, x, out, residual, low, high, preactivation=NOTHING) -> None:
    """`out`: y, and its mean and variance (K,), which the algorithm takes as it goes where it can."""
    y, mean, variance = out
    if algorithm.counts is None:
        execute(algorithm, packed, x, y, residual, low, high, preactivation=preactivation)
        return moments_of_map(y, mean, variance)
    moments = empty((len(algorithm.counts), 3, len(mean)), F32)
    execute(algorithm, packed, x, y, residual, low, high, moments=moments, preactivation=preactivation)
    merge_block_moments(moments, algorithm.counts, mean, variance)


def kernels(algorithm: Algorithm, packed, x, out, residual=None, low=-np.inf, high=np.inf,
            activation: str | None = None, preactivation=NOTHING) -> list[tuple] | None:
    """What `execute` runs, where that is one kernel and needs no copies: see `program.joined`."""
    y = out.transpose(0, 2, 3, 1)
    if algorithm.tell is None or not algorithm.fits(y):
        return None
    if not (algorithm.takes_planes or are_pixels(x)):
        return None
    if residual is not None and not (algorithm.takes_residual and residual.strides[1] == residual.itemsize
                                     and algorithm.fits(residual.transpose(0, 2, 3, 1))):
        return None
    if activation is not None and not algorithm.takes_activation or preactivation.size and not algorithm.takes_preactivation:
        return None
    if residual is not None and not algorithm.adds_in_place and np.may_share_memory(out, residual):
        return None
    function = activating.NONE if activation is None else activating.address(activation)
    residual = NO_RESIDUAL if residual is None else residual.transpose(0, 2, 3, 1)
    return [algorithm.tell(x.transpose(0, 2, 3, 1), packed, y, residual, low, high, function, NO_MOMENTS,
                           *([preactivation] if preactivation.size else []))]


def channels_last(x):
    """x (N, C, H, W) as (N, H, W, C) with neighbouring channels: a view, or a copy where its order is another."""
    if x.strides[1] == x.itemsize or x.shape[1] == 1:
        return x.transpose(0, 2, 3, 1)
    N, C, H, W = x.shape
    copy = empty((N, H, W, C), x.dtype)
    copy_into(x, copy.transpose(0, 3, 1, 2))
    return copy


def has_adjacent_pixels(x) -> bool:
    """Whether the pixels of a row of x (N, C, H, W) lie side by side, as they do unless x is a slice of channels."""
    return x.strides[3] == x.shape[1] * x.dtype.itemsize


def _has_adjacent_channels(y) -> bool:
    return y.strides[3] == y.itemsize or y.shape[3] == 1


def _has_even_pixels(y) -> bool:
    """Whether all pixels of y (N, OH, OW, K) are equally far apart, as in a slice of channels."""
    if y.flags.c_contiguous:
        return True
    N, OH, OW, _ = y.shape
    n, h, w, _ = y.strides
    return _has_adjacent_channels(y) and (OH == 1 or h == OW * w) and (N == 1 or n == OH * OW * w)


def _pixel_distance(x) -> int:
    """Floats from pixel to pixel of x (N, H, W, C), where that is always the same and a tile's pixels stay in its cache; otherwise 0."""
    axis = 2 if x.shape[2] > 1 else 1 if x.shape[1] > 1 else 0
    return x.strides[axis] // 4 if x.strides[axis] % choose.CROWDED and _has_even_pixels(x) else 0


def _is_dense(y) -> bool:
    return y.flags.c_contiguous


def forward(geometry, batch: int, adjacent_pixels: bool, are_packed: bool = False) -> Algorithm:
    """What computes `conv2d_forward` in float32; `are_packed`: weights are packed once for many calls."""
    return _forward(geometry, batch, adjacent_pixels, are_packed, get_float32_precision())


@lru_cache(maxsize=4096)
def _forward(geometry, batch, adjacent_pixels, are_packed, precision) -> Algorithm:
    walk = forward_walk(geometry)
    if choose.is_depthwise(geometry):
        return _depthwise(walk, batch)
    if choose.has_small_groups(geometry):
        return _small_groups(walk, 1, lambda weight: grouped(weight, geometry))
    if choose.is_narrow(geometry):
        return _columns(walk, choose.columns_scratch(geometry), batch == 1 or choose.is_small(geometry, batch))
    if choose.has_few_filters(geometry) and adjacent_pixels:
        return _windows(choose.is_small(geometry, batch))
    if choose.has_few_channels(geometry):
        return _band(walk, choose.band_plan(geometry, batch), batch, choose.is_small(geometry, batch))
    return product(walk, batch, choose.may_use_winograd(geometry), are_packed, lambda weight: grouped(weight, geometry))


def backward_input(geometry, batch: int) -> Algorithm:
    """What computes `conv2d_backward_input` in float32 where that is a forward pass over grad_y with other weights."""
    return _backward_input(geometry, batch, get_float32_precision())


@lru_cache(maxsize=4096)
def _backward_input(geometry, batch, precision) -> Algorithm:
    if choose.is_depthwise(geometry):
        return _depthwise_phases(geometry, batch)
    walk = mirrored_walk(geometry)
    if choose.has_small_groups(geometry):
        return _small_groups(walk, geometry.stride[0], lambda weight: mirrored(weight, geometry))
    return product(walk, batch, choose.may_use_winograd(geometry), False, lambda weight: mirrored(weight, geometry))


def grouped(weight, geometry):
    """weight (K, Cg, R, S) as (G, Kg, Cg, R, S)."""
    return weight.reshape(geometry.groups, geometry.filters_per_group, *weight.shape[1:])


def mirrored(weight, geometry):
    """weight (K, Cg, R, S) as (G, Cg, Kg, R, S), taps in reverse: that of the convolution which is backward-input."""
    return grouped(weight, geometry)[:, :, :, ::-1, ::-1].transpose(0, 2, 1, 3, 4)


def product(walk, batch, may_use_winograd, are_packed, arranged, size: int | None = None) -> Algorithm:
    """y (N, OH, OW, K) = the windows of x times arranged(weight) (G, Kg, Cg, R, S); `size`: of Winograd's tiles, for others than chosen."""
    Cg, Kg, G, _, _, R, S = map(int, walk[:7])
    output_size = tuple(map(int, walk[13:]))
    if may_use_winograd and (plan := choose.winograd_plan(batch, Cg, Kg, output_size, are_packed, R)) is not None:
        if size is not None:
            plan = choose.winograd_blocks(batch, Cg, Kg, output_size, size, R)
        return _winograd(walk, batch, output_size, plan, arranged)
    plan = choose.gather_plan(batch * output_size[0] * output_size[1], Cg, Kg, R * S, G)
    are_pixels = R == S == 1 and all(walk[7:9] == 1) and not any(walk[9:11]) and tuple(walk[3:5]) == output_size
    is_small = batch * output_size[0] * output_size[1] * G * Cg * Kg * R * S <= choose.SMALL

    def pack(weight, bias):
        packed = empty((packed_size(G, Kg, R * S * Cg),), F32)
        pack_weights(arranged(weight), bias, packed, plan.chunk)
        return packed

    def arguments(x, packed, y, residual, low, high, activation, moments, preactivation=NOTHING):
        rows, added = y.reshape(-1, y.shape[3]), residual.reshape(-1, y.shape[3]) if residual.size else NO_ROWS
        apart = _pixel_distance(x) if are_pixels and not preactivation.size else 0
        slots = min(threads.get_num_threads(), plan.jobs)
        scratch = borrowed((slots, CORNER if apart else -(-plan.floats(slots) // slots)), F32)
        return (x, preactivation, packed, rows, added, low, high, activation, moments, scratch, walk, plan.block, plan.chunk, plan.parts,
                apart, int(plan.together))
    run, tell = _runs(conv2d_forward_gather, arguments, is_small)
    counts = choose.gather_counts(batch * output_size[0] * output_size[1], plan.block)
    return Algorithm(("gather", plan.chunk), pack, run, _has_even_pixels, True, tell, True,
                     lambda packed: Held(packed, G, read_packed(plan.chunk, G)), counts, takes_preactivation=True,
                     packs_first=plan.together, adds_in_place=True)


def _runs(kernel, arguments, is_small: bool = False) -> tuple[Callable, Callable]:
    """`run` and `tell` of an algorithm that is one call of a kernel."""
    chosen = alone(kernel, is_small)
    return lambda *given: chosen(*arguments(*given)), lambda *given: (kernel, arguments(*given), not is_small)


def _winograd(walk, batch, output_size, plan, arranged) -> Algorithm:
    def pack(weight, bias):
        transformed = empty((plan.weights,), F32)
        transform_weights(arranged(weight), transformed, plan.size)
        return transformed, np.ascontiguousarray(bias)

    def in_blocks(x, packed, y, residual, low, high, activation, moments, preactivation=NOTHING):
        scratch = borrowed((min(threads.get_num_threads(), plan.jobs), plan.scratch), F32)
        return x, preactivation, *packed, y, residual, low, high, activation, moments, scratch, walk, plan.block, plan.size

    def in_phases(x, packed, y, residual, low, high, activation, moments, preactivation=NOTHING):
        slots = min(threads.get_num_threads(), plan.jobs)
        scratch = borrowed((slots * 36 * L + plan.scratch,), F32)
        return x, preactivation, *packed, y, residual, low, high, activation, moments, scratch, walk, plan.block, slots, plan.size
    run, tell = (_runs(conv2d_forward_winograd_phases, in_phases) if plan.in_phases else _runs(conv2d_forward_winograd, in_blocks))
    return Algorithm(("winograd 2x2" if plan.size == 2 and walk[5] == 3 else "winograd", plan.size), pack, run, _has_adjacent_channels,
                     tell=tell, takes_activation=True, hold=lambda packed: Held(packed, 1, read_transformed),
                     counts=choose.winograd_counts(batch, output_size, plan), takes_preactivation=True, adds_in_place=True)


def _depthwise(walk, batch) -> Algorithm:
    stride, output_size = tuple(map(int, walk[7:9])), tuple(map(int, walk[13:]))
    band = choose.depthwise_band(batch, int(walk[2]), stride, output_size)

    def arguments(x, packed, y, residual, low, high, activation, moments, preactivation=NOTHING):
        slots = threads.get_num_threads()
        scratch = borrowed((slots, choose.depthwise_scratch(walk, band)), F32) if preactivation.size else NO_ROWS
        return x, preactivation, packed, y, residual, low, high, activation, moments, scratch, walk, band, slots
    run, tell = _runs(conv2d_forward_depthwise, arguments)
    return Algorithm("depthwise", _pack_depthwise, run, _has_adjacent_channels, tell=tell, takes_activation=True,
                     hold=lambda packed: Held(packed, 1, read_taps), counts=choose.band_counts(batch, output_size, band),
                     takes_preactivation=True)


def _pack_depthwise(weight, bias):
    """weight (C, 1, R, S) and bias as (T + 1, C rounded up to L)."""
    C, _, R, S = weight.shape
    packed = empty((R * S + 1, -(-C // L) * L), F32)
    packed[:-1, :C] = weight.reshape(C, R * S).T
    packed[-1, :C] = bias if bias.size else 0
    packed[:, C:] = 0
    return packed


def _depthwise_phases(geometry, batch) -> Algorithm:
    """grad_x in stride * stride parts, each a depthwise convolution of grad_y with the taps that reach it."""
    phases = [[_phase(p, *values) for p in range(values[1])] for values in zip(
        geometry.kernel_size, geometry.stride, geometry.dilation, [before for before, _ in geometry.padding], geometry.input_size)]
    algorithms = {}
    for p, (h_taps, h_before, h_dilation, H) in enumerate(phases[0]):
        for q, (w_taps, w_before, w_dilation, W) in enumerate(phases[1]):
            if h_taps and w_taps and H and W:
                walk = make_walk(1, 1, geometry.channels, geometry.output_size, (len(h_taps), len(w_taps)), (1, 1),
                                 (h_before, w_before), (h_dilation, w_dilation), (H, W))
                algorithms[p, q] = _depthwise(walk, batch)
            else:
                algorithms[p, q] = None

    def pack(weight, bias):
        return {(p, q): made and made.pack(weight[:, :, phases[0][p][0]][:, :, :, phases[1][q][0]], bias)
                for (p, q), made in algorithms.items()}

    def run(x, packed, y, residual, low, high, activation, moments):
        for (p, q), made in algorithms.items():
            part = y[:, p::geometry.stride[0], q::geometry.stride[1]]
            if made is None:
                part.fill(0)
            else:
                made.run(x, packed[p, q], part, residual, low, high, activation, moments)
    return Algorithm("depthwise phases", pack, run, _has_adjacent_channels, False)


def _phase(p, taps, stride, dilation, before, size):
    """Of the pixels p, p + stride, ... of an axis: their taps in reverse, padding before, dilation, and how many they are.

    Pixel h = p + stride * i receives tap r from o = (h + before - r * dilation) / stride, where that is whole.
    """
    reached = [r for r in range(taps) if (p + before - r * dilation) % stride == 0][::-1]
    if not reached:
        return reached, 0, 1, 0
    step = dilation // gcd(stride, dilation)
    first = (p + before - reached[0] * dilation) // stride            # where the farthest tap comes from, for i = 0
    return reached, -first, step, len(range(p, size, stride))


def _small_groups(walk, step, arranged) -> Algorithm:
    def pack(weight, bias):
        """arranged(weight) (G, width, width, R, S) and bias as (T * width + 1, G * width, rounded up to L)."""
        weight = arranged(weight)
        G, width, _, R, S = weight.shape
        packed = np.zeros((R * S * width + 1, -(-G * width // L) * L), F32)
        packed[:-1, :G * width] = weight.transpose(3, 4, 2, 0, 1).reshape(R * S * width, G * width)
        if bias.size:
            packed[-1, :G * width] = bias
        return packed

    def arguments(x, packed, y, residual, low, high, activation, moments):
        return x, packed, y, residual, low, high, walk, step
    run, tell = _runs(conv2d_forward_small_groups, arguments)
    return Algorithm("small groups", pack, run, _has_adjacent_channels, tell=tell, hold=lambda packed: Held(packed, 1, read_small_groups))


def _columns(walk, floats, is_small) -> Algorithm:
    def pack(weight, bias):
        """weight as (K rounded up / FILTERS, C * R * S, FILTERS) and bias as (K rounded up,)."""
        K, steps = len(weight), weight[0].size
        blocks = -(-K // FILTERS)
        rows, shifts = np.zeros((blocks * FILTERS, steps), F32), np.zeros(blocks * FILTERS, F32)
        rows[:K] = weight.reshape(K, steps)
        if bias.size:
            shifts[:K] = bias
        return np.ascontiguousarray(rows.reshape(blocks, FILTERS, steps).transpose(0, 2, 1)), shifts

    def arguments(x, packed, y, residual, low, high, activation, moments):
        scratch = borrowed((min(threads.get_num_threads(), x.shape[0]), floats), F32)
        return x, *packed, y, low, high, scratch, walk
    run, tell = _runs(conv2d_forward_columns, arguments, is_small)
    return Algorithm("columns", pack, run, _is_dense, False, tell)


def _windows(is_small) -> Algorithm:
    def pack(weight, bias):
        return np.ascontiguousarray(weight.transpose(2, 3, 1, 0)), np.ascontiguousarray(bias)

    def arguments(x, packed, y, residual, low, high, activation, moments):
        return x, *packed, y, low, high, min(threads.get_num_threads(), y.shape[0] * y.shape[1])
    run, tell = _runs(conv2d_forward_windows, arguments, is_small)
    return Algorithm("windows", pack, run, _is_dense, False, tell)


def _band(walk, plan, batch, is_small) -> Algorithm:
    C, output_size = int(walk[0]), tuple(map(int, walk[13:]))

    def arguments(x, packed, y, residual, low, high, activation, moments):
        return x, packed, y, residual, low, high, activation, moments, *band_arguments(walk, plan)
    run, tell = _runs(conv2d_forward_band, arguments, is_small)
    return Algorithm("band", pack_band, run, _has_adjacent_channels, True, tell, True, lambda packed: Held(packed, 1, read_packed(C)),
                     choose.band_counts(batch, output_size, plan.band), takes_planes=True, adds_in_place=True)


def pack_band(weight, bias):
    """What `conv2d_forward_band` reads."""
    packed = empty((packed_size(1, len(weight), weight[0].size),), F32)
    pack_weights(weight[None], bias, packed, weight.shape[1])
    return packed


def band_arguments(walk, plan, rows=NO_WINDOWS, columns=NO_WINDOWS) -> tuple:
    """The last arguments of `conv2d_forward_band`."""
    scratch = borrowed((min(threads.get_num_threads(), plan.jobs), plan.scratch), F32)
    return scratch, walk, plan.band, plan.pitch, plan.map_at, rows, columns


def pack_chain(plan, geometries, weights, biases):
    """All weights of a chain, where its table says."""
    packed = empty((plan.packed,), F32)
    for stage, geometry, weight, bias in zip(plan.table, geometries, weights, biases):
        place = packed[stage[WEIGHTS]:]
        if stage[KIND] == DEPTHWISE:
            made = _pack_depthwise(weight, bias)
            place[:made.size] = made.ravel()
        else:
            floats = packed_size(1, geometry.filters, weight[0].size)
            pack_weights(weight[None], bias, place[:floats], geometry.channels)
    return packed


def hold_chain(plan, geometries, packed: Packed) -> list[Held]:
    """Where the weights of each stage of a chain are."""
    found = []
    for stage, geometry in zip(plan.table, geometries):
        begin, taps = int(stage[WEIGHTS]), prod(geometry.kernel_size)
        if stage[KIND] == DEPTHWISE:
            width = -(-geometry.filters // L) * L
            read, size, shape = read_taps, (taps + 1) * width, (taps + 1, width)
        else:
            size = packed_size(1, geometry.filters, taps * geometry.channels)
            read, shape = read_packed(geometry.channels), (size,)

        def read_stage(whole, *given, begin=begin, size=size, shape=shape, read=read):
            read(whole[begin:begin + size].reshape(shape), *given)
        found.append(Held(packed, 1, read_stage))
    return found


def chain_endings(plan, endings):
    """What each stage is limited to, (stages, 2), and the table with what each is given to."""
    table = plan.table.copy()
    table[:, ACTIVATION] = [activating.address(e) if isinstance(e, str) else activating.NONE for e in endings]
    return np.array([limits(None, None) if isinstance(e, str) else limits(*e) for e in endings], F32), table


def run_chain(plan, packed, bounds, table, x, residual, out) -> None:
    """Fill `out` (N, K, OH, OW) with the last map of a chain."""
    y = out.transpose(0, 2, 3, 1)
    is_copy = not _has_adjacent_channels(y)
    if is_copy:
        y = empty(y.shape, F32)
    conv2d_chain_bands(*_chain_arguments(plan, packed, bounds, table, channels_last(x), None if residual is None else
                                         channels_last(residual), y))
    if is_copy:
        copy_into(y.transpose(0, 3, 1, 2), out)


def _chain_arguments(plan, packed, bounds, table, x, residual, y) -> tuple:
    """Of `conv2d_chain_bands`; x, residual and y are channels-last."""
    scratch = borrowed((min(threads.get_num_threads(), plan.jobs), plan.scratch), F32)
    return x, packed, y, NO_RESIDUAL if residual is None else residual, bounds, scratch, table, plan.band, plan.segment


def chain_kernels(plan, packed, bounds, table, x, residual, out) -> list[tuple] | None:
    """What `run_chain` runs, where that needs no copies: see `program.joined`."""
    maps = [a for a in (x, residual, out) if a is not None]
    if not are_pixels(*maps):
        return None
    x, residual, y = (None if a is None else a.transpose(0, 2, 3, 1) for a in (x, residual, out))
    return [(conv2d_chain_bands, _chain_arguments(plan, packed, bounds, table, x, residual, y), True)]
