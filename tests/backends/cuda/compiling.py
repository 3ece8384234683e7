"""Kernels of the CUDA backend compiled to machine code of an architecture, with or without a GPU, and what the compilers say of them."""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import re
import warnings
from types import SimpleNamespace
from typing import NamedTuple

import numbanet.backends.cuda


class Report(NamedTuple):
    """Of one kernel, of one signature, for one architecture."""

    registers: int
    spills: int             # bytes
    stack: int              # bytes of local memory a thread
    doubles: int            # instructions of float64 in the PTX


def import_kernels() -> None:
    """Import every module of the backend that makes kernels."""
    for module in pkgutil.iter_modules(numbanet.backends.cuda.__path__):
        if module.name != "simulator":
            importlib.import_module(f"numbanet.backends.cuda.{module.name}")


def ptx_of(kernel, types: tuple[str, ...]) -> str:
    """The PTX of a kernel whose arguments have these types (see `launch.types_of`), for sm_80 and later."""
    from numba import cuda

    from numbanet.backends.cuda.launch import numba_signature, real_of
    with _compiling_for((8, 0)), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text, _ = cuda.compile(kernel.specialised(real_of(types)), numba_signature(types), cc=(8, 0), device=False, abi="numba",
                               output="ptx")
    return text if isinstance(text, str) else text.decode()


@contextlib.contextmanager
def _compiling_for(capability):
    """Numba asks the current GPU for its capability when it compiles a helper function; here is none."""
    from numba.cuda import dispatcher
    asked = dispatcher.get_current_device
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=capability)
    try:
        yield
    finally:
        dispatcher.get_current_device = asked


def link(ptx: str, arch: str) -> Report:
    """Link for an architecture, such as "sm_90"."""
    from cuda.core import Linker, LinkerOptions, ObjectCode
    linker = Linker(ObjectCode.from_ptx(ptx.encode()), options=LinkerOptions(arch=arch, ptxas_options=["-v"]))
    assert len(linker.link("cubin").code) > 0
    log = linker.get_info_log()
    number = lambda pattern: sum(map(int, re.findall(pattern, log)))
    return Report(number(r"Used (\d+) registers"), number(r"(\d+) bytes spill (?:stores|loads)"), number(r"(\d+) bytes stack frame"),
                  len(re.findall(r"\.f64\b", ptx)))
