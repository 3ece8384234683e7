"""Which algorithm a pass takes and in which blocks.

Pure functions of shapes, cache sizes and vector width, never of the thread count.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from numbanet.backends.cpu.convolution.columns import FILTERS, PLANES
from numbanet.backends.cpu.convolution.depthwise import PIXELS as DEPTHWISE_ROWS
from numbanet.backends.cpu.convolution.depthwise import VECTORS as DEPTHWISE_VECTORS
from numbanet.backends.cpu.convolution.gather import CORNER, MR, THIRD, THIRDS
from numbanet.backends.cpu.convolution.weight_gradient import MK
from numbanet.backends.cpu.convolution.windows import FOLDED, PIXELS
from numbanet.backends.cpu.convolution.winograd import FILTERS as WINOGRAD_FILTERS
from numbanet.backends.cpu.convolution.winograd import RUN
from numbanet.backends.cpu.convolution.winograd_gradient import BLOCK, GROUP
from numbanet.backends.cpu.hardware import cache_sizes
from numbanet.backends.cpu.simd import L
from numbanet.backends.cpu.windows import regular
from numbanet.backends.precision import get_float32_precision
from numbanet.geometry import ConvGeometry, PoolGeometry

FLOAT = 4                   # bytes
STRIP = 2 * L
PANEL_TILES = 8
FEW_BLOCKS = 5              # of Winograd's tiles: fewer leave threads idle, and read weights that nobody has brought near
CROWDED = 4096              # bytes: pixels this far apart meet in one set of a first-level cache, so a tile's do not stay there
LINE = 64                   # bytes of a cache
SMALL = 1 << 18             # multiply-adds that one thread has done before another would have begun
WANTED_JOBS = 16            # enough for the threads of a usual machine to be equally busy


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _pitch(floats: int) -> int:
    """As `walk.odd_pitch`."""
    return (-(-floats // 16) | 1) * 16


def _taps(geometry: ConvGeometry) -> int:
    return geometry.kernel_size[0] * geometry.kernel_size[1]


def _outputs(geometry: ConvGeometry) -> int:
    return geometry.output_size[0] * geometry.output_size[1]


def is_small(geometry: ConvGeometry, batch: int) -> bool:
    """Whether one thread does it: see `compile.alone`."""
    return geometry.multiply_adds(batch) <= SMALL


def is_depthwise(geometry: ConvGeometry) -> bool:
    """One filter a channel. With several, the matrix product has at least some work for each copied window."""
    return geometry.is_depthwise and geometry.filters == geometry.channels


def has_small_groups(geometry: ConvGeometry) -> bool:
    """Groups whose channels and filters are equally many and share a vector with other groups'."""
    width = geometry.channels_per_group
    return geometry.groups > 1 and width == geometry.filters_per_group and width in (2, 4, 8) and width <= L


def has_unit_stride(geometry: ConvGeometry) -> bool:
    return geometry.stride == (1, 1)


def mirrors(geometry: ConvGeometry) -> bool:
    """Backward-input as a forward pass with mirrored weights: stride 1, and channels that fill a vector.

    Otherwise scattering wins: 6 channels would leave 10 of 16 lanes empty (LeNet-5's second layer: 4 times the work).
    """
    return has_unit_stride(geometry) and geometry.channels_per_group >= L


def is_forward_over_gradients(geometry: ConvGeometry) -> bool:
    """Backward-input as a forward algorithm that reads grad_y."""
    if is_depthwise(geometry):
        return True
    if has_small_groups(geometry) and geometry.stride[0] == geometry.stride[1]:
        return True
    return not folds(geometry) and mirrors(geometry)


def is_plain_product(geometry: ConvGeometry) -> bool:
    """A matrix product of all pixels: 1x1, nothing skipped, nothing added around the map."""
    return geometry.kernel_size == geometry.stride == (1, 1) and geometry.groups == 1 and geometry.padding == ((0, 0), (0, 0))


