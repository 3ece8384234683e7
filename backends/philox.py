"""Philox-4x32-10 in NumPy (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), and its uses.

    word i of a stream = philox(counter = (i // 4, stream), key = seed)[i % 4]        32 bits each

These functions say which numbers a key means on every backend; i is the position in row-major order.
"""

from __future__ import annotations

import numpy as np

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def philox(c0, c1, c2, c3, k0: int, k1: int):
    """Four words of each counter; the counters' words are uint64 arrays below 2**32 that broadcast."""
    for step in range(ROUNDS):
        p0, p1 = c0 * np.uint64(MULTIPLIERS[0]), c2 * np.uint64(MULTIPLIERS[1])
        key0 = np.uint64((k0 + step * KEY_STEPS[0]) & 0xFFFFFFFF)
        key1 = np.uint64((k1 + step * KEY_STEPS[1]) & 0xFFFFFFFF)
        c0, c1, c2, c3 = (p1 >> _HALF) ^ c1 ^ key0, p1 & _LOW, (p0 >> _HALF) ^ c3 ^ key1, p0 & _LOW
    return c0, c1, c2, c3


def key_words(key: tuple[int, int]) -> np.ndarray:
    """What kernels read of a key, four uint64: the two halves of its stream, then those of its seed."""
    seed, stream = key
    return np.array([word & 0xFFFFFFFF for word in (stream, stream >> 32, seed, seed >> 32)], np.uint64)


def words(count: int, key: tuple[int, int]) -> np.ndarray:
    """The first `count` words of a stream, as uint64."""
    seed, stream = key
    block = np.arange(-(-count // 4), dtype=np.uint64)
    c2, c3 = np.uint64(stream & 0xFFFFFFFF), np.uint64(stream >> 32 & 0xFFFFFFFF)
    four = philox(block & _LOW, block >> _HALF, np.full_like(block, c2), np.full_like(block, c3),
                  seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF)
    return np.stack(four, axis=1).reshape(-1)[:count]


def wide_words(count: int, key: tuple[int, int]) -> np.ndarray:
    """The first `count` numbers of 64 bits, each of two words, the low one first."""
    pairs = words(2 * count, key).reshape(count, 2)
    return pairs[:, 0] | pairs[:, 1] << _HALF


def uniform(count: int, dtype: np.dtype, low: float, high: float, key: tuple[int, int]) -> np.ndarray:
    """low + (high - low) * word / 2**32, rounded to dtype, never `high`."""
    values = (low + (high - low) * (words(count, key) * 2.0**-32)).astype(dtype)
    return np.minimum(values, below(high, low, dtype))


def below(high: float, low: float, dtype: np.dtype):
    """The largest number of dtype below `high`, which rounding could reach; `low` where both are equal."""
    return np.nextafter(dtype.type(high), dtype.type(low))


def normal(count: int, dtype: np.dtype, mean: float, std: float, key: tuple[int, int]) -> np.ndarray:
    """Box and Muller (1958), in float64: each pair of words gives two numbers."""
    pairs = words(count + count % 2, key).reshape(-1, 2) * 2.0**-32
    radius = np.sqrt(-2 * np.log(pairs[:, 0] + 2.0**-32))           # of (0, 1]
    angle = 2 * np.pi * pairs[:, 1]
    values = np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=1).reshape(-1)[:count]
    return (mean + std * values).astype(dtype)


def integers(count: int, low: int, high: int, key: tuple[int, int]) -> np.ndarray:
    """int64 in low .. high - 1: a number of 64 bits modulo the range."""
    return low + (wide_words(count, key) % np.uint64(high - low)).astype(np.int64)


def permutation(count: int, key: tuple[int, int]) -> np.ndarray:
    """0 .. count - 1 in the stable order of `count` numbers of 64 bits."""
    return np.argsort(wide_words(count, key), kind="stable")


def threshold(probability: float) -> int:
    """The words below it are a fraction `probability` of all."""
    return round(probability * 2**32)
