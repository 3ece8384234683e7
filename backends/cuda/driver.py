"""One GPU as this backend uses it: memory, copies, a stream; and the same over host memory for Numba's simulator.

A handle is what `allocate` returns: the address on a GPU, a NumPy array of bytes in the simulator.
"""

from __future__ import annotations

import ctypes
import os
import threading

import numpy as np

from numbanet.backends.cuda import hardware
from numbanet.backends.cuda.pinned import Staging
from numbanet.errors import BackendError


class OutOfMemory(Exception):
    """The device has no memory of that size."""


class SimulatedDevice:
    """Host memory in place of a GPU's."""

    def __init__(self, index: int):
        self.index = index

    def activate(self) -> None:
        """Nothing to do."""

    def allocate(self, nbytes: int):
        """`nbytes` of memory."""
        return np.empty(nbytes, np.uint8)

    def free(self, handle) -> None:
        """Give memory back; Python does."""

    def upload(self, handle, offset: int, host: np.ndarray) -> None:
        """Copy the bytes of `host` (uint8, dense) to the device."""
        handle[offset:offset + host.nbytes] = host

    def download(self, host: np.ndarray, handle, offset: int) -> None:
        """Copy bytes of the device to `host` (uint8, dense); they are there afterwards."""
        host[...] = handle[offset:offset + host.nbytes]

    def fill(self, handle, offset: int, nbytes: int, value: int) -> None:
        """Set bytes."""
        handle[offset:offset + nbytes] = value

    def memory(self) -> tuple[int, int]:
        """(free, total) bytes."""
        return 1 << 30, 1 << 30

    def synchronize(self) -> None:
        """Nothing is ever under way."""

    stream = 0


class Device:
    """A GPU through the driver's API. All work goes to one stream of its own, in order."""

    def __init__(self, index: int):
        from cuda.bindings import driver
        self.driver, self.index = driver, index
        self._current, self._process, self._alone = threading.local(), os.getpid(), len(hardware.gpus()) == 1
        self._call("cuInit", 0)
        self.handle = self._call("cuDeviceGet", index)
        self.context = self._call("cuDevicePrimaryCtxRetain", self.handle)     # the one that Numba uses
        self.activate()
        self.multiprocessors, self.arch = hardware.gpus()[index].multiprocessors, hardware.gpus()[index].architecture
        self.stream = int(self._call("cuStreamCreate", int(driver.CUstream_flags.CU_STREAM_NON_BLOCKING)))
        self._staging = Staging(self._call, self.stream)

    def _call(self, name: str, *arguments):
        status, *results = getattr(self.driver, name)(*arguments)
        if name == "cuEventQuery" and status == self.driver.CUresult.CUDA_ERROR_NOT_READY:
            return False
        if status == self.driver.CUresult.CUDA_SUCCESS:
            return True if not results else results[0] if len(results) == 1 else tuple(results)
        if status == self.driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            raise OutOfMemory
        raise BackendError(f"cuda:{self.index}: {name} failed: {self._describe(status)}")

    def _describe(self, status) -> str:
        code, text = self.driver.cuGetErrorString(status)
        return f"{text.decode() if text else 'unknown error'} ({status.name})"

    def activate(self) -> None:
        """Make this GPU the calling thread's."""
        if self._process != os.getpid():
            raise BackendError(f"cuda:{self.index}: the GPU was used before this process was forked, and CUDA does not survive that; start "
                               "workers with the method 'spawn', or use threads")
        if getattr(self._current, "is_set", False) and self._alone:
            return
        self._call("cuCtxSetCurrent", self.context)
        self._current.is_set = True

    def allocate(self, nbytes: int) -> int:
        """`nbytes` of memory, 256-byte aligned."""
        self.activate()
        return int(self._call("cuMemAlloc", nbytes))

    def free(self, handle: int) -> None:
        """Give memory back to the driver; it waits for the work that uses it."""
        self.activate()
        self._call("cuMemFree", handle)

    def upload(self, handle: int, offset: int, host: np.ndarray) -> None:
        """Copy the bytes of `host` (uint8, dense) to the device, in the order of the stream; `host` may be reused at once."""
        self.activate()
        self._staging.upload(handle + offset, host)

    def download(self, host: np.ndarray, handle: int, offset: int) -> None:
        """Copy bytes of the device to `host` once all work before is done; they are there afterwards."""
        self.activate()
        self._staging.download(host, handle + offset)

    def fill(self, handle: int, offset: int, nbytes: int, value: int) -> None:
        """Set bytes."""
        self.activate()
        self._call("cuMemsetD8Async", handle + offset, value, nbytes, self.stream)

    def load(self, code: bytes, name: str):
        """The kernel `name` of machine code, to be launched; it stays loaded."""
        self.activate()
        return self._call("cuModuleGetFunction", self._call("cuModuleLoadData", code), name.encode())

    def launch(self, function, blocks: int, threads: int, words: list) -> None:
        """Run a kernel whose parameters are these C numbers."""
        self.activate()
        addresses = (ctypes.c_void_p * len(words))(*[ctypes.addressof(word) for word in words])
        self._call("cuLaunchKernel", function, blocks, 1, 1, threads, 1, 1, 0, self.stream, ctypes.addressof(addresses), 0)

    def memory(self) -> tuple[int, int]:
        """(free, total) bytes."""
        self.activate()
        return self._call("cuMemGetInfo")

    def synchronize(self) -> None:
        """Wait for all work."""
        self.activate()
        self._call("cuStreamSynchronize", self.stream)
