"""Matrix products by tile programs, in the emulator, bit for bit on small integers; what they cost in bank conflicts."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from numbanet.backends.cuda.tiles import build
from numbanet.backends.cuda.tiles.arguments import Epilogue, View, gemm, workspace_bytes
from numbanet.backends.cuda.tiles.shape import Operand, Program, Tile
from numbanet.errors import BackendError
from tests.backends.cuda.device import Device, integers
from tests.backends.cuda.emulator import Emulator, Fault, Memory

DTYPES = {"tf32": np.float32, "float32": np.float32, "bf16": ml_dtypes.bfloat16, "fp16": np.float16}
TILES = [Tile("tf32", 32, 32, 32, 2, 1, 3), Tile("tf32", 64, 32, 16, 2, 2, 2), Tile("float32", 32, 32, 16, 1, 1, 2),
         Tile("bf16", 32, 64, 32, 1, 2, 4), Tile("fp16", 64, 64, 64, 2, 2, 3)]
LAYOUTS = ["nn", "nt", "tn", "tt"]


def operand(rng, batches, rows, columns, dtype, transposed):
    return integers(rng, (batches, rows, columns), dtype, 3, (0, 2, 1) if transposed else (0, 1, 2))


@pytest.mark.parametrize("tile", TILES, ids=lambda tile: tile.name)
@pytest.mark.parametrize("transposed", LAYOUTS)
@pytest.mark.parametrize("sizes", [(1, 40, 72, 48), (1, 37, 41, 53), (2, 1, 3, 70), (2, 34, 2, 5)], ids=str)
def test_products(rng, tile, transposed, sizes):
    """Of all transpositions, of sizes that fit 16-byte copies and of odd ones."""
    batches, rows, columns, depth = sizes
    a = operand(rng, batches, rows, depth, DTYPES[tile.math], transposed[0] == "t")
    b = operand(rng, batches, depth, columns, DTYPES[tile.math], transposed[1] == "t")
    device = Device()
    y = device.empty((batches, rows, columns), DTYPES[tile.math])
    device.run(gemm(tile, device.put(a), device.put(b), y))
    wanted = (a.astype(np.float64) @ b.astype(np.float64)).astype(DTYPES[tile.math])
    np.testing.assert_array_equal(device.get(y), wanted)


@pytest.mark.parametrize("tile", [Tile("tf32", 128, 128, 32, 2, 4, 3), Tile("bf16", 128, 128, 64, 2, 2, 3)], ids=lambda tile: tile.name)
def test_large_tiles(rng, tile):
    """Those that GPUs run; more than one block each way, so that the walk over tiles is seen."""
    a, b = operand(rng, 1, 300, 96, DTYPES[tile.math], False), operand(rng, 1, 96, 200, DTYPES[tile.math], False)
    device = Device()
    y = device.empty((1, 300, 200), DTYPES[tile.math])
    device.run(gemm(tile, device.put(a), device.put(b), y))
    np.testing.assert_array_equal(device.get(y), (a.astype(np.float64) @ b.astype(np.float64)).astype(DTYPES[tile.math]))


@pytest.mark.parametrize("tile", TILES, ids=lambda tile: tile.name)
@pytest.mark.parametrize("transposed", LAYOUTS)
def test_shared_memory_has_no_bank_conflicts(rng, tile, transposed):
    """Of copies of 16 bytes, of ldmatrix and of the reads of single words: counted for every lane of every access."""
    a = operand(rng, 1, tile.rows, 2 * tile.depth, DTYPES[tile.math], transposed[0] == "t")
    b = operand(rng, 1, 2 * tile.depth, tile.columns, DTYPES[tile.math], transposed[1] == "t")
    device = Device(count_conflicts=True)
    y = device.empty((1, tile.rows, tile.columns), DTYPES[tile.math])
    device.run(gemm(tile, device.put(a), device.put(b), y))
    assert device.calls["copy"] and (device.calls.get("ldmatrix") or device.calls.get("load_shared"))
    assert set(device.conflicts.values()) == {0}


def test_conflicts_are_seen_where_there_are_some():
    machine = Emulator(Memory(1 << 12), 1, 4096, count_conflicts=True)
    machine.block = (0, 0, 0)
    machine.shared, granules = np.zeros(4096, np.uint8), np.full(2048, -1)
    machine.epoch = 0
    machine.written, machine.writer, machine.read, machine.reader = granules, granules.copy(), granules.copy(), granules.copy()
    machine.ldmatrix_x4(machine.shared_memory() + 128 * machine.thread)          # rows of 128 bytes, not swizzled
    assert machine.conflicts == {"ldmatrix": 4 * 7}


@pytest.mark.parametrize("splits", [2, 3, 7])
def test_splits_give_the_same_bits_every_run(splits):
    """Real numbers, whose sum depends on the order: twice the same, and near the exact product."""
    rng = np.random.default_rng(splits)
    a, b = rng.standard_normal((2, 30, 90)).astype(np.float32), rng.standard_normal((2, 90, 19)).astype(np.float32)
    results = []
    for _ in range(2):
        device = Device()
        y = device.empty((2, 30, 19), np.float32)
        room = device.room(workspace_bytes(30, 19, 2, splits))
        launches = gemm(TILES[2], device.put(a), device.put(b), y, splits=splits, workspace=room)
        device.run(launches)
        results.append(device.get(y))
    np.testing.assert_array_equal(*results)
    np.testing.assert_allclose(results[0], a.astype(np.float64) @ b, atol=1e-5)


def test_operands_are_rounded_to_tf32(rng):
    """Not cut off: the mean error of products of positive numbers is far below half a unit of the 10 bits."""
    a, b = rng.random((1, 32, 64)).astype(np.float32), rng.random((1, 64, 32)).astype(np.float32)
    device = Device()
    y = device.empty((1, 32, 32), np.float32)
    device.run(gemm(TILES[0], device.put(a), device.put(b), y))
    exact = a.astype(np.float64) @ b
    error = (device.get(y) - exact) / exact
    assert np.abs(error).max() < 2**-11 and abs(error.mean()) < 2**-15


def test_nan_and_infinity_stay_what_they_are(rng):
    a, b = np.ones((1, 32, 32), np.float32), np.ones((1, 32, 32), np.float32)
    a[0, 3, 5], a[0, 4, 6] = np.array(0x7FFFFFFF, np.uint32).view(np.float32), np.inf       # the NaN whose rounding would wrap around
    device = Device()
    y = device.empty((1, 32, 32), np.float32)
    device.run(gemm(TILES[0], device.put(a), device.put(b), y))
    result = device.get(y)[0]
    assert np.isnan(result[3]).all() and (result[4] == np.inf).all() and (np.delete(result, (3, 4), 0) == 32).all()


def test_a_batch_stride_of_zero_repeats_an_operand_and_offsets_limit_the_copies(rng):
    a, b = integers(rng, (3, 20, 24), np.float32), integers(rng, (24, 16), np.float32)
    device = Device()
    b_view = device.put(b, offset=4)                                                        # not a multiple of 16: copies of 4 bytes
    y = device.empty((3, 20, 16), np.float32)
    launches = gemm(TILES[0], device.put(a), View(b_view.address, (3, 24, 16), (0, 16, 1)), y)
    assert launches[0].program.b.piece == 4
    device.run(launches)
    np.testing.assert_array_equal(device.get(y), a @ b)


def test_residual_and_empty_products(rng):
    device = Device()
    y = device.put(integers(rng, (1, 20, 10), np.float32), writable=True)
    before = device.get(y)
    nothing = View(y.address, (1, 20, 0), (0, 0, 1)), View(y.address, (1, 0, 10), (0, 10, 1))
    device.run(gemm(TILES[0], *nothing, y, Epilogue(residual=y)))
    np.testing.assert_array_equal(device.get(y), before)
    assert gemm(TILES[0], nothing[0], nothing[1], View(y.address, (1, 0, 10), (0, 10, 1))) == []


# --- the emulator finds what it is there for -------------------------------------------------------------------------

def broken(program, remove):
    """A program without one of its machine's instructions."""
    class Lacking(Emulator):
        pass

    setattr(Lacking, remove, lambda self, *arguments: None)
    return Lacking


