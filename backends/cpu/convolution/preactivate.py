"""What is convolved, computed as x is read: see `contract/preactivation.py`.

    z = limited((x - center) * scale + shift)

`preactivation` (5, C and at least L more) has the rows center, scale, shift, lowest and highest, the last two of one number each; it is
empty where x itself is convolved. What surrounds a map is zeros of z. These are batch norm's operations, in its order
(`normalization/batch.py`), so the bits are the same.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.limits import limited, limits
from numbanet.backends.cpu.memory import empty
from numbanet.backends.cpu.out_of_line import out_of_line
from numbanet.backends.cpu.simd import L, fma, load, load_partial, splat, store, store_partial

F32 = np.dtype(np.float32)
NOTHING = np.empty((0, 0), F32)


def coefficients(center, scale, shift, lowest, highest) -> np.ndarray:
    """`preactivation` of these operands of the primitives."""
    C = len(scale)
    preactivation = np.zeros((5, -(-C // L) * L + L), F32)
    preactivation[1, :C] = scale
    if center is not None:
        preactivation[0, :C] = center
    if shift is not None:
        preactivation[2, :C] = shift
    preactivation[3], preactivation[4] = limits(lowest, highest)
    return preactivation


@worker(inline=True, borrows=True)
def terms_of(preactivation, c):
    """center, scale and shift of channels c, c + 1, ...; numbers without a meaning where `preactivation` is empty."""
    if not preactivation.size:
        zeros = splat(np.float32(0))
        return zeros, zeros, zeros
    pitch = preactivation.shape[1]
    return load(preactivation, c), load(preactivation, pitch + c), load(preactivation, 2 * pitch + c)


@worker(inline=True, borrows=True)
def limits_of(preactivation):
    """lowest and highest, or numbers without a meaning."""
    if not preactivation.size:
        return np.float32(0), np.float32(0)
    return preactivation[3, 0], preactivation[4, 0]


@worker(inline=True)
def preactivated(value, terms):
    """z of a vector of x, by what `terms_of` and `limits_of` tell."""
    center, scale, shift, lowest, highest = terms
    return limited(fma(value - center, scale, shift), lowest, highest)


@worker(inline=True, borrows=True)
def preactivated_run(x, source, preactivation, channel, panel, target, count, end):
    """z of `count` floats of x, the first of which is `channel`; otherwise as `walk.copy_run`."""
    ends, pitch, done = limits_of(preactivation), preactivation.shape[1], 0
    while done < count and source + done + L <= end:
        c = channel + done
        terms = load(preactivation, c), load(preactivation, pitch + c), load(preactivation, 2 * pitch + c)
        store(panel, target + done, preactivated(load(x, source + done), terms + ends))
        done += L
    if done < count:
        value = load_partial(x, source + done, count - done)
        store(panel, target + done, preactivated(value, terms_of(preactivation, channel + done) + ends))


@worker(borrows=True)
def preactivate_rows(x, n, begin, end, channel, channels, preactivation, z, target):
    """z of rows begin, ..., end - 1 of image n of x (N, H, W, C) and some channels, as pixels of so many, from z[target] on."""
    out_of_line()
    ends = limits_of(preactivation)
    x_w = x.strides[2] // 4
    for h in range(begin, end):
        source = n * (x.strides[0] // 4) + h * (x.strides[1] // 4) + channel
        for _ in range(x.shape[2]):
            for c in range(0, channels, L):
                terms = terms_of(preactivation, channel + c) + ends
                store_partial(z, target + c, preactivated(load_partial(x, source + c, channels - c), terms), channels - c)
            source, target = source + x_w, target + channels


@kernel("void(const T[:,:,:,:], const T[:,::1], T[:,:,:,::1])", parallel=True)
def preactivate_map(x, preactivation, z):
    """Fill z of x (N, H, W, C)."""
    N, H, W, C = x.shape
    for row in prange(N * H):
        n, h = np.int64(row) // H, np.int64(row) % H
        preactivate_rows(x, n, h, h + 1, np.int64(0), C, preactivation, z, np.int64(row) * W * C)


def preactivated_map(x, preactivation):
    """z of x (N, H, W, C), whose channels are neighbours, in memory of its own."""
    z = empty(x.shape, F32)
    preactivate_map(x, preactivation, z)
    return z
