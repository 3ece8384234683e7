"""One GPU as this backend uses it: memory, copies, a stream; and the same over host memory for Numba's simulator.

A handle is what `allocate` returns: the address on a GPU, a NumPy array of bytes in the simulator.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import threading
import time
from functools import cache

import numpy as np

from numbanet.backends.cuda import hardware
from numbanet.backends.cuda.pinned import Staging
from numbanet.errors import BackendError

STATIC_SHARED = 48 * 1024       # bytes of shared memory that a kernel gets without asking


class OutOfMemory(Exception):
    """The device has no memory of that size."""


class Queue:
    """Work in the order in which it is asked for: done at once, or written down where the calling thread records (`recording.py`)."""

    def __init__(self, index: int):
        self.index, self._own = index, threading.local()

    @property
    def recording(self):
        """What the calling thread's work is written into; None where it is done."""
        return getattr(self._own, "recording", None)

    @recording.setter
    def recording(self, recording) -> None:
        self._own.recording = recording

    def submit(self, call) -> None:
        """Do `call(stream)`, or write it down."""
        recording = self.recording
        if recording is None:
            call(self.stream)
        else:
            recording.calls.append(call)

    def check(self, question) -> None:
        """Call `question`, which reads a value back and may raise; where the thread records, after each replay."""
        recording = self.recording
        if recording is None:
            question()
        else:
            recording.checks.append(question)

    def refuse_recording(self, what: str) -> None:
        """Raise while recording."""
        if self.recording is not None:
            raise NotRecordable(what)


class NotRecordable(Exception):
    """What was asked for while recording depends on numbers that are not there yet."""


class HostEvent:
    """A moment of a device whose work is done when it has been asked for."""

    def __init__(self, device):
        self.time = 0.0

    def record(self) -> None:
        """Now."""
        self.time = time.perf_counter()

    def synchronize(self) -> None:
        """It has passed."""

    def query(self) -> bool:
        """It has passed."""
        return True

    def elapsed(self, later: HostEvent) -> float:
        """Milliseconds between two."""
        return 1e3 * (later.time - self.time)


class DeviceEvent:
    """A moment in the order of a stream."""

    def __init__(self, device: Device):
        self._device = device
        self.handle = device._call("cuEventCreate", 0)

    def __del__(self):
        with contextlib.suppress(Exception):                    # the interpreter, or the driver, may be on its way out
            if self._device._process == os.getpid():
                self._device._call("cuEventDestroy", self.handle)       # which waits until it has passed

    def record(self) -> None:
        """When all work that was asked for so far on the current stream is done."""
        self._device._call("cuEventRecord", self.handle, self._device.stream)

    def synchronize(self) -> None:
        """Wait for it."""
        self._device._call("cuEventSynchronize", self.handle)

    def query(self) -> bool:
        """Whether it has passed."""
        return self._device._call("cuEventQuery", self.handle)

    def elapsed(self, later: DeviceEvent) -> float:
        """Milliseconds between two that have passed."""
        return self._device._call("cuEventElapsedTime", self.handle, later.handle)


