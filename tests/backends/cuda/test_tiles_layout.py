"""Index and layout functions of tile programs, for every lane."""

from __future__ import annotations

import numpy as np
import pytest

from numbanet.backends.cuda.tiles import layout
from numbanet.backends.cuda.tiles.shape import Operand, Tile, copies_of

LANES = np.arange(32)


@pytest.mark.parametrize("divisor", [1, 2, 3, 5, 7, 9, 12, 49, 64, 112 * 112, 12345, 99991, (1 << 29) + 1, (1 << 30) - 1])
def test_division_is_exact(divisor):
    """At both sides of every kind of multiple, up to the limit."""
    multiplier, shift = layout.magic(divisor)
    assert 0 < multiplier < 1 << 31 and shift < 63
    multiples = np.unique(np.linspace(0, (layout.LIMIT - 1) // divisor, 5000).astype(np.int64)) * divisor
    for n in (multiples, multiples + divisor - 1, multiples + divisor // 2):
        n = n[n < layout.LIMIT].astype(np.int32)
        np.testing.assert_array_equal(layout.divide(n, multiplier, shift), n // divisor)


def test_division_by_every_small_number():
    n = np.concatenate([np.arange(5000), layout.LIMIT - 1 - np.arange(5000)]).astype(np.int32)
    for divisor in range(1, 600):
        np.testing.assert_array_equal(layout.divide(n, *layout.magic(divisor)), n // divisor)


@pytest.mark.parametrize("chunks", [2, 4, 8, 16, 32])
@pytest.mark.parametrize("spread", [False, True])
def test_swizzle_moves_every_chunk_to_one_place_of_its_row(chunks, spread):
    parameters = layout.swizzle_of(chunks, spread)
    for row in range(16):
        assert sorted(layout.swizzled(row, np.arange(chunks), *parameters)) == list(range(chunks))


@pytest.mark.parametrize("chunks", [2, 4, 8, 16, 32])
def test_eight_rows_of_one_chunk_meet_all_banks(chunks):
    """What one phase of ldmatrix reads: the banks of 8 rows, 4 words each, are 32 different ones."""
    parameters = layout.swizzle_of(chunks)
    for first in range(0, 32, 8):
        for chunk in range(chunks):
            rows = first + np.arange(8)
            words = (rows * chunks + layout.swizzled(rows, np.full(8, chunk), *parameters))[:, None] * 4 + np.arange(4)
            assert len(np.unique(words % 32)) == 32


@pytest.mark.parametrize("chunks", [8, 16, 32])
def test_words_across_the_depth_meet_all_banks(chunks):
    """What one read of a 32-bit fragment touches: 4 rows, 8 neighbouring words."""
    parameters = layout.swizzle_of(chunks, spread=True)
    for column in range(0, 4 * chunks, 8):
        rows, columns = LANES & 3, column + (LANES >> 2)
        words = (rows * chunks + layout.swizzled(rows, columns >> 2, *parameters)) * 4 + (columns & 3)
        assert len(np.unique(words % 32)) == 32


def test_fragments_cover_their_matrix_once():
    places = {(int(layout.fragment_row(lane, r)), int(layout.fragment_column(lane, r))) for lane in LANES for r in range(4)}
    assert places == {(row, column) for row in range(16) for column in range(8)}


def test_rows_of_ldmatrix():
    """The two orders of four matrices: which row and chunk each lane's address is of."""
    low = [(int(layout.matrix_low_row(lane)), int(layout.matrix_low_chunk(lane))) for lane in LANES]
    high = [(int(layout.matrix_high_row(lane)), int(layout.matrix_high_chunk(lane))) for lane in LANES]
    assert low == [(row, chunk) for chunk in range(2) for row in range(16)]
    assert high == [(row, chunk) for half in range(2) for chunk in range(2) for row in range(8 * half, 8 * half + 8)]


@pytest.mark.parametrize("tile_rows, tile_columns, log_group", [(1, 5, 0), (8, 3, 3), (11, 4, 3), (5, 1, 2), (20, 7, 3)])
def test_the_walk_over_tiles_visits_each_once(tile_rows, tile_columns, log_group):
    group = 1 << log_group
    blocks = np.arange(-(-tile_rows // group) * group * tile_columns, dtype=np.int32)
    parameters = (tile_columns, *layout.magic(tile_columns << log_group), log_group)
    rows, columns = layout.raster_row(blocks, *parameters), layout.raster_column(blocks, *parameters)
    visited = list(zip(rows.tolist(), columns.tolist()))
    assert len(set(visited)) == len(blocks) and set(visited) >= {(r, c) for r in range(tile_rows) for c in range(tile_columns)}
    assert len(set(rows[:group].tolist())) == min(group, len(blocks))         # neighbours share a column of B


@pytest.mark.parametrize("operand", [Operand("matrix", along, piece) for along in (True, False) for piece in (16, 8, 4, 2)],
                         ids=lambda operand: operand.name)
def test_every_piece_of_a_tile_is_copied_once(operand):
    for tile in (Tile("bf16", 128, 128, 64, 2, 2, 3), Tile("bf16", 32, 64, 32, 1, 2, 2), Tile("fp16", 64, 32, 32, 4, 1, 2)):
        copies = copies_of(operand, tile, tile.rows)
        thread = np.arange(tile.threads)
        places = [(row, piece) for i in range(copies.rows) for j in range(copies.pieces)
                  for row, piece in zip(thread // copies.lanes + i * copies.step, thread % copies.lanes + j * copies.lanes)]
        table_rows, row_items = (tile.rows, tile.depth) if operand.along_depth else (tile.depth, tile.rows)
        assert sorted(places) == [(row, piece) for row in range(table_rows) for piece in range(row_items * 2 // operand.piece)]
