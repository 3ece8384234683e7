"""From a kernel and its arguments to work on a GPU.

The types of a launch are read off its arguments: arrays become pointers to their dtype, or to pieces of it (`wide.py`), lists of arrays
pointers to pointers, Python integers and tuples of them indices (int32, or int64 for the whole launch where an array or a size needs that),
NumPy scalars what they are.
Python floats are refused: their width is the caller's to say.
"""

from __future__ import annotations

import ctypes
from functools import cache

import numpy as np

from numbanet.backends.cuda.compile import SIMULATED, Kernel
from numbanet.backends.cuda.constants import on_device
from numbanet.backends.cuda.cubin import Cubin, Source, cubin
from numbanet.backends.cuda.index import size_words
from numbanet.backends.cuda.memory import DeviceArray
from numbanet.backends.cuda.wide import Wide
from numbanet.dtypes import is_floating_point
from numbanet.errors import BackendError

THREADS = 256                   # of a block
WAVES = 16                      # blocks a multiprocessor; more are no faster, their loops only start more often
_INT32_LIMIT = 2**31 - 2**24    # an index may pass the end by a stride of the grid

compiled: dict[tuple, object] = {}       # (kernel, types, device) -> what is loaded; in the simulator (kernel, types), for the tests


def launch(kernel: Kernel, total: int, *arguments, blocks: int | None = None, threads: int | None = None) -> None:
    """Run a kernel once.

    Parameters
    ----------
    kernel
        Made by `@kernel`.
    total
        How many threads there is work for; nothing is launched for 0.
    arguments
        The kernel's: arrays, wide or not, lists of arrays of one dtype, integers, NumPy scalars, tuples of one of these two.
    blocks, threads
        The grid and the threads of a block, for kernels whose threads work together; otherwise chosen from `total`.

    Raises
    ------
    BackendError
        Where arrays of several devices meet, or an argument is of none of these kinds.
    """
    if total == 0:
        return
    arrays = _arrays(arguments)
    device = arrays[0].device
    for other in arrays:
        if other.device is not device:
            raise BackendError(f"{kernel.__name__}: arrays of cuda:{device.index} and cuda:{other.device.index} meet; move one with "
                               f".to('cuda:{device.index}')")
    if SIMULATED:
        _simulate(device, kernel, total, arguments, blocks, threads)
        return
    types = types_of(kernel, arguments)
    made = compiled.get((kernel, types, device))
    if made is None:
        made = compiled[kernel, types, device] = device.load_kernel(kernel, types)
    threads = threads or THREADS
    if blocks is None:
        blocks = min(-(-total // threads), device.multiprocessors * WAVES)
    device.launch(made, (blocks, 1, 1), threads, flattened(types, arguments))


def _arrays(arguments) -> list[DeviceArray]:
    single = [a for a in arguments if type(a) in (DeviceArray, Wide)] + [x for a in arguments if type(a) is list for x in a]
    return [a.array if type(a) is Wide else a for a in single]


def _elements(a: DeviceArray | Wide) -> str:
    """What a pointer to an array points to."""
    return f"{a.array.dtype.name}x{a.width}" if type(a) is Wide else a.dtype.name


def types_of(kernel: Kernel, arguments) -> tuple[str, ...]:
    """The type of each argument, as text: "*float32", "*float32x4" (wide), "**float32" (a list), "int32", "int32x3", "float32", "size"."""
    index = "int32" if _fits(arguments) else "int64"
    size = "size" if index == "int32" else index
    types = []
    for a, is_size in zip(arguments, kernel.sizes):
        if type(a) in (DeviceArray, Wide):
            types.append(f"*{_elements(a)}")
        elif type(a) is list:
            types.append(f"**{_elements(a[0])}")
        elif type(a) is int:
            types.append(size if is_size else index)
        elif type(a) is tuple:
            types.append(f"{a[0].dtype.name if isinstance(a[0], np.generic) else size if is_size else index}x{len(a)}")
        elif isinstance(a, np.generic):
            types.append(a.dtype.name)
        else:
            raise BackendError(f"{kernel.__name__}: an argument of a kernel is an array, an integer, a tuple of integers or a NumPy "
                               f"scalar; received {type(a).__name__}")
    return tuple(types)


def number(value, dtype: np.dtype) -> np.generic:
    """A scalar argument that meets elements of `dtype`: rounded to it, and in the type that they have inside kernels."""
    rounded = dtype.type(value)
    return np.float32(rounded) if dtype.itemsize == 2 and is_floating_point(dtype) else rounded


def real_of(types: tuple[str, ...]):
    """What a kernel of these types computes in: np.float64 where one is, else np.float32."""
    return np.float64 if any(t.lstrip("*").startswith("float64") for t in types) else np.float32


def _fits(arguments) -> bool:
    if any(a.reach > _INT32_LIMIT for a in _arrays(arguments)):
        return False
    for a in arguments:
        if type(a) is int:
            if not -_INT32_LIMIT < a < _INT32_LIMIT:
                return False
        elif type(a) is tuple and type(a[0]) is int and max(a) > _INT32_LIMIT:
            return False
    return True


def _simulate(device, kernel, total, arguments, blocks, threads) -> None:
    from numbanet.backends.cuda import simulator
    types = types_of(kernel, arguments)
    compiled.setdefault((kernel, types), None)
    function = kernel.specialised(real_of(types))
    grid = blocks or min(simulator.BLOCKS, -(-total // simulator.THREADS)), threads or simulator.THREADS
    arguments = [simulator.pointer(a) if type(a) in (DeviceArray, Wide) else [simulator.pointer(x) for x in a] if type(a) is list else a
                 for a in arguments]
    device.submit(lambda stream: simulator.run(function, *grid, arguments))


@cache
def numba_type(name: str):
    """Numba's type of an argument, by the name that :func:`types_of` gives it."""
    from numba.cuda import types as numba_types

    from numbanet.backends.cuda.pointers import pointer_to
    if name.startswith("**"):
        return numba_types.CPointer(pointer_to(name[2:]))
    if name.startswith("*"):
        return pointer_to(name[1:])
    if name.startswith("size"):
        from numbanet.backends.cuda.index import SIZE
        return numba_types.UniTuple(SIZE, int(name[5:])) if name != "size" else SIZE
    base, _, count = name.partition("x")
    if count:
        return numba_types.UniTuple(getattr(numba_types, base), int(count))
    return numba_types.boolean if name == "bool" else getattr(numba_types, name)


def source_of(kernel: Kernel, types: tuple[str, ...]) -> Source:
    """A kernel for these types of arguments, as the compiler takes it."""
    modules = (*kernel.modules, "numbanet.backends.cuda.pointers", __name__)      # pointers.py imports pieces.py
    return Source(kernel.name.replace(".", "_"), lambda: kernel.specialised(real_of(types)), types, modules, numba_type=numba_type,
                  few_turns=kernel.few_turns)


def machine_code(kernel: Kernel, types: tuple[str, ...], arch: str) -> Cubin:
    """The machine code of a kernel for an architecture, from the disk cache where it is there; needs no GPU."""
    return cubin(source_of(kernel, types), arch)


_WORDS = {"int32": ctypes.c_int32, "int64": ctypes.c_int64, "uint8": ctypes.c_uint8, "uint32": ctypes.c_uint32, "uint64": ctypes.c_uint64,
          "float32": ctypes.c_float, "float64": ctypes.c_double, "bool": ctypes.c_bool}


def flattened(types: tuple[str, ...], arguments) -> list:
    """The parameters of a kernel one by one, as C numbers."""
    words = []
    for text, a in zip(types, arguments):
        if type(a) is list:
            arrays = _arrays([a])
            a = on_device(arrays[0].lease.allocator, np.array([x.pointer for x in arrays], np.int64))
        elif type(a) is Wide:
            a = a.array
        if type(a) is DeviceArray:
            words.append(ctypes.c_void_p(a.pointer))
        elif text.startswith("size"):
            words += [ctypes.c_uint32(word) for n in (a if type(a) is tuple else (a,)) for word in size_words(n)]
        elif type(a) is tuple:
            word = _WORDS[text.partition("x")[0]]
            words += [word(v) for v in a]
        else:
            words.append(_WORDS[text](a))
    return words
