"""The allocator and views, over host memory in place of a GPU's."""

import gc

import numpy as np
import pytest

from numbanet.backends.cuda import memory
from numbanet.backends.cuda.driver import SimulatedDevice
from numbanet.backends.cuda.layout import merged, merged_in_order, reshaped_strides
from numbanet.errors import BackendError


@pytest.fixture
def allocator():
    return memory.Allocator(SimulatedDevice(0))


def test_blocks_come_back_when_the_last_view_dies(allocator):
    x = allocator.empty((100, 100), np.float32)
    view = x.view((100,), (4,))
    handle = x.lease.handle
    del x
    assert allocator.statistics() == (40960, 40960, 40960, 40960)
    del view
    assert allocator.statistics() == (40960, 0, 40960, 40960)
    assert allocator.empty((10000,), np.float32).lease.handle is handle
    assert allocator.trim() == 40960 and allocator.statistics().held == 0
    assert allocator.statistics().peak_held == 40960
    allocator.reset_peaks()
    assert allocator.statistics() == (0, 0, 0, 0)


def test_a_limit(allocator):
    allocator.limit = 4_000_000
    kept = allocator.empty((3_000_000,), np.uint8)
    with pytest.raises(BackendError, match=r"of which numbanet may hold 4\.0 MB.*arrays of this process hold 3\.1 MB"):
        allocator.empty((1_000_001,), np.uint8)
    del kept
    gc.collect()
    assert allocator.empty((3_100_000,), np.uint8).nbytes == 3_100_000


def test_the_limit_of_the_environment(monkeypatch):
    monkeypatch.setenv("NUMBANET_CUDA_MEMORY_LIMIT", "250")
    assert memory.limit_of_environment() == 250_000_000
    monkeypatch.setenv("NUMBANET_CUDA_MEMORY_LIMIT", "much")
    with pytest.raises(BackendError, match="expected a number of megabytes, received 'much'"):
        memory.limit_of_environment()


@pytest.mark.parametrize("make", [
    lambda x: x, lambda x: x.transpose(0, 2, 3, 1), lambda x: x[:, ::2], lambda x: x[::-1], lambda x: x[0, 0, 0, 0], lambda x: x[:0],
    lambda x: np.broadcast_to(x[:1], (4, 3, 5, 2)), lambda x: x.astype(np.int64), lambda x: x > 0, lambda x: x.astype(np.float16)])
def test_values_and_memory_order_survive(allocator, make, rng):
    values = make(rng.standard_normal((4, 3, 5, 2)))
    x = allocator.from_numpy(values)
    assert x.shape == values.shape and x.dtype == values.dtype and x.nbytes == values.nbytes and x.is_dense
    received = allocator.to_numpy(x)
    np.testing.assert_array_equal(received, values)
    assert received.strides == x.strides


def test_size_classes_waste_little():
    for n in (*range(1, 5000, 7), 10**6, 10**7, 10**9 + 1):
        size = memory.size_class(n)
        assert n <= size <= max(512, 1.26 * n + 512, n + memory.LARGE if n > memory.LARGE else 0)


def test_simulated_arrays_have_no_address(allocator):
    assert not hasattr(allocator.empty((3,), np.float32), "__cuda_array_interface__")


def test_merging_keeps_every_element(rng):
    """Elements visited through merged axes are those of the array, operand by operand."""
    for _ in range(200):
        shape = tuple(rng.integers(1, 4, rng.integers(0, 6)))
        base = np.arange(int(np.prod(shape)) * 8)
        operands = []
        for _ in range(2):
            order = rng.permutation(len(shape))
            dense = base[:int(np.prod(shape))].reshape([shape[a] for a in order]).transpose(np.argsort(order))
            steps = [0 if rng.random() < 0.3 else s // 8 for s in dense.strides]
            operands.append(tuple(int(s) for s in steps))
        wanted = _places(shape, operands)
        found, *steps = merged_in_order(tuple(map(int, shape)), *operands)
        assert _places(found, steps) == wanted
        found, *steps = merged(tuple(map(int, shape)), *operands)
        assert sorted(_places(found, steps)) == sorted(wanted) and len(found) >= 1


def _places(shape, operands):
    return [tuple(sum(i * s for i, s in zip(index, steps)) for steps in operands) for index in np.ndindex(*shape)]


def test_reshaping_in_place_as_numpy_does(rng):
    for _ in range(2000):
        shape = tuple(rng.integers(1, 5, rng.integers(0, 5)))
        x = np.arange(int(np.prod(shape)) * 4, dtype=np.int32)[:int(np.prod(shape))].reshape(shape)
        x = x.transpose(rng.permutation(x.ndim))
        if x.ndim and rng.random() < 0.5:
            x = x[tuple(slice(None, None, int(rng.integers(1, 3))) for _ in range(x.ndim))]
        factors = [int(n) for n in x.shape]
        while len(factors) > 1 and rng.random() < 0.6:
            at = int(rng.integers(len(factors) - 1))
            factors[at:at + 2] = [factors[at] * factors[at + 1]]
        new = tuple(f for n in factors for f in ((n // 2, 2) if n % 2 == 0 and rng.random() < 0.5 else (n,)))
        strides = reshaped_strides(tuple(map(int, x.shape)), x.strides, new, 4)
        expected = x.reshape(new)
        if strides is None:
            assert not np.shares_memory(expected, x)
        else:
            np.testing.assert_array_equal(np.lib.stride_tricks.as_strided(x, new, strides), expected)
            assert np.shares_memory(expected, x)
