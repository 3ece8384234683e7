"""From a Python kernel to machine code of a named architecture, on any machine, with or without a GPU; and a disk cache of the results.

Numba makes PTX, the linker of the CUDA toolkit (nvJitLink through `cuda.core`) makes the cubin and reports registers and spills. What is in the
cache is read without importing Numba at all. A key is made of the sources of the modules that define the kernel, and of all backend
modules that these import; of the versions of all compilers; of name, types, architecture and flags. A cache that is damaged, cannot be read
or cannot be written costs a compilation, never an error (`backends/disk_cache.py`).
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import json
import logging
import re
import sys
import types
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from numbanet.backends.disk_cache import cache_root, digest, read_checked, source_digest, write_checked
from numbanet.errors import BackendError, UsageError

logger = logging.getLogger("numbanet.compile")

COMPILERS = ("numba-cuda", "numba", "llvmlite", "cuda-core", "nvidia-nvvm", "nvidia-nvjitlink", "nvidia-cuda-nvcc-cu12", "nvidia-nvjitlink-cu12")
COUNTED = {"mma": r"\bmma\.sync", "ldmatrix": r"\bldmatrix\.sync", "cp_async": r"\bcp\.async\.c[ag]", "float64": r"\.f64\b"}
OLDEST = 80                  # sm_80 is the first with TF32, BF16 and cp.async


@dataclass(frozen=True)
class Cubin:
    """Machine code of one kernel, and what the compilers say about it."""

    name: str                # the symbol to launch
    arch: str                # "sm_90"
    code: bytes
    registers: int           # a thread
    spills: int              # bytes stored and loaded by a thread because registers ran out
    stack: int               # bytes of local memory a thread
    shared: int              # bytes of static shared memory a block
    instructions: dict       # how often the PTX has the instructions of COUNTED

    def report(self) -> dict:
        """Everything but the code."""
        return {name: value for name, value in asdict(self).items() if name != "code"}


def architecture(arch: str) -> tuple[int, int]:
    """(9, 0) of "sm_90"; an error where no tile program could run."""
    found = re.fullmatch(r"sm_(\d+)(\d)", arch)
    if found is None:
        raise UsageError(f"architecture expects a name such as sm_80 or sm_90, received {arch!r}")
    if 10 * int(found[1]) + int(found[2]) < OLDEST:
        raise UsageError(f"architecture {arch}: expected sm_{OLDEST} or newer, which has tensor cores for TF32 and asynchronous copies")
    return int(found[1]), int(found[2])


def cubin(name: str, make: Callable, argument_types: tuple[str, ...], arch: str, modules: tuple[str, ...], threads: int = 0,
          blocks: int = 0) -> Cubin:
    """The machine code of a kernel: from the cache, or compiled and kept there.

    Parameters
    ----------
    name
        Of the kernel and of its symbol: letters, digits and underscores.
    make
        Called without arguments where the code is not in the cache, returns the Python function.
    argument_types
        Of its arguments: "int32", "int64", "float32", or with a number, such as "int32x3", a tuple of so many.
    arch
        "sm_80", "sm_90", ...
    modules
        Whose sources define the kernel.
    threads, blocks
        How many threads a block will have, and how many blocks should fit a multiprocessor: the limit of registers. 0 leaves it open.

    Raises
    ------
    BackendError
        Where the compilers are missing, or refuse the kernel.
    """
    architecture(arch)
    path = cache_path(name, argument_types, arch, modules, threads, blocks)
    if path is not None:
        found = _read(path)
        if found is not None:
            return found
    made = compile_cubin(name, make(), argument_types, arch, threads, blocks)
    if path is not None:
        try:
            header = json.dumps(made.report()).encode()
            write_checked(path, len(header).to_bytes(4, "little") + header + made.code)
        except OSError as error:
            logger.debug("cannot save %s: %s", path, error)
    return made


def cache_folder() -> Path:
    """The folder of these compilers' cubins."""
    versions = {}
    for package in COMPILERS:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = ""
    return cache_root() / "cubins" / digest(repr((versions, sys.version)).encode())[:16]


def cache_path(name: str, argument_types, arch: str, modules, threads: int = 0, blocks: int = 0) -> Path | None:
    """The file of a kernel; None where it must not be cached, since a source was edited after it was imported."""
    sources = source_digest(__name__, *modules)
    if sources is None:
        return None
    overload = f"{name}-{arch}-{digest(repr((name, argument_types, threads, blocks)).encode())[:10]}"
    return cache_folder() / f"{overload}-{digest(f'{overload} {sources}'.encode())[:16]}.cubin"


def _read(path: Path) -> Cubin | None:
    try:
        payload = read_checked(path)
        length = int.from_bytes(payload[:4], "little")
        return Cubin(code=payload[4 + length:], **json.loads(payload[4:4 + length]))
    except FileNotFoundError:
        return None
    except Exception as error:                           # any damage means a recompile, never an error
        logger.debug("cannot use %s: %s", path, error)
        return None


