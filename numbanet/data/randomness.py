"""Random numbers of samples, drawn from (seed, epoch, index), so that no schedule of workers changes them.

Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) is a keyed function of a counter:
here key = (seed, epoch) and counter = (block, 0, stream, index). Every sample of every epoch owns 2**128 blocks of four
words, and a whole batch is drawn at once (`sample_uniforms`) with the same bits that its samples would draw one by one.
"""

from __future__ import annotations

import hashlib
import operator
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numbanet.random import Generator

# Streams: one sample's numbers, the order of an epoch, a batch as a whole, whatever a numbanet generator is asked for, made-up pictures.
SAMPLES, ORDER, BATCHES, DEFAULT, SCENES = range(5)

_WORD = 0xFFFFFFFFFFFFFFFF
_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_KEY_STEPS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_ROUNDS = 10


class _State(threading.local):
    """What this thread is drawing for; outside of a loader all is None."""

    key: tuple[int, int] | None = None              # (seed, epoch)
    stream: int = SAMPLES
    index: object = None
    generator: np.random.Generator | None = None    # of (key, stream, index), made when first asked for


_state = _State()


def sample_generator(index: object = None) -> np.random.Generator:
    """Generator of the sample that this thread is loading.

    Inside of a `DataLoader` it depends on (seed, epoch, index) alone, so a transform that draws from it gives the same
    picture whatever the number of workers. Elsewhere each call takes a new generator of this thread's default one,
    which `numbanet.manual_seed` restarts.

    Parameters
    ----------
    index
        The sample, for a `__getitems__` that walks through several; by default the one being loaded.

    Returns
    -------
    numpy.random.Generator
        While a sample is being loaded, the same object.
    """
    if _state.key is None:
        if _state.generator is not None:
            return _state.generator
        from numbanet.random import default_generator

        return generator_of(default_generator())
    if index is not None:
        return keyed_generator(*_state.key, SAMPLES, index)
    if _state.generator is None:
        _state.generator = keyed_generator(*_state.key, _state.stream, _state.index)
    return _state.generator


def sample_uniforms(indices: Sequence[int], count: int) -> np.ndarray:
    """The first `count` numbers of `sample_generator(index).random()` for each of a batch's samples, drawn at once.

    Returns
    -------
    numpy.ndarray
        float64 (N, count) in [0, 1).
    """
    if _state.key is None:
        return sample_generator().random((len(indices), count))
    blocks = -(-count // 4)
    words = np.zeros((4, len(indices), blocks), np.uint64)
    words[0] = np.arange(1, blocks + 1, dtype=np.uint64)    # numpy counts up before it draws
    words[3] = np.fromiter((_word(i) for i in indices), np.uint64, len(indices))[:, None]
    words = _philox(words, *_state.key)
    words = words.transpose(1, 2, 0).reshape(len(indices), 4 * blocks)[:, :count]
    return (words >> np.uint64(11)) * 2.0**-53


def loading_epoch() -> int:
    """The epoch that this thread is loading for; 0 outside of a `DataLoader`."""
    return 0 if _state.key is None else _state.key[1]


def keyed_generator(seed: int, epoch: int, stream: int, index: object) -> np.random.Generator:
    """A new generator of (seed, epoch, stream, index)."""
    key = np.array([seed & _WORD, epoch & _WORD], np.uint64)
    counter = np.array([0, 0, stream, _word(index)], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def generator_of(source: Generator) -> np.random.Generator:
    """A NumPy generator of the next key of a numbanet generator."""
    seed, stream = source.next_key()
    return keyed_generator(seed, stream, DEFAULT, 0)


@contextmanager
def epoch_scope(seed: int, epoch: int) -> Iterator[None]:
    """Everything drawn inside of it in this thread belongs to this seed and epoch."""
    saved = _state.key, _state.stream, _state.index, _state.generator
    _state.key, _state.stream, _state.index, _state.generator = (seed & _WORD, epoch & _WORD), SAMPLES, 0, None
    try:
        yield
    finally:
        _state.key, _state.stream, _state.index, _state.generator = saved


def enter_sample(index: object, stream: int = SAMPLES) -> None:
    """From here to the next call this thread draws for this sample."""
    if _state.key is not None:
        _state.stream, _state.index, _state.generator = stream, index, None


@contextmanager
def generator_scope(generator: np.random.Generator) -> Iterator[None]:
    """`sample_generator()` is this generator inside of it."""
    saved = _state.key, _state.generator
    _state.key, _state.generator = None, generator
    try:
        yield
    finally:
        _state.key, _state.generator = saved


def _word(index: object) -> int:
    try:
        return operator.index(index) & _WORD
    except TypeError:   # a sampler may yield names or tuples; Python's own hash differs between processes
        return int.from_bytes(hashlib.blake2b(repr(index).encode(), digest_size=8).digest(), "little")


def _philox(words: np.ndarray, key0: int, key1: int) -> np.ndarray:
    """Ten rounds over counters (4, ...), as numpy.random.Philox does for one."""
    w0, w1, w2, w3 = words
    for step in range(_ROUNDS):
        k0, k1 = (np.uint64((k + step * s) & _WORD) for k, s in zip((key0, key1), _KEY_STEPS))
        high0, low0 = _multiply(w0, _MULTIPLIERS[0])
        high1, low1 = _multiply(w2, _MULTIPLIERS[1])
        w0, w1, w2, w3 = high1 ^ w1 ^ k0, low1, high0 ^ w3 ^ k1, low0
    return np.stack([w0, w1, w2, w3])


def _multiply(a: np.ndarray, b: int) -> tuple[np.ndarray, np.ndarray]:
    """High and low words of the 128-bit product, from 32-bit halves."""
    half, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
    a_high, a_low = a >> half, a & mask
    b_high, b_low = np.uint64(b >> 32), np.uint64(b & 0xFFFFFFFF)
    middle = a_high * b_low + (a_low * b_low >> half)
    carry = a_low * b_high + (middle & mask)
    return a_high * b_high + (middle >> half) + (carry >> half), a * np.uint64(b)
