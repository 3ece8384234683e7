"""What there is to run on: driver, GPUs, numba-cuda; and in plain words why CUDA is not available.

Nothing here imports CUDA packages: the driver is asked through ctypes, so that the question is cheap and safe where there is none.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from importlib.util import find_spec
from typing import NamedTuple

from numbanet.errors import BackendError

OLDEST_DRIVER = 12_000                          # CUDA 12.0
NEWEST_EXTRA = 13
OLDEST_NUMBA_CUDA = (0, 30, 4)                  # before, its types and those of numba 0.68 disagree
OLDEST_CAPABILITY = (8, 0)                      # Ampere: the first that the machine code is made for (`cubin.py`)
_LIBRARIES = {"win32": ("nvcuda.dll",)}
_ERRORS = {100: "the driver finds no GPU; is one visible (CUDA_VISIBLE_DEVICES, nvidia-smi, --gpus of the container)?",
           803: "the driver's library and its kernel module are of different versions; restart the machine after updating the driver",
           804: "the driver is older than the CUDA version of this environment allows"}


class GPU(NamedTuple):
    """One device, as the driver describes it."""

    name: str
    capability: tuple[int, int]
    memory: int             # bytes
    multiprocessors: int

    @property
    def architecture(self) -> str:
        """As compilers call it: sm_90."""
        return "sm_{}{}".format(*self.capability)


def is_simulated() -> bool:
    """Whether Numba's simulator stands in for a GPU: NUMBA_ENABLE_CUDASIM=1."""
    return os.environ.get("NUMBA_ENABLE_CUDASIM", "0") == "1"


@cache
def _driver():
    """The driver's library, or None."""
    for name in _LIBRARIES.get(sys.platform, ("libcuda.so.1", "libcuda.so")):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def driver_version() -> int | None:
    """The newest CUDA version that the driver supports, as 12040 for 12.4; None without a driver."""
    library, version = _driver(), ctypes.c_int()
    if library is None or library.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    return version.value


def fitting_extra(version: int | None) -> str:
    """The extra of numbanet that works with this driver."""
    return "cuda12" if version is not None and version < NEWEST_EXTRA * 1000 else "cuda13"


def why_not() -> str:
    """Why CUDA cannot be used here, with the remedy; "" where it can."""
    if is_simulated():
        return "" if find_spec("numba_cuda") else "NUMBA_ENABLE_CUDASIM=1 needs numba-cuda: pip install 'numbanet[cuda]'"
    version = driver_version()
    if version is None:
        return ("no NVIDIA driver was found (libcuda.so.1); install one with `nvidia-smi` working, or use device='cpu'")
    if version < OLDEST_DRIVER:
        return (f"the NVIDIA driver supports CUDA {dotted(version)}, numbanet needs {dotted(OLDEST_DRIVER)} or newer; update the driver, "
                "or use device='cpu'")
    if find_spec("numba_cuda") is None or find_spec("cuda") is None:
        return f"numba-cuda is not installed; pip install 'numbanet[{fitting_extra(version)}]' fits this driver (CUDA {dotted(version)})"
    if not _is_recent_enough():
        return (f"numba-cuda {_version('numba-cuda')} is too old for this version of numba; "
                f"pip install 'numbanet[{fitting_extra(version)}]' updates it")
    toolkit = installed_toolkit()
    if toolkit is not None and toolkit > version // 1000:
        return (f"the installed CUDA {toolkit} packages are newer than the driver, which supports {dotted(version)}; "
                f"pip install 'numbanet[{fitting_extra(version)}]' in their place, or update the driver")
    status = _driver().cuInit(0)
    if status:
        return f"the NVIDIA driver does not start (error {status}): {_ERRORS.get(status, 'see nvidia-smi')}"
    if not gpus():
        return _ERRORS[100]
    return ""


def installed_toolkit() -> int | None:
    """The major version of the installed CUDA packages; None where there are none."""
    major = (_version("cuda-bindings") or "").partition(".")[0]
    return int(major) if major.isdigit() else None


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _is_recent_enough() -> bool:
    numbers = [int(part) for part in (_version("numba-cuda") or "").split(".")[:3] if part.isdigit()]
    return not numbers or tuple(numbers) >= OLDEST_NUMBA_CUDA


def require(name: str, index: int) -> None:
    """Raise a BackendError unless device `index` can be used."""
    reason = why_not()
    if reason:
        raise BackendError(f"device {name!r}: {reason}")
    count = len(gpus())
    if index >= count:
        raise BackendError(f"device {name!r}: there {'is 1 GPU' if count == 1 else f'are {count} GPUs'} here, numbered from 0; "
                           f"use cuda:{count - 1} or less")
    if gpus()[index].capability < OLDEST_CAPABILITY:
        raise BackendError(f"device {name!r}: {gpus()[index].name} is {gpus()[index].architecture}; numbanet needs sm_80 or newer, "
                           "which has tensor cores for TF32")


def gpus() -> list[GPU]:
    """The GPUs of this machine that are visible, in the driver's order; the simulator counts as two."""
    if is_simulated():
        return [GPU("Numba's CUDA simulator", (9, 0), 1 << 30, 2)] * 2
    return _gpus()


@cache
def _gpus() -> list[GPU]:
    library = _driver()
    if library is None or library.cuInit(0):
        return []
    count, found = ctypes.c_int(), []
    library.cuDeviceGetCount(ctypes.byref(count))
    for index in range(count.value):
        handle, name, memory = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
        library.cuDeviceGet(ctypes.byref(handle), index)
        library.cuDeviceGetName(name, len(name), handle)
        library.cuDeviceTotalMem_v2(ctypes.byref(memory), handle)
        multiprocessors, major, minor = (_attribute(library, handle, a) for a in (16, 75, 76))
        found.append(GPU(name.value.decode(errors="replace"), (major, minor), memory.value, multiprocessors))
    return found


def _attribute(library, handle, number: int) -> int:
    value = ctypes.c_int()
    library.cuDeviceGetAttribute(ctypes.byref(value), number, handle)
    return value.value


def dotted(version: int) -> str:
    """12.4 for 12040."""
    return f"{version // 1000}.{version % 1000 // 10}"
