"""The private disk cache of compiled kernels.

One file holds one overload of one kernel: `<folder>/<environment key>/<kernel>-<digest>.kernel`. The environment key
names everything that changes the machine code of all kernels (Numba, llvmlite, Python, CPU, vector width); the digest
covers the kernel's signature and flags, its own module and every `numbanet.backends` module that this one imports,
transitively.

Numba's own cache is not used: it does not see edits in another module, nor code-generation flags, and two processes
that save two overloads of one function at once can leave an index that points at the wrong machine code. Files here
are written whole and renamed into place, carry their own checksum, and whatever cannot be read or written is compiled
again.
"""
import ast
import contextlib
import functools
import hashlib
import importlib.util
import itertools
import logging
import os
import pickle
import platform
import sys
import tempfile
import time
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
from numbanet.files import cache_root

logger = logging.getLogger("numbanet.compile")

PACKAGE = "numbanet.backends"
IMPORT_TIME = time.time()    # kernel modules are imported after this one
KEPT_VERSIONS = 4            # files kept a kernel overload: several source trees may share one cache


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
    return f"{hardware.cpu_name()}-{_digest(repr(parts).encode())[:16]}"


def source_digest(module: str) -> str | None:
    """Hash of a module's source and of every backend module that it imports, transitively.

    None when one of the files was edited after this process began to import kernels: it runs what is no longer on disk.
    """
    pending, sources = [module], {}
    while pending:
        name = pending.pop()
        if name not in sources:
            path, source, modified = _source(name)
            if modified > IMPORT_TIME:
                return None
            sources[name] = source
            pending += _imported_backend_modules(name, path.name == "__init__.py", source)
    return _digest(b"".join(name.encode() + b"\0" + sources[name] for name in sorted(sources)))


@functools.cache
def _source(module: str) -> tuple[Path, bytes, float]:
    loaded = sys.modules.get(module)
    path = Path(loaded.__file__ if loaded is not None else importlib.util.find_spec(module).origin)
    return path, path.read_bytes(), path.stat().st_mtime


@functools.cache
def _imported_backend_modules(module: str, is_package: bool, source: bytes) -> tuple[str, ...]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = module if is_package else module.rpartition(".")[0]
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:                     # `from package import module`: not the package's own code
                submodule = f"{base}.{alias.name}"
                found.append(submodule if _is_backend_module(submodule) else base)
    return tuple(name for name in found if _is_backend_module(name))


@functools.cache
def _is_backend_module(name: str) -> bool:
    if not name.startswith(PACKAGE + "."):
        return False
    if name in sys.modules:
        return True
    parent = importlib.util.find_spec(name.rpartition(".")[0])       # first, as looking inside a module imports it
    return parent.submodule_search_locations is not None and importlib.util.find_spec(name) is not None


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


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
        overload = _digest(repr((self.name, str(signature), self.flags)).encode())[:10]
        fresh = _digest(f"{overload} {sources}".encode())[:16]
        return cache_folder() / f"{self.name.removeprefix(PACKAGE + '.')}-{overload}-{fresh}.kernel"

    def load_overload(self, sig, target_context) -> CompileResult | None:
        """The compiled overload, or None where it is absent, damaged or unreadable."""
        path = self.path(sig)
        try:
            if path is None:
                raise FileNotFoundError
            content = path.read_bytes()
            checksum, payload = content[:32], content[32:]
            if hashlib.sha256(payload).digest() != checksum:
                raise ValueError("checksum does not match")
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
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write_atomically(path, hashlib.sha256(payload).digest() + payload)
            _remove_old_versions(path)
        except OSError as error:
            logger.debug("cannot save %s: %s", path, error)

    def enable(self) -> None:
        """Required by Numba; this cache is always on."""

    def disable(self) -> None:
        """Required by Numba; this cache is always on."""

    def flush(self) -> None:
        """Required by Numba; stale files are never read."""


def _write_atomically(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _remove_old_versions(path: Path) -> None:
    overload = path.name.rpartition("-")[0]
    versions = sorted(path.parent.glob(f"{overload}-*.kernel"), key=lambda file: file.stat().st_mtime)
    for old in versions[:-KEPT_VERSIONS]:
        old.unlink()
