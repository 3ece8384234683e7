"""Ctrl-C, obeyed between two updates."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager


@contextmanager
def interruptible(trainer):
    """Ctrl-C lets the running update end and sets ``trainer.interrupted``; a second one stops at once.

    Signals belong to the main thread; in others nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(_number, _frame):
        if trainer.interrupted:
            raise KeyboardInterrupt
        trainer.interrupted = True
    previous = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
