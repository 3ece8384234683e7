"""The GPU as the backend uses it, on a driver over host memory (`fake_driver.py`): calls, order, errors."""

import ctypes
import re
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from numbanet.backends.cuda import cubin, driver, hardware, memory, pinned
from numbanet.errors import BackendError
from tests.backends.cuda.fake_driver import FakeDriver


def test_the_fake_has_the_names_of_the_real_one():
    real = pytest.importorskip("cuda.bindings.driver")
    names = [name for name in vars(FakeDriver) if name.startswith("cu")]
    assert [name for name in names if not callable(getattr(real, name, None))] == []
    assert int(real.CUstream_flags.CU_STREAM_NON_BLOCKING) == 1
    assert {"CUDA_SUCCESS", "CUDA_ERROR_OUT_OF_MEMORY", "CUDA_ERROR_NOT_READY"} <= {r.name for r in real.CUresult}


@pytest.mark.parametrize("nbytes", [0, 1, 5, pinned.PIECE, 3 * pinned.PIECE + 11, 11 * pinned.PIECE])
def test_copies_there_and_back(fake, nbytes, rng):
    allocator = memory.Allocator(driver.Device(0))
    values = rng.integers(0, 256, nbytes, np.uint8)
    given = values.copy()
    array = allocator.from_numpy(given)
    given[...] = 0                                      # the caller may reuse it at once
    np.testing.assert_array_equal(allocator.to_numpy(array), values)
    assert len(fake.hosts) <= pinned.MOST


def test_a_mirror_is_pinned_and_does_not_wait(fake, rng):
    from numbanet.backends.cuda import CUDABackend
    backend = CUDABackend(0)
    values = rng.standard_normal((3, 5)).astype(np.float32)
    array = backend.from_numpy(values)
    mirror = backend.mirror(array)
    fake.calls.clear()
    mirror.fetch()
    assert not mirror.is_here() and "cuEventSynchronize" not in fake.calls
    mirror.wait()
    assert mirror.is_here() and mirror.host.dtype == np.float32
    np.testing.assert_array_equal(mirror.host, values)
    mirror.host *= 2
    mirror.send()
    np.testing.assert_array_equal(backend.allocator.to_numpy(array), 2 * values)
    hosts = len(fake.hosts)
    del mirror
    assert len(fake.hosts) == hosts - 1                 # it is given back


def test_uploads_do_not_wait(fake):
    device = driver.Device(0)
    handle = device.allocate(100)
    for value in range(3):
        device.upload(handle, 0, np.full(100, value, np.uint8))
    assert "cuStreamSynchronize" not in fake.calls and "cuEventSynchronize" not in fake.calls and fake.done == 0
    received = np.empty(100, np.uint8)
    device.download(received, handle, 0)
    assert (received == 2).all()


def test_fill_and_synchronize(fake):
    device = driver.Device(0)
    handle = device.allocate(64)
    device.fill(handle, 0, 64, 9)
    device.synchronize()
    assert bytes(fake.blocks[handle]) == bytes([9]) * 64


def test_a_launch_lays_out_the_parameters_that_the_ptx_declares(fake, monkeypatch):
    """A primitive, down to the driver's call: every number is read back where the machine code will look for it."""
    pytest.importorskip("cuda.core")
    from numbanet.backends.cuda import elementwise, launch, optimizer
    from numbanet.backends.cuda.index import size_words
    monkeypatch.setattr(launch, "compiled", {})
    allocator, seen = memory.Allocator(driver.Device(0)), []
    x, y, out = (allocator.empty((3, 4), np.dtype(np.float32), order) for order in (None, (1, 0), None))
    kinds = {"u64": ctypes.c_uint64, "u32": ctypes.c_uint32, "s32": ctypes.c_int32, "f32": ctypes.c_float, "f64": ctypes.c_double}

    def read(parameters):
        (kernel, types, _), = [key for key, made in launch.compiled.items() if made is fake.launched[-1][0]]
        ptx = cubin.compile_ptx("probe", kernel.specialised(launch.real_of(types)), types, numba_type=launch.numba_type, is_narrow=True)
        declared = re.findall(r"\.param \.(?:align \d+ )?(\w+) probe_param_\d+", ptx)
        addresses = (ctypes.c_void_p * len(declared)).from_address(parameters)
        seen.append([kinds[kind.replace("b", "u")].from_address(address).value for kind, address in zip(declared, addresses)])

    fake.on_launch = read
    elementwise.add(x, y, out)
    assert seen[-1] == [x.pointer, y.pointer, out.pointer, 12, *size_words(3), *size_words(4), 4, 1, 1, 3, 4, 1]
    assert fake.launched[-1][1:5] == ((1, 1, 1), (256, 1, 1), 0, 7)
    elementwise.multiply(x, 2.5, out)                   # three pieces of four
    assert seen[-1] == [x.pointer, 2.5, out.pointer, 3, *size_words(3), 4, 4]
    odd = x.view((11,), (4,), 4)                        # not aligned
    elementwise.multiply(odd, 2.5, odd)
    assert seen[-1] == [odd.pointer, 2.5, odd.pointer, 11, *size_words(11), 1, 1]
    optimizer.sgd_update([x, out], [y, out], [], 0.5, 0.0, 0.0, 0.25, False, -1.0)
    assert len(seen[-1]) == 14 and seen[-1][4:] == [2, 4, 0, 0, 0.5, 0.0, 1.0, 0.25, -1.0, 6]
    optimizer.sgd_update([x, odd], [y, odd], [], 0.5, 0.0, 0.0, 0.25, False, -1.0)
    assert seen[-2][4:6] == [1, 4] and seen[-2][-1] == 3 and seen[-1][4:6] == [1, 1] and seen[-1][-1] == 11


