"""Numba's CUDA simulator as this backend uses it: pointers with bounds, the GPU's mathematics, few threads.

Kernels step through few threads there (`THREADS`, `BLOCKS`), which is slow enough, and tries the loops of every thread. Where threads wait
for one another, each is a thread of Python, as Numba has it. Others take turns, whole, from the first to the last and in the next launch
from the last to the first: that is several times as fast, as nobody polls, and a result that depends on the order is seen.
"""

from __future__ import annotations

import math
import sys
import threading
from functools import cache
from itertools import count
from types import CodeType, FunctionType

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


@cache
def meets(function: FunctionType) -> bool:
    """Whether the threads of a kernel share memory or wait for one another, in the kernel or in what it calls."""
    names, cells = function.__globals__, [cell.cell_contents for cell in function.__closure__ or ()]
    used = {name for code in _codes(function.__code__) for name in code.co_names}
    called = [value for value in (*cells, *[names[name] for name in used & set(names)]) if isinstance(value, FunctionType)]
    return bool(used & {"syncthreads", "shared"}) or any(meets(value) for value in called)


def _codes(code: CodeType) -> list[CodeType]:
    return [code, *[inner for c in code.co_consts if isinstance(c, CodeType) for inner in _codes(c)]]


def run(function, grid: int, block: int, arguments) -> None:
    """Run a kernel with `grid` blocks of `block` threads."""
    (_at_once if meets(function) else _in_turn)(function, grid, block, arguments)


_launches = count()


def _in_turn(function, grid: int, block: int, arguments) -> None:
    from numba.cuda.simulator.kernel import _push_kernel_context
    from numba.cuda.simulator.kernelapi import Dim3, FakeCUDAModule
    me, places = threading.current_thread(), [(b, t) for b in range(grid) for t in range(block)]
    with _push_kernel_context(FakeCUDAModule((grid, 1, 1), (block, 1, 1), 0)), np.errstate(all="ignore"):
        for b, t in places if next(_launches) % 2 == 0 else reversed(places):
            me.blockIdx, me.threadIdx = Dim3(b, 0, 0), Dim3(t, 0, 0)
            function(*arguments)


def _at_once(function, grid: int, block: int, arguments) -> None:
    def quiet(*arguments):
        with np.errstate(all="ignore"):
            function(*arguments)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)                         # the simulator polls its threads: those at a barrier must get their turn soon
    try:
        cuda.jit(quiet)[grid, block](*arguments)
    finally:
        sys.setswitchinterval(interval)
