"""Backward-weight as a matrix product over pixels.

    grad_weight[k, (r, s, c)] = sum over pixels of grad_y[pixel, k] * panel[pixel, (r, s, c)]

A job owns a block of channels with all their taps, all filters of a group, and one of `parts` ranges of pixels; its
sums stay in scratch memory, which a second pass adds over the parts, upwards, and brings into the order of the weights.
Parts and blocks follow from the shapes alone, so the bits do not depend on the number of threads. Panels: `walk.py`,
with the letters.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.convolution.compact import compact
from numbanet.backends.cpu.convolution.gather import MR
from numbanet.backends.cpu.convolution.walk import odd_pitch, pack_pixels, pack_windows
from numbanet.backends.cpu.out_of_line import out_of_line
from numbanet.backends.cpu.simd import L, load, store, tile

MK = min(8, MR)     # filters of a tile: divides the usual filter counts, which MR = 14 does not


@worker
def _multiply(scratch, a, a_pitch, b, b_pitch, sums, c, c_pitch, filters, columns, count, accumulate):
    """sums[k, column] (+)= sum over rows of a[row, k] * b[row, column]; a strip of b stays in the first-level cache
    over all k."""
    out_of_line()
    for column in range(0, columns, 2 * L):
        for k in range(0, filters, MK):
            tile(MK, 2, scratch, a + k, 1, a_pitch, scratch, b + column, b_pitch,
                 sums, c + k * c_pitch + column, c_pitch, count, accumulate)


@worker
def _sum_jobs(slot, grad_y, x, scratch, sums, walk, chunk, parts, block):
    """The share of one slot: sums[job, k, column] over the job's pixels."""
    out_of_line()
    Cg, Kg, G, T, OH, OW = walk[0], walk[1], walk[2], walk[5] * walk[6], walk[13], walk[14]
    slots, pixels = scratch.shape[0], grad_y.shape[0] * OH * OW
    chunks = (Cg + chunk - 1) // chunk
    jobs = G * chunks * parts
    c_pitch = (T * chunk + 2 * L - 1) // (2 * L) * 2 * L
    a_pitch, b_pitch = odd_pitch(Kg + MK), odd_pitch(c_pitch)
    a = slot * scratch.shape[1]
    b = a + block * a_pitch + L
    for job in range(slot * jobs // slots, (slot + 1) * jobs // slots):
        rest, part = job // parts, job % parts
        g, c0 = rest // chunks, rest % chunks * chunk
        channels = min(chunk, Cg - c0)
        begin, end = part * pixels // parts, (part + 1) * pixels // parts
        for first in range(begin, end, block):
            count = min(block, end - first)
            pack_pixels(grad_y, first, count, g * Kg, Kg, scratch, a, a_pitch)
            pack_windows(x, walk, first, count, g * Cg + c0, channels, scratch, b, b_pitch)
            _multiply(scratch, a, a_pitch, b, b_pitch, sums, job * sums.shape[1], c_pitch, Kg, T * channels, count,
                      first - begin)


@worker
def _merge(task, sums, grad_weight, walk, chunk, parts):
    """Add the parts of one filter and one block of channels, and bring its columns into the order of the weights."""
    compact()
    Cg, Kg, R, S = walk[0], walk[1], walk[5], walk[6]
    chunks = (Cg + chunk - 1) // chunk
    k, rest = task % Kg, task // Kg
    g, c0 = rest // chunks, rest % chunks * chunk
    channels = min(chunk, Cg - c0)
    column = k * ((R * S * chunk + 2 * L - 1) // (2 * L) * 2 * L)
    total = rest * parts * sums.shape[1] + column
    for part in range(1, parts):
        other = total + part * sums.shape[1]
        for i in range(0, R * S * channels, L):
            store(sums, total + i, load(sums, total + i) + load(sums, other + i))
    for c in range(channels):
        for r in range(R):
            for s in range(S):
                grad_weight[g * Kg + k, c0 + c, r, s] = sums[rest * parts, column + (r * S + s) * channels + c]


@kernel("void(const T[:,:,:,:], const T[:,:,:,:], T[:,:,:,:], T[:,::1], T[:,::1], const i8[::1], i8, i8, i8)",
        parallel=True)
def conv2d_backward_weight_gather(grad_y, x, grad_weight, scratch, sums, walk, chunk, parts, block):
    """grad_y (N, OH, OW, K), x (N, H, W, C), grad_weight (K, Cg, R, S), scratch (slots, floats).

    sums (jobs, rows * columns): ceil(Kg / MK) * MK rows of ceil(T * chunk / 2L) * 2L columns.
    """
    for slot in prange(scratch.shape[0]):
        _sum_jobs(np.int64(slot), grad_y, x, scratch, sums, walk, chunk, parts, block)
    for task in prange(sums.shape[0] // parts * walk[1]):
        _merge(np.int64(task), sums, grad_weight, walk, chunk, parts)
