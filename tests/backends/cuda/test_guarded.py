"""Guard zones, on a driver over host memory, where a write outside of an array can be made."""

import gc

import numpy as np
import pytest

import numbanet
from numbanet.backends.cuda import driver, guarded
from numbanet.errors import BackendError

FLOAT32 = np.dtype(np.float32)


@pytest.fixture
def allocator(fake):
    return guarded.GuardedAllocator(driver.Device(0))


def test_arrays_hold_their_values_and_zones_stay(allocator, rng):
    for n in (0, 1, 7, 1000, 300000):
        values = rng.standard_normal(n).astype(np.float32)
        array = allocator.from_numpy(values)
        np.testing.assert_array_equal(allocator.to_numpy(array), values)
        assert (array.pointer - array.lease._whole.handle) % 256 == 0 and array.reach == n
        allocator.check()


@pytest.mark.parametrize("offset, words", [(-1, "1 bytes before an array of 40 bytes"), (40, "1 bytes behind an array of 40 bytes"),
                                           (40 + guarded.GUARD - 1, "behind"), (-guarded.GUARD, "before")])
def test_a_write_beside_an_array_is_found(allocator, offset, words):
    for is_alive in (True, False):
        array = allocator.empty((10,), FLOAT32)
        allocator.device.fill(array.pointer, offset, 1, 7)
        if not is_alive:
            del array
            gc.collect()
        with pytest.raises(BackendError, match=f"cuda:0: written outside of arrays: .*{words}"):
            allocator.check()
        array = None
        allocator.faults.clear()
        allocator.check()


def test_a_write_inside_is_none(allocator):
    array = allocator.empty((10,), FLOAT32)
    allocator.device.fill(array.pointer, 0, 40, 7)
    allocator.check()


def test_the_question_needs_the_switch(monkeypatch):
    from types import SimpleNamespace
    monkeypatch.setattr(numbanet.cuda, "_allocator", lambda device: SimpleNamespace())
    with pytest.raises(BackendError, match="NUMBANET_CUDA_GUARD=1"):
        numbanet.cuda.check_guards()
