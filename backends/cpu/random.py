"""Random numbers: Philox in blocks of words that LLVM vectorises. See `../philox.py` for the definition.

Dropout sees x (N, P, C): a batch, pixels, channels, in memory order. The position of an element is (n * C + c) * P + p,
row-major over the logical (N, C, P), so the mask is the same in every memory order.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends import philox
from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.layout import copy_into
from numbanet.backends.cpu.registry import implements
from numbanet.backends.interface import channels_last

M0, M1 = map(np.uint64, philox.MULTIPLIERS)
W0, W1 = map(np.uint64, philox.KEY_STEPS)
LOW, HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
TASK = 4096                             # elements of random_fill
PIXELS, CHANNELS = 256, 16              # of a task of dropout: 16 KB of factors


@worker
def philox_words(first, count, seed, stream, words):
    """words[4 * i + j] = word j of block first + i, for i < count."""
    for i in range(count):
        block = np.uint64(first + i)
        c0, c1, c2, c3 = block & LOW, block >> HALF, stream & LOW, stream >> HALF
        k0, k1 = seed & LOW, seed >> HALF
        for _ in range(10):             # philox.ROUNDS: a literal, so that it unrolls
            p0, p1 = c0 * M0, c2 * M1
            c0, c1, c2, c3 = (p1 >> HALF) ^ c1 ^ k0, p1 & LOW, (p0 >> HALF) ^ c3 ^ k1, p0 & LOW
            k0, k1 = (k0 + W0) & LOW, (k1 + W1) & LOW
        words[4 * i] = np.uint32(c0)
        words[4 * i + 1] = np.uint32(c1)
        words[4 * i + 2] = np.uint32(c2)
        words[4 * i + 3] = np.uint32(c3)


@kernel("void(T[::1], b1, f8, f8, f8, u8, u8)", dtypes=("float32", "float64"), parallel=True)
def random_fill(y, is_normal, a, b, top, seed, stream):
    """Normal with mean a and deviation b, or uniform from a over a range of b, at most `top`."""
    tasks = (y.size + TASK - 1) // TASK
    for task in prange(tasks):
        words = np.empty(TASK, np.uint32)
        begin = task * TASK
        count = min(TASK, y.size - begin)
        philox_words(begin // 4, (count + 3) // 4, seed, stream, words)
        if is_normal:
            for i in range(0, count, 2):
                radius = np.sqrt(-2.0 * np.log(words[i] * 2.0**-32 + 2.0**-32))
                angle = 2.0 * np.pi * (words[i + 1] * 2.0**-32)
                y[begin + i] = a + b * (radius * np.cos(angle))
                if i + 1 < count:
                    y[begin + i + 1] = a + b * (radius * np.sin(angle))
        else:
            for i in range(count):
                y[begin + i] = min(y.dtype.type(a + b * (words[i] * 2.0**-32)), y.dtype.type(top))


@kernel("void(const T[:,:,:], T[:,:,:], i8, T, u8, u8)", dtypes=("float32", "float64"), parallel=True)
def dropout_scaled(x, y, threshold, scale, seed, stream):
    N, P, C = x.shape
    pixel_tasks, channel_tasks = (P + PIXELS - 1) // PIXELS, (C + CHANNELS - 1) // CHANNELS
    for task in prange(N * channel_tasks * pixel_tasks):
        words = np.empty(PIXELS + 8, np.uint32)
        first_p = task % pixel_tasks * PIXELS
        first_c = task // pixel_tasks % channel_tasks * CHANNELS
        n = task // pixel_tasks // channel_tasks
        count = min(PIXELS, P - first_p)
        for c in range(first_c, min(first_c + CHANNELS, C)):
            begin = (n * C + c) * P + first_p
            skip = begin % 4
            philox_words(begin // 4, (skip + count + 3) // 4, seed, stream, words)
            for p in range(count):
                factor = scale if np.int64(words[skip + p]) >= threshold else scale * 0
                y[n, first_p + p, c] = x[n, first_p + p, c] * factor


def _fill(out, is_normal, a, b, top, key) -> None:
    flat = out.reshape(-1) if out.flags.c_contiguous else np.empty(out.size, out.dtype)
    random_fill(flat, is_normal, a, b, top, *key)
    if not out.flags.c_contiguous:
        out[...] = flat.reshape(out.shape)


def _has_kernel(dtype) -> bool:
    return dtype.char in "fd"         # others are for storage and go through NumPy


@implements
def random_uniform(shape, dtype, low, high, key, out):
    if _has_kernel(dtype):
        _fill(out, False, low, high - low, float(philox.below(high, low, dtype)), key)
    else:
        out[...] = philox.uniform(out.size, dtype, low, high, key).reshape(shape)


@implements
def random_normal(shape, dtype, mean, std, key, out):
    if _has_kernel(dtype):
        _fill(out, True, mean, std, 0.0, key)
    else:
        out[...] = philox.normal(out.size, dtype, mean, std, key).reshape(shape)


@implements
def random_integers(shape, low, high, key, out):
    out[...] = philox.integers(out.size, low, high, key).reshape(shape)      # control data


@implements
def random_permutation(count, key, out):
    out[...] = philox.permutation(count, key)                                # control data


@implements
def dropout(x, probability, key, out):
    arguments = philox.threshold(probability), 1 / (1 - probability) if probability < 1 else 0.0, *key
    if x.flags.c_contiguous and out.flags.c_contiguous:
        return dropout_scaled(x.reshape(1, -1, 1), out.reshape(1, -1, 1), *arguments)
    if x.ndim > 2 and x.size:
        order = channels_last(x.ndim)
        last, out_last = x.transpose(order), out.transpose(order)
        if last.flags.c_contiguous and out_last.flags.c_contiguous:
            shape = x.shape[0], -1, x.shape[1]
            return dropout_scaled(last.reshape(shape), out_last.reshape(shape), *arguments)
    rows = np.empty(x.shape, x.dtype)
    copy_into(x, rows)
    dropout_scaled(rows.reshape(1, -1, 1), rows.reshape(1, -1, 1), *arguments)
    copy_into(rows, out)
