"""The private disk cache of compiled kernels.

One file holds one overload of one kernel: `<folder>/<environment key>/<kernel>-<digest>.kernel`. The environment key
names everything that changes the machine code of all kernels (Numba, llvmlite, Python, CPU, vector width); the digest
covers the kernel's signature and flags, its own module and every `numbanet.backends` module that this one imports,
transitively.

Why not Numba's own cache, and how files are kept whole: `backends/disk_cache.py`.
"""
import functools
import itertools
import logging
import os
import pickle
import platform
import sys
from pathlib import Path

import llvmlite
import numba
from numba.core import config
from numba.core.bytecode import FunctionIdentity
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.registry import cpu_target
from numba.core.serialize import dumps

from numbanet.backends.cpu import hardware
from numbanet.backends.disk_cache import PACKAGE, digest, read_checked, source_digest, write_checked
from numbanet.files import cache_root

logger = logging.getLogger("numbanet.compile")


def start_unique_ids() -> None:
    """Give Numba's function counter a random start in this process.

    Numba numbers functions 1, 2, ... in every process and puts the number into symbol names. Machine code of two
    processes then meets under equal names, and the linker takes the first. With random starts equal names mean equal
    functions.
    """
    FunctionIdentity._unique_ids = itertools.count(int.from_bytes(os.urandom(6), "little"))


start_unique_ids()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=start_unique_ids)


# --- keys -----------------------------------------------------------------------------------------------------------

def cache_folder() -> Path:
    """The folder of this environment's kernels; `NUMBANET_CACHE_DIR` moves its root."""
    return cache_root() / "kernels" / environment_key()


@functools.cache
def environment_key() -> str:
    """Name of everything outside the sources that decides the machine code."""
    parts = (numba.__version__, llvmlite.__version__, sys.version, platform.machine(),
             cpu_target.target_context.codegen().magic_tuple(), hardware.simd_width(), hardware.has_fma(),
             hardware.vector_registers(), hardware.cache_sizes(),
             config.OPT, config.BOUNDSCHECK, config.DEBUGINFO_DEFAULT)
    return f"{hardware.cpu_name()}-{digest(repr(parts).encode())[:16]}"


# --- one kernel's overloads -----------------------------------------------------------------------------------------

class KernelCache(_Cache):
    """What a Numba dispatcher asks for machine code, and gives new machine code to.

    Parameters
    ----------
    name
        Qualified name of the kernel.
    module
        The module whose sources decide whether a file is fresh.
    flags
        Everything else that changes the code: compile options, parallel or serial.
    """

    def __init__(self, name: str, module: str, flags: tuple):
        self.name, self.module, self.flags = name, module, flags
        self.hits = self.misses = 0

    @property
    def cache_path(self) -> Path:
        return cache_folder()

    def path(self, signature) -> Path | None:
        """The file of one overload; None where it must not be cached."""
        sources = source_digest(self.module)
        if sources is None:
            return None
        overload = digest(repr((self.name, str(signature), self.flags)).encode())[:10]
        fresh = digest(f"{overload} {sources}".encode())[:16]
        return cache_folder() / f"{self.name.removeprefix(PACKAGE + '.')}-{overload}-{fresh}.kernel"

    def load_overload(self, sig, target_context) -> CompileResult | None:
        """The compiled overload, or None where it is absent, damaged or unreadable."""
        path = self.path(sig)
        try:
            if path is None:
                raise FileNotFoundError
            payload = read_checked(path)
            target_context.refresh()
            result = CompileResult._rebuild(target_context, *pickle.loads(payload))
        except FileNotFoundError:
            result = None
        except Exception as error:                       # any damage means a recompile, never an error
            logger.debug("cannot use %s: %s", path, error)
            result = None
        self.hits, self.misses = self.hits + (result is not None), self.misses + (result is None)
        return result

    def save_overload(self, sig, data: CompileResult) -> None:
        """Keep a compiled overload where the folder permits."""
        if data.library.has_dynamic_globals:
            logger.warning("%s: not cached, as it refers to an address or a large global array", self.name)
            return
        path = self.path(sig)
        if path is None:
            return
        try:
            payload = dumps(data._reduce())
            write_checked(path, payload)
        except OSError as error:
            logger.debug("cannot save %s: %s", path, error)

    def enable(self) -> None:
        """Required by Numba; this cache is always on."""

    def disable(self) -> None:
        """Required by Numba; this cache is always on."""

    def flush(self) -> None:
        """Required by Numba; stale files are never read."""