class SimulatedDevice(Queue):
    """Host memory in place of a GPU's."""

    runs_tiles = False              # tile programs need warps, which Numba's simulator lacks

    def activate(self) -> None:
        """Nothing to do."""

    def allocate(self, nbytes: int):
        """`nbytes` of memory."""
        return np.empty(nbytes, np.uint8)

    def free(self, handle) -> None:
        """Give memory back; Python does."""

    def address(self, handle) -> int:
        """Where the memory of a handle begins."""
        return handle.ctypes.data

    def upload_ahead(self, handle, offset: int, host: np.ndarray):
        """As `upload`; the function that is returned has nothing to wait for."""
        self.upload(handle, offset, host)
        return lambda: None

    def upload(self, handle, offset: int, host: np.ndarray) -> None:
        """Copy the bytes of `host` (uint8, dense) to the device."""
        self.refuse_recording("an upload")
        handle[offset:offset + host.nbytes] = host

    def download(self, host: np.ndarray, handle, offset: int) -> None:
        """Copy bytes of the device to `host` (uint8, dense); they are there afterwards."""
        self.refuse_recording("a value that is read back")
        host[...] = handle[offset:offset + host.nbytes]

    def fill(self, handle, offset: int, nbytes: int, value: int) -> None:
        """Set bytes."""
        def fill(stream):
            handle[offset:offset + nbytes] = value
        self.submit(fill)

    def copy(self, source: int, target: int, nbytes: int) -> None:
        """Copy bytes from one address of the device to another."""
        self.submit(lambda stream: ctypes.memmove(self._host(target), self._host(source), nbytes))

    def _host(self, address: int) -> int:
        return address

    def event(self) -> HostEvent:
        """A moment that can be recorded."""
        return HostEvent(self)

    def capture(self, calls):
        """One call that does them all."""
        calls = tuple(calls)

        def replay(stream):
            for call in calls:
                call(stream)
        return replay

    def memory(self) -> tuple[int, int]:
        """(free, total) bytes."""
        return 1 << 30, 1 << 30

    def synchronize(self) -> None:
        """Nothing is ever under way."""

    stream = default_stream = 0

    def new_stream(self) -> int:
        """There is one stream."""
        return 0

    def wait_for(self, first: int, second: int) -> None:
        """There is one stream."""

    def is_idle(self, stream: int) -> bool:
        """Nothing is ever under way."""
        return True


