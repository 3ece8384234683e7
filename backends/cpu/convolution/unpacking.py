"""Packed weights read back as the operand they were made of: the inverse of `weights.py` and `winograd.py`, for `recovery.py`.

    rows[k - k0, (c, r, s)] = packed[g][chunk][strip][step][lane],       exactly
    rows[k - k0, (c, r, s)] = H U[:, :, strip, c, lane] H^T,             H G = 1: to the last bits

rows (filters, Cg * R * S), float64, of filters k0, ... of group g; k0 is a multiple of a strip, 2L filters. Winograd's G has more rows than
columns; of the inverses H those are taken whose sums lose least: the taps at the ends of each axis are single numbers of U times a power
of two. NaN and inf stay with the taps whose sums read them. Letters: `walk.py`.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.convolution.weights import CHANNELS, STRIP, chunk_offset
from numbanet.backends.cpu.simd import L


@worker(fastmath=())
def _unpack_block(packed, rows, g, k0, strip, begin, end, Kg, Cg, taps, chunk):
    """Channels begin, ..., end - 1 of a strip, all of one chunk."""
    k, c0 = k0 + strip * STRIP, begin // chunk * chunk
    width, channels = L if Kg - k <= L else STRIP, min(chunk, Cg - c0)
    base = chunk_offset(Cg, Kg, taps, g, c0) + k * taps * channels
    for lane in range(min(width, rows.shape[0] - strip * STRIP)):
        for c in range(begin, end):
            for t in range(taps):
                rows[strip * STRIP + lane, c * taps + t] = packed[base + (t * channels + c - c0) * width + lane]


@kernel("void(const T[::1], f8[:,::1], i8, i8, i8, i8, i8, i8)", parallel=True, fastmath=())
def unpack_weights(packed, rows, g, k0, Kg, Cg, taps, chunk):
    """Of `weights.pack_weights`."""
    strips, blocks = (rows.shape[0] + STRIP - 1) // STRIP, (Cg + CHANNELS - 1) // CHANNELS
    for task in prange(strips * blocks):
        begin = task % blocks * CHANNELS
        _unpack_block(packed, rows, g, k0, np.int64(task // blocks), np.int64(begin), np.int64(min(begin + CHANNELS, Cg)), Kg, Cg, taps,
                      chunk)


@worker(fastmath=())
def _untransform_strip(U, inverse, rows, first, strip, c, strips, C, scratch):
    """One channel of a strip; scratch (R, window, 2L)."""
    R, window = inverse.shape
    plane = strips * C * STRIP
    base = ((first + strip) * C + c) * STRIP
    for r in range(R):
        for j in range(window):
            scratch[r, j] = 0
            for i in range(window):
                factor, at = inverse[r, i], base + (i * window + j) * plane
                if factor != 0:
                    for lane in range(STRIP):
                        scratch[r, j, lane] += factor * U[at + lane]
    for lane in range(min(STRIP, rows.shape[0] - strip * STRIP)):
        for r in range(R):
            for s in range(R):
                total = 0.0
                for j in range(window):
                    if inverse[s, j] != 0:
                        total += inverse[s, j] * scratch[r, j, lane]
                rows[strip * STRIP + lane, (c * R + r) * R + s] = total


@kernel("void(const T[::1], const f8[:,::1], f8[:,::1], i8, i8, i8)", parallel=True, fastmath=())
def untransform_weights(U, inverse, rows, k0, K, C):
    """Of `winograd.transform_weights`; inverse (R, window): H."""
    strips, blocks = (rows.shape[0] + STRIP - 1) // STRIP, (C + CHANNELS - 1) // CHANNELS
    for task in prange(strips * blocks):
        scratch = np.empty((inverse.shape[0], inverse.shape[1], STRIP), np.float64)
        for c in range(task % blocks * CHANNELS, min(C, task % blocks * CHANNELS + CHANNELS)):
            _untransform_strip(U, inverse, rows, np.int64(k0 // STRIP), np.int64(task // blocks), np.int64(c), (K + STRIP - 1) // STRIP, C,
                               scratch)


def read_packed(chunk: int, groups: int = 1):
    """`Held.read` of weights that `pack_weights` packed for `chunk` channels at a time."""
    def read(packed, shape, first, rows):
        Kg, Cg = shape[0] // groups, shape[1]
        unpack_weights(packed, rows, first // Kg, first % Kg, Kg, Cg, rows.shape[1] // Cg, chunk)
    return read


def read_transformed(packed, shape, first, rows):
    """`Held.read` of Winograd's weights."""
    K, C, R, _ = shape
    U, _ = packed
    window = round((U.size / (-(-K // STRIP) * C * STRIP)) ** 0.5)
    untransform_weights(U, INVERSES[window, R], rows, first, K, C)


def read_taps(packed, shape, first, rows):
    """`Held.read` of depthwise weights (T + 1, C rounded up)."""
    rows[...] = packed[:-1, first:first + len(rows)].T


def read_small_groups(packed, shape, first, rows):
    """`Held.read` of weights of small groups (T * width + 1, K rounded up)."""
    _, width, R, S = shape
    taps = packed[:-1, first:first + len(rows)].reshape(R, S, width, len(rows))
    np.copyto(rows.reshape(len(rows), width, R, S), taps.transpose(3, 2, 0, 1))


# H by (window, taps). The middle tap of three is 3 (u2 - u1) and 6 (u3 - u4), whose roundings weigh one to four.
INVERSES = {
    (4, 3): np.array([[1.0, 0, 0, 0], [0, 1, -1, 0], [0, 0, 0, 1]]),
    (6, 3): np.array([[4.0, 0, 0, 0, 0, 0], [0, -2.4, 2.4, 1.2, -1.2, 0], [0, 0, 0, 0, 0, 1]]),
    (6, 5): np.array([[4.0, 0, 0, 0, 0, 0], [0, -4, 4, -2, 2, 0], [-4, -3, -3, 0, 0, -1], [0, 1, -1, 2, -2, 0], [0, 0, 0, 0, 0, 1]]),
}
for _inverse in INVERSES.values():
    _inverse.flags.writeable = False
