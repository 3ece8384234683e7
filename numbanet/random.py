"""Random numbers: explicit generators, one default generator a thread.

A generator is a seed and a counter of streams. Each random primitive takes the key (seed, stream) and draws its i-th
element from position i of that stream (Philox-4x32-10; Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
SC 2011), so every backend and every number of threads gives the same numbers.
"""

from __future__ import annotations

import itertools
import random as _python_random
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Generator", "default_generator", "fork_rng", "get_rng_state", "initial_seed", "manual_seed", "seed",
           "seed_everything", "set_rng_state"]

_WORD = 0xFFFF_FFFF_FFFF_FFFF
_STREAMS_OF_A_THREAD = 1 << 40


class Generator:
    """A source of keys for random primitives.

    Parameters
    ----------
    seed : int, by default one from the operating system; taken modulo 2**64
    device : accepted as in PyTorch; the numbers are the same on every device
    """

    def __init__(self, seed: int | None = None, device=None):
        self._first = 0
        self.manual_seed(secrets.randbits(63) if seed is None else seed)

    def manual_seed(self, seed: int) -> Generator:
        """Start again from this seed."""
        self._seed, self._stream = int(seed) & _WORD, self._first
        return self

    def seed(self) -> int:
        """Start again from a seed of the operating system, and return it."""
        self.manual_seed(secrets.randbits(63))
        return self._seed

    def initial_seed(self) -> int:
        """The seed in use."""
        return self._seed

    def next_key(self) -> tuple[int, int]:
        """(seed, stream) for one random primitive; each call gives another stream."""
        key = self._seed, self._stream
        self._stream += 1
        return key

    def get_state(self) -> tuple[int, int]:
        """Two integers from which :meth:`set_state` continues; they fit into JSON."""
        return self._seed, self._stream

    def set_state(self, state) -> None:
        """Continue where :meth:`get_state` was called."""
        seed, stream = state
        self._seed, self._stream = int(seed), int(stream)

    def __repr__(self):
        return f"Generator(seed={self._seed}, stream={self._stream})"


_thread_number = itertools.count().__next__
_seed: int | None = None        # what manual_seed said last: threads that begin later start from it


class _Default(threading.local):
    generator: Generator | None = None
    drawn: list | None = None           # where `recorded_keys` notes what is drawn


_default = _Default()


def default_generator() -> Generator:
    """This thread's generator. Threads share the seed of the last :func:`manual_seed`, but no streams."""
    if _default.generator is None:
        generator = Generator(_seed)
        generator._first = generator._stream = _thread_number() * _STREAMS_OF_A_THREAD
        _default.generator = generator
    return _default.generator


def manual_seed(seed: int) -> Generator:
    """Start this thread's default generator from `seed`, and those of threads that begin to draw later."""
    global _seed
    _seed = int(seed)
    return default_generator().manual_seed(seed)


def seed() -> int:
    """Start this thread's default generator from a seed of the operating system, and return it."""
    return default_generator().seed()


def initial_seed() -> int:
    """The seed of this thread's default generator."""
    return default_generator().initial_seed()


def seed_everything(seed: int) -> int:
    """Seed numbanet, Python's `random` and NumPy's global generator; returns the seed."""
    import numpy as np
    _python_random.seed(seed)
    np.random.seed(int(seed) % 2**32)
    manual_seed(seed)
    return seed


def get_rng_state() -> tuple[int, int]:
    """The state of this thread's default generator: two integers."""
    return default_generator().get_state()


def set_rng_state(state) -> None:
    """Set the state of this thread's default generator."""
    default_generator().set_state(state)


@contextmanager
def fork_rng(enabled: bool = True) -> Iterator[None]:
    """What is drawn inside does not change this thread's default generator outside."""
    state = get_rng_state()
    try:
        yield
    finally:
        if enabled:
            set_rng_state(state)


def next_key(generator: Generator | None = None) -> tuple[int, int]:
    """The next key of `generator`, by default this thread's."""
    key = (default_generator() if generator is None else generator).next_key()
    if _default.drawn is not None:
        _default.drawn.append((generator, key))
    return key


@contextmanager
def recorded_keys() -> Iterator[list[tuple[Generator | None, tuple[int, int]]]]:
    """A list of the keys that this thread draws inside, with their generators (None: the default one), which are left as they were."""
    before, _default.drawn = _default.drawn, []
    states = {}
    try:
        with fork_rng():
            yield _default.drawn
    finally:
        for generator, key in reversed(_default.drawn):
            if generator is not None:
                states[id(generator)] = generator, key
        for generator, first_key in states.values():
            generator.set_state(first_key)
        _default.drawn = before
