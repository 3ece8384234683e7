"""`@kernel` and `@worker`: the only two places of the CPU backend that hold Numba's flags.

A worker is a function that kernels call; a kernel is what Python calls. Kernels are compiled on their first use, one
explicit signature a dtype, and kept in the private disk cache (`kernel_cache`). Under `NUMBA_DISABLE_JIT=1` both
decorators return the plain function, so that a debugger steps into it.

fastmath is {contract} by default: fused multiply-add, nothing else. arcp, afn, reassoc and nsz are for one function
at a time, with the reason beside it; NaN and inf stay defined everywhere.
"""
import functools
import logging
import platform
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import llvmlite
import numba
import numpy as np
from numba import types
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import CPUDispatcher

from numbanet.backends.cpu import hardware, threads
from numbanet.backends.cpu.kernel_cache import KernelCache, cache_folder
from numbanet.backends.cpu.linking import compiled_as
from numbanet.errors import BackendError, DTypeError

logger = logging.getLogger("numbanet.compile")

JIT = not numba.config.DISABLE_JIT
CONTRACT = ("contract",)
ANNOUNCE_AFTER_SECONDS = 0.5       # of compiling in this process; about two kernels

TYPE_NAMES = {name: getattr(types, name) for name in (
    "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8", "b1", "void", "intp", "boolean")}


@dataclass
class Statistics:
    """What this process compiled and loaded."""

    hits: int = 0              # overloads loaded from the disk cache
    misses: int = 0            # overloads compiled
    seconds: float = 0.0       # spent compiling
    announced: bool = False    # the user has been told what is going on


statistics = Statistics()
_kernels: dict[str, "Kernel"] = {}
_lock = threading.RLock()


def worker(function: Callable | None = None, *, fastmath: Sequence[str] = CONTRACT, inline: bool = False,
           borrows: bool = False) -> Callable:
    """Make a function callable from kernels (and from other workers).

    Parameters
    ----------
    function
        The function; its argument types are inferred where it is called.
    fastmath
        LLVM's fast-math flags. Anything beyond {contract} needs a reason in the source.
    inline
        Always inline into the caller; otherwise LLVM decides.
    borrows
        References to its arrays are not counted: it makes no arrays with memory of their own and returns none. Where a branch stands
        between the two, Numba does not see that counting up and down again is for nothing, and these are atomic operations.
    """
    if function is None:
        return functools.partial(worker, fastmath=fastmath, inline=inline, borrows=borrows)
    if not JIT:
        return function
    return Worker(function, targetoptions=_options(fastmath, parallel=False) | dict(
        nopython=True, forceinline=inline, no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=not borrows))


def kernel(*signatures: str, dtypes: Sequence[str] = ("float32",), parallel: bool = False,
           fastmath: Sequence[str] = CONTRACT) -> Callable:
    """Make a function a kernel: callable from Python, compiled once a dtype on its first use, never holding the GIL.

    Parameters
    ----------
    signatures
        Such as ``"void(const T[:,:,:,:], T[:,:,:,:], i8)"``. `T` stands for each of `dtypes`; `[:,:]` takes any
        strides, `[:,::1]` only C-contiguous arrays; ``const`` takes read-only arrays too. The first array of `T`
        selects the dtype.
    dtypes
        NumPy's names of the dtypes that the kernel has.
    parallel
        Whether `prange` runs in parallel. A serial twin, compiled when first needed, replaces the kernel where a
        parallel region is forbidden.
    fastmath
        LLVM's fast-math flags. Anything beyond {contract} needs a reason in the source.
    """
    def decorate(function: Callable) -> Callable:
        if not JIT:
            return function
        made = (ParallelKernel if parallel else Kernel)(function, signatures, dtypes, fastmath)
        if made.name in _kernels and _kernels[made.name].function.__code__ != function.__code__:
            raise BackendError(f"kernel {made.name}: the name is taken; give each kernel of a module its own")
        _kernels[made.name] = made
        return made
    return decorate


def _options(fastmath: Sequence[str], parallel: bool) -> dict:
    # error_model numpy: no branch that raises ZeroDivisionError stands in the way of the vectoriser
    return dict(nogil=True, fastmath=set(fastmath), parallel=parallel, error_model="numpy")


