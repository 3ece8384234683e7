"""Arrays on a GPU, and the caching allocator behind them.

The driver's own allocation takes microseconds to milliseconds and waits for the GPU; blocks are therefore kept for reuse, by size
class and stream. Work of a stream runs in order, so a block that Python has dropped may be handed out to the same stream at once: what
still reads it was launched earlier. Who reads an array on another stream says so (`readers`): the first stream then waits for it.
"""

from __future__ import annotations

import os
import threading
from math import prod
from typing import NamedTuple

import numpy as np

from numbanet.backends.interface import dense_strides, order_of
from numbanet.errors import BackendError

SMALLEST_BLOCK = 512
LARGE = 1 << 20                 # from here on sizes are rounded up to LARGE; below to powers of two and their quarters


class MemoryStatistics(NamedTuple):
    """Bytes of blocks: held in all, of these in use, and the most of both."""

    held: int
    in_use: int
    peak_held: int
    peak_in_use: int


class _Lease:
    """Memory in use. Every view of an array refers to it; when it dies the block goes back."""

    __slots__ = ("allocator", "handle", "size", "nbytes", "stream", "readers")

    def __init__(self, allocator, handle, size, nbytes, stream):
        self.allocator, self.handle, self.size, self.nbytes, self.stream, self.readers = allocator, handle, size, nbytes, stream, ()

    def __del__(self):
        for reader in self.readers:
            self.allocator.device.wait_for(reader, self.stream)
        self.allocator._returned(self.handle, self.size, self.stream)


