"""Packing of weights into the strips that the register tile reads.

    packed[g][chunk][strip][step][lane] = weight[g, strip * 2L + lane, c0 + c, r, s],     step = (r * S + s) * channels + c

weight (G, Kg, Cg, R, S) in any memory order; a chunk is `channels` channels from c0 on. A strip holds 2L filters, the
last one of a group L where that is enough; missing filters are zero. Where there is a bias it is one more step of the
last chunk, which the panel's column of ones multiplies.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.convolution.compact import compact
from numbanet.backends.cpu.simd import L

STRIP = 2 * L
CHANNELS = 16       # of a block whose lines stay in the first-level cache while all filters of a strip are read


def packed_size(groups: int, filters: int, steps: int) -> int:
    """Floats of the packed weights of `steps` steps in all; the tile may read one vector behind the last strip."""
    return groups * steps * -(-filters // L) * L + STRIP


@worker
def chunk_offset(Cg, Kg, T, with_bias, g, c0):
    """Where the packed weights of group g begin, from channel c0 on."""
    return (g * (T * Cg + with_bias) + T * c0) * ((Kg + L - 1) // L * L)


@worker
def _pack_block(weight, bias, packed, g, k0, c0, begin, end, channels, with_bias):
    """The channels begin, ..., end - 1 of the chunk from c0 on, in the strip of filters from k0 on."""
    compact()
    _, Kg, Cg, R, S = weight.shape
    last = with_bias if c0 + channels == Cg else 0
    width = L if Kg - k0 <= L else STRIP
    lanes = min(width, Kg - k0)
    base = chunk_offset(Cg, Kg, R * S, with_bias, g, c0) + k0 * (R * S * channels + last)
    lanes_are_nearer = abs(weight.strides[1]) < abs(weight.strides[2])
    for r in range(R):
        for s in range(S):
            at = base + ((r * S + s) * channels - c0) * width
            if lanes_are_nearer:
                for c in range(begin, end):
                    for lane in range(lanes):
                        packed[at + c * width + lane] = weight[g, k0 + lane, c, r, s]
            else:
                for lane in range(lanes):
                    for c in range(begin, end):
                        packed[at + c * width + lane] = weight[g, k0 + lane, c, r, s]
            for lane in range(lanes, width):
                for c in range(begin, end):
                    packed[at + c * width + lane] = np.float32(0)
    if last and end == Cg:
        at = base + R * S * channels * width
        for lane in range(width):
            packed[at + lane] = bias[g * Kg + k0 + lane] if lane < lanes else np.float32(0)


@kernel("void(const T[:,:,:,:,:], const T[:], T[::1], i8, i8)", parallel=True)
def pack_weights(weight, bias, packed, chunk, with_bias):
    G, Kg, Cg = weight.shape[:3]
    strips, blocks = (Kg + STRIP - 1) // STRIP, (Cg + CHANNELS - 1) // CHANNELS
    for task in prange(G * strips * blocks):
        g, rest = task // (strips * blocks), task % (strips * blocks)
        begin = rest % blocks * CHANNELS
        c0 = begin // chunk * chunk
        _pack_block(weight, bias, packed, np.int64(g), np.int64(rest // blocks * STRIP), np.int64(c0), np.int64(begin),
                    np.int64(min(begin + CHANNELS, Cg)), np.int64(min(chunk, Cg - c0)), with_bias)
