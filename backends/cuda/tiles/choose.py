"""Which tile a product takes, and in how many splits: pure functions of its sizes, a model of its cost, and a switch.

Nothing here has been measured on a GPU. Until a recorded run has, `use_tiles()` is False unless the user says otherwise
(`set_tiles`, NUMBANET_CUDA_TILES=1), and the backend runs its plain kernels.
The model has three terms, each from the sizes of a problem and of a GPU:

    waves      blocks run in whole waves over the multiprocessors; the last one may be nearly empty
    depth      a step of the pipeline costs what its products cost on the tensor cores, what its instructions cost to issue, or what its
               bytes cost from L2, whichever is most
    ends       filling the pipeline, and storing the tile
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import ceil

from numbanet.backends.cuda.tiles.shape import Tile
from numbanet.backends.precision import get_float32_precision
from numbanet.errors import UsageError
from numbanet.geometry import ConvGeometry

# Every tile that is compiled, larger ones first: rows, columns, warps along both, stages.
_SIZES = ((256, 128, 4, 2, 3), (128, 128, 2, 2, 3), (128, 64, 2, 2, 3), (64, 128, 2, 2, 3), (64, 64, 2, 2, 4))
TILES = {math: tuple([Tile(math, rows, columns, depth, *rest) for rows, columns, *rest in _SIZES])
         for math, depth in (("tf32", 32), ("bf16", 64), ("fp16", 64))}
TILES["float32"] = (Tile("float32", 128, 128, 16, 2, 4, 3), Tile("float32", 64, 64, 16, 2, 2, 4))
# Multiply-adds a cycle and multiprocessor: NVIDIA's tuning guides for sm_80 and sm_90; mma.sync reaches about 63% of the latter's peak.
RATES = {"tf32": 512, "bf16": 1024, "fp16": 1024, "float32": 128}
L2_BYTES = 28                # a cycle and multiprocessor: assumed, since published microbenchmarks of an H100 stream 5.5 to 6 TB/s
SHARED_BYTES = 128           # a cycle and multiprocessor
START_CYCLES = 1500          # of a block, until its first products
SPLIT_DOUBT = 1.1            # a split product leaves its statistics to be read again, and partial sums may be larger than the L2 cache
_chosen: bool | None = None  # by `set_tiles`
SPLITS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


@dataclass(frozen=True)
class Card:
    """What the model knows of a GPU."""

    multiprocessors: int = 132
    shared_kilobytes: int = 227          # a block
    registers: int = 65536               # a multiprocessor


def use_tiles() -> bool:
    """Whether the backend may take tile programs: only where the user asks for it, until a recorded run has proved them."""
    return os.environ.get("NUMBANET_CUDA_TILES") == "1" if _chosen is None else _chosen


def set_tiles(enabled: bool | None) -> None:
    """Switch tile programs on or off for this process; None: as NUMBANET_CUDA_TILES says."""
    global _chosen
    if enabled not in (True, False, None):
        raise UsageError(f"set_tiles: expected True, False or None, received {enabled!r}")
    _chosen = enabled


def math_of(dtype, precision: str | None = None) -> str | None:
    """The arithmetic of a dtype under `set_float32_precision`: "fast" allows TF32, "strict" does not; None for dtypes without programs."""
    if dtype == "float32":
        return "tf32" if (precision or get_float32_precision()) == "fast" else "float32"
    return {"bfloat16": "bf16", "float16": "fp16"}.get(getattr(dtype, "name", dtype))


def is_depthwise(geometry: ConvGeometry) -> bool:
    """Whether each channel has one filter of its own."""
    return geometry.groups > 1 and geometry.channels == geometry.filters == geometry.groups


def product_of(direction: str, geometry: ConvGeometry, batch: int) -> tuple[int, int, int, int]:
    """(rows, columns, depth, batches) of the product that a pass of convolution is; backward_input: of its largest phase."""
    g = geometry
    pixels, taps = batch * g.output_size[0] * g.output_size[1], g.kernel_size[0] * g.kernel_size[1]
    if direction == "forward":
        return pixels, g.filters_per_group, taps * g.channels_per_group, g.groups
    if direction == "backward_weight":
        return g.filters_per_group, taps * g.channels_per_group, pixels, g.groups
    rows = batch * ceil(g.input_size[0] / g.stride[0]) * ceil(g.input_size[1] / g.stride[1])
    phase = ceil(g.kernel_size[0] / g.stride[0]) * ceil(g.kernel_size[1] / g.stride[1])
    return rows, g.channels_per_group, phase * g.filters_per_group, g.groups


def depthwise_splits(pixels: int, taps: int, channels: int, card: Card) -> int:
    """In how many parts the gradient of depthwise weights is summed: about four blocks a multiprocessor, 128 pixels a part or more."""
    blocks = ceil(channels / 64) * taps
    return max(1, min(4 * card.multiprocessors // max(blocks, 1), pixels // 128, 64))


def blocks_a_multiprocessor(tile: Tile, card: Card) -> int:
    """How many blocks fit at once, by shared memory and by registers: 4 accumulators a fragment, and about 100 for the rest."""
    registers = tile.rows * tile.columns // tile.threads + 100
    by_registers = card.registers // (min(255, registers) * tile.threads)
    return max(1, min(by_registers, (card.shared_kilobytes + 1) * 1024 // (tile.shared_bytes + 1024)))


def instructions(tile: Tile) -> float:
    """Those of a warp in one step, near enough: products, reads of fragments, two to round a word of TF32, ten a copy, the loop's own."""
    rows, columns = tile.rows // tile.warp_rows, tile.columns // tile.warp_columns
    copies = 10 * tile.stage_bytes / 16 / tile.threads
    if tile.math == "float32":
        return rows * columns * tile.depth / 32 * 1.1 + copies
    steps = tile.depth * tile.item // 32
    words = (rows // 16 + columns // 16) * 4 * steps
    return rows * columns // 128 * steps + words / 4 + (2 * words if tile.math == "tf32" else 0) + copies + 40


def cycles(tile: Tile, rows: int, columns: int, depth: int, batches: int, splits: int, card: Card) -> float:
    """The model: cycles of a product, the second pass of a split one included."""
    blocks = ceil(rows / tile.rows) * ceil(columns / tile.columns) * batches * splits
    together = blocks_a_multiprocessor(tile, card)
    waves = ceil(blocks / (card.multiprocessors * together))
    shared = min(together, ceil(blocks / card.multiprocessors))           # blocks that share one multiprocessor's units
    steps = max(1, ceil(ceil(depth / splits) / tile.depth))
    # What warps read from shared memory is mostly hidden behind the products: a quarter of it counts.
    read = tile.warps * (tile.rows // tile.warp_rows + tile.columns // tile.warp_columns) * tile.depth * tile.item / SHARED_BYTES
    step = max(tile.rows * tile.columns * tile.depth / RATES[tile.math] + read / 4, instructions(tile) * tile.warps / 4,
               tile.stage_bytes / L2_BYTES) * shared
    stored = tile.rows * tile.columns * (4 if splits > 1 else tile.item)
    finish = 0 if splits == 1 else rows * columns * batches * (4 * splits + tile.item) / (L2_BYTES * card.multiprocessors) + START_CYCLES
    return waves * (START_CYCLES + steps * step + stored * shared / L2_BYTES) + finish


def choose(math: str, rows: int, columns: int, depth: int, batches: int = 1, card: Card | None = None,
           may_split: bool = True) -> tuple[Tile, int]:
    """(tile, splits) of least cost by the model; on a tie the larger tile, then fewer splits. Sums do not depend on the card's load."""
    card = card or Card()
    fitting = [tile for tile in TILES[math] if tile.shared_bytes <= card.shared_kilobytes * 1024] or [TILES[math][-1]]
    choices = [(tile, splits) for tile in fitting for splits in (SPLITS if may_split else SPLITS[:1])
               if splits == 1 or (depth >= 2 * splits * tile.depth and rows * columns * batches * splits < 1 << 27)]
    return min(choices, key=lambda choice: (1.0 if choice[1] == 1 else SPLIT_DOUBT) * cycles(
        choice[0], rows, columns, depth, batches, choice[1], card))
