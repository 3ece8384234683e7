"""A caching allocator of host memory, for the `cpu` and `reference` backends.

`empty` gives ordinary NumPy arrays, 64-byte aligned, over blocks that are kept for reuse: memory fresh from the
system costs page faults that take longer than writing it. A block returns to its pool when the last view on it dies,
wherever that view is held. NumPy itself keeps this account: the base of a view is the array that it was made from or
an owner further down, but never one past an object of another class, so every view keeps the `_Lease` below alive,
whose finaliser returns the block.

Pools are lists, whose `append` and `pop` are atomic: the usual path takes no lock, and a finaliser may run at any
moment.
"""
import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

ALIGNMENT = 64
SMALLEST_BLOCK = 256
STEPS = 4                    # size classes between two powers of two: at most a fifth of a block is wasted
REMEMBERED_LAYOUTS = 4096
SMALL_SCRATCH = 1 << 17      # bytes, up to which scratch memory is like any other


@dataclass(frozen=True)
class MemoryStatistics:
    """Bytes of blocks: held in all, of these in use, and the most that were held at once."""

    held: int
    in_use: int
    peak: int


class _Block(np.ndarray):
    """Aligned memory of one size class."""

    allocator: "Allocator"
    pool: list["_Block"]         # where it rests


class _Lease(np.ndarray):
    """A block in use. Every view refers to it; when it dies the block goes back."""

    __slots__ = ()

    def __del__(self):
        block = self.base
        if block.allocator._held > block.allocator.limit:
            block.allocator._discard(block)
        else:
            block.pool.append(block)


def are_apart(first: np.ndarray, second: np.ndarray) -> bool:
    """True where two arrays certainly lie in different blocks of the allocator (a fast test; False says nothing)."""
    one, other = first.base, second.base
    return one is not other and type(one) is _Lease and type(other) is _Lease


def is_unshared(holder: list[np.ndarray], index: int) -> bool:
    """True only where nothing but ``holder[index]`` refers to that array, and no other array to its memory."""
    base = type(holder[index].base)
    if base is not _Lease:                               # one that owns its memory: whoever else reads that refers to the array
        return holder[index].flags.owndata and _references(holder, index)[0] == _OF_ONE_HOLDER[0]
    return _references(holder, index) == _OF_ONE_HOLDER


def _references(holder, index) -> tuple[int, int]:
    return sys.getrefcount(holder[index]), sys.getrefcount(holder[index].base)


