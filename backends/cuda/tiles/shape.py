"""What a tile program is built from: `Operand`, `Tile`, `Program`. Immutable and hashable; the checks are here."""

from __future__ import annotations

from dataclasses import dataclass

from numbanet.errors import BackendError

ITEM_BYTES = {"tf32": 4, "float32": 4, "bf16": 2, "fp16": 2}
SOURCES = ("matrix", "pixels", "windows", "filters", "taps")
RESULTS = ("matrix", "pixels", "filters", "partial")
# KiB of shared memory a block, by architecture: CUDA C++ programming guide, compute capabilities.
SHARED_LIMIT = {80: 163, 86: 99, 87: 163, 89: 99, 90: 227, 100: 227, 103: 227, 120: 99, 121: 99}


@dataclass(frozen=True)
class Operand:
    """How one operand lies in memory, and in which pieces it is copied.

    source
        "matrix": rows at one stride. "pixels": one pixel of an NHWC map a row. "windows": the window of a pixel, (r, s, c), a row.
        "filters": (r, s, k) of weights, a row. "taps": the same, where one step of the tile has filters of one tap alone.
    along_depth
        Whether its contiguous axis is the depth, over which the product sums.
    piece
        Bytes that one copy moves, 16, 8, 4 or 2: what divides address, strides and, for windows, the channels.
    """

    source: str
    along_depth: bool
    piece: int = 16

    @property
    def name(self) -> str:
        return f"{self.source}{'' if self.along_depth else 'T'}{self.piece}"


@dataclass(frozen=True)
class Tile:
    """Sizes in elements: a block computes `rows` x `columns` in steps of `depth`; warps divide it `warp_rows` x `warp_columns`."""

    math: str                # "tf32", "bf16", "fp16": tensor cores; "float32": strict, plain arithmetic
    rows: int
    columns: int
    depth: int
    warp_rows: int           # warps along the rows
    warp_columns: int
    stages: int              # tiles of the operands that are in shared memory or on their way

    @property
    def item(self) -> int:
        return ITEM_BYTES[self.math]

    @property
    def warps(self) -> int:
        return self.warp_rows * self.warp_columns

    @property
    def threads(self) -> int:
        return 32 * self.warps

    @property
    def stage_bytes(self) -> int:
        return (self.rows + self.columns) * self.depth * self.item

    @property
    def shared_bytes(self) -> int:
        return self.stages * self.stage_bytes

    @property
    def statistics_row_bytes(self) -> int:
        """A number for each column, and room to the next lane's, so that no more than two lanes of a warp store to one bank."""
        return 4 * (self.columns + 8)

    @property
    def statistics_bytes(self) -> int:
        """Of shared memory, where columns are added up: three times a number for each of the lanes that share one, and each column."""
        return 3 * 8 * self.warp_rows * self.statistics_row_bytes

    @property
    def name(self) -> str:
        return f"{self.math}_{self.rows}x{self.columns}x{self.depth}_{self.warp_rows}x{self.warp_columns}_{self.stages}"


@dataclass(frozen=True)
class Program:
    """One kernel of the family. `sums` adds the statistics of the result's columns (see `epilogue.py`)."""

    tile: Tile
    a: Operand
    b: Operand
    result: str              # "matrix", "pixels", "filters", or "partial": float32, one array a split
    sums: bool = False

    def __post_init__(self):
        tile = self.tile
        _expect(tile.math in ITEM_BYTES, f"math expects one of {', '.join(ITEM_BYTES)}, received {tile.math!r}")
        _expect(self.result in RESULTS, f"result expects one of {', '.join(RESULTS)}, received {self.result!r}")
        _expect(2 <= tile.stages <= 5, f"stages expects 2 to 5, received {tile.stages}")
        for axis, size, warps, least in (("rows", tile.rows, tile.warp_rows, 16), ("columns", tile.columns, tile.warp_columns, 16)):
            _expect(_power_of_two(size) and size % (warps * least) == 0,
                    f"{axis} expects a power of two and a multiple of {least} a warp, received {size} for {warps} warps")
        _expect(_power_of_two(tile.depth) and tile.depth * tile.item >= 32,
                f"depth expects a power of two, 32 bytes or more, received {tile.depth}")
        _expect(not (self.sums and self.result == "partial"), "sums are those of a complete result, received result 'partial'")
        _expect(not self.sums or tile.statistics_bytes <= tile.shared_bytes,
                f"sums expect {tile.statistics_bytes} bytes of shared memory, the tile {tile.name} has {tile.shared_bytes}")
        for operand, side in ((self.a, tile.rows), (self.b, tile.columns)):
            _expect(operand.source in SOURCES, f"source expects one of {', '.join(SOURCES)}, received {operand.source!r}")
            _expect(operand.piece in (4, 8, 16) or (operand.piece == 2 and tile.item == 2),
                    f"piece expects 16, 8, 4 (or 2 of 16-bit operands), received {operand.piece} for {tile.math}")
            _expect(operand.source not in ("filters", "taps") or not operand.along_depth,
                    "filters that are contiguous along the depth are a matrix")
            copies_of(operand, tile, side)
            row = (tile.depth if operand.along_depth else side) * tile.item
            _expect(operand.along_depth or row >= 128 or tile.item == 2, f"rows of {row} bytes in shared memory: expected 128 or more")

    @property
    def threads(self) -> int:
        return self.tile.threads

    @property
    def shared_bytes(self) -> int:
        return self.tile.shared_bytes

    @property
    def name(self) -> str:
        return f"tile_{self.tile.name}_{self.a.name}_{self.b.name}_{self.result}{'_sums' if self.sums else ''}"


@dataclass(frozen=True)
class Copies:
    """How the threads of a block divide the copying of one operand's tile.

    Thread t copies pieces `t % lanes + j * lanes` of rows `t // lanes + i * step`.
    """

    row_bytes: int
    lanes: int
    pieces: int              # a thread and row
    rows: int                # a thread
    step: int


def copies_of(operand: Operand, tile: Tile, side: int) -> Copies:
    """The division for an operand with `side` matrix rows or columns in the tile."""
    table_rows, row_items = (side, tile.depth) if operand.along_depth else (tile.depth, side)
    pieces = row_items * tile.item // operand.piece
    # Eight lanes a row, 128 bytes of 16-byte pieces at once: a thread has few rows, whose addresses cost more than those of pieces.
    lanes = min(pieces, 8)
    while tile.threads // lanes > table_rows:
        lanes *= 2
    _expect(lanes <= pieces and tile.threads % lanes == 0 and table_rows % (tile.threads // lanes) == 0,
            f"tile {tile.name}: {tile.threads} threads cannot share {table_rows} rows of {pieces} pieces ({operand.name})")
    step = tile.threads // lanes
    return Copies(row_items * tile.item, lanes, pieces // lanes, table_rows // step, step)


def _power_of_two(n: int) -> bool:
    return n > 0 and n & (n - 1) == 0


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise BackendError(f"tile program: {message}")
