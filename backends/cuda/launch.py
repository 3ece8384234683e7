"""From a kernel and its arguments to work on a GPU.

The types of a launch are read off its arguments: arrays become pointers to their dtype, or to pieces of it (`wide.py`), lists of arrays
pointers to pointers, Python integers and tuples of them indices (int32, or int64 for the whole launch where an array or a size needs that),
NumPy scalars what they are. Python floats are refused: their width is the caller's to say.

An eager call comes here for each of its kernels, so that this path is short: one walk along the arguments, and one call that packs them.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from numbanet.backends.cuda.compile import SIMULATED, Kernel
from numbanet.backends.cuda.constants import on_device
from numbanet.backends.cuda.cubin import Cubin, Source, cubin
from numbanet.backends.cuda.driver import Parameters
from numbanet.backends.cuda.index import size_words
from numbanet.backends.cuda.memory import DeviceArray
from numbanet.backends.cuda.wide import Wide
from numbanet.dtypes import is_floating_point
from numbanet.errors import BackendError

THREADS = 256                   # of a block
WAVES = 16                      # blocks a multiprocessor; more are no faster, their loops only start more often
_INT32_LIMIT = 2**31 - 2**24    # an index may pass the end by a stride of the grid

compiled: dict[tuple, object] = {}       # (kernel, types, device) -> what is loaded; in the simulator (kernel, types), for the tests


class _Needs64Bits(Exception):
    """An index of this launch needs 64 bits."""


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
    types, numbers, device = laid_out(kernel, arguments)
    if SIMULATED:
        _simulate(device, kernel, types, total, arguments, blocks, threads)
        return
    made = compiled.get((kernel, types, device))
    if made is None:
        made = compiled[kernel, types, device] = device.load_kernel(kernel, types)
    threads = threads or THREADS
    if blocks is None:
        blocks = min(-(-total // threads), device.multiprocessors * WAVES)
    device.launch(made, (blocks, 1, 1), threads, Parameters(types, numbers))


def laid_out(kernel: Kernel, arguments) -> tuple[tuple[str, ...], list, object]:
    """(the type of each argument, all parameters one by one, the device).

    Types are texts: "*float32", "*float32x4" (wide), "**float32" (a list), "int32", "int32x3", "float32", "size", "sizex3".
    """
    try:
        return _walk(kernel, arguments, "int32", "size")
    except _Needs64Bits:
        return _walk(kernel, arguments, "int64", "int64")


def _walk(kernel: Kernel, arguments, index: str, size: str) -> tuple[tuple[str, ...], list, object]:
    types, numbers, device, is_narrow = [], [], None, index == "int32"
    for a, is_size in zip(arguments, kernel.sizes, strict=True):
        kind = type(a)
        if kind is DeviceArray or kind is Wide:
            if kind is Wide:
                a, width = a
                types.append(_pointer(a.dtype, width))
            else:
                types.append(_pointer(a.dtype))
            lease = a.lease
            if is_narrow and lease.nbytes > _INT32_LIMIT and a.reach > _INT32_LIMIT:
                raise _Needs64Bits
            if device is None:
                device = lease.allocator.device
            elif lease.allocator.device is not device:
                _refuse(kernel, device, lease.allocator.device)
            if not SIMULATED:
                numbers.append(lease.handle + a.offset)
        elif kind is int:
            if is_narrow and not -_INT32_LIMIT < a < _INT32_LIMIT:
                raise _Needs64Bits
            if is_size and is_narrow:
                types.append(size)
                numbers += size_words(a)
            else:
                types.append(index)
                numbers.append(a)
        elif kind is tuple:
            if type(a[0]) is not int:
                types.append(f"{a[0].dtype.name}x{len(a)}")
                numbers += a
                continue
            if is_narrow and max(a) > _INT32_LIMIT:
                raise _Needs64Bits
            if is_size and is_narrow:
                types.append(_counted(size, len(a)))
                for n in a:
                    numbers += size_words(n)
            else:
                types.append(_counted(index, len(a)))
                numbers += a
        elif kind is list:
            own = [x.array if type(x) is Wide else x for x in a]
            types.append("*" + (_pointer(own[0].dtype, a[0].width) if type(a[0]) is Wide else _pointer(own[0].dtype)))
            for x in own:
                if is_narrow and x.reach > _INT32_LIMIT:
                    raise _Needs64Bits
                device = device or x.device
                if x.device is not device:
                    _refuse(kernel, device, x.device)
            if not SIMULATED:
                numbers.append(on_device(own[0].lease.allocator, np.array([x.pointer for x in own], np.int64)).pointer)
        elif isinstance(a, np.generic):
            types.append(_scalar(kind))
            numbers.append(a)
        else:
            raise BackendError(f"{kernel.__name__}: an argument of a kernel is an array, an integer, a tuple of integers or a NumPy "
                               f"scalar; received {kind.__name__}")
    return tuple(types), numbers, device


def _refuse(kernel, first, other) -> None:
    raise BackendError(f"{kernel.__name__}: arrays of cuda:{first.index} and cuda:{other.index} meet; move one with "
                       f".to('cuda:{first.index}')")


@cache
def _pointer(dtype: np.dtype, width: int = 1) -> str:
    return f"*{dtype.name}" if width == 1 else f"*{dtype.name}x{width}"


@cache
def _counted(base: str, count: int) -> str:
    return f"{base}x{count}"


@cache
def _scalar(kind: type) -> str:
    return np.dtype(kind).name


def number(value, dtype: np.dtype) -> np.generic:
    """A scalar argument that meets elements of `dtype`: rounded to it, and in the type that they have inside kernels."""
    rounded = dtype.type(value)
    return np.float32(rounded) if dtype.itemsize == 2 and is_floating_point(dtype) else rounded


def real_of(types: tuple[str, ...]):
    """What a kernel of these types computes in: np.float64 where one is, else np.float32."""
    return np.float64 if any(t.lstrip("*").startswith("float64") for t in types) else np.float32


def _simulate(device, kernel, types, total, arguments, blocks, threads) -> None:
    from numbanet.backends.cuda import simulator
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
                  few_turns=kernel.few_turns, is_narrow=True)


def machine_code(kernel: Kernel, types: tuple[str, ...], arch: str) -> Cubin:
    """The machine code of a kernel for an architecture, from the disk cache where it is there; needs no GPU."""
    return cubin(source_of(kernel, types), arch)