def test_out_of_memory_trims_and_tries_again(fake):
    fake.total = 10 << 20
    allocator = memory.Allocator(driver.Device(0))
    first = allocator.empty((6 << 20,), np.uint8)
    del first
    kept = allocator.empty((8 << 20,), np.uint8)        # fits only once the first block is given back
    with pytest.raises(BackendError, match=r"cuda:0: 4\.2 MB are asked for; the GPU has 10\.5 MB, 2\.1 MB are free, and arrays of this "
                                           r"process hold 8\.4 MB"):
        allocator.empty((4 << 20,), np.uint8)
    assert kept.nbytes == allocator.statistics().in_use == 8 << 20


def test_errors_of_the_driver_have_names(fake):
    device = driver.Device(0)
    with pytest.raises(BackendError, match="cuda:0: cuMemcpyHtoDAsync failed: CUDA_ERROR_INVALID_VALUE"):
        device.upload(12345, 0, np.zeros(4, np.uint8))


def test_a_forked_child_is_told(fake, monkeypatch):
    device = driver.Device(0)
    monkeypatch.setattr(driver.os, "getpid", lambda: -1)
    with pytest.raises(BackendError, match="forked.*spawn"):
        device.allocate(1)


def test_array_interface(fake):
    allocator = memory.Allocator(driver.Device(0))
    x = allocator.empty((2, 3, 4, 5), np.float32, (0, 2, 3, 1))
    described = x.__cuda_array_interface__
    assert described["shape"] == (2, 3, 4, 5) and described["strides"] == (240, 4, 60, 12) and described["typestr"] == "<f4"
    assert described["data"] == (x.lease.handle, False) and described["stream"] == 7
    row = x.view((3,), (4,), 240)
    assert row.__cuda_array_interface__["data"][0] == x.lease.handle + 240 and row.__cuda_array_interface__["strides"] is None


# Why CUDA is not available

@pytest.fixture
def machine(monkeypatch):
    """A machine whose driver, packages and GPUs can be set."""
    state = SimpleNamespace(version=13_000, status=0, packages={"numba-cuda": "0.30.4", "cuda-bindings": "13.0.1"},
                            gpus=[hardware.GPU("H", (9, 0), 1 << 30, 2)])
    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)
    monkeypatch.setattr(hardware, "driver_version", lambda: state.version)
    monkeypatch.setattr(hardware, "_driver", lambda: SimpleNamespace(cuInit=lambda flags: state.status))
    monkeypatch.setattr(hardware, "gpus", lambda: state.gpus)
    monkeypatch.setattr(hardware, "_version", lambda package: state.packages.get(package))
    monkeypatch.setattr(hardware, "find_spec", lambda name: object() if "numba-cuda" in state.packages else None)
    return state


@pytest.mark.parametrize("change, words", [
    ({}, ""),
    ({"version": None}, "no NVIDIA driver was found"),
    ({"version": 11_080}, r"supports CUDA 11\.8, numbanet needs 12\.0 or newer; update the driver"),
    ({"packages": {}}, r"numba-cuda is not installed; pip install 'numbanet\[cuda13\]' fits this driver \(CUDA 13\.0\)"),
    ({"packages": {}, "version": 12_040}, r"pip install 'numbanet\[cuda12\]' fits this driver \(CUDA 12\.4\)"),
    ({"version": 12_040}, r"CUDA 13 packages are newer than the driver, which supports 12\.4; pip install 'numbanet\[cuda12\]'"),
    ({"packages": {"numba-cuda": "0.29.9", "cuda-bindings": "13.0"}}, r"numba-cuda 0\.29\.9 is too old"),
    ({"status": 803}, "error 803.*restart the machine"),
    ({"status": 999}, r"error 999\): see nvidia-smi"),
    ({"gpus": []}, "finds no GPU"),
])
def test_why_there_is_no_cuda(machine, change, words):
    vars(machine).update(change)
    assert re.search(words, hardware.why_not()) and bool(words) == bool(hardware.why_not())