def is_product_of_few_pixels(geometry: ConvGeometry, batch: int) -> bool:
    """A 1x1 layer with so many weights and so few pixels that its weight gradient needs no split of the pixels.

    It is one matrix product then: 1.0 ms instead of 2.4 ms for 512 to 512 channels at 7x7, batch 8, two threads.
    """
    return (is_plain_product(geometry) and min(geometry.channels, geometry.filters) >= 128
            and batch * geometry.output_size[0] * geometry.output_size[1] <= 4 * min(geometry.channels, geometry.filters))


def is_narrow(geometry: ConvGeometry) -> bool:
    """Few channels and few filters, windows of neighbouring columns, and planes that a quarter of a core's L2 holds.

    Beyond two tiles of filters writing the results back pixel by pixel costs more than the empty lanes.
    """
    rows = geometry.input_size[0] + sum(geometry.padding[0])
    columns = geometry.input_size[1] + sum(geometry.padding[1])
    return (geometry.groups == 1 and geometry.channels <= 4 and geometry.filters <= 2 * FILTERS
            and geometry.stride[1] == geometry.dilation[1] == 1 and geometry.kernel_size[1] <= L
            and geometry.channels * rows * (columns + 3 * L) * FLOAT <= cache_sizes().l2 // 4)


@lru_cache(maxsize=4096)
def columns_scratch(geometry: ConvGeometry) -> int:
    """Floats for each thread: the planes, and rows of grad_y or a tile of y."""
    rows = geometry.input_size[0] + sum(geometry.padding[0])
    columns = geometry.output_size[1] + geometry.kernel_size[1] + 3 * L
    row = _up(geometry.filters, FILTERS) * _up(geometry.output_size[1], L)
    return _up(geometry.channels * rows * _up(columns, L) + max(row, PLANES) + STRIP, 16)


def has_plain_windows(geometry: ConvGeometry) -> bool:
    """No groups, padding, strides or gaps: the tile reads windows in place."""
    return (geometry.groups == 1 and geometry.stride == geometry.dilation == (1, 1)
            and geometry.padding == ((0, 0), (0, 0)))


def has_few_filters(geometry: ConvGeometry) -> bool:
    """At most L filters, for which copying windows costs as much as their products, and rows that fill the tiles.

    The weights stay in the first-level cache. LeNet-5's second layer takes 0.29 ms so, 0.40 ms by the general kernel.
    """
    taps, OW = geometry.kernel_size[1] * geometry.channels, geometry.output_size[1]
    return (has_plain_windows(geometry) and geometry.filters <= L and taps >= PIXELS
            and PIXELS <= OW and 0.8 * _up(OW, PIXELS) <= OW
            and geometry.kernel_size[0] * taps * geometry.filters * FLOAT <= cache_sizes().l1 // 2)


def has_few_filters_and_pixels(geometry: ConvGeometry) -> bool:
    """As `has_few_filters`, with maps that stay in the second-level cache while every tap reads them: 0.27 ms for 0.42."""
    pixels = geometry.input_size[0] * geometry.input_size[1]
    return has_few_filters(geometry) and pixels * (geometry.filters + geometry.channels) * FLOAT <= cache_sizes().l2 // 4


def _tiled(pixels: int) -> int:
    """Pixels of the tiles that cover a row of so many."""
    rest = pixels % MR
    return pixels - rest + (rest and min(tile for tile in (THIRD, THIRDS, MR) if tile >= rest))


def has_few_channels(geometry: ConvGeometry) -> bool:
    """Windows in short pieces, as in a first layer, weights that are near for every row of y, and rows that fill the tiles.

    From 16 channels on Winograd's algorithm is faster, or gathering takes little of the time. 3 to 64 channels, 7 x 7, stride 2: 1.25
    times as fast as gathered, 8 to 32, 3 x 3: 1.4 times; 3 to 768, 16 x 16, stride 16, reads 2 MB of weights for 14 pixels: 0.8 times.
    """
    OW, taps = geometry.output_size[1], _taps(geometry)
    return (geometry.groups == 1 and geometry.channels < 16 and taps > 1 and geometry.dilation == (1, 1) and 0.8 * _tiled(OW) <= OW
            and max(taps * geometry.channels * geometry.filters, geometry.kernel_size[0] * _row_pitch(geometry)) * FLOAT
            <= cache_sizes().l2 // 4)


def takes_bands(geometry: ConvGeometry) -> bool:
    """Whether `conv2d_forward_band` computes the forward pass, none of the kernels for still fewer channels or filters."""
    return has_few_channels(geometry) and not (is_depthwise(geometry) or has_small_groups(geometry) or is_narrow(geometry)
                                               or has_few_filters(geometry))


class BandPlan(NamedTuple):
    """Blocks of `conv2d_forward_band`."""

    band: int               # rows of y in a job
    jobs: int
    pitch: int              # floats from row to row of what is copied
    map_at: int             # where the map that is pooled begins in the scratch memory
    scratch: int            # floats for each thread


def _row_pitch(geometry: ConvGeometry) -> int:
    """Room for the windows of all tiles of a row."""
    return _pitch(((_tiled(geometry.output_size[1]) - 1) * geometry.stride[1] + geometry.kernel_size[1]) * geometry.channels)


@lru_cache(maxsize=4096)
def band_plan(geometry: ConvGeometry, batch: int, pooling: PoolGeometry | None = None) -> BandPlan:
    """Bands whose rows of the map, and what is copied for them, take a quarter of the second-level cache; smaller ones for WANTED_JOBS."""
    (OH, OW), (R, _), (stride_h, _) = geometry.output_size, geometry.kernel_size, geometry.stride
    pitch, windows = _row_pitch(geometry), None if pooling is None else regular(pooling, 0)[0]
    lines = OH if windows is None else len(windows)
    fitting = (cache_sizes().l2 // 4 // FLOAT - (R - stride_h) * pitch) // (stride_h * pitch + OW * geometry.filters)
    fitting = max(1, fitting if pooling is None else (fitting - pooling.kernel_size[0]) // pooling.stride[0])
    bands = max(-(-OH // fitting), min(lines, -(-WANTED_JOBS // max(1, batch))))
    band = -(-lines // min(lines, bands))
    rows = band if windows is None else max(int(windows[min(first + band, lines) - 1, 1] - windows[first, 0])
                                            for first in range(0, lines, band))
    map_at = _up(MR * STRIP + (max(0, rows - 1) * stride_h + R) * pitch + L, 16)
    return BandPlan(band, batch * -(-lines // band), pitch, map_at, map_at + (0 if windows is None else rows * OW * geometry.filters + L))


def folds(geometry: ConvGeometry) -> bool:
    """Channels that leave lanes empty by themselves, but fill two vectors together with a row of taps.

    0.35 ms for 0.74 in LeNet-5's second layer.
    """
    taps, OW = geometry.kernel_size[1] * geometry.channels, geometry.output_size[1]
    return (has_plain_windows(geometry) and geometry.channels < L and 1.5 * L < taps <= 2 * L
            and FOLDED <= OW and 0.8 * _up(OW, FOLDED) <= OW)


class WinogradPlan(NamedTuple):
    """Blocks of `conv2d_forward_winograd`, or of its phases."""

    size: int               # output pixels of a tile along an axis
    block: int              # tiles of a job or of a group
    jobs: int
    weights: int            # floats of the transformed weights
    scratch: int            # floats for each thread; for all of them in phases, beside 36 * L for each
    in_phases: bool


@lru_cache(maxsize=4096)
def winograd_plan(batch: int, channels: int, filters: int, output_size: tuple[int, int], are_packed: bool,
                  taps: int = 3) -> WinogradPlan | None:
    """None where the direct product is faster: few channels, or few tiles.

    Transforms cost as much as 32 multiply-adds an element; from 16 channels and filters on the direct product, whose panels are filled
    pixel by pixel, takes 1.1 to 2.1 times as long (16 to 16 channels at 32x32, 16 to 32 at 28x28 with 5x5 taps, each behind a 1x1 layer
    and with it). Transformed weights are 4 times as large as plain ones, and making them takes as long as the products of some 20
    tiles: where `are_packed` says that they are at hand, reading them remains. 512 channels, 7x7, weights transformed anew: batch 8 (32
    tiles) in 12.1 ms instead of 13.6, batch 16 in 13.8 instead of 23.4.
    Each block reads all weights; phases write and read transformed tiles instead, see `_are_read_too_often`.
    """
    size = 4 if taps == 3 else 2
    down, across = (-(-n // size) for n in output_size)
    tiles = batch * down * across
    used = output_size[0] * output_size[1] / (size * size * down * across)
    if min(channels, filters) < 16 or tiles < (16 if are_packed else 2 * MR) or used < 0.6:
        return None
    if taps == 3 and are_packed and reads_weights_longer(batch, down * across, channels, filters):
        size = 2
    return winograd_blocks(batch, channels, filters, output_size, size, taps)


def reads_weights_longer(batch: int, tiles: int, channels: int, filters: int) -> bool:
    """Few tiles of 4 x 4 pixels, and weights for them that no second-level cache holds; `tiles`: of an image.

    Reading them takes as long as multiplying. Tiles of 2 x 2 multiply up to 1.8 times as much, and read, and hold, 16 weights for 36:
    ResNet-50 at batch 1 has five such layers (256 channels, 14 x 14), and 26 MB less for the same time (0.99, quartiles 0.95 to 1.08).
    GoogLeNet's smaller ones hold 14 MB less, for 1.5% of its time. At batch 16 the last maps of 7 x 7 pixels have most of ResNet-18's
    weights: 204 MB at its peak instead of 281, for 14% of its time.
    """
    few = 6 * MR if tiles <= 4 else 2 * MR
    return batch * tiles < few and 36 * channels * filters * FLOAT > cache_sizes().l2


def _are_read_too_often(positions: int, channels: int, filters: int, block: int) -> bool:
    """Whether weights that no second-level cache holds are more, for each tile of a block, than the tile and its products in three passes.

    These are written, read, and fetched before they are written. Effective GFLOP/s at batch 16 in blocks and in phases, 256 channels at
    14x14: 540 and 655; 512 at 7x7: 314 and 626; 64 to 192 at 56x56, on a machine of half the arithmetic: 425 and 344.
    """
    weights = channels * filters
    return positions * weights * FLOAT > cache_sizes().l2 and weights > 3 * block * (channels + filters)


def winograd_blocks(batch: int, channels: int, filters: int, output_size: tuple[int, int], size: int, taps: int) -> WinogradPlan:
    """The blocks of tiles of size x size pixels."""
    positions = (size + taps - 1) ** 2
    tiles = batch * -(-output_size[0] // size) * -(-output_size[1] // size)
    weights = positions * channels * _up(filters, STRIP)
    fitting = cache_sizes().l2 * 3 // 4 // (positions * FLOAT * (_pitch(channels) + WINOGRAD_FILTERS)) // MR * MR
    block = max(MR, min(fitting, _up(-(-tiles // WANTED_JOBS), MR)))
    if tiles >= FEW_BLOCKS * block and not _are_read_too_often(positions, channels, filters, block):
        scratch = 36 * L + positions * (block * (_pitch(channels) + WINOGRAD_FILTERS) + 2 * L)
        return WinogradPlan(size, block, -(-tiles // block), weights, _up(scratch, 16), False)
    row = _pitch(channels) + _pitch(_up(filters, STRIP))
    fitting = max(MR, cache_sizes().l3 // 2 // (positions * FLOAT * row) // MR * MR)
    group = _up(-(-tiles // -(-tiles // fitting)), MR)
    return WinogradPlan(size, group, group, weights, _up(positions * (group * row + 2 * L) + 2 * L, 16), True)


def winograd_counts(batch: int, output_size: tuple[int, int], plan: WinogradPlan) -> np.ndarray:
    """Pixels of y in each run of MR tiles, or in each run of a phase."""
    heights, widths = (np.minimum(plan.size, n - np.arange(0, n, plan.size)) for n in output_size)
    tiles = np.tile(np.outer(heights, widths).ravel(), batch)
    if not plan.in_phases:
        return _sums(tiles, MR)
    return np.concatenate([_sums(tiles[first:first + plan.block], RUN) for first in range(0, len(tiles), plan.block)])


def _sums(values: np.ndarray, count: int) -> np.ndarray:
    """Of each `count` neighbours; the last are fewer."""
    return np.add.reduceat(values.astype(np.int64), np.arange(0, len(values), count))


def may_use_winograd(geometry: ConvGeometry) -> bool:
    return (geometry.kernel_size in ((3, 3), (5, 5)) and geometry.stride == geometry.dilation == (1, 1) and geometry.groups == 1
            and get_float32_precision() == "fast")


def may_use_winograd_gradient(geometry: ConvGeometry) -> bool:
    """The weight gradient's transforms are those of 3 x 3 taps."""
    return may_use_winograd(geometry) and geometry.kernel_size == (3, 3)


class WinogradGradientPlan(NamedTuple):
    """Blocks of `conv2d_backward_weight_winograd`."""

    filters: int            # of a job
    channels: int           # of a job
    parts: int              # ranges of tiles
    jobs: int
    sums: int               # floats of the sums of a job
    scratch: int            # floats for each thread


@lru_cache(maxsize=4096)
def winograd_gradient_plan(geometry: ConvGeometry, batch: int) -> WinogradGradientPlan | None:
    """None where the direct product is faster: few channels, few tiles, or tiles that reach beyond the map.

    A job transforms its filters and channels of all tiles itself, which costs as much as the products with 20 channels: so
    blocks are large, but their sums (36 * 128 * 64 floats are 1.2 MB) stay near, and there are WANTED_JOBS / 2 jobs.
    """
    down, across = (-(-n // 4) for n in geometry.output_size)
    tiles = batch * down * across
    if (min(geometry.channels, geometry.filters) < 16 or tiles < 16
            or geometry.output_size[0] * geometry.output_size[1] < 0.5 * 16 * down * across):
        return None
    filters = _even_blocks(geometry.filters, BLOCK, L)
    filter_blocks = -(-geometry.filters // filters)
    channels = _even_blocks(geometry.channels, BLOCK, STRIP)
    if filter_blocks * -(-geometry.channels // channels) < WANTED_JOBS // 2 or cache_sizes().l2 < 1 << 20:
        channels = _even_blocks(geometry.channels, BLOCK // 2, STRIP)
    blocks = filter_blocks * -(-geometry.channels // channels)
    parts = max(1, min(WANTED_JOBS // 2 // blocks, tiles // GROUP))
    sums = 36 * (_up(filters, MK) * _up(channels, STRIP) + 16)
    return WinogradGradientPlan(filters, channels, parts, blocks * parts, sums,
                                _up(36 * (L + GROUP * (_pitch(channels) + _pitch(filters)) + 32) + 4 * L, 16))


def _even_blocks(count: int, largest: int, multiple: int) -> int:
    """The size of the fewest blocks of at most `largest`."""
    return _up(-(-count // -(-count // largest)), multiple)


class GatherPlan(NamedTuple):
    """Blocks of `conv2d_forward_gather`."""

    block: int              # output pixels of a panel
    chunk: int              # channels of a panel
    parts: int              # ranges of filters
    jobs: int
    together: bool          # whether windows are packed once for all jobs
    scratch: int            # floats for each thread, or for all of them

    def floats(self, threads: int) -> int:
        """Of scratch memory."""
        return threads * CORNER + (self.scratch if self.together else threads * self.scratch)


@lru_cache(maxsize=4096)
def gather_plan(pixels: int, channels: int, filters: int, taps: int, groups: int = 1) -> GatherPlan:
    """Panels of PANEL_TILES tiles, which read each packed weight so often that it may come from the third-level cache.

    Channels are split so that a panel takes half of the second-level cache at most. Where there are fewer than WANTED_JOBS panels,
    filters are divided as well, evenly, so that threads end together: 256 channels at 14x14, 3 x 3, stride 2, have 16 jobs then, and take
    0.89 of the time that 18 jobs of one or two strips in panels of 72 pixels took. Several ranges of filters read the same windows, which
    are packed once for all of them. Weights that a second-level cache holds are read by more, smaller panels instead, which stay there
    themselves: 128 channels at 28x28, 3 x 3, stride 2, in 0.86 of the time.
    """
    strips, weights = -(-filters // STRIP), taps * channels * filters * FLOAT
    blocks = max(1, round(pixels / (PANEL_TILES * MR)) if weights > cache_sizes().l2 else -(-pixels // (PANEL_TILES * MR)))
    parts = 1
    if blocks < WANTED_JOBS and taps > 1 and weights <= cache_sizes().l2 // 2 and pixels >= 2 * MR * WANTED_JOBS:
        blocks = -(-pixels // (pixels // WANTED_JOBS // MR * MR))
    elif blocks < WANTED_JOBS:
        most = max(1, pixels * taps * channels * filters // (blocks * SMALL))
        parts = _even_parts(strips, min(most, -(-2 * WANTED_JOBS // blocks)))
        blocks = max(blocks, min(-(-WANTED_JOBS // parts), -(-pixels // MR)))
    block = _up(-(-pixels // blocks), MR)
    # as if the panel were full, so that packed weights serve any number of pixels
    chunks = -(-_pitch(taps * channels) * PANEL_TILES * MR * FLOAT // (cache_sizes().l2 // 2))
    chunk = min(channels, _up(-(-channels // chunks), 16))
    jobs, panels = -(-pixels // block) * parts, pixels * groups * -(-channels // chunk) * _pitch(taps * chunk + L)
    if parts > 1 and panels * FLOAT <= cache_sizes().l3 // 2:
        return GatherPlan(block, chunk, parts, jobs, True, panels + 2 * L)
    return GatherPlan(block, chunk, parts, jobs, False, block * _pitch(taps * chunk) + 2 * L)


def _even_parts(count: int, wanted: int) -> int:
    """The fewest equal parts of `count`, at least `wanted` of them, or single ones."""
    return next((parts for parts in range(wanted, count) if count % parts == 0), count)


def gather_counts(pixels: int, block: int) -> np.ndarray:
    """Pixels of each block."""
    return np.minimum(block, pixels - np.arange(0, pixels, block))


@lru_cache(maxsize=4096)
def depthwise_band(batch: int, channels: int, stride: tuple[int, int], output_size: tuple[int, int]) -> int:
    """Rows of y in a job: those whose pixels, of all channels, take half of the second-level cache in x and y.

    Blocks of channels share lines of memory. Fewer where that would not leave WANTED_JOBS jobs.
    """
    OH, OW = output_size
    bands = -(-OH // max(3 * DEPTHWISE_ROWS, cache_sizes().l2 // 2 // ((stride[0] * stride[1] + 1) * OW * channels * FLOAT)))
    bands = max(bands, min(-(-OH // (3 * DEPTHWISE_ROWS)), -(-WANTED_JOBS // max(1, batch * -(-channels // (4 * L))))))
    return _up(-(-OH // bands), DEPTHWISE_ROWS)


def depthwise_scratch(walk, band: int) -> int:
    """Floats for the rows of x under a band of y, of the channels of one job."""
    rows = min(int(walk[3]), (band - 1) * int(walk[7]) + (int(walk[5]) - 1) * int(walk[11]) + 1)
    return _up(rows * int(walk[4]) * DEPTHWISE_VECTORS * L, 16)


def band_counts(batch: int, output_size: tuple[int, int], band: int) -> np.ndarray:
    """Pixels of each band."""
    return np.tile(gather_counts(output_size[0], band) * output_size[1], batch)


class DepthwiseGradientPlan(NamedTuple):
    """Blocks of `conv2d_backward_weight_depthwise`, and its scratch memory for each thread."""

    parts: int              # ranges of rows
    table: int              # integers
    scratch: int            # floats


@lru_cache(maxsize=4096)
def depthwise_gradient_plan(geometry: ConvGeometry, batch: int) -> DepthwiseGradientPlan:
    """Parts whose pixels of x and y, all channels, take half of the second-level cache: the next block of channels is there."""
    (R, S), (stride_h, stride_w), (dilation_h, dilation_w) = geometry.kernel_size, geometry.stride, geometry.dilation
    OH, OW = geometry.output_size
    need, line = (R - 1) * dilation_h + 1, (OW + (S - 1) * dilation_w // stride_w) * stride_w * L
    pixels = batch * (geometry.input_size[0] * geometry.input_size[1] + OH * OW)
    parts = max(-(-WANTED_JOBS * L // geometry.channels), -(-pixels * geometry.channels * FLOAT // (cache_sizes().l2 // 2)))
    return DepthwiseGradientPlan(max(1, min(parts, batch * OH // 4)), S + 2 * stride_w + OH * stride_h + need, _up((need + 1) * line, 16))


class ScatterPlan(NamedTuple):
    """Blocks of `conv2d_backward_input_scatter`."""

    chunk: int              # channels of a job
    images: int             # images of a job
    block: int              # output pixels of a panel
    jobs: int
    packed: tuple[int, int, int]
    scratch: int


@lru_cache(maxsize=4096)
def scatter_plan(geometry: ConvGeometry, batch: int) -> ScatterPlan:
    """Packed weights of a job take half of the second-level cache at most, its panel a quarter."""
    taps, filters, channels = _taps(geometry), geometry.filters_per_group, geometry.channels_per_group
    l2 = cache_sizes().l2
    chunk = min(channels, max(L, l2 // 2 // (taps * filters * FLOAT) // L * L))
    chunks = geometry.groups * -(-channels // chunk)
    # enough pixels that the last, ragged tile does not count, but WANTED_JOBS jobs where the batch has them
    images = max(1, min(-(-32 * MR // _outputs(geometry)), batch * chunks // WANTED_JOBS, batch))
    columns = _up(taps * chunk, STRIP)
    q_pitch, a_pitch = _pitch(columns), _pitch(filters)
    block = max(MR, min(l2 // 4 // ((q_pitch + a_pitch) * FLOAT) // MR * MR, _up(images * _outputs(geometry), MR)))
    return ScatterPlan(chunk, images, block, chunks * -(-batch // images), (chunks, columns // STRIP * filters, STRIP),
                       _up(block * (q_pitch + a_pitch) + 2 * L, 16))


class WeightPlan(NamedTuple):
    """Blocks of `conv2d_backward_weight_gather`."""

    filters: int            # of a job
    chunk: int              # channels of a job
    parts: int              # ranges of pixels
    block: int              # output pixels of a panel
    jobs: int
    sums: tuple[int, int]
    scratch: int


@lru_cache(maxsize=4096)
def weight_plan(geometry: ConvGeometry, batch: int) -> WeightPlan:
    """Sums of a job take a quarter of the second-level cache, its panels three eighths; pixels are split where jobs are too few.

    Panels of 128 pixels, two vectors of each take half of the first-level cache. Many filters and many channels are both
    divided, so that panels stay as deep: 256 to 1024 channels at 14x14 take 5.2 ms, 6.3 ms with all filters in a job of 48 pixels.
    """
    taps, channels = _taps(geometry), geometry.channels_per_group
    l2, pixels = cache_sizes().l2, batch * _outputs(geometry)
    filters = _even_blocks(geometry.filters_per_group, 256, MK)
    chunk = max(STRIP, l2 // 4 // (taps * filters * FLOAT) // STRIP * STRIP)
    chunk = min(channels, _even_blocks(channels, chunk, STRIP))
    blocks = geometry.groups * -(-geometry.filters_per_group // filters) * -(-channels // chunk)
    parts = max(1, min(-(-WANTED_JOBS // blocks), pixels // 128))
    columns = _up(taps * chunk, STRIP)
    a_pitch, b_pitch = _pitch(filters + MK), _pitch(columns)
    block = max(16, min(l2 * 3 // 8 // ((a_pitch + b_pitch) * FLOAT) // 8 * 8, 128, -(-pixels // parts)))
    return WeightPlan(filters, chunk, parts, block, blocks * parts, (blocks * parts, _up(filters, MK) * columns),
                      _up(block * (a_pitch + b_pitch) + 2 * L + STRIP, 16))


def row_parts(batch: int, rows: int) -> int:
    """Ranges of image rows for sums over all pixels."""
    return max(1, min(WANTED_JOBS, batch * rows // 4))
