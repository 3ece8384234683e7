"""Which tile a product takes: the model's choices where the answer is plain, and the switch."""

from __future__ import annotations

import pytest

from numbanet.backends.cuda.dry import DryDevice
from numbanet.backends.cuda.tiles import choose
from numbanet.backends.cuda.tiles.choose import TILES, Card
from numbanet.backends.cuda.tiles.shape import SHARED_LIMIT


def test_tiles_are_off_until_a_run_has_proved_them(monkeypatch):
    monkeypatch.delenv("NUMBANET_CUDA_TILES", raising=False)
    assert not choose.use_tiles()
    monkeypatch.setenv("NUMBANET_CUDA_TILES", "1")
    assert choose.use_tiles()


def test_precision_chooses_the_arithmetic():
    assert choose.math_of("float32", "strict") == "float32" and choose.math_of("float32", "fast") == "tf32"
    assert choose.math_of("bfloat16", "strict") == "bf16" and choose.math_of("float16", "fast") == "fp16"


@pytest.mark.parametrize("math", TILES)
def test_large_products_take_a_large_tile_in_one_piece(math):
    tile, splits = choose.choose(math, 8192, 8192, 8192)
    assert tile in TILES[math][:2] and splits == 1


@pytest.mark.parametrize("math", TILES)
def test_long_products_of_few_tiles_are_split(math):
    """A weight gradient of 64 filters over 100,000 pixels: one tile would leave 131 of 132 multiprocessors idle."""
    tile, splits = choose.choose(math, 64, 576, 100352)
    assert splits >= 8 and choose.choose(math, 64, 576, 100352, may_split=False)[1] == 1


def test_small_products_take_small_tiles_and_stay_whole():
    tile, splits = choose.choose("tf32", 64, 64, 64)
    assert (tile.rows, tile.columns, splits) == (64, 64, 1)


def test_only_tiles_that_fit_the_card_are_taken():
    small = Card(multiprocessors=20, shared_kilobytes=60)
    tile, _ = choose.choose("tf32", 4096, 4096, 4096, card=small)
    assert tile.shared_bytes <= 60 * 1024 or tile == TILES["tf32"][-1]


@pytest.mark.parametrize("arch, kilobytes", [("sm_80", 163), ("sm_86", 99), ("sm_89", 99), ("sm_90", 227), ("sm_100", 227), ("sm_120", 99),
                                             ("sm_199", 99)])
@pytest.mark.parametrize("math", TILES)
def test_tiles_fit_the_shared_memory_of_an_architecture(math, arch, kilobytes):
    """One that is not known is taken for the smallest."""
    pytest.importorskip("numba_cuda")
    from numbanet.backends.cuda.tiles.arrays import card_of
    card = card_of(DryDevice(arch))
    assert card.shared_kilobytes == kilobytes
    for sizes in ((8192, 8192, 8192), (64, 64, 64), (64, 576, 100352)):
        assert choose.choose(math, *sizes, card=card)[0].shared_bytes <= kilobytes * 1024


def test_every_card_has_a_tile_that_fits():
    least = min(SHARED_LIMIT.values()) * 1024
    assert all(tiles[-1].shared_bytes <= least and sum(tile.shared_bytes <= least for tile in tiles) >= 2 for tiles in TILES.values())


@pytest.mark.parametrize("sizes, rows, columns", [
    ((200704, 64, 576), 128, 64), ((64, 1152, 200704), 64, 128), ((8192, 8192, 8192), 256, 128)])
def test_narrow_products_take_narrow_tiles(sizes, rows, columns):
    tile, _ = choose.choose("tf32", *sizes)
    assert (tile.rows, tile.columns) == (rows, columns)
