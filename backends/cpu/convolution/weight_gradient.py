"""Backward-weight as a matrix product over pixels.

    grad_weight[k, (r, s, c)] = sum over pixels of grad_y[pixel, k] * panel[pixel, (r, s, c)]

A job owns a block of channels with all their taps, all filters of a group, and one of `parts` ranges of pixels; its sums stay in
scratch memory, which a second pass adds over the parts, upwards, and brings into the order of the weights. Parts and blocks follow
from the shapes alone, so the bits do not depend on the number of threads. Panels: `walk.py`, with the letters.
"""

from __future__ import annotations

from numba import prange

from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.convolution.gather import MR
from numbanet.backends.cpu.convolution.walk import copy_run, odd_pitch, pack_windows
from numbanet.backends.cpu.simd import L, load, store, tile

MK = min(8, MR)     # filters of a tile: divides the usual filter counts, which MR = 14 does not


@worker
def _multiply(scratch, a, a_pitch, b, b_pitch, sums, c, c_pitch, filters, columns, count, accumulate):
    """sums[k, column] (+)= sum over rows of a[row, k] * b[row, column]; a strip of b stays in the first-level cache over all k."""
    for column in range(0, columns, 2 * L):
        for k in range(0, filters, MK):
            tile(MK, 2, scratch, a + k, 1, a_pitch, scratch, b + column, b_pitch,
                 sums, c + k * c_pitch + column, c_pitch, count, accumulate)


@kernel("void(const T[:,:,:,:], const T[:,:,:,:], T[:,:,:,:], T[:,::1], T[:,::1], const i8[::1], i8, i8, i8)", parallel=True)
def conv2d_backward_weight_gather(grad_y, x, grad_weight, scratch, sums, walk, chunk, parts, block):
    """grad_y (N, OH, OW, K), x (N, H, W, C), grad_weight (K, Cg, R, S); scratch (slots, ...), sums (jobs, ceil(Kg / MK) * MK * columns)."""
    Cg, Kg, G, R, S = walk[0], walk[1], walk[2], walk[5], walk[6]
    OH, OW = walk[13], walk[14]
    slots, pixels, T = scratch.shape[0], grad_y.shape[0] * OH * OW, R * S
    y_n, y_h, y_w = grad_y.strides[0] // 4, grad_y.strides[1] // 4, grad_y.strides[2] // 4
    chunks = (Cg + chunk - 1) // chunk
    jobs = G * chunks * parts
    c_pitch = (T * chunk + 2 * L - 1) // (2 * L) * 2 * L
    a_pitch, b_pitch = odd_pitch(Kg + MK), odd_pitch(c_pitch)
    for slot in prange(slots):
        a = slot * scratch.shape[1]
        b = a + block * a_pitch + L
        for job in range(slot * jobs // slots, (slot + 1) * jobs // slots):
            rest, part = job // parts, job % parts
            g, c0 = rest // chunks, rest % chunks * chunk
            channels = min(chunk, Cg - c0)
            begin, end = part * pixels // parts, (part + 1) * pixels // parts
            for first in range(begin, end, block):
                count = min(block, end - first)
                for p in range(count):
                    pixel = first + p
                    source = pixel // (OH * OW) * y_n + pixel // OW % OH * y_h + pixel % OW * y_w + g * Kg
                    copy_run(grad_y, source, scratch, a + p * a_pitch, Kg)
                pack_windows(x, walk, first, count, g * Cg + c0, channels, scratch, b, b_pitch, 0)
                _multiply(scratch, a, a_pitch, b, b_pitch, sums, job * sums.shape[1], c_pitch, Kg, T * channels, count, first - begin)
    for task in prange(G * chunks * Kg):
        k, rest = task % Kg, task // Kg
        g, c0 = rest // chunks, rest % chunks * chunk
        channels = min(chunk, Cg - c0)
        total = rest * parts * sums.shape[1] + k * c_pitch
        for part in range(1, parts):
            other = total + part * sums.shape[1]
            for column in range(0, T * channels, L):
                store(sums, total + column, load(sums, total + column) + load(sums, other + column))
        row, first = rest * parts, k * c_pitch
        for c in range(channels):
            for r in range(R):
                for s in range(S):
                    grad_weight[g * Kg + k, c0 + c, r, s] = sums[row, first + (r * S + s) * channels + c]
