"""The caching allocator: reuse, lifetimes of views, alignment, limits, threads."""
import gc
import itertools
import threading

import numpy as np
import pytest

from numbanet.backends.cpu.memory import Allocator, MemoryStatistics, empty_channels_last, size_class


@pytest.fixture
def allocator():
    return Allocator(limit=1 << 30)


def address(array):
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize("shape", [(3,), (1, 1), (2, 3, 5, 7), (1000, 33), ()])
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", np.int64])
def test_arrays_are_ordinary_aligned_and_writable(allocator, shape, dtype):
    array = allocator.empty(shape, dtype)
    assert type(array) is np.ndarray and array.shape == shape and array.dtype == dtype
    assert array.flags.c_contiguous and array.flags.writeable and address(array) % 64 == 0
    array[...] = 3
    assert (array == 3).all()


def test_an_order_lays_the_axes_out_in_memory(allocator):
    for order in itertools.permutations(range(4)):
        array = allocator.empty((2, 3, 4, 5), np.float32, order)
        assert array.shape == (2, 3, 4, 5) and array.transpose(order).flags.c_contiguous
    assert empty_channels_last((2, 3, 4, 5)).strides == (240, 4, 60, 12)
    assert empty_channels_last((2, 3, 4), np.float64).strides == (96, 8, 24)


def test_empty_arrays_hold_no_block(allocator):
    arrays = [allocator.empty(shape, np.float32) for shape in ((0,), (3, 0, 2))]
    assert [array.shape for array in arrays] == [(0,), (3, 0, 2)]
    assert allocator.statistics().held == 0


def test_a_block_is_reused_when_its_array_has_died(allocator):
    first = allocator.empty((10, 10), np.float32)
    where = address(first)
    second = allocator.empty((10, 10), np.float32)
    assert address(second) != where
    del first
    assert address(allocator.empty((25,), np.float64)) != where        # another size class
    assert address(allocator.empty((100,), np.float32)) == where


@pytest.mark.parametrize("view_of", [
    lambda a: a.T, lambda a: a[1:, ::-2], lambda a: a.reshape(-1)[5:], lambda a: a.view(np.uint8), memoryview,
    np.from_dlpack, lambda a: np.asarray(memoryview(a)), lambda a: np.broadcast_to(a[0], (5, 10)),
    lambda a: np.lib.stride_tricks.as_strided(a, (2,), (40,)),
    lambda a: a.astype(np.float32, copy=False).swapaxes(0, 1)])
def test_a_block_in_view_is_not_reused(allocator, view_of):
    array = allocator.empty((10, 10), np.float32)
    array[...] = 1
    view = view_of(array)
    del array
    gc.collect()
    assert allocator.statistics().in_use == size_class(400)
    other = allocator.empty((10, 10), np.float32)
    other[...] = 2
    assert (np.asarray(view) != 2).all()
    del view, other
    gc.collect()
    assert allocator.statistics().in_use == 0


def test_blocks_come_back_any_number_of_times(allocator):
    for _ in range(50):
        allocator.empty((1000,), np.float32).fill(0)
    assert allocator.statistics() == MemoryStatistics(held=4096, in_use=0, peak=4096)


def test_trim_frees_what_is_not_in_use(allocator):
    kept, dropped = allocator.empty((100,), np.float32), allocator.empty((1000,), np.float32)
    del dropped
    assert allocator.trim() == 4096
    statistics = allocator.statistics()
    assert (statistics.held, statistics.in_use, statistics.peak) == (448, 448, 4544)
    del kept
    assert allocator.trim() == 448 and allocator.statistics().held == 0


def test_beyond_its_limit_nothing_is_kept():
    allocator = Allocator(limit=10_000)
    arrays = [allocator.empty((1000,), np.float32) for _ in range(4)]
    assert allocator.statistics().held == 4 * 4096
    arrays.clear()
    assert allocator.statistics().held == 2 * 4096 and allocator.statistics().in_use == 0


def test_a_shortage_of_memory_trims_first(allocator, monkeypatch):
    del_me = allocator.empty((1000,), np.float32)
    del del_me
    original, failures = np.empty, [MemoryError()]

    def scarce(*arguments):
        if failures:
            raise failures.pop()
        return original(*arguments)

    monkeypatch.setattr(np, "empty", scarce)
    array = allocator.empty((5000,), np.float32)
    assert array.shape == (5000,) and allocator.statistics().held == size_class(20000)


def test_size_classes_cover_and_waste_little():
    sizes = np.unique(np.concatenate([np.arange(1, 5000), 2 ** np.arange(13, 34), 2 ** np.arange(13, 34) + 1]))
    classes = np.array([size_class(int(size)) for size in sizes])
    assert (classes >= sizes).all() and (classes % 64 == 0).all() and (np.diff(classes) >= 0).all()
    assert (classes[sizes > 256] <= 1.25 * sizes[sizes > 256]).all()
    assert len(set(classes)) < 160


def test_threads_share_an_allocator(allocator):
    wrong = []

    def work(number):
        rng = np.random.default_rng(number)
        held = []
        for _ in range(2000):
            array = allocator.empty((int(rng.integers(1, 300)),), np.int64)
            array[...] = number
            held.append(array)
            if len(held) > 20:
                old = held.pop(int(rng.integers(20)))
                wrong.extend([number] * bool((old != number).any()))
        wrong.extend(number for array in held if (array != number).any())

    many = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in many:
        thread.start()
    for thread in many:
        thread.join()
    assert not wrong
    gc.collect()
    statistics = allocator.statistics()
    assert statistics.in_use == 0 and statistics.held == allocator.trim()


def test_scratch_of_all_sizes_shares_blocks(allocator):
    sizes = [1 << 20, 3 << 20, 2 << 20, 1 << 18]
    for size in (*sizes, *sizes):
        allocator.scratch((size,), np.uint8).fill(1)
    assert allocator.statistics() == MemoryStatistics(held=3 << 20, in_use=0, peak=(3 << 20))
    first, second = allocator.scratch((1 << 20,), np.uint8), allocator.scratch((2, 1 << 18), np.float32)
    first.fill(1)
    second.fill(2)
    assert (first == 1).all() and second.shape == (2, 1 << 18) and allocator.statistics().in_use == allocator.statistics().held > 3 << 20
    block = address(second)
    del second
    assert address(allocator.scratch((1 << 20,), np.uint8)) == block
    del first
    gc.collect()
    assert allocator.statistics().in_use == 0
    allocator.trim()
    assert allocator.statistics().held == 0
