"""From a Python kernel to machine code of a named architecture, on any machine, with or without a GPU; and a disk cache of the results.

Numba makes PTX, once for all architectures; the linker of the CUDA toolkit (nvJitLink through `cuda.core`) makes the cubin of each and
reports registers and spills. What is in the cache is read without importing Numba at all. A key is made of the sources of the modules that
define the kernel, and of all backend modules that these import; of the versions of all compilers; of name, types, architecture and
flags. A cache that is damaged, cannot be read or cannot be written costs a compilation and a warning, never an error (`disk_cache.py`).
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import importlib.util
import json
import logging
import re
import sys
import types
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from numbanet.backends.disk_cache import digest, read_checked, source_digest, write_checked
from numbanet.errors import BackendError, UsageError
from numbanet.files import cache_root

logger = logging.getLogger("numbanet.compile")

COMPILERS = ("numba-cuda", "numba", "llvmlite", "cuda-core", "nvidia-nvvm", "nvidia-nvjitlink", "nvidia-cuda-nvcc-cu12",
             "nvidia-nvjitlink-cu12")
_WIDE = r"(?:\.(?:global|nc))*\.v(?:4\.[bfsu]32|2\.[bfsu]64)\b"          # of 16 bytes, in global memory
COUNTED = {"mma": r"\bmma\.sync", "ldmatrix": r"\bldmatrix\.sync", "cp_async": r"\bcp\.async\.c[ag]", "float64": r"\.f64\b",
           "int64": r"\b(?:mul\.lo|mad\.lo|div|rem)\.[su]64\b",            # of products and divisions, which take a GPU many
           "wide_load": rf"\bld{_WIDE}", "wide_store": rf"\bst{_WIDE}"}
CAPABILITY = (8, 0)          # the first with TF32, BF16 and cp.async; its PTX is assembled for every later one
PTX_ARCH = "compute_80"


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
    if (int(found[1]), int(found[2])) < CAPABILITY:
        raise UsageError(f"architecture {arch}: expected sm_80 or newer, which has tensor cores for TF32 and asynchronous copies")
    return int(found[1]), int(found[2])


@dataclass(frozen=True)
class Source:
    """A Python kernel, and all that its code depends on.

    Attributes
    ----------
    name
        Of the kernel and of its symbol: letters, digits and underscores.
    make
        Called without arguments where the code is not in the cache, returns the Python function.
    argument_types
        Of its arguments: "int32", "int64", "float32", or with a number, such as "int32x3", a tuple of so many.
    modules
        Whose sources define the kernel.
    threads, blocks
        How many threads a block will have, and how many blocks should fit a multiprocessor: the limit of registers. 0 leaves it open.
    numba_type
        Makes Numba's type of an argument from its text, where there are others than the above; its module is one of `modules`.
    few_turns
        Loops whose length is not known are not unrolled.
    is_narrow
        Arithmetic of int32 is int32 (`integers.py`). Tile programs say themselves what is, and what they advance as addresses is not.
    """

    name: str
    make: Callable
    argument_types: tuple[str, ...]
    modules: tuple[str, ...]
    threads: int = 0
    blocks: int = 0
    numba_type: Callable | None = None
    few_turns: bool = False
    is_narrow: bool = False

    def cache_path(self, target: str) -> Path | None:
        """The file of its PTX or cubin; None where it must not be cached, since a source was edited after it was imported."""
        return cache_path(self.name, target, (self.argument_types, self.threads, self.blocks), self.modules)


def cubin(source: Source, arch: str) -> Cubin:
    """The machine code of a kernel for "sm_80", "sm_90", ...: from the cache, or compiled and kept there.

    Raises
    ------
    BackendError
        Where the compilers are missing, or refuse the kernel.
    """
    architecture(arch)
    path = source.cache_path(arch)
    found = _read(path)
    if found is not None:
        return Cubin(code=found[1], **found[0])
    made = link(source.name, ptx_of(source), arch)
    _write(path, made.report(), made.code)
    return made


def ptx_of(source: Source) -> str:
    """The PTX of a kernel, for all architectures from sm_80 on: from the cache, or compiled and kept there. Errors as of :func:`cubin`."""
    path = source.cache_path(PTX_ARCH)
    found = _read(path)
    if found is not None:
        return found[1].decode()
    ptx = compile_ptx(source.name, source.make(), source.argument_types, source.threads, source.blocks, source.numba_type, source.few_turns,
                      source.is_narrow)
    _write(path, {}, ptx.encode())
    return ptx


def cache_folder() -> Path:
    """The folder of these compilers' cubins."""
    versions = {}
    for package in COMPILERS:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = ""
    return cache_root() / "cubins" / digest(repr((versions, sys.version)).encode())[:16]


