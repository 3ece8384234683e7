"""What the disk caches of compiled kernels have in common, whatever the backend: place, key by sources, whole and checked files.

Numba's own cache is not used: it does not see edits in another module, nor code-generation flags, and two processes
that save two overloads of one function at once can leave an index that points at the wrong machine code. Files here
are written whole and renamed into place, carry their own checksum, and whatever cannot be read or written is compiled
again.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib.util
import os
import sys
import tempfile
import time
from pathlib import Path

PACKAGE = "numbanet.backends"
IMPORT_TIME = time.time()    # kernel modules are imported after this one
KEPT_VERSIONS = 4            # files kept a kernel overload: several source trees may share one cache


# --- keys -----------------------------------------------------------------------------------------------------------

def source_digest(*modules: str) -> str | None:
    """Hash of modules' sources and of every backend module that these import, transitively.

    None when one of the files was edited after this process began to import kernels: it runs what is no longer on disk.
    """
    pending, sources = list(modules), {}
    while pending:
        name = pending.pop()
        if name not in sources:
            path, source, modified = _source(name)
            if modified > IMPORT_TIME:
                return None
            sources[name] = source
            pending += _imported_backend_modules(name, path.name == "__init__.py", source)
    return digest(b"".join(name.encode() + b"\0" + sources[name] for name in sorted(sources)))


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


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --- files ----------------------------------------------------------------------------------------------------------

def read_checked(path: Path) -> bytes:
    """What `write_checked` wrote; ValueError where the file is damaged."""
    content = path.read_bytes()
    checksum, payload = content[:32], content[32:]
    if hashlib.sha256(payload).digest() != checksum:
        raise ValueError("checksum does not match")
    return payload


def write_checked(path: Path, payload: bytes) -> None:
    """Write a file whole, with its checksum, readable by its owner only, and drop the oldest versions of the same overload.

    `path` is named <overload>-<digest>.<suffix>.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write_atomically(path, hashlib.sha256(payload).digest() + payload)
    overload = path.name.rpartition("-")[0]
    versions = sorted(path.parent.glob(f"{overload}-*{path.suffix}"), key=_modified)
    for old in versions[:-KEPT_VERSIONS]:
        old.unlink(missing_ok=True)                      # another process may have been first


def _modified(path: Path) -> float:
    """When a file was written; the beginning of time where another process has dropped it since."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


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
