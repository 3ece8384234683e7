"""Numba's CUDA simulator as this backend uses it: one Python thread a CUDA thread, pointers with bounds, the GPU's mathematics.

Kernels step through few threads there (`THREADS`, `BLOCKS`), which is slow enough, and tries the loops of every thread.
"""

from __future__ import annotations

import math
import sys
import threading

import numpy as np
from numba import cuda

THREADS, BLOCKS = 3, 2


class Pointer:
    """The memory from an array's first element on. An index before it or past the allocation is an error."""

    __slots__ = ("memory", "half")

    def __init__(self, array):
        self.half = array.itemsize == 2         # float16 or bfloat16: float32 while computing
        self.memory = np.ndarray((array.reach,), array.dtype, array.lease.handle, array.offset)

    def __getitem__(self, i):
        if i < 0:
            raise IndexError(f"pointer: index {i} is before the array")
        return np.float32(self.memory[i]) if self.half else self.memory[i]

    def __setitem__(self, i, value):
        if i < 0:
            raise IndexError(f"pointer: index {i} is before the array")
        self.memory[i] = value


class _Shared:
    """`cuda.shared` inside of kernels. Numba's own lets two threads that come at once each make an array of their own."""

    lock = threading.Lock()

    def __init__(self, made: dict):
        self.made = made                        # of the launch that runs

    def array(self, shape, dtype):
        """The block's array of this place in the kernel; NaN at first, so that what nobody wrote is seen."""
        caller = sys._getframe(1)
        place = caller.f_code, caller.f_lasti
        with self.lock:
            if place not in self.made:
                self.made[place] = np.full(shape, np.nan if np.dtype(dtype).kind == "f" else 77, dtype)
            return self.made[place]


class _Context:
    """`cuda` inside of kernels: whatever Numba's simulator has made for the launch that runs."""

    def __getattr__(self, name):
        from numba.cuda.simulator.kernel import _get_kernel_context
        found = getattr(_get_kernel_context(), name)
        return _Shared(found._allocations) if name == "shared" else found


class _Library:
    """`math` inside of kernels: results in the type of the operand, inf and NaN in place of exceptions."""

    pi, e, inf, nan = (math.pi, math.e, math.inf, math.nan)

    def __getattr__(self, name):
        names = {"acos": "arccos", "asin": "arcsin", "atan": "arctan", "atan2": "arctan2", "pow": "power"}
        if name in ("erf", "erfc", "lgamma", "gamma"):
            exact = getattr(math, name)
            function = lambda x: x.dtype.type(exact(x))
        else:
            function = getattr(np, names.get(name, name))
        setattr(self, name, function)
        return function


context, LIBRARY = _Context(), _Library()


def run(function, grid: int, block: int, arguments) -> None:
    """Run a kernel with `grid` blocks of `block` threads."""
    def quiet(*arguments):
        with np.errstate(all="ignore"):
            function(*arguments)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)                         # the simulator polls its threads: those at a barrier must get their turn soon
    try:
        cuda.jit(quiet)[grid, block](*arguments)
    finally:
        sys.setswitchinterval(interval)
