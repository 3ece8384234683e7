"""Packing of weights into the strips that the register tile reads.

    packed[g][strip][step][lane] = weight[g, strip * 2L + lane, c, r, s],     step = (r * S + s) * Cg + c

weight (G, Kg, Cg, R, S) in any memory order. A strip holds 2L filters, the last one of a group L where that is enough;
missing filters are zero. Where there is a bias it is one more step, which the panel's column of ones multiplies.
"""

from __future__ import annotations

from numba import prange

from numbanet.backends.cpu.compile import kernel
from numbanet.backends.cpu.simd import L

STRIP = 2 * L
CHANNELS = 16       # of a block whose lines stay in the first-level cache while all filters of a strip are read


def packed_size(groups: int, filters: int, steps: int) -> int:
    """Floats of the packed weights; the tile may read one vector behind the last strip."""
    return groups * steps * -(-filters // L) * L + STRIP


@kernel("void(const T[:,:,:,:,:], const T[:], T[::1], i8)", parallel=True)
def pack_weights(weight, bias, packed, with_bias):
    G, Kg, Cg, R, S = weight.shape
    steps = R * S * Cg + with_bias
    strips = (Kg + STRIP - 1) // STRIP
    blocks = (Cg + CHANNELS - 1) // CHANNELS
    group_size = steps * ((Kg + L - 1) // L) * L
    for task in prange(G * strips * blocks):
        g, rest = task // (strips * blocks), task % (strips * blocks)
        strip, block = rest // blocks, rest % blocks
        k0, c0 = strip * STRIP, block * CHANNELS
        c1 = min(c0 + CHANNELS, Cg)
        width = L if Kg - k0 <= L else STRIP
        base = g * group_size + k0 * steps
        for lane in range(width):
            if k0 + lane < Kg:
                for c in range(c0, c1):
                    for r in range(R):
                        for s in range(S):
                            packed[base + ((r * S + s) * Cg + c) * width + lane] = weight[g, k0 + lane, c, r, s]
            else:
                for c in range(c0, c1):
                    for t in range(R * S):
                        packed[base + (t * Cg + c) * width + lane] = 0
            if with_bias and block == 0:
                packed[base + (steps - 1) * width + lane] = bias[g * Kg + k0 + lane] if k0 + lane < Kg else 0