def cache_path(name: str, target: str, variant, modules) -> Path | None:
    """The file of a kernel, PTX or cubin; None where it must not be cached, since a source was edited after it was imported."""
    sources = source_digest(__name__, *modules)
    if sources is None:
        return None
    overload = f"{name}-{target}-{digest(repr(variant).encode())[:10]}"
    return cache_folder() / f"{overload}-{digest(f'{overload} {sources}'.encode())[:16]}.{'ptx' if target == PTX_ARCH else 'cubin'}"


def _read(path: Path | None) -> tuple[dict, bytes] | None:
    try:
        if path is None:
            return None
        payload = read_checked(path)
        length = int.from_bytes(payload[:4], "little")
        return json.loads(payload[4:4 + length]), payload[4 + length:]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:                           # any damage means a recompile, never an error
        _warn(f"the cache of CUDA kernels has a file that cannot be used: {path} ({error}); what it held is compiled again")
        return None


def _write(path: Path | None, header: dict, code: bytes) -> None:
    if path is not None:
        try:
            text = json.dumps(header).encode()
            write_checked(path, len(text).to_bytes(4, "little") + text + code)
        except OSError as error:
            _warn(f"the cache of CUDA kernels in {path.parent} cannot be written ({error.strerror or error}): every process compiles its "
                  "kernels anew; NUMBANET_CACHE_DIR names another folder")


@functools.cache
def _warn(message: str) -> None:
    """Log a message, once a process."""
    logger.warning(message)


# --- compiling ------------------------------------------------------------------------------------------------------

def compile_ptx(name: str, kernel: Callable, argument_types: tuple[str, ...], threads: int = 0, blocks: int = 0,
                numba_type: Callable | None = None, few_turns: bool = False, is_narrow: bool = False) -> str:
    """The PTX of a kernel, for all architectures from sm_80 on, its symbol being `name`; parameters as in :class:`Source`."""
    try:
        _import_numba()
        from numba import cuda
        from numba.cuda import types as numba_types
        signature = numba_types.void(*[(numba_type or _type)(text) for text in argument_types])
    except (ImportError, AttributeError) as error:       # AttributeError: releases of numba and numba-cuda that do not fit, or Numba's own
        raise BackendError(f"kernel {name}: compiling for CUDA expects the package numba-cuda, which fails to load: {error}; "
                           f"pip install 'numbanet[cuda]'") from error
    try:
        with warnings.catch_warnings(), _compiling_for(CAPABILITY, few_turns, is_narrow):
            warnings.simplefilter("ignore")              # about low occupancy and performance, which are known here
            ptx, _ = cuda.compile(kernel, signature, cc=CAPABILITY, device=False, abi="numba", output="ptx")
    except Exception as error:
        if type(error).__name__ == "DynamicLibNotFoundError":        # of cuda.pathfinder: libNVVM or NVRTC
            raise BackendError(f"kernel {name}: compiling for CUDA expects the libraries of the toolkit: {str(error).split(':')[0]}; "
                               f"pip install 'numbanet[cuda]'") from error
        raise BackendError(f"kernel {name} failed to compile: {str(error).strip() or type(error).__name__}. "
                           f"Please report this message with the output of `numbanet doctor`") from error
    if isinstance(ptx, bytes):
        ptx = ptx.decode()
    symbol = re.search(r"\.visible \.entry (\w+)\(", ptx)[1]
    limits = (f"\n.maxntid {threads}, 1, 1" if threads else "") + (f"\n.minnctapersm {blocks}" if blocks else "")
    entry = re.compile(r"(\.visible \.entry \w+\([^)]*\))")
    return entry.sub(lambda found: found[1] + limits, ptx, count=1).replace(symbol, name)


def _import_numba() -> None:
    """Import what numba-cuda compiles with. Release 0.30 asks NumPy for `row_stack`, which NumPy 2.5 no longer has."""
    lacks = "row_stack" not in dir(np)
    if lacks:
        np.row_stack = np.vstack
    try:
        import numba.cuda.cudaimpl  # noqa: F401
    finally:
        if lacks:
            del np.row_stack


