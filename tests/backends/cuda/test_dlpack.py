"""Exchange of arrays with other libraries, over host memory in place of a GPU's."""

import gc
import weakref

import numpy as np
import pytest

import numbanet
from numbanet.backends.cuda import dlpack, memory
from numbanet.backends.cuda.driver import SimulatedDevice
from numbanet.errors import BackendError


@pytest.fixture
def allocator():
    return memory.Allocator(SimulatedDevice(0))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "int32", "uint8", "bool"])
def test_numpy_reads_the_same_memory(allocator, dtype, rng):
    values = (10 * rng.random((3, 4, 5))).astype(dtype)
    x = allocator.from_numpy(values)
    view = x.view((5, 3), (x.strides[2], x.strides[0]), x.strides[1])
    shared = np.from_dlpack(view)
    np.testing.assert_array_equal(shared, values[:, 1].T)
    assert np.shares_memory(shared, x.lease.handle) and len(dlpack._exported) == 1
    del x, view
    gc.collect()
    assert allocator.statistics().in_use == 512         # NumPy's view keeps it
    del shared
    gc.collect()
    assert allocator.statistics().in_use == 0 and not dlpack._exported


def test_a_capsule_that_nobody_takes(allocator):
    x = allocator.empty((3,), np.float32)
    assert x.__dlpack_device__() == (1, 0)
    capsule = x.__dlpack__()
    assert len(dlpack._exported) == 1
    del capsule
    gc.collect()
    assert not dlpack._exported


@pytest.mark.parametrize("make", [lambda x: x, lambda x: x.T, lambda x: x[1:, ::2], lambda x: x[:0], lambda x: x[2, 3, ...]])
def test_memory_of_numpy(allocator, make, rng):
    owner = rng.standard_normal((4, 5))
    given = make(owner)
    array = dlpack.take(given.__dlpack__(), allocator)
    assert array.shape == given.shape and array.dtype == given.dtype
    if given.size:
        np.testing.assert_array_equal(np.from_dlpack(array), given)
        assert np.shares_memory(np.from_dlpack(array), owner)


def test_foreign_memory_is_released():
    class Owner(np.ndarray):
        pass
    owner = np.zeros(5).view(Owner)
    died = weakref.ref(owner)
    array = dlpack.take(owner.__dlpack__(), memory.Allocator(SimulatedDevice(0)))
    view = array.view((2,), (8,), 8)
    del owner, array
    gc.collect()
    assert died() is not None
    del view
    gc.collect()
    assert died() is None


def test_pytorch(allocator):
    torch = pytest.importorskip("torch")
    x = allocator.from_numpy(np.arange(6, dtype=np.float32).reshape(2, 3))
    shared = torch.from_dlpack(x)
    shared[0, 1] = 40
    assert np.from_dlpack(x)[0, 1] == 40
    halves = dlpack.take(torch.arange(3, dtype=torch.bfloat16).__dlpack__(), allocator)
    assert halves.dtype.name == "bfloat16" and halves.shape == (3,)
    assert torch.from_dlpack(halves).tolist() == [0, 1, 2]


def test_what_cannot_be_taken(allocator):
    capsule = np.zeros(3).__dlpack__()
    dlpack.take(capsule, allocator)
    with pytest.raises(BackendError, match="used before"):
        dlpack.take(capsule, allocator)
    with pytest.raises(BackendError, match="not negative"):
        dlpack.take(np.arange(3)[::-1].__dlpack__(), allocator)
    with pytest.raises(BackendError, match="have no dtype here"):
        dlpack.take(np.zeros(3, np.complex64).__dlpack__(), allocator)


def test_a_gpu_that_is_not_here():
    class Foreign:
        def __dlpack_device__(self):
            return 2, 5

        def __dlpack__(self, **options):
            raise AssertionError("not reached")
    with pytest.raises(BackendError, match="device 'cuda:5'"):
        numbanet.from_dlpack(Foreign())


def test_host_tensors_are_of_no_gpu():
    assert not hasattr(numbanet.ones(2), "__cuda_array_interface__")
    assert not hasattr(numbanet.ones(2, requires_grad=True), "__cuda_array_interface__")