class Worker(CPUDispatcher):
    """A function that kernels call. Its code exists within theirs alone; a call from Python compiles a copy."""

    @functools.cached_property
    def _standalone(self) -> CPUDispatcher:
        wrappers = dict(no_cpython_wrapper=False, no_cfunc_wrapper=False)
        return CPUDispatcher(self.py_func, targetoptions=self.targetoptions | wrappers)

    def __call__(self, *arguments):
        return self._standalone(*arguments)


class Kernel:
    """A compiled function that runs on the calling thread. Made by `kernel`."""

    parallel = False

    def __init__(self, function: Callable, signatures: Sequence[str], dtypes: Sequence[str], fastmath: Sequence[str]):
        functools.update_wrapper(self, function)
        self.function = function
        self.name = f"{function.__module__}.{function.__qualname__}"
        self.dtypes = tuple(np.dtype(name) for name in dtypes)
        self.fastmath = tuple(sorted(fastmath))
        self.texts = tuple(signatures)
        self.signatures = {dtype: [_parse(text, dtype) for text in signatures] for dtype in self.dtypes}
        self._selector = _position_of_T(signatures[0])
        self._serial = _Overloads(self, parallel=False)

    def __call__(self, *arguments):
        return self._serial[arguments[self._selector].dtype](*arguments)

    def machine_code(self, arguments: Sequence, parallel: bool = False) -> tuple[int, tuple]:
        """The address of what runs on the calling thread alone, or on all, and the Numba types that it takes. See `program`.

        It checks nothing, so it is only for arguments that the kernel itself would take.
        """
        dtype = arguments[self._selector].dtype
        compiled = (self._parallel if parallel else self._serial)[dtype].overloads[self.signatures[dtype][0].args]
        return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name), compiled.signature.args

    def compile(self, dtype: str | np.dtype) -> None:
        """Compile the kernel for a dtype, or load it from the disk cache."""
        self._serial[np.dtype(dtype)]

    def is_cached(self, dtype: str | np.dtype) -> bool:
        """Whether the disk cache holds the kernel for a dtype."""
        cache = KernelCache(self.name, self.__module__, (self.parallel, self.fastmath))
        paths = [cache.path(signature) for signature in self.signatures[np.dtype(dtype)]]
        return all(path is not None and path.exists() for path in paths)

    def __repr__(self) -> str:
        return f"<kernel {self.name} ({', '.join(dtype.name for dtype in self.dtypes)})>"


class ParallelKernel(Kernel):
    """A compiled function whose `prange` loops run on all threads, or its serial twin. Made by `kernel`."""

    parallel = True

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._parallel = _Overloads(self, parallel=True)

    def __call__(self, *arguments):
        mode = threads.launch_mode()
        dtype = arguments[self._selector].dtype
        if mode is threads.PARALLEL:
            return self._parallel[dtype](*arguments)
        if mode is threads.GUARDED and threads.launch_lock().acquire(blocking=False):
            try:
                return self._parallel[dtype](*arguments)
            finally:
                threads.launch_lock().release()
        return self._serial[dtype](*arguments)

    def run_alone(self, *arguments):
        """The call on this thread alone."""
        return self._serial[arguments[self._selector].dtype](*arguments)

    def compile(self, dtype: str | np.dtype) -> None:
        if threads.launch_mode() is threads.SERIAL:
            super().compile(dtype)
        else:
            self._parallel[np.dtype(dtype)]


def alone(kernel: Callable, is_alone: bool = True) -> Callable:
    """The kernel, on this thread alone where `is_alone`: for work that is done before other threads would have begun.

    What it computes is the same. Whether a thread is there at once depends on what else the machine does: waiting for one that is
    not costs up to a millisecond.
    """
    return kernel.run_alone if is_alone and JIT else kernel