class Device(Queue):
    """A GPU through the driver's API. All work goes to one stream of its own, in order."""

    runs_tiles = True

    def __init__(self, index: int):
        super().__init__(index)
        from cuda.bindings import driver
        self.driver = driver
        self._process, self._alone = os.getpid(), len(hardware.gpus()) == 1
        self._call("cuInit", 0)
        self.handle = self._call("cuDeviceGet", index)
        self.context = self._call("cuDevicePrimaryCtxRetain", self.handle)     # the one that Numba uses
        self.activate()
        self.multiprocessors, self.arch = hardware.gpus()[index].multiprocessors, hardware.gpus()[index].architecture
        self.default_stream = self.new_stream()
        self.tile_functions, self.tile_calls = {}, {}                       # of tile programs, see `tiles/launch.py`
        self._staging = Staging(self._call)
        self._ahead: tuple[int, Staging] | None = None                      # a stream of copies alone
        self._lock = threading.Lock()

    @property
    def stream(self) -> int:
        """The stream of the calling thread's work."""
        return getattr(self._own, "stream", None) or self.default_stream

    @stream.setter
    def stream(self, stream: int | None) -> None:
        self._own.stream = stream

    def new_stream(self) -> int:
        """Another stream, which waits for no other."""
        return int(self._call("cuStreamCreate", int(self.driver.CUstream_flags.CU_STREAM_NON_BLOCKING)))

    def wait_for(self, first: int, second: int) -> None:
        """What is asked of stream `second` from now on comes after what was asked of `first`."""
        if first != second:
            self.activate()                                     # the thread may be one that a finaliser runs in
            event = DeviceEvent(self)
            self._call("cuEventRecord", event.handle, first)
            self._call("cuStreamWaitEvent", second, event.handle, 0)

    def _call(self, name: str, *arguments):
        status, *results = getattr(self.driver, name)(*arguments)
        if name in ("cuEventQuery", "cuStreamQuery") and status == self.driver.CUresult.CUDA_ERROR_NOT_READY:
            return False
        if status == self.driver.CUresult.CUDA_SUCCESS:
            return True if not results else results[0] if len(results) == 1 else tuple(results)
        self._raise(name, status)

    def _raise(self, name: str, status) -> None:
        """The error of a call that gave another status than success; nothing for success."""
        if status == self.driver.CUresult.CUDA_SUCCESS:
            return
        if status == self.driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            raise OutOfMemory
        code, text = self.driver.cuGetErrorString(status)
        raise BackendError(f"cuda:{self.index}: {name} failed: {text.decode() if text else 'unknown error'} ({status.name})")

    def activate(self) -> None:
        """Make this GPU the calling thread's."""
        if self._process != os.getpid():
            raise BackendError(f"cuda:{self.index}: the GPU was used before this process was forked, and CUDA does not survive that; start "
                               "workers with the method 'spawn', or use threads")
        if getattr(self._own, "is_set", False) and self._alone:
            return
        self._call("cuCtxSetCurrent", self.context)
        self._own.is_set = True

    def allocate(self, nbytes: int) -> int:
        """`nbytes` of memory, 256-byte aligned."""
        self.activate()
        return int(self._call("cuMemAlloc", nbytes))

    def free(self, handle: int) -> None:
        """Give memory back to the driver; it waits for the work that uses it."""
        self.activate()
        self._call("cuMemFree", handle)

    def address(self, handle: int) -> int:
        """Where the memory of a handle begins."""
        return handle

    def upload(self, handle: int, offset: int, host: np.ndarray) -> None:
        """Copy the bytes of `host` (uint8, dense) to the device, in the order of the stream; `host` may be reused at once."""
        self.refuse_recording("an upload")
        self.activate()
        self._staging.upload(handle + offset, host, self.stream)

    def upload_ahead(self, handle: int, offset: int, host: np.ndarray):
        """As `upload`, on a stream of copies alone, beside what is asked for from now on; the function that is returned lets the calling
        thread's stream wait for it."""
        self.activate()
        with self._lock:
            if self._ahead is None:
                self._ahead = self.new_stream(), Staging(self._call)
            stream, staging = self._ahead
            self.wait_for(self.stream, stream)              # whoever had the memory before
            staging.upload(handle + offset, host, stream)
            event = DeviceEvent(self)
            self._call("cuEventRecord", event.handle, stream)
        return lambda: self._call("cuStreamWaitEvent", self.stream, event.handle, 0)

    def download(self, host: np.ndarray, handle: int, offset: int) -> None:
        """Copy bytes of the device to `host` once all work before is done; they are there afterwards."""
        self.refuse_recording("a value that is read back")
        self.activate()
        self._staging.download(host, handle + offset, self.stream)

    def fill(self, handle: int, offset: int, nbytes: int, value: int) -> None:
        """Set bytes."""
        self.activate()
        self.submit(lambda stream: self._call("cuMemsetD8Async", handle + offset, value, nbytes, stream))

    def copy(self, source: int, target: int, nbytes: int) -> None:
        """Copy bytes from one address of the device to another."""
        self.activate()
        self.submit(lambda stream: self._call("cuMemcpyDtoDAsync", target, source, nbytes, stream))

    def event(self) -> DeviceEvent:
        """A moment that can be recorded."""
        self.activate()
        return DeviceEvent(self)

    def is_idle(self, stream: int) -> bool:
        """Whether all work of a stream is done."""
        self.activate()
        return self._call("cuStreamQuery", stream)

    def capture(self, calls) -> Graph:
        """One call that does them all: a CUDA graph, captured on a stream of its own, so that nobody else's work gets into it."""
        self.activate()
        stream = int(self._call("cuStreamCreate", int(self.driver.CUstream_flags.CU_STREAM_NON_BLOCKING)))
        self._call("cuStreamBeginCapture", stream, self.driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
        try:
            for call in calls:
                call(stream)
        finally:
            graph = self._call("cuStreamEndCapture", stream)
            self._call("cuStreamDestroy", stream)
        try:
            return Graph(self, self._call("cuGraphInstantiate", graph, 0))
        finally:
            self._call("cuGraphDestroy", graph)

    def load(self, code: bytes, name: str, shared: int = 0):
        """The kernel `name` of machine code, to be launched with so many bytes of dynamic shared memory; it stays loaded."""
        self.activate()
        function = self._call("cuModuleGetFunction", self._call("cuModuleLoadData", code), name.encode())
        if shared > STATIC_SHARED:
            attribute = self.driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            self._call("cuFuncSetAttribute", function, attribute, shared)
        return function

    def load_kernel(self, kernel, types: tuple[str, ...]):
        """A kernel of `@kernel` for these types of arguments (`launch.py`)."""
        from numbanet.backends.cuda.launch import machine_code
        made = machine_code(kernel, types, self.arch)
        return self.load(made.code, made.name)

    def launch(self, function, grid: tuple[int, int, int], threads: int, parameters: Parameters, shared: int = 0) -> None:
        """Run a kernel."""
        self.activate()
        self.submit(self.call(function, grid, threads, parameters, shared))

    def call(self, function, grid: tuple[int, int, int], threads: int, parameters: Parameters, shared: int = 0) -> KernelCall:
        """A launch laid out, to be submitted any number of times."""
        return KernelCall(self, function, grid, threads, parameters, shared)

    def run_tiles(self, launches) -> None:
        """Run launches of tile programs (`tiles/arguments.py`) in order."""
        from numbanet.backends.cuda.tiles.launch import call_of
        self.activate()
        for launch in launches:
            self.submit(call_of(self, launch))

    def memory(self) -> tuple[int, int]:
        """(free, total) bytes."""
        self.activate()
        return self._call("cuMemGetInfo")

    def synchronize(self) -> None:
        """Wait for all work."""
        self.refuse_recording("a wait")
        self.activate()
        for stream in {self.default_stream, self.stream}:
            self._call("cuStreamSynchronize", stream)


_LETTERS = {"int32": "i4x", "int64": "q", "uint8": "B7x", "uint32": "I4x", "uint64": "Q", "float32": "f4x", "float64": "d", "bool": "?7x",
            "size": "i4xI4xi4x"}


@cache
def _format(types: tuple[str, ...]) -> struct.Struct:
    """What packs parameters of these types, in eight bytes each."""
    letters = []
    for text in types:
        base, _, count = text.partition("x")
        letters.append("q" if text.startswith("*") else _LETTERS[base] * int(count or 1))
    return struct.Struct("<" + "".join(letters))


@cache
def _pointers(count: int):
    return ctypes.c_void_p * count


class Parameters:
    """The parameters of a kernel in memory, one in each eight bytes: a sequence of these.

    Parameters
    ----------
    types
        Of the kernel's arguments, as `launch.py` and `tiles/catalog.py` name them.
    numbers
        Of all arguments, one by one.
    """

    __slots__ = ("_memory", "_count")

    def __init__(self, types: tuple[str, ...], numbers):
        packed = _format(types).pack(*numbers)
        self._memory, self._count = ctypes.create_string_buffer(packed, len(packed)), len(packed) // 8

    def __len__(self):
        return self._count

    def __getitem__(self, i: int) -> bytes:
        if i >= self._count:
            raise IndexError(i)
        return self._memory[8 * i:8 * i + 8]

    def addresses(self):
        """An array of where each is, which lives no longer than they do."""
        first = ctypes.addressof(self._memory)
        return _pointers(self._count)(*range(first, first + 8 * self._count, 8))


class KernelCall:
    """A kernel with its grid and its parameters laid out: a call decides nothing, and costs one call of the driver."""

    __slots__ = ("_launch", "_success", "_failed", "_numbers", "_arguments", "_parameters")

    def __init__(self, device: Device, function, grid: tuple[int, int, int], threads: int, parameters: Parameters, shared: int):
        self._launch, self._success = device.driver.cuLaunchKernel, device.driver.CUresult.CUDA_SUCCESS
        self._failed = device._raise
        addresses = parameters.addresses()
        self._numbers = parameters, addresses               # kept: the driver is given where they are
        self._arguments, self._parameters = (function, *grid, threads, 1, 1, shared), ctypes.addressof(addresses)

    def __call__(self, stream: int) -> None:
        status, = self._launch(*self._arguments, stream, self._parameters, 0)
        if status is not self._success:
            self._failed("cuLaunchKernel", status)


class Graph:
    """Captured calls: replayed by one call of the driver."""

    def __init__(self, device: Device, executable):
        self._call, self._executable, self._process = device._call, executable, os.getpid()

    def __call__(self, stream: int) -> None:
        self._call("cuGraphLaunch", self._executable, stream)

    def __del__(self):
        with contextlib.suppress(Exception):                    # the interpreter, or the driver, may be on its way out
            if self._process == os.getpid():
                self._call("cuGraphExecDestroy", self._executable)
