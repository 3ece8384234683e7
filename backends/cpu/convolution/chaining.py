"""Which convolutions run as a chain, and in which bands: pure functions of shapes and cache sizes. See `chain.py`."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from numbanet.backends.cpu.convolution import choose
from numbanet.backends.cpu.convolution.chain import (
    BLOCK,
    BUFFER,
    COLUMNS,
    DEPTHWISE,
    GATHERED,
    KIND,
    PIXEL,
    PIXELWISE,
    ROW,
    TAP,
    WEIGHTS,
)
from numbanet.backends.cpu.convolution.depthwise import PIXELS
from numbanet.backends.cpu.convolution.gather import MR
from numbanet.backends.cpu.convolution.walk import forward_walk
from numbanet.backends.cpu.convolution.weights import packed_size
from numbanet.backends.cpu.hardware import cache_sizes
from numbanet.backends.cpu.simd import L
from numbanet.backends.precision import get_float32_precision
from numbanet.geometry import ConvGeometry

WORTH = 8               # a chain pays where its inner maps take an eighth of a core's L2 at least
SEGMENT = 14            # rows of the last map that one thread computes at least: others compute some inner rows twice


class ChainPlan(NamedTuple):
    """Bands of `conv2d_chain_bands`."""

    table: np.ndarray       # (stages, COLUMNS)
    band: int               # rows of the last map that are computed together
    segment: int            # rows of the last map of a job
    jobs: int
    packed: int             # floats of all weights
    scratch: int            # floats for each thread


@lru_cache(maxsize=4096)
def chain_plan(geometries: tuple[ConvGeometry, ...], batch: int) -> ChainPlan | None:
    """None where a stage is of no kind that chains have, or a band does not stay in half of a core's L2."""
    kinds = [_kind(g) for g in geometries]
    if None in kinds:
        return None
    room = cache_sizes().l2 // 2 // choose.FLOAT
    band, OH = PIXELS, geometries[-1].output_size[0]
    if _floats(geometries, band) > room:
        band = 1
    if _floats(geometries, band) > room:
        return None
    while band < OH and _floats(geometries, band + PIXELS) <= room:
        band += PIXELS
    segments = max(1, min(-(-choose.WANTED_JOBS // max(1, batch)), OH // SEGMENT))
    segment = -(-OH // segments)
    band = min(band, segment)
    bands = -(-segment // band)                     # equally large ones
    band = min(segment, choose._up(-(-segment // bands), PIXELS))
    table, weights, floats = np.zeros((len(geometries), COLUMNS), np.int64), 0, _panel(geometries)
    for stage, g, kind, rows in zip(table, geometries, kinds, _rows(geometries, band)):
        width = choose._up(g.channels, L)
        stage[:KIND] = forward_walk(g)
        stage[[KIND, WEIGHTS, TAP, BUFFER]] = kind, weights, width if kind == DEPTHWISE else 0, floats
        stage[[ROW, PIXEL]] = g.output_size[1] * _pixel(g), _pixel(g)
        taps = g.kernel_size[0] * g.kernel_size[1]
        weights += (taps + 1) * width if kind == DEPTHWISE else packed_size(1, g.filters, taps * g.channels)
        floats += rows * g.output_size[1] * _pixel(g) + L
    table.flags.writeable = False
    return ChainPlan(table, band, segment, batch * -(-OH // segment), weights, choose._up(floats, 16))


def _kind(geometry: ConvGeometry) -> int | None:
    if choose.is_depthwise(geometry):
        return DEPTHWISE
    if geometry.groups > 1:
        return None
    is_pixelwise = geometry.kernel_size == geometry.stride == (1, 1) and geometry.padding == ((0, 0), (0, 0))
    # pixels so far apart that those of a tile evict each other are gathered
    return PIXELWISE if is_pixelwise and geometry.channels % 256 else GATHERED


def _pixel(geometry: ConvGeometry) -> int:
    """Floats from pixel to pixel of a buffer."""
    return choose._pitch(geometry.filters) if geometry.filters % 256 == 0 else choose._up(geometry.filters, 16)


def _panel(geometries) -> int:
    """Floats of the corner and the largest panel."""
    depths = [choose._taps(g) * g.channels for g in geometries if _kind(g) == GATHERED]
    return (MR + 1) * 2 * L + (BLOCK * choose._pitch(max(depths)) + L if depths else 0)


def _rows(geometries, band: int) -> list[int]:
    """Rows of each stage's map that a band needs at once; none of the last one's, which has no buffer."""
    rows, found = band, [0]
    for g in geometries[:0:-1]:
        rows = min(g.input_size[0], (rows - 1) * g.stride[0] + (g.kernel_size[0] - 1) * g.dilation[0] + 1)
        found.append(rows)
    return found[::-1]


def _floats(geometries, band: int) -> int:
    return _panel(geometries) + sum(rows * g.output_size[1] * _pixel(g) for rows, g in zip(_rows(geometries, band), geometries))


def chains(geometries: tuple[ConvGeometry, ...], batch: int) -> bool:
    """Whether the convolutions should be one chain."""
    return _chains(geometries, batch, get_float32_precision())


@lru_cache(maxsize=4096)
def _chains(geometries, batch, precision) -> bool:
    """Where the maps in between are large, none of them has a faster algorithm of its own, and the jobs keep threads busy."""
    plan = chain_plan(geometries, batch)
    if plan is None or plan.jobs < 4 or not any(map(choose.is_depthwise, geometries)):
        return False
    if any(choose.may_use_winograd(g) and choose.winograd_plan(batch, g.channels, g.filters, g.output_size, True, g.kernel_size[0])
           for g in geometries):
        return False
    inner = max(g.filters * g.output_size[0] * g.output_size[1] for g in geometries[:-1])
    return inner * choose.FLOAT * WORTH >= cache_sizes().l2