# --- compiling ------------------------------------------------------------------------------------------------------

def compile_cubin(name: str, kernel: Callable, argument_types: tuple[str, ...], arch: str, threads: int = 0, blocks: int = 0) -> Cubin:
    """Compile without looking at the cache; parameters as in :func:`cubin`."""
    ptx = compile_ptx(name, kernel, argument_types, arch, threads, blocks)
    code, log = _link(name, ptx, arch)
    return Cubin(name, arch, code, *_report(log, code), {key: len(re.findall(pattern, ptx)) for key, pattern in COUNTED.items()})


def compile_ptx(name: str, kernel: Callable, argument_types: tuple[str, ...], arch: str, threads: int = 0, blocks: int = 0) -> str:
    """The PTX of a kernel, its symbol being `name`."""
    try:
        from numba import cuda
        from numba.cuda import types as numba_types
    except (ImportError, AttributeError) as error:       # AttributeError: releases of numba and numba-cuda that do not fit
        raise BackendError(f"kernel {name}: compiling for CUDA expects the package numba-cuda, which fails to load: {error}; "
                           f"pip install 'numbanet[cuda]'") from error
    signature = numba_types.void(*[_type(text, numba_types) for text in argument_types])
    try:
        with warnings.catch_warnings(), _compiling_for(architecture(arch)):
            warnings.simplefilter("ignore")              # about low occupancy and performance, which are known here
            ptx, _ = cuda.compile(kernel, signature, cc=architecture(arch), device=False, abi="numba", output="ptx")
    except Exception as error:
        raise BackendError(f"kernel {name} ({arch}) failed to compile: {str(error).strip() or type(error).__name__}. "
                           f"Please report this message with the output of `numbanet doctor`") from error
    if isinstance(ptx, bytes):
        ptx = ptx.decode()
    symbol = re.search(r"\.visible \.entry (\w+)\(", ptx)[1]
    limits = (f"\n.maxntid {threads}, 1, 1" if threads else "") + (f"\n.minnctapersm {blocks}" if blocks else "")
    entry = re.compile(r"(\.visible \.entry \w+\([^)]*\))")
    return entry.sub(lambda found: found[1] + limits, ptx, count=1).replace(symbol, name)


@contextlib.contextmanager
def _compiling_for(capability: tuple[int, int]):
    """Numba asks the current GPU for its capability when a kernel's helper function is compiled; here is the answer, without a GPU."""
    from numba.cuda import dispatcher
    from numba.cuda.core.compiler_lock import global_compiler_lock
    with global_compiler_lock:
        asked = dispatcher.get_current_device
        dispatcher.get_current_device = lambda: types.SimpleNamespace(compute_capability=capability)
        try:
            yield
        finally:
            dispatcher.get_current_device = asked


def _type(text: str, numba_types):
    base, _, count = text.partition("x")
    scalar = getattr(numba_types, base)
    return numba_types.UniTuple(scalar, int(count)) if count else scalar


def _link(name: str, ptx: str, arch: str) -> tuple[bytes, str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")               # cuda.core warns where it has no nvJitLink and would ask the driver
            from cuda.core import Linker, LinkerOptions, ObjectCode
            linker = Linker(ObjectCode.from_ptx(ptx.encode()), options=LinkerOptions(arch=arch, ptxas_options=["-v"]))
    except (ImportError, RuntimeWarning) as error:
        raise BackendError(f"kernel {name}: linking for {arch} expects nvJitLink, which was not found: {error}; "
                           f"pip install 'numbanet[cuda]'") from error
    try:
        return bytes(linker.link("cubin").code), linker.get_info_log()
    except Exception as error:
        raise BackendError(f"kernel {name} ({arch}): the assembler refuses it: {linker.get_error_log() or error}") from error


def _report(log: str, code: bytes) -> tuple[int, int, int, int]:
    """(registers, spills, stack, static shared memory) from the assembler's words."""
    def number(pattern: str) -> int:
        return sum(int(found) for found in re.findall(pattern, log))

    registers = re.search(r"Used (\d+) registers", log)
    if registers is None:
        raise BackendError(f"the assembler's report has no line of registers: {log!r}")
    return (int(registers[1]), number(r"(\d+) bytes spill (?:stores|loads)"), number(r"(\d+) bytes stack frame"), number(r"(\d+) bytes smem"))


@functools.cache
def can_compile() -> str:
    """"" where kernels can be compiled for CUDA here, otherwise the reason."""
    def probe(n):
        return

    try:
        compile_cubin("probe", probe, ("int32",), "sm_80")
    except BackendError as error:
        return str(error)
    return ""