class DeviceArray:
    """An n-dimensional array on a device: memory, a place in it, shape and strides (bytes, never negative)."""

    __slots__ = ("lease", "offset", "shape", "strides", "dtype", "size", "__weakref__")
    computes_16_bit = True      # kernels take float16 and bfloat16, and compute in float32

    def __init__(self, lease: _Lease, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype):
        self.lease, self.offset, self.shape, self.strides, self.dtype = lease, offset, shape, strides, dtype
        self.size = prod(shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def device(self):
        """The :mod:`driver <numbanet.backends.cuda.driver>` device."""
        return self.lease.allocator.device

    @property
    def pointer(self) -> int:
        """The address of the first element."""
        return self.lease.handle + self.offset

    @property
    def steps(self) -> tuple[int, ...]:
        """The strides in elements."""
        itemsize = self.dtype.itemsize
        return tuple([s // itemsize for s in self.strides])

    @property
    def reach(self) -> int:
        """Elements from the first to the end of the memory."""
        return (self.lease.nbytes - self.offset) // self.dtype.itemsize

    def view(self, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> DeviceArray:
        """Other shape and strides (bytes) over the same memory, beginning `offset` bytes later."""
        return DeviceArray(self.lease, self.offset + offset, shape, strides, self.dtype)

    @property
    def is_dense(self) -> bool:
        """Whether the elements fill one piece of memory, in any order of the axes."""
        return _same_places(self.shape, self.strides, dense_strides(self.shape, self.dtype, order_of(self)))

    @property
    def is_row_major(self) -> bool:
        """Whether the elements lie in logical order without gaps."""
        return _same_places(self.shape, self.strides, dense_strides(self.shape, self.dtype))

    @property
    def __cuda_array_interface__(self) -> dict:
        if isinstance(self.lease.handle, np.ndarray):
            raise AttributeError("arrays of the simulator are not on a GPU")
        return {"shape": self.shape, "strides": None if self.is_row_major else self.strides, "typestr": self.dtype.str,
                "data": (self.pointer if self.size else 0, False), "version": 3, "stream": self.device.stream}

    def __dlpack__(self, **options):
        from numbanet.backends.cuda.dlpack import export
        return export(self)

    def __dlpack_device__(self) -> tuple[int, int]:
        from numbanet.backends.cuda.dlpack import device_of
        return device_of(self)

    def __repr__(self):
        return f"<{self.dtype} array {self.shape} on cuda:{self.device.index}>"


def _same_places(shape, first, second) -> bool:
    return 0 in shape or all(n == 1 or a == b for n, a, b in zip(shape, first, second))


class Allocator:
    """Blocks of one device, by size class.

    Parameters
    ----------
    device
        See :mod:`~numbanet.backends.cuda.driver`.
    limit
        Bytes that may be held; None for all that the GPU has.
    """

    def __init__(self, device, limit: int | None = None):
        self.device, self.limit = device, limit
        self._pools: dict[tuple, list] = {}         # by stream and size: work of one stream is in order, see `record_stream`
        self._held = self._in_use = self._peak_held = self._peak_in_use = 0
        self._lock = threading.RLock()              # a finaliser may run while this thread holds it

    def empty(self, shape, dtype, order=None) -> DeviceArray:
        """An uninitialised array in the given memory order (see `ArraySpec`)."""
        shape, dtype = tuple(shape), np.dtype(dtype)
        return DeviceArray(self.lease(prod(shape) * dtype.itemsize), 0, shape, dense_strides(shape, dtype, order), dtype)

    def zeros(self, count: int, dtype) -> DeviceArray:
        """`count` zeros."""
        made = self.empty((count,), dtype)
        self.device.fill(made.lease.handle, 0, made.nbytes, 0)
        return made

    def lease(self, nbytes: int) -> _Lease:
        """`nbytes` of uninitialised memory.

        Raises
        ------
        BackendError
            Where there is too little memory, also after unused blocks were given back.
        """
        recording = self.device.recording
        if recording is not None and recording.pool is not self:
            return recording.pool.take(nbytes)
        return self.take(nbytes)

    def take(self, nbytes: int) -> _Lease:
        """The same, of this allocator whatever is recorded (`recording.py`)."""
        size = size_class(nbytes)
        with self._lock:
            stream = self.device.stream
            pool = self._pools.setdefault((stream, size), [])
            if pool:
                handle = pool.pop()
            else:
                handle = self._allocate(size)
                self._held += size
                self._peak_held = max(self._peak_held, self._held)
            self._in_use += size
            self._peak_in_use = max(self._peak_in_use, self._in_use)
        return _Lease(self, handle, size, nbytes, stream)

    def _allocate(self, size: int):
        from numbanet.backends.cuda.driver import OutOfMemory
        for attempt in range(2):
            if self.limit is None or self._held + size <= self.limit:
                try:
                    return self.device.allocate(size)
                except OutOfMemory:
                    pass
            if not attempt:
                self.trim()
        free, total = self.device.memory()
        limit = f", of which numbanet may hold {_megabytes(self.limit)}" if self.limit is not None else ""
        raise BackendError(
            f"cuda:{self.device.index}: {_megabytes(size)} are asked for; the GPU has {_megabytes(total)}{limit}, {_megabytes(free)} are "
            f"free, and arrays of this process hold {_megabytes(self._in_use)} (at most {_megabytes(self._peak_in_use)}). A smaller "
            "batch, dropping references to old outputs, or numbanet.no_grad() for inference needs less")

    def _returned(self, handle, size: int, stream: int) -> None:
        with self._lock:
            self._in_use -= size
            self._pools[stream, size].append(handle)

    def trim(self) -> int:
        """Give the blocks that are not in use back to the GPU; return their bytes."""
        freed = 0
        with self._lock:
            for (_, size), pool in self._pools.items():
                while pool:
                    self.device.free(pool.pop())
                    freed += size
            self._held -= freed
        return freed

    def statistics(self) -> MemoryStatistics:
        """What is held and in use, now and at most."""
        with self._lock:
            return MemoryStatistics(self._held, self._in_use, self._peak_held, self._peak_in_use)

    def reset_peaks(self) -> None:
        """Let the peaks start from now."""
        with self._lock:
            self._peak_held, self._peak_in_use = self._held, self._in_use

    def from_numpy(self, array: np.ndarray) -> DeviceArray:
        """A copy on the device, dense in the order of the array's own memory."""
        made, host = self._with_host(array)
        if made.size:
            self.device.upload(made.lease.handle, 0, host)
        return made

    def from_numpy_ahead(self, array: np.ndarray):
        """(the same, copied on a stream of copies alone; a function that lets the calling thread's stream wait for it)."""
        made, host = self._with_host(array)
        return made, self.device.upload_ahead(made.lease.handle, 0, host) if made.size else lambda: None

    def _with_host(self, array: np.ndarray) -> tuple[DeviceArray, np.ndarray]:
        made = self.empty(array.shape, array.dtype, order_of(array))
        host = np.ndarray(made.shape, made.dtype, np.empty(made.nbytes, np.uint8), 0, made.strides)
        host[...] = array
        return made, host.base

    def to_numpy(self, array: DeviceArray) -> np.ndarray:
        """A copy of a dense array, in the same memory order, once all work before is done."""
        memory = np.empty(array.nbytes, np.uint8)
        if array.size:
            self.device.download(memory, array.lease.handle, array.offset)
        return np.ndarray(array.shape, array.dtype, memory, 0, array.strides)


def size_class(nbytes: int) -> int:
    """The size of the blocks that serve a request.

    Examples
    --------
    >>> [size_class(n) for n in (0, 512, 513, 1100, (1 << 20) + 1)]
    [512, 512, 640, 1280, 2097152]
    """
    if nbytes <= SMALLEST_BLOCK:
        return SMALLEST_BLOCK
    step = LARGE if nbytes > LARGE else (1 << (nbytes - 1).bit_length() - 1) // 4
    return -(-nbytes // step) * step


def limit_of_environment() -> int | None:
    """NUMBANET_CUDA_MEMORY_LIMIT in megabytes, as bytes; None where it is not set."""
    text = os.environ.get("NUMBANET_CUDA_MEMORY_LIMIT", "")
    if not text:
        return None
    if not text.isdigit() or not int(text):
        raise BackendError(f"NUMBANET_CUDA_MEMORY_LIMIT: expected a number of megabytes, received {text!r}")
    return int(text) * 1_000_000


def _megabytes(nbytes: int) -> str:
    return f"{nbytes / 1e6:,.1f} MB"
