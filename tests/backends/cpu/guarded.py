"""Runs every case of `tests/cases` on `cpu` with memory that ends at a page which must not be touched.

    python -m tests.backends.cpu.guarded before|behind [TEXT]

What a kernel reads or writes outside of an array ends the process; the last line of standard output names the case. Operands, outputs and
what kernels borrow lie directly in front of such a page (`behind`) or directly after one (`before`). TEXT: only cases whose names have it.
"""

from __future__ import annotations

import ctypes
import faulthandler
import mmap
import sys
import weakref

import numpy as np

from numbanet.backends import PRIMITIVES, get_backend
from numbanet.backends.cpu import memory
from tests.backends import agreement

PAGE = mmap.PAGESIZE
CASES = agreement.CASES
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def guarded(nbytes: int, behind: bool) -> np.ndarray:
    """Bytes between two pages that nobody may touch: adjacent to the second one if `behind`, otherwise to the first one."""
    room = -(-max(nbytes, 1) // PAGE) * PAGE
    whole = room + 2 * PAGE
    start = libc.mmap(None, whole, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    if start in (None, ctypes.c_void_p(-1).value):
        raise MemoryError(f"{whole} bytes")
    for page in (start, start + PAGE + room):
        assert libc.mprotect(page, PAGE, 0) == 0
    at = start + PAGE + (room - nbytes if behind else 0)
    owner = (ctypes.c_uint8 * nbytes).from_address(at)
    weakref.finalize(owner, libc.munmap, start, whole)
    return np.frombuffer(owner, np.uint8)


class _Forgetful(list):
    """A pool that keeps no block."""

    def append(self, block):
        pass


def guard_everything(behind: bool) -> None:
    """From now on, of this process, the arrays of the `cpu` backend and the operands of cases."""
    class Guarded(memory.Allocator):
        def _layout(self, shape, dtype, order):
            _, size, strides = super()._layout(shape, dtype, order)
            return _Forgetful(), size, strides

        def _new_block(self, pool, size):
            block = guarded(size, behind).view(memory._Block)
            block.allocator, block.pool = self, pool
            return block

    memory.allocator._layouts.clear()
    memory.allocator._scratch = _Forgetful()
    memory.allocator.__class__ = Guarded
    agreement.placed = lambda backend, array: _copied(array, behind) if backend.name == "cpu" else array.copy(order="K")


def _copied(array: np.ndarray, behind: bool) -> np.ndarray:
    """The same values and strides in guarded memory."""
    if not array.size or min(array.strides, default=0) < 0:
        return array.copy(order="K")
    extent = sum((n - 1) * s for n, s in zip(array.shape, array.strides)) + array.itemsize
    place = np.ndarray(array.shape, array.dtype, guarded(extent, behind), 0, array.strides)
    place[...] = array
    return place


def main() -> None:
    faulthandler.enable()
    behind, text = sys.argv[1] == "behind", sys.argv[2] if len(sys.argv) > 2 else ""
    cpu = get_backend("cpu")
    guard_everything(behind)
    ran = 0
    for case in CASES:
        name = agreement.name_of(case)
        if text not in name:
            continue
        print(name, flush=True)
        agreement.outputs(cpu, PRIMITIVES[case.primitive], agreement.arguments_of(case))
        ran += 1
    print(f"{ran} cases touched nothing outside")


if __name__ == "__main__":
    main()