class Allocator:
    """Pools of blocks by size class.

    Parameters
    ----------
    limit
        Bytes that may be held; while more are, blocks that are no longer in use go back to the system at once.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self._pools: dict[int, list[_Block]] = {}        # by block size
        self._layouts: dict[tuple, tuple] = {}           # by shape, dtype and order: what `empty` needs to know
        self._scratch: list[_Block] = []                 # idle blocks of `scratch`, of any size
        self._held = self._peak = 0
        self._lock = threading.RLock()                   # a finaliser may run while this thread holds it

    def empty(self, shape: Sequence[int], dtype: np.dtype | str, order: Sequence[int] | None = None) -> np.ndarray:
        """An uninitialised array.

        Parameters
        ----------
        shape
            Sizes of the axes.
        dtype
            Any NumPy dtype without Python objects.
        order
            The axes from the slowest to the fastest in memory; None for row-major.
        """
        try:
            pool, size, strides = self._layouts[shape, dtype, order]
        except (KeyError, TypeError):                    # a new one, or a list, which cannot be a key
            shape, order = tuple(shape), None if order is None else tuple(order)
            pool, size, strides = self._layout(shape, np.dtype(dtype), order)
            self._layouts[shape, dtype, order] = pool, size, strides
        if not size:
            return np.empty(shape, dtype)
        try:
            block = pool.pop()
        except IndexError:
            block = self._new_block(pool, size)
        return np.ndarray(shape, dtype, block.view(_Lease), 0, strides)

    def scratch(self, shape: Sequence[int], dtype: np.dtype | str) -> np.ndarray:
        """As `empty`, for what a kernel borrows: layers of all sizes share the blocks that the largest needs. See also `lending`."""
        size = prod(shape) * np.dtype(dtype).itemsize
        if _borrowing.lender is not None:
            return _borrowing.lender.give(shape, dtype, size)
        if size <= SMALL_SCRATCH:
            return self.empty(shape, dtype)
        best = smaller = None
        with self._lock:
            for i, block in enumerate(self._scratch):
                if block.nbytes < size:
                    smaller = i
                elif best is None or block.nbytes < self._scratch[best].nbytes:
                    best = i
            if best is not None:
                block = self._scratch.pop(best)
            elif smaller is not None:                    # one that has become too small makes room
                self._discard(self._scratch.pop(smaller))
        if best is None:
            block = self._new_block(self._scratch, size)
        return np.ndarray(shape, dtype, block.view(_Lease))

    def _layout(self, shape: tuple, dtype: np.dtype, order: tuple | None) -> tuple[list[_Block], int, tuple | None]:
        """Where the blocks of such arrays rest, their bytes, and the strides."""
        size = prod(shape) * dtype.itemsize
        if len(self._layouts) >= REMEMBERED_LAYOUTS:
            self._layouts.clear()
        with self._lock:
            pool = self._pools.setdefault(size_class(size), [])
        return pool, size, None if order is None else _strides(shape, order, dtype.itemsize)

    def _new_block(self, pool: list[_Block], size: int) -> _Block:
        size = size_class(size)
        try:
            memory = np.empty(size + ALIGNMENT, np.uint8)
        except MemoryError:
            self.trim()
            memory = np.empty(size + ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % ALIGNMENT
        block = memory[start:start + size].view(_Block)
        block.allocator, block.pool = self, pool
        with self._lock:
            self._held += size
            self._peak = max(self._peak, self._held)
        return block

    def _discard(self, block: _Block) -> None:
        with self._lock:
            self._held -= block.nbytes

    def trim(self) -> int:
        """Give the blocks that are not in use back to the system; return their bytes.

        The C library keeps what was freed, of blocks up to 32 MB, until it is told to let go.
        """
        freed = 0
        with self._lock:
            pools = [*self._pools.values(), self._scratch]
        for pool in pools:
            with contextlib.suppress(IndexError):        # emptied: other threads may take from it meanwhile
                while True:
                    block = pool.pop()
                    freed += block.nbytes
                    self._discard(block)
                    del block
        if freed and _malloc_trim is not None:
            _malloc_trim(0)
        return freed

    def statistics(self) -> MemoryStatistics:
        """What the allocator holds now, and held at most."""
        with self._lock:
            unused = sum(size * len(pool) for size, pool in self._pools.items()) + sum(block.nbytes for block in self._scratch)
            return MemoryStatistics(self._held, self._held - unused, self._peak)


class _Lender:
    """Gives all who ask for scratch memory the same; `most`: the bytes that one of them asked for."""

    def __init__(self, block: np.ndarray | None):
        self.block, self.most = block, 0

    def give(self, shape, dtype, size: int) -> np.ndarray:
        self.most = max(self.most, size)
        return np.empty(shape, dtype) if self.block is None else np.ndarray(shape, dtype, self.block)


class _Borrowing(threading.local):
    lender: _Lender | None = None


_borrowing = _Borrowing()


@contextlib.contextmanager
def lending(block: np.ndarray | None = None):
    """Let every call of `scratch` in this thread give the beginning of `block`, for calls of kernels that run one after the other.

    Without a block it gives memory that nobody may write to, to learn what is asked for: what is yielded has its largest size as `most`.
    """
    _borrowing.lender = _Lender(block)
    try:
        yield _borrowing.lender
    finally:
        _borrowing.lender = None


def size_class(size: int) -> int:
    """The size of the blocks that serve a request of `size` bytes: STEPS steps between powers of two.

    Examples
    --------
    >>> [size_class(size) for size in (1, 256, 257, 1000, 1025)]
    [256, 256, 320, 1024, 1280]
    """
    if size <= SMALLEST_BLOCK:
        return SMALLEST_BLOCK
    step = (1 << (size - 1).bit_length() - 1) // STEPS
    return -(-size // step) * step


def _strides(shape: tuple[int, ...], order: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    strides, step = [0] * len(shape), itemsize
    for axis in reversed(order):
        strides[axis], step = step, step * shape[axis]
    return tuple(strides)


def _find_malloc_trim():
    """glibc's function, or None where there is another C library."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None


_malloc_trim = _find_malloc_trim()


def _default_limit() -> int:
    """Half of the machine's memory where the system tells, otherwise 4 GiB."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        return 4 << 30


allocator = Allocator(_default_limit())
empty = allocator.empty
scratch = allocator.scratch
trim = allocator.trim
statistics = allocator.statistics
_OF_ONE_HOLDER = _references([empty((1,), np.uint8)], 0)      # counted by the same code, whatever this Python counts


def empty_channels_last(shape: Sequence[int], dtype: np.dtype | str = np.float32) -> np.ndarray:
    """An uninitialised array of logical shape (N, C, ...) whose channels are the fastest axis in memory."""
    return empty(shape, dtype, (0, *range(2, len(shape)), 1))


def _after_fork_in_child() -> None:
    allocator._lock = threading.RLock()                  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