class _Overloads(dict):
    """Dispatchers by dtype. A missing one is compiled, so that a call costs one dictionary access."""

    def __init__(self, owner: Kernel, parallel: bool):
        self.owner, self.parallel = owner, parallel

    def __missing__(self, dtype: np.dtype):
        kernel = self.owner
        if dtype not in kernel.signatures:
            expected = " or ".join(legal.name for legal in kernel.dtypes)
            raise DTypeError(f"{kernel.name}: expected {expected}, received {dtype.name}")
        with _lock:
            if dtype not in self:                        # another thread may have been first
                self[dtype] = _compile(kernel, dtype, self.parallel)
            return self[dtype]


def _compile(kernel: Kernel, dtype: np.dtype, parallel: bool):
    if parallel:
        threads.start()
    dispatcher = numba.njit(kernel.function, **_options(kernel.fastmath, parallel))
    cache = dispatcher._cache = KernelCache(kernel.name, kernel.__module__, (parallel, kernel.fastmath))
    if not statistics.announced and statistics.seconds > ANNOUNCE_AFTER_SECONDS and not kernel.is_cached(dtype):
        _announce(dtype)
    begin = time.perf_counter()
    try:
        with global_compiler_lock, compiled_as(kernel.__qualname__):
            for signature in kernel.signatures[dtype]:
                dispatcher.compile(signature)
    except Exception as error:
        raise BackendError(
            f"kernel {kernel.name} ({dtype.name}) failed to compile on {hardware.cpu_name()} "
            f"(Python {platform.python_version()}, numba {numba.__version__}, llvmlite {llvmlite.__version__}, "
            f"SIMD width {hardware.simd_width()}): {str(error).strip() or type(error).__name__}. "
            f"Please report this message with the output of `numbanet doctor`; "
            f"device=\"reference\" runs without compiling") from error
    dispatcher.disable_compile()                         # from here on arguments are converted, never specialised
    statistics.hits += cache.hits
    statistics.misses += cache.misses
    if cache.misses:
        statistics.seconds += time.perf_counter() - begin
    return dispatcher


def _announce(dtype: np.dtype) -> None:
    missing = sum(dtype in kernel.dtypes and not kernel.is_cached(dtype) for kernel in registered_kernels())
    statistics.announced = True
    logger.info("compiling up to %d kernels for %s, cached afterwards in %s",
                missing, hardware.cpu_name(), cache_folder())


def registered_kernels() -> list[Kernel]:
    """Every kernel of the modules imported so far, by name."""
    return [_kernels[name] for name in sorted(_kernels)]


def warmup(kernels: Iterable[Kernel] | None = None, dtypes: Sequence[str] = ("float32",),
           progress: Callable[[Iterable], Iterable] = iter) -> Statistics:
    """Compile kernels ahead of their first use.

    Parameters
    ----------
    kernels
        Which; by default all of the modules imported so far.
    dtypes
        For which floating dtypes. Those of integers are compiled in any case.
    progress
        Wraps the iteration, such as ``tqdm``.

    Returns
    -------
    Statistics
        Those of the process.
    """
    wanted = [np.dtype(name) for name in dtypes]
    pairs = [(kernel, dtype) for kernel in (registered_kernels() if kernels is None else kernels)
             for dtype in kernel.dtypes if dtype in wanted or dtype.kind != "f"]
    for kernel, dtype in progress(pairs):
        kernel.compile(dtype)
    return statistics


# --- signatures -----------------------------------------------------------------------------------------------------

def _parse(text: str, dtype: np.dtype):
    """A Numba signature from its text, `T` being `dtype`."""
    marked = re.sub(r"const\s+(\w+\s*\[[^\]]*\])", r"const(\1)", text)
    names = TYPE_NAMES | {"T": numba.from_dtype(dtype), "const": lambda array: array.copy(readonly=True)}
    return eval(marked, {"__builtins__": {}}, names)


def _position_of_T(text: str) -> int:
    """Index of the first argument that is an array of `T`."""
    pairs = zip(_parse(text, np.dtype("float32")).args, _parse(text, np.dtype("float64")).args)
    for position, (single, double) in enumerate(pairs):
        if isinstance(single, types.Array) and single.dtype is not double.dtype:
            return position
    raise BackendError(f"kernel signature {text!r}: expected at least one array of T, which selects the dtype")
