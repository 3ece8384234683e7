"""A GPU for tile programs, in NumPy: the functions of `backends/cuda/ptx.py`, under the same names, over all threads of a block at once.

A tile program is a function of its machine. Given `ptx` it is compiled; given an `Emulator` the same source runs here: what differs from
thread to thread is an array with one element a thread, what does not is a number. Tile programs branch on numbers only, and an `if` on an
array raises, so that a kernel whose threads would diverge does not run here either.

The emulator finds what a GPU would not tell:

- accesses outside of an array, or misaligned ones, of global or shared memory;
- stores to what was passed as read-only, and two threads that store to one address;
- races: shared memory read or written by two threads with no barrier between, at a granule of two bytes;
- asynchronous copies: their target holds NaN from the copy's start until its thread has waited, and they count as that thread's stores;
- operands of TF32 products count with the bits that the hardware reads;
- conflicts of banks: what shared-memory accesses cost beyond the least possible, by instruction (`conflicts`).

Matrix fragments and instructions follow the PTX ISA; nothing here is taken from the tile programs' own layout functions.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from tests.backends.cuda.words import LANE, ROW, WORD, matrix_words, mma, packed, rounded_tf32, unpacked

BASE = 1 << 20             # address of the first byte
GUARD = 512                # bytes between arrays
SHARED_BASE = 1024         # as on sm_90, where the first kilobyte is the system's


class Fault(AssertionError):
    """What a real GPU would answer with an error, or with wrong numbers."""


class Memory:
    """Global memory: arrays at addresses, with guard zones between."""

    def __init__(self, size: int = 1 << 24):
        self.bytes = np.full(size, 0xFF, np.uint8)
        self.rights = np.zeros(size, np.uint8)             # 0 nobody's, 1 readable, 3 writable
        self.used = GUARD
        self.arrays = {}

    def put(self, array: np.ndarray, writable: bool = False, offset: int = 0) -> int:
        """Address of a copy of the array's elements in C order, `offset` bytes past a multiple of 256."""
        data = np.ascontiguousarray(array)
        start = -(-self.used // 256) * 256 + offset
        self.bytes[start:start + data.nbytes] = data.view(np.uint8).reshape(-1) if data.size else np.empty(0, np.uint8)
        self.rights[start:start + data.nbytes] = 3 if writable else 1
        self.used = start + data.nbytes + GUARD
        self.arrays[BASE + start] = (start, data.nbytes, data.dtype, data.shape)
        return BASE + start

    def get(self, address: int) -> np.ndarray:
        start, size, dtype, shape = self.arrays[address]
        return self.bytes[start:start + size].view(dtype).reshape(shape).copy()

    def locate(self, address, size, width: int, right: int, wanted) -> np.ndarray:
        """Indices of accesses of `size` bytes that are wanted, checked."""
        place = np.asarray(address, np.int64) - BASE
        if wanted.any():
            at, last = place[wanted], (place + size - 1)[wanted]
            if at.min() < 0 or last.max() >= len(self.bytes) or ((self.rights[at] & right) != right).any() or (
                    (self.rights[last] & right) != right).any():
                raise Fault(f"{'store to' if right == 2 else 'load from'} global memory outside of an array")
            if (at % width).any():
                raise Fault(f"misaligned access of {width} bytes of global memory")
        return np.where(wanted, place, 0)


class Local:
    """A thread's own array, in all threads; what was not assigned is NaN or a large number."""

    def __init__(self, values):
        self.values = values

    def __getitem__(self, i):
        if not 0 <= i < len(self.values):
            raise Fault(f"index {i} of a local array of {len(self.values)}")
        return self.values[i].copy()

    def __setitem__(self, i, value):
        if not 0 <= i < len(self.values):
            raise Fault(f"index {i} of a local array of {len(self.values)}")
        self.values[i] = value


class Emulator:
    """A machine of `warps` warps a block and `shared_bytes` of shared memory."""

    float32, int32, uint32 = np.float32, np.int32, np.uint32

    def __init__(self, memory: Memory, warps: int, shared_bytes: int, count_conflicts: bool = False):
        self.memory, self.warps, self.threads, self.shared_bytes = memory, warps, 32 * warps, shared_bytes
        self.count_conflicts, self.conflicts, self.calls = count_conflicts, {}, {}
        self.thread = np.arange(self.threads, dtype=np.int32)
        self.cuda = SimpleNamespace(local=SimpleNamespace(array=self._local_array))
        self.advanced = {2: self.advanced_2, 4: self.advanced_4}
        self.copy = {16: self.copy_async_16, 8: self.copy_async_8, 4: self.copy_async_4, 2: self.copy_2}
        self.wait_copies = (self.wait_copies_0, self.wait_copies_1, self.wait_copies_2, self.wait_copies_3)

    def launch(self, kernel, grid: tuple[int, int, int], arguments: tuple) -> None:
        """Run all blocks, one after the other."""
        for z in range(grid[2]):
            for y in range(grid[1]):
                for x in range(grid[0]):
                    self.block = (x, y, z)
                    self.shared = np.full(self.shared_bytes, 0xFF, np.uint8)
                    granules = self.shared_bytes // 2
                    self.epoch = 0
                    self.written, self.writer = np.full(granules, -1), np.full(granules, -1)
                    self.read, self.reader = np.full(granules, -1), np.full(granules, -1)
                    self.group, self.groups = [], []
                    kernel(*arguments)
                    if self.group or any(self.groups):
                        raise Fault("the block ended while copies were on their way")

    # --- where a thread is ---

    def thread_index(self):
        return self.thread.copy()

    def block_x(self):
        return self.block[0]

    def block_y(self):
        return self.block[1]

    def block_z(self):
        return self.block[2]

    def shared_memory(self):
        return SHARED_BASE

    def _local_array(self, size, dtype):
        values = np.empty((size, self.threads), dtype)
        values[...] = np.nan if dtype is np.float32 else 0x7F7F7F7F
        return Local(values)

    def worker(self, function):
        return function

    def select(self, condition, first, second):
        return np.where(condition, first, second)[()]

    def inside(self, index, size):
        return (index >= 0) & (index < size)

    def absolute(self, value):
        return np.abs(value)

    def barrier(self):
        self.epoch += 1

    def _each(self, value, dtype):
        """One element a thread."""
        return np.broadcast_to(np.asarray(value).astype(dtype, copy=False), (self.threads,))

    def _count(self, name):
        self.calls[name] = self.calls.get(name, 0) + 1

    # --- products ---

    def _mma(self, kind, arguments):
        self._count("mma")
        words, sums = [self._each(w, np.uint32) for w in arguments[:6]], [self._each(c, np.float32) for c in arguments[6:]]
        return tuple(mma(kind, words[:4], words[4:], sums))

    def mma_tf32(self, *arguments):
        return self._mma("tf32", arguments)

    def mma_bf16(self, *arguments):
        return self._mma("bf16", arguments)

    def mma_fp16(self, *arguments):
        return self._mma("fp16", arguments)

    def fma(self, a, b, c):
        return (np.asarray(a, np.float64) * b + c).astype(np.float32)

    def maximum(self, a, b):
        return np.maximum(a, np.float32(b))

    def minimum(self, a, b):
        return np.minimum(a, np.float32(b))

    # --- conversions ---

    def round_tf32(self, word):
        return rounded_tf32(self._each(word, np.uint32))

    def pack_bf16(self, low, high):
        return packed(self._each(low, np.float32), high, "bf16")

    def pack_fp16(self, low, high):
        return packed(self._each(low, np.float32), high, "fp16")

    def unpack_bf16(self, word):
        return unpacked(self._each(word, np.uint32), "bf16")

    def unpack_fp16(self, word):
        return unpacked(self._each(word, np.uint32), "fp16")

    # --- shared memory ---

    def _granules(self, place, size):
        return ((place >> 1)[:, None] + np.arange(size // 2)).reshape(-1)

    def _place(self, address, width):
        place = self._each(address, np.int64) - SHARED_BASE
        if place.min() < 0 or place.max() + width > self.shared_bytes:
            raise Fault("access outside of shared memory")
        if (place % width).any():
            raise Fault(f"misaligned access of {width} bytes of shared memory")
        return place

    def _reading(self, place, size, reader):
        granules, reader = self._granules(place, size), np.repeat(reader, size // 2)
        if ((self.written[granules] == self.epoch) & (self.writer[granules] != reader)).any():
            raise Fault("shared memory is read with no barrier after another thread's store")
        fresh = self.read[granules] != self.epoch
        others = granules[~fresh & (self.reader[granules] != reader)]
        self.reader[granules[fresh]] = reader[fresh]
        others = np.concatenate([others, granules[fresh & (self.reader[granules] != reader)]])
        self.reader[others] = -2                           # several
        self.read[granules] = self.epoch

    def _writing(self, place, size, writer):
        granules, writer = self._granules(place, size), np.repeat(writer, size // 2)
        if ((self.written[granules] == self.epoch) & (self.writer[granules] != writer)).any():
            raise Fault("two threads store to one place of shared memory with no barrier between")
        if ((self.read[granules] == self.epoch) & (self.reader[granules] != writer)).any():
            raise Fault("shared memory is stored to with no barrier after another thread's read")
        self.written[granules], self.writer[granules] = self.epoch, writer
        if (self.writer[granules] != writer).any():
            raise Fault("two threads store to one place of shared memory at once")

    def _banks(self, name, place, width):
        """Count what lanes of one phase (128 bytes) cost beyond one access."""
        self._count(name)
        if self.count_conflicts:
            lanes = 128 // max(width, 4)
            for phase in (place >> 2).reshape(-1, lanes):
                words = np.unique((phase[:, None] + np.arange(max(width // 4, 1))).reshape(-1))
                extra = np.bincount(words % 32).max() - 1
                self.conflicts[name] = self.conflicts.get(name, 0) + int(extra)

    def _ldmatrix(self, address, count, trans):
        place = self._place(address, 16).reshape(self.warps, 32)[:, :8 * count]                  # the other lanes' addresses are not used
        self._banks("ldmatrix", place.reshape(-1), 16)
        rows = self.shared[place[..., None] + np.arange(16)].view(np.uint16).reshape(self.warps, count, 8, 8)
        # Whoever receives a word is who reads it: lane 4 * row + word, or, transposed, lanes of its column.
        warp_first = 32 * np.arange(self.warps)[:, None, None]
        start = place.reshape(self.warps, count, 8)
        for half in range(2):
            row, column = (2 * WORD + half, ROW) if trans else (ROW, 2 * WORD + half)
            self._reading((start[:, :, row] + 2 * column).reshape(-1), 2,
                          np.broadcast_to(warp_first + LANE, (self.warps, count, 32)).reshape(-1))
        words = matrix_words(rows, trans)
        results = tuple(words[:, i].reshape(-1).copy() for i in range(count))
        return results if count > 1 else results[0]

    def ldmatrix_x1(self, address):
        return self._ldmatrix(address, 1, False)

    def ldmatrix_x2(self, address):
        return self._ldmatrix(address, 2, False)

    def ldmatrix_x4(self, address):
        return self._ldmatrix(address, 4, False)

    def ldmatrix_x1_trans(self, address):
        return self._ldmatrix(address, 1, True)

    def ldmatrix_x2_trans(self, address):
        return self._ldmatrix(address, 2, True)

    def ldmatrix_x4_trans(self, address):
        return self._ldmatrix(address, 4, True)

    def _load_shared(self, address, count, dtype):
        place = self._place(address, 4 * count)
        self._banks("load_shared", place, 4 * count)
        self._reading(place, 4 * count, self.thread)
        values = self.shared[place[:, None] + np.arange(4 * count)].view(dtype)
        return tuple(values[:, i].copy() for i in range(count)) if count > 1 else values[:, 0].copy()

    def load_shared_word(self, address):
        return self._load_shared(address, 1, np.uint32)

    def load_shared_float(self, address):
        return self._load_shared(address, 1, np.float32)

    def load_shared_float2(self, address):
        return self._load_shared(address, 2, np.float32)

    def load_shared_float4(self, address):
        return self._load_shared(address, 4, np.float32)

    def store_shared_float(self, address, value, wanted):
        wanted = self._each(wanted, bool)
        place = self._place(address, 4)[wanted]
        self._writing(place, 4, self.thread[wanted])
        data = np.ascontiguousarray(self._each(value, np.float32)[wanted])
        self.shared[place[:, None] + np.arange(4)] = data[:, None].view(np.uint8)

    # --- from global to shared memory ---

    def advanced_2(self, address, elements):
        return np.asarray(address, np.int64) + np.asarray(elements, np.int64) * 2

    def advanced_4(self, address, elements):
        return np.asarray(address, np.int64) + np.asarray(elements, np.int64) * 4

    def _fetch(self, source, exists, size):
        place = self.memory.locate(self._each(source, np.int64), size, size, 1, exists)
        bytes_ = self.memory.bytes[np.minimum(place[:, None] + np.arange(size), len(self.memory.bytes) - 1)]
        return np.where(exists[:, None], bytes_, 0).astype(np.uint8)

    def _copy_async(self, address, source, exists, size):
        place = self._place(address, size)
        self._banks("copy", place, size)
        data = self._fetch(source, self._each(exists, bool), size)
        self._writing(place, size, self.thread)
        self.shared[place[:, None] + np.arange(size)] = 0xFF
        self.group.append((place, data))

    def copy_async_16(self, address, source, exists):
        self._copy_async(address, source, exists, 16)

    def copy_async_8(self, address, source, exists):
        self._copy_async(address, source, exists, 8)

    def copy_async_4(self, address, source, exists):
        self._copy_async(address, source, exists, 4)

    def copy_2(self, address, source, exists):
        place = self._place(address, 2)
        data = self._fetch(source, self._each(exists, bool), 2)
        self._count("copy_2")
        self._writing(place, 2, self.thread)
        self.shared[place[:, None] + np.arange(2)] = data

    def commit_copies(self):
        self.groups.append(self.group)
        self.group = []

    def _wait(self, left):
        while len(self.groups) > left:
            for place, data in self.groups.pop(0):
                size = data.shape[1]
                self.shared[place[:, None] + np.arange(size)] = data
                granules = self._granules(place, size)
                self.written[granules], self.writer[granules] = self.epoch, np.repeat(self.thread, size // 2)

    def wait_copies_0(self):
        self._wait(0)

    def wait_copies_1(self):
        self._wait(1)

    def wait_copies_2(self):
        self._wait(2)

    def wait_copies_3(self):
        self._wait(3)

    # --- global memory ---

    def _load(self, address, wanted, count, dtype):
        self._count("load")
        size, wanted = count * np.dtype(dtype).itemsize, self._each(wanted, bool)
        place = self.memory.locate(self._each(address, np.int64), size, size, 1, wanted)
        values = self.memory.bytes[place[:, None] + np.arange(size)].view(dtype)
        values = np.where(wanted[:, None], values, np.zeros((), dtype))
        return tuple(values[:, i] for i in range(count)) if count > 1 else values[:, 0]

    def load_float(self, address, wanted):
        return self._load(address, wanted, 1, np.float32)

    def load_float2(self, address, wanted):
        return self._load(address, wanted, 2, np.float32)

    def load_float4(self, address, wanted):
        return self._load(address, wanted, 4, np.float32)

    def load_word(self, address, wanted):
        return self._load(address, wanted, 1, np.uint32)

    def load_half(self, address, wanted):
        return self._load(address, wanted, 1, np.uint16).astype(np.uint32)

    def _store(self, address, values, wanted, dtype):
        self._count("store")
        wanted = self._each(wanted, bool)
        data = np.ascontiguousarray(np.stack([self._each(v, dtype) for v in values], 1)).view(np.uint8)
        size = data.shape[1]
        place = self.memory.locate(self._each(address, np.int64), size, size, 2, wanted)[wanted]
        if len(np.unique(place)) != len(place):
            raise Fault("two threads store to one address of global memory")
        self.memory.bytes[place[:, None] + np.arange(size)] = data[wanted]

    def store_float(self, address, value, wanted):
        self._store(address, (value,), wanted, np.float32)

    def store_float2(self, address, low, high, wanted):
        self._store(address, (low, high), wanted, np.float32)

    def store_float4(self, address, a, b, c, d, wanted):
        self._store(address, (a, b, c, d), wanted, np.float32)

    def store_word(self, address, word, wanted):
        self._store(address, (word,), wanted, np.uint32)

    def store_half(self, address, word, wanted):
        self._store(address, (self._each(word, np.uint32) & np.uint32(0xFFFF),), wanted, np.uint16)
