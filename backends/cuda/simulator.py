"""Numba's CUDA simulator as this backend uses it: pointers with bounds, the GPU's mathematics, few threads.

Kernels step through few threads there (`THREADS`, `BLOCKS`), which is slow enough, and tries the loops of every thread. Threads take
turns: one runs to its end, or to where it waits for the others, then the next; from the first to the last, and in the next launch from the
last to the first, so that a result which depends on the order is seen. Numba's own runner starts a thread of Python for each and polls
them, which takes a hundred times as long.
"""

from __future__ import annotations

import math
import sys
import threading
from dis import get_instructions
from functools import cache, wraps
from itertools import count
from types import CodeType, FunctionType

import numpy as np
from numba.cuda.simulator.kernelapi import Dim3

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


class Piece(np.ndarray):
    """Elements that a kernel computes together (`pieces.py`)."""


def _piece(values) -> Piece:
    return np.array(values).view(Piece)


class _WidePointer(Pointer):
    """The same memory in pieces of `width` elements. A piece that a GPU could not load at once is an error too."""

    __slots__ = ("width", "address", "itemsize")

    def __init__(self, array, width: int):
        super().__init__(array)
        self.width, self.itemsize = width, array.itemsize
        self.address = array.device.address(array.lease.handle) + array.offset

    def _place(self, i) -> slice:
        if i < 0 or i + self.width > len(self.memory):
            raise IndexError(f"pointer: {self.width} elements from {i} on are not within the array")
        if (self.address + int(i) * self.itemsize) % min(16, self.width * self.itemsize):
            raise IndexError(f"pointer: {self.width} elements from {i} on are not aligned")
        return slice(i, i + self.width)

    def __getitem__(self, i):
        return self.memory[self._place(i)].astype(np.float32 if self.half else self.memory.dtype).view(Piece)

    def __setitem__(self, i, value):
        self.memory[self._place(i)] = value


def pointer(array) -> Pointer:
    """What a kernel is given for an array of a launch, or for one that is wide."""
    return Pointer(array) if hasattr(array, "lease") else _WidePointer(*array)


def by_lanes(function):
    """`function` of numbers; of pieces what it is of each lane."""
    @wraps(function)
    def of_pieces(*arguments):
        for a in arguments:
            if type(a) is Piece:
                width = a.size
                break
        else:
            return function(*arguments)
        found = [function(*[a[k] if isinstance(a, Piece) else a for a in arguments]) for k in range(width)]
        return tuple([_piece(part) for part in zip(*found)]) if isinstance(found[0], tuple) else _piece(found)
    return of_pieces


def element(x, value):
    """A number as an element of x."""
    return _piece([value] * x.width) if isinstance(x, _WidePointer) else value


def lanes(x) -> int:
    """How many numbers x holds."""
    return x.size if isinstance(x, Piece) else 1


def lane_numbers(x):
    """The piece 0, 1, 2, ... of as many lanes as x has; 0 where it is a number."""
    return _piece(np.arange(x.size, dtype=np.int32)) if isinstance(x, Piece) else 0


def first_of(x):
    """The number in the first lane."""
    return x[0] if type(x) is Piece else x


def turned(x):
    """The piece of lanes 1, 2, ... and 0."""
    return np.roll(x, -1) if type(x) is Piece else x


class _Shared:
    """`cuda.shared` inside of kernels."""

    def __init__(self, made: dict):
        self.made = made                        # of the block that runs

    def array(self, shape, dtype):
        """The block's array of this place in the kernel; NaN at first, so that what nobody wrote is seen."""
        caller = sys._getframe(1)
        place = caller.f_code, caller.f_lasti
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
    """Whether the threads of a kernel wait for one another, in the kernel or in what it calls."""
    used = [i for code in _codes(function.__code__) for i in get_instructions(code)]
    names = {i.argval for i in used if i.opname == "LOAD_GLOBAL"} & set(function.__globals__)
    values = [*[function.__globals__[name] for name in names], *[cell.cell_contents for cell in function.__closure__ or ()]]
    return any(i.argval == "syncthreads" for i in used) or any(meets(value) for value in values if isinstance(value, FunctionType))


def _codes(code: CodeType) -> list[CodeType]:
    return [code, *[inner for c in code.co_consts if isinstance(c, CodeType) for inner in _codes(c)]]


_launches = count()


def run(function, grid: int, block: int, arguments) -> None:
    """Run a kernel with `grid` blocks of `block` threads."""
    from numba.cuda.simulator.kernel import _push_kernel_context
    from numba.cuda.simulator.kernelapi import FakeCUDAModule
    step = 1 if next(_launches) % 2 == 0 else -1
    of_block = _together if meets(function) else _in_turn
    for b in range(grid)[::step]:
        with _push_kernel_context(FakeCUDAModule((grid, 1, 1), (block, 1, 1), 0)):      # which holds the block's shared memory
            of_block(function, arguments, b, range(block)[::step])


def _in_turn(function, arguments, b: int, order: range) -> None:
    me = threading.current_thread()
    with np.errstate(all="ignore"):
        for t in order:
            me.blockIdx, me.threadIdx = Dim3(b, 0, 0), Dim3(t, 0, 0)
            function(*arguments)


class _Stopped(BaseException):
    """Ends a thread of a block of which another one has failed."""


class _Thread(threading.Thread):
    """A thread of a block: it runs from when it is given the turn to the next meeting, and gives the turn to the one after it."""

    def __init__(self, function, arguments, b: int, t: int, block: list[_Thread]):
        super().__init__(daemon=True)
        self.work, self.block, self.turn, self.error = (function, arguments), block, threading.Semaphore(0), None
        self.blockIdx, self.threadIdx = Dim3(b, 0, 0), Dim3(t, 0, 0)

    def run(self) -> None:
        """The kernel, as this thread."""
        self.turn.acquire()
        function, arguments = self.work
        try:
            if self.error is None:
                with np.errstate(all="ignore"):
                    function(*arguments)
        except _Stopped:
            pass
        except Exception as error:
            for other in self.block:
                other.error = error
        following = self.following()
        self.block.remove(self)                         # nobody waits for it any more
        if following is not self:
            following.turn.release()

    def following(self) -> _Thread:
        """Whose turn is next."""
        return self.block[(self.block.index(self) + 1) % len(self.block)]

    def syncthreads(self) -> None:
        """Wait until all threads of the block are here or at their end: until the turn comes round again."""
        self.following().turn.release()
        self.turn.acquire()
        if self.error is not None:
            raise _Stopped


def _together(function, arguments, b: int, order: range) -> None:
    block: list[_Thread] = []
    block += [_Thread(function, arguments, b, t, block) for t in order]
    threads = list(block)
    for thread in threads:
        thread.start()
    threads[0].turn.release()
    for thread in threads:
        thread.join()
    if error := next((thread.error for thread in threads if thread.error is not None), None):
        raise error
