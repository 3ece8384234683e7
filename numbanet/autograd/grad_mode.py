"""Whether operations record themselves; per thread."""

from __future__ import annotations

import functools
import threading


class _Mode(threading.local):
    enabled = True


_mode = _Mode()


def is_grad_enabled() -> bool:
    """True where operations on this thread are recorded for a backward pass."""
    return _mode.enabled


class set_grad_enabled:
    """Switch recording on or off on this thread: a function, or a context manager that restores the state before it."""

    def __init__(self, mode: bool):
        self.previous = _mode.enabled
        _mode.enabled = bool(mode)
        self.mode = bool(mode)

    def __enter__(self):
        _mode.enabled = self.mode
        return self

    def __exit__(self, *exception):
        _mode.enabled = self.previous


class _Context:
    """A context manager and decorator that sets the mode."""

    mode: bool

    def __enter__(self):
        self._previous = [*getattr(self, "_previous", []), _mode.enabled]     # a stack: one instance may be nested
        _mode.enabled = self.mode
        return self

    def __exit__(self, *exception):
        _mode.enabled = self._previous.pop()

    def __new__(cls, function=None):
        made = super().__new__(cls)
        return made(function) if function is not None else made        # @no_grad without parentheses

    def __call__(self, function):
        @functools.wraps(function)
        def run(*args, **kwargs):
            with type(self)():
                return function(*args, **kwargs)
        return run


class no_grad(_Context):
    """Nothing inside is recorded: for evaluation and for updates by hand. Also a decorator."""

    mode = False


class enable_grad(_Context):
    """Records inside a :class:`no_grad` block. Also a decorator."""

    mode = True


class inference_mode(no_grad):
    """As :class:`no_grad`; the name is PyTorch's."""
