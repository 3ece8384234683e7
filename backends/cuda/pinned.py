"""Host memory that a GPU copies from and to by itself, while Python goes on: pinned, which costs milliseconds to allocate, so it is kept.

An upload is a copy into a pinned block and an asynchronous transfer after it; the array given by the caller can be reused at once. A block
is free again when the transfer has passed its event on the stream.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections import deque
from threading import Lock

import numpy as np

from numbanet.backends.interface import Mirror

PIECE = 8 << 20                 # larger transfers go in pieces: while one is under way, the next is copied
MOST = 8                        # blocks; then the oldest transfer is waited for


class Staging:
    """Blocks of pinned memory of one device.

    Parameters
    ----------
    call
        Calls a function of the driver by name and raises on errors.
    """

    def __init__(self, call):
        self._call = call
        self._busy: deque = deque()             # blocks in the order of their transfers
        self._made = 0
        self._lock = Lock()

    def upload(self, pointer: int, host: np.ndarray, stream: int) -> None:
        """Copy the bytes of `host` (uint8, dense) to the device, in the order of the stream."""
        with self._lock:
            for begin in range(0, host.nbytes, PIECE):
                block = self._take()
                part = host[begin:begin + PIECE]
                block.memory[:part.nbytes] = part
                self._call("cuMemcpyHtoDAsync", pointer + begin, block.address, part.nbytes, stream)
                self._release(block, stream)

    def download(self, host: np.ndarray, pointer: int, stream: int) -> None:
        """Copy bytes of the device to `host` (uint8, dense) once all work before is done; they are there afterwards."""
        with self._lock:
            pending: deque = deque()
            for begin in range(0, host.nbytes, PIECE):
                if len(pending) == 2:
                    self._receive(host, *pending.popleft())
                block, size = self._take(), min(PIECE, host.nbytes - begin)
                self._call("cuMemcpyDtoHAsync", block.address, pointer + begin, size, stream)
                self._call("cuEventRecord", block.event, stream)
                pending.append((block, begin, size))
            while pending:
                self._receive(host, *pending.popleft())

    def _receive(self, host, block, begin, size) -> None:
        self._call("cuEventSynchronize", block.event)
        host[begin:begin + size] = block.memory[:size]
        self._busy.appendleft(block)            # its event has passed

    def _take(self) -> _Block:
        if self._busy and (self._made >= MOST or self._call("cuEventQuery", self._busy[0].event)):
            block = self._busy.popleft()
            self._call("cuEventSynchronize", block.event)
            return block
        self._made += 1
        return _Block(self._call)

    def _release(self, block, stream: int) -> None:
        self._call("cuEventRecord", block.event, stream)
        self._busy.append(block)


class Pinned:
    """Pinned memory that an array is copied to and from, in the order of the stream.

    Attributes
    ----------
    memory : numpy.ndarray of bytes
    """

    def __init__(self, device, nbytes: int):
        device.activate()
        self._device, self._call, size = device, device._call, max(nbytes, 1)
        self._address = int(self._call("cuMemHostAlloc", size, 0))
        self._event = self._call("cuEventCreate", 0)
        self.memory = np.frombuffer((ctypes.c_uint8 * size).from_address(self._address), np.uint8)[:nbytes]

    def __del__(self):
        with contextlib.suppress(Exception):            # the interpreter, or the driver, may be on its way out
            if self._device._process == os.getpid():
                self._call("cuEventSynchronize", self._event)
                self._call("cuEventDestroy", self._event)
                self._call("cuMemFreeHost", self._address)

    def receive(self, pointer: int) -> None:
        """Begin to copy from the device."""
        self._device.activate()
        self._call("cuMemcpyDtoHAsync", self._address, pointer, self.memory.nbytes, self._device.stream)
        self._call("cuEventRecord", self._event, self._device.stream)

    def send(self, pointer: int) -> None:
        """Begin to copy to the device."""
        self._device.activate()
        self._call("cuMemcpyHtoDAsync", pointer, self._address, self.memory.nbytes, self._device.stream)
        self._call("cuEventRecord", self._event, self._device.stream)

    def is_done(self) -> bool:
        """Whether the last copy is."""
        return self._call("cuEventQuery", self._event)

    def wait(self) -> None:
        """Until it is."""
        self._call("cuEventSynchronize", self._event)


class PinnedMirror(Mirror):
    """An array's mirror in pinned memory."""

    def __init__(self, backend, array):
        self.backend, self.array = backend, array
        self._pinned = Pinned(array.device, array.nbytes)
        self.host = self._pinned.memory.view(array.dtype).reshape(array.shape)

    def fetch(self) -> None:
        self._pinned.receive(self.array.pointer)

    def is_here(self) -> bool:
        return self._pinned.is_done()

    def wait(self) -> None:
        self._pinned.wait()

    def send(self) -> None:
        self._pinned.send(self.array.pointer)


class _Block:
    """PIECE bytes of pinned memory and the event of their last transfer."""

    def __init__(self, call):
        self.address = int(call("cuMemHostAlloc", PIECE, 0))
        self.event = call("cuEventCreate", 0)
        self.memory = np.frombuffer((ctypes.c_uint8 * PIECE).from_address(self.address), np.uint8)
