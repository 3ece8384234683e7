"""Files that are never half there: written beside their place, flushed to disk, then renamed; and a lock on a folder."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

from numbanet.errors import CheckpointError


def cache_root() -> Path:
    """The folder of what can be made again: compiled kernels, measured choices. ``NUMBANET_CACHE_DIR`` moves it."""
    chosen = os.environ.get("NUMBANET_CACHE_DIR")
    if chosen:
        return Path(chosen)
    try:
        import platformdirs
    except ImportError:                                  # a checkout on a machine that has the compilers only
        return Path.home() / ".cache" / "numbanet"
    return Path(platformdirs.user_cache_dir("numbanet", appauthor=False))


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


class FolderLock:
    """One process at a time writes to a folder; the system frees the lock when the process ends, however it ends.

    Raises
    ------
    CheckpointError
        From ``acquire``: another process holds it.
    """

    def __init__(self, folder):
        self.path = Path(folder) / ".lock"
        self._handle: int | None = None

    @property
    def held(self) -> bool:
        return self._handle is not None

    def acquire(self) -> None:
        """Take the lock; once more is nothing."""
        if self.held:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            while True:
                handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
                try:
                    _lock(handle)
                    if os.path.exists(self.path) and os.path.samestat(os.fstat(handle), os.stat(self.path)):
                        break
                except BlockingIOError:
                    holder = os.read(handle, 100).decode(errors="replace").strip()
                    os.close(handle)
                    raise CheckpointError(f"{self.path.parent}: another process ({holder or 'unknown'}) is writing there; wait for its "
                                          "end, or stop it") from None
                except BaseException:
                    os.close(handle)
                    raise
                os.close(handle)            # it was removed in between by who held it
            os.truncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {platform.node()}".encode())
        except OSError as error:
            raise _explain(error, self.path) from error
        self._handle = handle

    def release(self) -> None:
        """Give it back."""
        if self._handle is not None:
            with suppress(OSError):
                self.path.unlink()
            os.close(self._handle)
            self._handle = None

    def __enter__(self):
        self.acquire()
        return self

    def __exit__(self, *_):
        self.release()


def _lock(handle: int) -> None:
    try:
        import fcntl
    except ImportError:                     # Windows
        import msvcrt
        try:
            os.lseek(handle, 4096, os.SEEK_SET)         # beyond the text, which others read
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(*error.args) from error
        os.lseek(handle, 0, os.SEEK_SET)
        return
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


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