@pytest.mark.parametrize("removed, message", [("barrier", "no barrier"), ("wait_copies_1", "no barrier|on their way|Mismatch")])
def test_missing_synchronisation_is_found(rng, removed, message):
    tile = TILES[0]
    a, b = integers(rng, (1, 32, 200), np.float32), integers(rng, (1, 200, 32), np.float32)
    device = Device()
    y = device.empty((1, 32, 32), np.float32)
    launch, = gemm(tile, device.put(a), device.put(b), y)
    machine = broken(launch.program, removed)(device.memory, tile.warps, tile.shared_bytes)
    try:
        machine.launch(build(launch.program, machine), launch.grid, launch.arguments)
    except Fault as fault:
        assert any(part in str(fault) for part in message.split("|"))
    else:
        assert not np.array_equal(device.get(y), a @ b)                                     # copies that were not waited for are NaN


def test_accesses_outside_are_found(rng):
    a, b = integers(rng, (1, 32, 32), np.float32), integers(rng, (1, 32, 32), np.float32)
    device = Device()
    y = device.empty((1, 31, 32), np.float32)
    wrong = View(y.address, (1, 32, 32), y.strides)
    with pytest.raises(Fault, match="outside of an array"):
        device.run(gemm(TILES[0], device.put(a), device.put(b), wrong))
    a_view = device.put(a)
    with pytest.raises(Fault, match="outside of an array"):
        device.run(gemm(TILES[0], View(a_view.address, (1, 33, 32), a_view.strides), device.put(b), device.empty((1, 33, 32), np.float32)))


def test_programs_that_make_no_sense_are_refused():
    matrix = Operand("matrix", True)
    with pytest.raises(BackendError, match="rows expects a power of two"):
        Program(Tile("tf32", 48, 32, 32, 1, 1, 2), matrix, matrix, "matrix")
    with pytest.raises(BackendError, match="math expects one of"):
        Program(Tile("fp8", 32, 32, 32, 1, 1, 2), matrix, matrix, "matrix")
    with pytest.raises(BackendError, match="piece expects"):
        Program(TILES[0], Operand("matrix", True, 2), matrix, "matrix")
    with pytest.raises(BackendError, match="statistics|sums"):
        Program(TILES[0], matrix, matrix, "partial", sums=True)
    strided = View(1 << 20, (1, 32, 32), (4096, 64, 2))
    with pytest.raises(BackendError, match="a expects unit stride.*copy it first"):
        gemm(TILES[0], strided, strided, strided)
