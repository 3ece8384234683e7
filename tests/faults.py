"""A disk that fails: at its n-th operation, or at that one and all after it, as when the process is killed there."""

import errno
import io
import os
from contextlib import contextmanager

OPERATIONS = ("open", "mkdir", "close", "write", "fsync", "chmod", "rename", "replace", "unlink", "rmdir")


class Killed(BaseException):
    """Stands for the end of the process: no handler of errors catches it."""


class Disk:
    """Counts operations; the one numbered `fails_at` raises `error`, with `for_good` all later ones as well."""

    def __init__(self, fails_at=None, error=None, for_good=False):
        self.count, self.fails_at, self.for_good = 0, fails_at, for_good
        self.error = error or OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def touch(self):
        self.count += 1
        if self.fails_at is not None and (self.count == self.fails_at or self.for_good and self.count > self.fails_at):
            raise self.error

    @contextmanager
    def mounted(self, monkeypatch):
        """Every file operation inside goes through this disk. Written files are cut in half where writing fails."""
        def through(function):
            def call(*args, **kwargs):
                self.touch()
                return function(*args, **kwargs)
            return call

        real_open = io.open

        def opened(file, mode="r", *args, **kwargs):
            self.touch()
            handle = real_open(file, mode, *args, **kwargs)
            if "w" in mode:
                write = handle.write

                def half(data):
                    write(data[:len(data) // 2])
                    self.touch()
                    return write(data[len(data) // 2:])
                return _Handle(handle, half)
            return handle
        with monkeypatch.context() as patch:
            for name in OPERATIONS:
                patch.setattr(os, name, through(getattr(os, name)))
            patch.setattr(io, "open", opened)       # what pathlib uses
            yield


class _Handle:
    def __init__(self, handle, write):
        self._handle, self.write = handle, write

    def __getattr__(self, name):
        return getattr(self._handle, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._handle.close()