def test_gpus_that_are_not_there(machine):
    with pytest.raises(BackendError, match="device 'cuda:3': there is 1 GPU here, numbered from 0; use cuda:0 or less"):
        hardware.require("cuda:3", 3)
    machine.gpus = [hardware.GPU("K80", (3, 7), 1 << 30, 2)]
    with pytest.raises(BackendError, match="K80 is sm_37; numbanet needs sm_80 or newer"):
        hardware.require("cuda", 0)


@pytest.mark.parametrize("name", ["cuda:", "cuda:x", "cuda:-1", "cuda:1.5"])
def test_names_of_devices(name):
    import numbanet
    with pytest.raises(BackendError, match="expected 'cuda' or 'cuda:' and the number of a GPU"):
        numbanet.ones(1, device=name)


# Streams

@pytest.fixture
def streams(fake, monkeypatch):
    """`numbanet.cuda` over the driver of host memory: its backend and functions."""
    import numbanet
    allocator = memory.Allocator(driver.Device(0))
    backend = SimpleNamespace(device=allocator.device, allocator=allocator, name="cuda:0", synchronize=allocator.device.synchronize)
    monkeypatch.setattr(numbanet.cuda, "get_backend", lambda name: backend)
    return backend, numbanet.cuda


def test_work_goes_to_the_stream_that_is_entered(fake, streams):
    backend, cuda = streams
    mine, start = cuda.Stream(), cuda.current_stream()
    assert start == cuda.default_stream() != mine and start.cuda_stream == 7
    with cuda.stream(mine), cuda.stream(None):
        assert cuda.current_stream() == mine
        backend.device.launch("a", (1, 1, 1), 32, driver.Parameters((), ()))
        seen = []
        thread = threading.Thread(target=lambda: seen.append(cuda.current_stream()))
        thread.start()
        thread.join()
        assert seen == [start], "another thread is where it was"
    backend.device.launch("b", (1, 1, 1), 32, driver.Parameters((), ()))
    assert [launch[4] for launch in fake.launched] == [mine.cuda_stream, start.cuda_stream]


def test_streams_wait_for_each_other_only_where_they_are_told_to(fake, streams):
    _, cuda = streams
    first, second = cuda.Stream(), cuda.Stream()
    second.wait_stream(first)
    first.wait_stream(first)
    assert fake.waits == [(second.cuda_stream, first.cuda_stream)]
    event = first.record_event()
    assert event._event.handle[1] == first.cuda_stream and event.query()
    later = cuda.Event()
    later.record(second)
    event.synchronize()
    assert event.elapsed_time(later) == 0 and first.query()
    first.synchronize()
    assert "cuStreamSynchronize" in fake.calls


def test_memory_goes_back_to_its_stream(fake, streams):
    backend, cuda = streams
    mine = cuda.Stream()
    with cuda.stream(mine):
        made = backend.allocator.empty((1000,), np.dtype(np.float32))
        place = made.pointer
        del made
    assert backend.allocator.empty((1000,), np.dtype(np.float32)).pointer != place
    with cuda.stream(mine):
        assert backend.allocator.empty((1000,), np.dtype(np.float32)).pointer == place


def test_memory_that_another_stream_reads_waits_for_it(fake, streams):
    backend, cuda = streams
    mine = cuda.Stream()
    array = backend.allocator.empty((1000,), np.dtype(np.float32))
    cuda.record_stream(SimpleNamespace(array=array), mine)
    assert fake.waits == []
    del array
    assert fake.waits == [(7, mine.cuda_stream)]


def test_copies_ahead_go_beside_and_are_waited_for(fake, streams, rng):
    """A stream of their own, which waits for whoever had the memory; work after `ready` waits for the copy."""
    backend, _ = streams
    device = backend.device
    array, values = backend.allocator.empty((100,), np.dtype(np.uint8)), rng.integers(0, 256, 100, np.uint8)
    ready = device.upload_ahead(array.pointer, 0, values)
    copies, = {stream for stream, _ in fake.waits}
    assert copies != 7 and fake.waits == [(copies, 7)]
    ready()
    assert fake.waits[-1] == (7, copies)
    np.testing.assert_array_equal(backend.allocator.to_numpy(array), values)
