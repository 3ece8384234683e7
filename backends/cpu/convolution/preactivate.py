"""What is convolved, computed as x is read: see `contract/preactivation.py`.

    z = limited((x - center) * scale + shift)

`preactivation` (5, C and at least L more) has the rows center, scale, shift, lowest and highest,
the last two of one number each; it is empty
where x itself is convolved. Edges of a map are zeros of z. These are batch norm's operations, in its order (`normalization/batch.py`), so
the bits are the same.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.limits import limited, limits
from numbanet.backends.cpu.memory import empty
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


@kernel("void(const T[:,:,:,:], const T[:,::1], T[:,:,:,::1])", parallel=True)
def preactivate_map(x, preactivation, z):
    """Fill z of x (N, H, W, C)."""
    N, H, W, C = x.shape
    x_n, x_h, x_w = x.strides[0] // 4, x.strides[1] // 4, x.strides[2] // 4
    ends = limits_of(preactivation)
    for row in prange(N * H):
        source, target = np.int64(row) // H * x_n + np.int64(row) % H * x_h, np.int64(row) * W * C
        for w in range(W):
            for c in range(0, C, L):
                terms = terms_of(preactivation, c) + ends
                store_partial(z, target + w * C + c, preactivated(load_partial(x, source + w * x_w + c, C - c), terms), C - c)


def preactivated_map(x, preactivation):
    """z of x (N, H, W, C), whose channels are neighbours, in memory of its own."""
    z = empty(x.shape, F32)
    preactivate_map(x, preactivation, z)
    return z
