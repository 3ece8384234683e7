"""What the CPU backend knows about the machine: instruction set, SIMD width, cache sizes.

Everything here is a cached pure function of the machine and of the environment at the first call. Nothing imports
Numba. `NUMBA_CPU_NAME` and `NUMBA_CPU_FEATURES` are obeyed as Numba obeys them; `NUMBANET_SIMD_WIDTH` overrides the
width.
"""
import functools
import os
import platform
from pathlib import Path
from typing import NamedTuple

from numbanet.errors import BackendError

LEGAL_WIDTHS = (4, 8, 16)


class CacheSizes(NamedTuple):
    """Data cache sizes in bytes; `l1` and `l2` per core, `l3` as the first core sees it, but at most `LARGEST_L3`."""

    l1: int
    l2: int
    l3: int


LARGEST_L3 = 32 * 1024 * 1024     # a larger one serves dozens of cores, and on a rented machine other people's
TYPICAL_CACHES = CacheSizes(32 * 1024, 512 * 1024, 8 * 1024 * 1024)


@functools.cache
def cpu_name() -> str:
    """LLVM's name of the processor that code is generated for, such as ``znver4``."""
    import llvmlite.binding as llvm

    return os.environ.get("NUMBA_CPU_NAME") or llvm.get_host_cpu_name()


@functools.cache
def cpu_features() -> frozenset[str]:
    """LLVM's names of the enabled instruction-set extensions, such as ``avx2``."""
    import llvmlite.binding as llvm

    asked = os.environ.get("NUMBA_CPU_FEATURES")
    if asked is None and cpu_name() == "generic":
        asked = ""                                   # Numba's rule: generic code uses no extensions
    if asked is not None:
        return frozenset(item[1:] for item in asked.split(",") if item.startswith("+"))
    return frozenset(name for name, enabled in llvm.get_host_cpu_features().items() if enabled)


@functools.cache
def cpu_model() -> str:
    """The name the vendor sells the processor under, for reports."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@functools.cache
def simd_width() -> int:
    """Number of float32 lanes of a SIMD vector: 16 with AVX-512, 8 with AVX, otherwise 4 (NEON, SSE).

    Raises
    ------
    BackendError
        When ``NUMBANET_SIMD_WIDTH`` is set to anything but 4, 8 or 16.
    """
    asked = os.environ.get("NUMBANET_SIMD_WIDTH")
    if asked:
        if asked not in map(str, LEGAL_WIDTHS):
            raise BackendError(f"NUMBANET_SIMD_WIDTH: expected 4, 8 or 16, received {asked!r}; "
                               f"unset it to use this CPU's own")
        return int(asked)
    features = cpu_features()
    if "avx512f" in features:
        return 16
    return 8 if "avx" in features else 4


@functools.cache
def has_fma() -> bool:
    """Whether a fused multiply-add is an instruction (without one, ``llvm.fma`` would be a library call)."""
    return "fma" in cpu_features() or is_arm()


@functools.cache
def scales_in_one_instruction() -> bool:
    """Whether a vector times powers of two is one instruction, results below the normal numbers and above all included."""
    return simd_width() == 16 and "avx512f" in cpu_features()


@functools.cache
def vector_registers() -> int:
    """Number of SIMD registers: 32 with AVX-512 and on ARM, otherwise 16."""
    return 32 if "avx512f" in cpu_features() or is_arm() else 16


@functools.cache
def is_arm() -> bool:
    """Whether this is a 64-bit ARM processor."""
    return platform.machine().lower() in ("arm64", "aarch64")


@functools.cache
def cache_sizes() -> CacheSizes:
    """Sizes of the data caches in bytes, from the kernel where it tells, otherwise typical ones."""
    found = {}
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            if (index / "type").read_text().strip() != "Instruction":
                found[int((index / "level").read_text())] = _parse_size((index / "size").read_text().strip())
        except (OSError, ValueError):
            continue
    l1, l2, l3 = (found.get(level, typical) for level, typical in enumerate(TYPICAL_CACHES, start=1))
    return CacheSizes(l1, l2, min(l3, LARGEST_L3))


def _parse_size(text: str) -> int:
    units = {"K": 1024, "M": 1024**2, "G": 1024**3}
    return int(text[:-1]) * units[text[-1]] if text[-1:] in units else int(text)


def available_cores() -> int:
    """Number of logical CPUs that this process may run on (its affinity)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
