"""`@kernel` and `@device`: what every CUDA kernel and its helper functions are made by. The compiler is called in `cubin.py`.

A kernel is a plain Python function over pointers, integers and tuples of integers::

    @kernel
    def scale(x, out, factor, total):
        for i in grid_stride(total):
            out[i] = factor * x[i]

- A pointer is indexed in elements; on a GPU it is a raw address, in Numba's simulator bounds are checked.
- Python integers are `int32` in the kernel, or `int64` where an array or a size needs that (`launch.py` decides for a whole launch).
  Arithmetic of int32 is int32 (`integers.py`). Integers that are divided by are declared so, `shape: Sizes` (`index.py`).
- A literal such as 0.5 is float32 where no operand is float64, and float64 otherwise. An integer literal beside a float makes float64,
  so write 1.0, not 1; a test looks for double precision in the code of float32 kernels.
- `math` is the library of the GPU; its results follow IEEE at the edges (exp(1000) is inf), in the simulator too.
- What a kernel takes from its module or its closure may be helper functions made by `@device` or `@lanewise`, constants, and the names of
  this module.

One function serves every dtype, and pieces of several elements (`pieces.py`): it is specialised by the types of a launch's arguments,
explicitly, never by Numba's guess.
"""

from __future__ import annotations

import math
from functools import cache, partial
from types import CellType, CodeType, FunctionType

import numpy as np
from numba import cuda

from numbanet.backends.cuda import hardware
from numbanet.errors import BackendError

SIMULATED = hardware.is_simulated()

if SIMULATED:
    from numbanet.backends.cuda.simulator import LIBRARY, by_lanes, context
    int32, int64, uint8, uint32, uint64, float16, float32, float64, boolean = (
        np.int32, np.int64, np.uint8, np.uint32, np.uint64, np.float16, np.float32, np.float64, np.bool_)
else:
    from numba.cuda.types import boolean, float16, float32, float64, int32, int64, uint8, uint32, uint64

__all__ = ["SIMULATED", "Helper", "Kernel", "PerReal", "Sizes", "boolean", "device", "float16", "float32", "float64", "int32", "int64",
           "kernel", "lanewise", "uint8", "uint32", "uint64"]


class Helper:
    """A function of kernels. In Python it is called like any other, so that it can be tested alone."""

    def __init__(self, function):
        self.function, self.__name__, self.__doc__ = function, function.__name__, function.__doc__

    def __call__(self, *arguments):
        return self.function(*arguments)


class Lanewise(Helper):
    """A function of numbers, which of pieces is what it is of each lane (`pieces.py`)."""


class Sizes:
    """The annotation of a kernel's integers, or tuples of them, that it divides by: `index.py` says what becomes of them."""


class PerReal:
    """A function of kernels of which float32 and float64 have one each."""

    def __init__(self, single, double):
        self.functions = {np.float32: single, np.float64: double}


class Kernel:
    """A kernel of all its dtypes; see :func:`~numbanet.backends.cuda.launch.launch`."""

    def __init__(self, function, few_turns: bool = False):
        self.function, self.__doc__, self.few_turns = function, function.__doc__, few_turns
        names = function.__code__.co_varnames[:function.__code__.co_argcount]
        self.sizes = [function.__annotations__.get(name) == Sizes.__name__ for name in names]       # of each argument
        helpers = [cell.cell_contents.__name__ for cell in function.__closure__ or () if isinstance(cell.cell_contents, Helper)]
        self.__name__ = "_".join([function.__name__, *[name.strip("_") for name in helpers]])
        self.name = f"{function.__module__.partition('.cuda.')[2]}.{self.__name__}"
        if self.name in KERNELS:
            raise BackendError(f"kernel {self.name}: made twice")
        KERNELS[self.name] = self

    def specialised(self, real) -> FunctionType:
        """The function whose literals and helpers compute in `real`, np.float32 or np.float64."""
        return _specialised(self.function, real)

    @property
    def modules(self) -> tuple[str, ...]:
        """Whose sources define the kernel: its own and its helpers'."""
        found: set[str] = set()
        _collect_modules(self.function, found, set())
        return tuple(sorted(found))

    def __repr__(self):
        return f"<kernel {self.name}>"


KERNELS: dict[str, Kernel] = {}         # by family and name; a kernel around a helper has the helper's name behind its own


def kernel(function=None, *, few_turns: bool = False):
    """Make a kernel (decorator).

    Parameters
    ----------
    few_turns
        Its loops take few turns each, as those over the windows of an element: the compiler is to spend no registers on several at once.
    """
    return partial(kernel, few_turns=few_turns) if function is None else Kernel(function, few_turns)


def device(function) -> Helper:
    """Make a function that kernels and other helpers can call (decorator)."""
    return Helper(function)


def lanewise(function) -> Lanewise:
    """Make a function of numbers, or of pieces, that kernels and other helpers can call; a helper, or (decorator) a Python function."""
    return Lanewise(function.function if isinstance(function, Helper) else function)


@cache
def _specialised(function: FunctionType, real) -> FunctionType:
    names = {**function.__globals__}
    for name in _names(function.__code__) & set(names):
        names[name] = _inside(names[name], real)
    code = _with_literals(function.__code__, real)
    if not SIMULATED:                                   # `range` by another name, which Numba does not take for its own
        from numbanet.backends.cuda.loops import range_of
        code, names["range_of"] = code.replace(co_names=tuple(["range_of" if n == "range" else n for n in code.co_names])), range_of
    cells = tuple(CellType(_inside(cell.cell_contents, real)) for cell in function.__closure__ or ())
    return FunctionType(code, names, function.__name__, function.__defaults__, cells)


def _inside(value, real):
    """What stands for a global or a variable of the closure inside a kernel."""
    if isinstance(value, Helper):
        made = _specialised(value.function, real)
        if isinstance(value, Lanewise):
            return by_lanes(made) if SIMULATED else _compiled_by_lanes(made)
        return made if SIMULATED else _compiled_helper(made)
    if isinstance(value, PerReal):
        return value.functions[real]
    if isinstance(value, Kernel):
        raise BackendError(f"{value!r}: a kernel cannot call another kernel; make the common part a @device function")
    if SIMULATED and value is math:
        return LIBRARY
    if SIMULATED and value is cuda:
        return context
    return real(value) if type(value) is float else value


@cache
def _compiled_helper(function):
    return cuda.jit(function, device=True, forceinline=True)


@cache
def _compiled_by_lanes(function):
    from numbanet.backends.cuda import pieces
    return pieces.lanewise(_compiled_helper(function), function.__code__.co_argcount)


def _with_literals(code: CodeType, real) -> CodeType:
    """The code with its floating-point literals in `real`."""
    return code.replace(co_consts=tuple([_literal(c, real) for c in code.co_consts]))


def _literal(constant, real):
    if type(constant) is tuple:                     # of `a, b = 0.0, 1.0`
        return tuple([_literal(c, real) for c in constant])
    return real(constant) if type(constant) is float else _with_literals(constant, real) if isinstance(constant, CodeType) else constant


def _names(code: CodeType) -> set[str]:
    return set(code.co_names).union(*[_names(c) for c in code.co_consts if isinstance(c, CodeType)])


def _collect_modules(function: FunctionType, found: set[str], seen: set) -> None:
    if function in seen:
        return
    seen.add(function)
    found.add(function.__module__)
    used = [function.__globals__[name] for name in _names(function.__code__) & set(function.__globals__)]
    for value in (*used, *[cell.cell_contents for cell in function.__closure__ or ()]):
        if isinstance(value, Helper):
            _collect_modules(value.function, found, seen)
