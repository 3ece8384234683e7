"""Packing of weights into the strips that the register tile reads.

    packed[g][chunk][strip][step][lane] = weight[g, strip * 2L + lane, c0 + c, r, s],     step = (r * S + s) * channels + c

weight (G, Kg, Cg, R, S) in any memory order; a chunk is `channels` channels from c0 on. A strip holds 2L filters, the
last one of a group L where that is enough; missing filters are zero. Behind all weights lie the biases of the groups, each
group's rounded up to vectors too.
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
    """Floats of the packed weights of `steps` steps in all, and of the biases; a tile may read one vector behind them."""
    return groups * (steps + 1) * -(-filters // L) * L + STRIP


@worker
def chunk_offset(Cg, Kg, T, g, c0):
    """Where the packed weights of group g begin, from channel c0 on."""
    return (g * Cg + c0) * T * ((Kg + L - 1) // L * L)


@worker
def bias_offset(Cg, Kg, G, T, g):
    """Where the biases of group g begin."""
    return (G * Cg * T + g) * ((Kg + L - 1) // L * L)


@worker
def _pack_block(weight, bias, packed, g, k0, c0, begin, end, channels):
    """The channels begin, ..., end - 1 of the chunk from c0 on, in the strip of filters from k0 on."""
    compact()
    G, Kg, Cg, R, S = weight.shape
    width = L if Kg - k0 <= L else STRIP
    lanes = min(width, Kg - k0)
    base = chunk_offset(Cg, Kg, R * S, g, c0) + k0 * R * S * channels
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
    if end == Cg:
        at = bias_offset(Cg, Kg, G, R * S, g) + k0
        for lane in range(width):
            packed[at + lane] = bias[g * Kg + k0 + lane] if bias.size and lane < lanes else np.float32(0)


@kernel("void(const T[:,:,:,:,:], const T[:], T[::1], i8)", parallel=True)
def pack_weights(weight, bias, packed, chunk):
    G, Kg, Cg = weight.shape[:3]
    strips, blocks = (Kg + STRIP - 1) // STRIP, (Cg + CHANNELS - 1) // CHANNELS
    for task in prange(G * strips * blocks):
        g, rest = task // (strips * blocks), task % (strips * blocks)
        begin = rest % blocks * CHANNELS
        c0 = begin // chunk * chunk
        _pack_block(weight, bias, packed, np.int64(g), np.int64(rest // blocks * STRIP), np.int64(c0), np.int64(begin),
                    np.int64(min(begin + CHANNELS, Cg)), np.int64(min(chunk, Cg - c0)))