@contextlib.contextmanager
def _compiling_for(capability: tuple[int, int], few_turns: bool, is_narrow: bool):
    """What Numba lacks: it asks the current GPU for its capability when a helper function is compiled, and leaves loops to guesses."""
    from numba.cuda import dispatcher
    from numba.cuda.core.compiler_lock import global_compiler_lock
    from numba.cuda.cudadrv import nvvm

    from numbanet.backends.cuda.integers import of_32_bits

    def compile_ir(modules, **options):
        return compile_unrolled([unroll_loops(text, few_turns) for text in ([modules] if isinstance(modules, str) else modules)], **options)

    with global_compiler_lock, of_32_bits() if is_narrow else contextlib.nullcontext():
        asked, compile_unrolled = dispatcher.get_current_device, nvvm.compile_ir
        dispatcher.get_current_device = lambda: types.SimpleNamespace(compute_capability=capability)
        nvvm.compile_ir = compile_ir
        try:
            yield
        finally:
            dispatcher.get_current_device, nvvm.compile_ir = asked, compile_unrolled


def unroll_loops(text: str, few_turns: bool = False) -> str:
    """LLVM IR whose loops of constant length are unrolled whole, so that local arrays become registers. Python has no word for that.

    Of others LLVM makes four turns one, and spends the registers of four, unless loops take `few_turns`.
    """
    lines, seen, loops = [], set(), 0
    words = ["full", *(["runtime.disable"] if few_turns else [])]
    last = max((int(number) for number in re.findall(r"^!(\d+) =", text, re.MULTILINE)), default=-1) + len(words)
    for line in text.splitlines():
        if line.startswith("define"):
            seen = set()
        label, jump = re.match(r'"?([\w.$-]+)"?:', line), re.match(r'\s+br label %"?([\w.$-]+)"?\s*$', line)
        if label:
            seen.add(label[1])
        elif jump and jump[1] in seen:                   # backwards: the end of a loop
            loops += 1
            line = f"{line}, !llvm.loop !{last + loops}"
        lines.append(line)
    if not loops:
        return text
    marks = [f"!{last - i}" for i in range(len(words))]
    texts = [f'{mark} = !{{!"llvm.loop.unroll.{word}"}}' for mark, word in zip(marks, words)]
    nodes = [f"!{last + i} = distinct !{{!{last + i}, {', '.join(marks)}}}" for i in range(1, loops + 1)]
    return "\n".join([*lines, *texts, *nodes, ""])


def _type(text: str):
    from numba.cuda import types as numba_types
    base, _, count = text.partition("x")
    scalar = getattr(numba_types, base)
    return numba_types.UniTuple(scalar, int(count)) if count else scalar


def link(name: str, ptx: str, arch: str) -> Cubin:
    """Machine code of an architecture from PTX."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)         # cuda.core's, where it has no nvJitLink and would ask the driver
            from cuda.core import Linker, LinkerOptions, ObjectCode
            linker = Linker(ObjectCode.from_ptx(ptx.encode()), options=LinkerOptions(arch=arch, ptxas_options=["-v"]))
        code = bytes(linker.link("cubin").code)
    except (ImportError, RuntimeWarning) as error:
        raise BackendError(f"kernel {name}: linking for {arch} expects nvJitLink, which was not found: {error}; "
                           f"pip install 'numbanet[cuda]'") from error
    except Exception as error:
        raise BackendError(f"kernel {name} ({arch}): the assembler refuses it: {error}") from error
    counts = {key: len(re.findall(pattern, ptx)) for key, pattern in COUNTED.items()}
    return Cubin(name, arch, code, *_report(linker.get_info_log()), counts)


def _report(log: str) -> tuple[int, int, int, int]:
    """(registers, spills, stack, static shared memory) from the assembler's words."""
    def number(pattern: str) -> int:
        return sum(int(found) for found in re.findall(pattern, log))

    registers = re.search(r"Used (\d+) registers", log)
    if registers is None:
        raise BackendError(f"the assembler's report has no line of registers: {log!r}")
    return (int(registers[1]), number(r"(\d+) bytes spill (?:stores|loads)"), number(r"(\d+) bytes stack frame"),
            number(r"(\d+) bytes smem"))


@functools.cache
def can_compile() -> str:
    """"" where kernels can be compiled for CUDA here, otherwise the reason."""
    def probe(n):
        return

    if importlib.util.find_spec("numba_cuda") is None:
        return "numba-cuda is not installed: pip install 'numbanet[cuda]'"
    try:
        link("probe", compile_ptx("probe", probe, ("int32",)), "sm_80")
    except BackendError as error:
        return str(error)
    return ""
