"""Files that are never half there: written beside their place, flushed to disk, then renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

from numbanet.errors import CheckpointError


def _explain(error: OSError, path: Path) -> CheckpointError:
    return CheckpointError(f"write {path}: {error.strerror or error}; what stood there before is unchanged. Free space, or choose a "
                           "folder that can be written with --out")


@contextmanager
def atomic_file(path):
    """Yield a temporary path in the same folder; it replaces `path` when the block ends without an error."""
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        os.close(handle)
        yield temporary
        _flush(temporary)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except OSError as error:
        raise _explain(error, path) from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink()


@contextmanager
def atomic_folder(path):
    """Yield a temporary folder beside `path`; it becomes `path` when the block ends without an error.

    A folder that stands there gives way by a rename, since no call exchanges folders everywhere, and comes back if the new one fails.
    """
    path = Path(path)
    temporary = old = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        yield temporary
        for file in temporary.iterdir():
            _flush(file)
        _flush_folder(temporary)
        os.chmod(temporary, 0o777 & ~_umask())
        if path.exists():
            old = temporary.with_name(f"{temporary.name}.old")
            os.rename(path, old)
        os.rename(temporary, path)
        _flush_folder(path.parent)
    except OSError as error:
        raise _explain(error, path) from error
    finally:
        if old is not None and old.exists() and not path.exists():
            os.rename(old, path)
        for left in (temporary, old):
            if left is not None:
                shutil.rmtree(left, ignore_errors=True)


def write_text(path, text: str) -> None:
    """Replace a text file atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _flush(file: Path) -> None:
    handle = os.open(file, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush_folder(folder: Path) -> None:
    """Make renames survive a power cut. Not every system can (Windows opens no folders), and files are whole without it."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
