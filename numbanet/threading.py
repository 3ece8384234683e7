"""How many threads kernels use; results do not depend on it."""

from __future__ import annotations


def get_num_threads() -> int:
    """Number of threads that parallel kernels use."""
    from numbanet.backends.cpu import threads
    return threads.get_num_threads()


def set_num_threads(count: int) -> None:
    """Let parallel kernels use `count` threads.

    Raises
    ------
    BackendError
        Unless `count` is at least 1 and at most what the process was started with.
    """
    from numbanet.backends.cpu import threads
    threads.set_num_threads(count)
