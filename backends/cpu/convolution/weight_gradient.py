"""Backward-weight as a matrix product over pixels.

    grad_weight[k, (r, s, c)] = sum over pixels of grad_y[pixel, k] * panel[pixel, (r, s, c)]

A job owns a block of filters, a block of channels with all their taps, and one of `parts` ranges of pixels; its sums stay in
scratch memory, which a second pass adds over the parts, upwards, and brings into the order of the weights. Pixels are packed in
panels, so that rows of 2^n floats do not evict each other, and each panel is summed from 0, so that the rounding error hardly
grows with the number of pixels. Parts and blocks follow from the shapes alone, so the bits do not depend on the number of
threads. Panels: `walk.py`, with the letters.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.convolution.gather import MR
from numbanet.backends.cpu.convolution.summing_tile import summing_tile
from numbanet.backends.cpu.convolution.walk import end_of, odd_pitch, pack_pixels, pack_windows, strides_of
from numbanet.backends.cpu.out_of_line import out_of_line
from numbanet.backends.cpu.simd import L, load, load_partial, store, store_partial, store_strided

MK = min(8, MR)     # filters of a tile: divides the usual filter counts, which MR = 14 does not


@worker
def _has_even_pixels(y):
    """Whether all pixels of y (N, OH, OW, K) are equally far apart."""
    _, OH, OW, _ = y.shape
    return y.strides[1] == OW * y.strides[2] and y.strides[0] == OH * y.strides[1]


@worker
def _pack_rows(y, source, step, count, channels, panel, base, pitch):
    """panel[p, c] = y[source + p * step + c]; up to L - 1 zeros follow each row."""
    out_of_line()
    full = channels - channels % L
    for _ in range(count):
        for c in range(0, full, L):
            store(panel, base + c, load(y, source + c))
        if full < channels:
            store(panel, base + full, load_partial(y, source + full, channels - full))
        source += step
        base += pitch


@worker
def _pack(grad_y, x, preactivation, walk, first, count, k0, filters, c0, channels, scratch, a, a_pitch, b, b_pitch):
    """The panels of grad_y and x for `count` output pixels."""
    out_of_line()
    if _has_even_pixels(grad_y):
        step = grad_y.strides[2] // 4
        _pack_rows(grad_y, first * step + k0, step, count, filters, scratch, a, a_pitch)
    else:
        pack_pixels(grad_y, first, count, k0, filters, scratch, a, a_pitch)
    are_pixels = walk[3] == walk[13] and walk[4] == walk[14] and walk[5] * walk[6] == 1 and walk[9] + walk[10] == 0
    if are_pixels and _has_even_pixels(x) and not preactivation.size:
        step = x.strides[2] // 4
        _pack_rows(x, first * step + c0, step, count, channels, scratch, b, b_pitch)
    else:
        pack_windows(x, preactivation, c0, c0, strides_of(x), end_of(x), walk, first, count, channels, scratch, b, b_pitch)


@worker
def _multiply(scratch, a, a_pitch, b, b_pitch, sums, c, c_pitch, filters, columns, count, accumulate):
    """sums[k, column] (+)= sum over rows of a[row, k] * b[row, column]; a strip of b stays in the first-level cache
    over all k."""
    out_of_line()
    for column in range(0, columns, 2 * L):
        for k in range(0, filters, MK):
            summing_tile(MK, 2, scratch, a + k, 1, a_pitch, scratch, b + column, b_pitch,
                         sums, c + k * c_pitch + column, c_pitch, count, accumulate)


@worker
def _sum_jobs(slot, grad_y, x, preactivation, scratch, sums, walk, filters, chunk, parts, block):
    """The share of one slot: sums[job, k, column] over the job's pixels."""
    out_of_line()
    Cg, Kg, G, T, OH, OW = walk[0], walk[1], walk[2], walk[5] * walk[6], walk[13], walk[14]
    slots, pixels = scratch.shape[0], grad_y.shape[0] * OH * OW
    k_blocks, chunks = (Kg + filters - 1) // filters, (Cg + chunk - 1) // chunk
    jobs = G * k_blocks * chunks * parts
    c_pitch = (T * chunk + 2 * L - 1) // (2 * L) * 2 * L
    a_pitch, b_pitch = odd_pitch(filters + MK), odd_pitch(c_pitch)
    a = slot * scratch.shape[1]
    b = a + block * a_pitch + L
    for job in range(slot * jobs // slots, (slot + 1) * jobs // slots):
        rest, part = job // parts, job % parts
        c0, rest = rest % chunks * chunk, rest // chunks
        k0, g = rest % k_blocks * filters, rest // k_blocks
        rows, channels = min(filters, Kg - k0), min(chunk, Cg - c0)
        k0, c0 = g * Kg + k0, g * Cg + c0
        begin, end = part * pixels // parts, (part + 1) * pixels // parts
        for first in range(begin, end, block):
            count = min(block, end - first)
            _pack(grad_y, x, preactivation, walk, first, count, k0, rows, c0, channels, scratch, a, a_pitch, b, b_pitch)
            _multiply(scratch, a, a_pitch, b, b_pitch, sums, job * sums.shape[1], c_pitch, rows, T * channels, count,
                      first - begin)


@worker
def _merge(task, sums, grad_weight, walk, filters, chunk, parts):
    """Add the parts of one filter and one block of channels, and bring its columns into the order of the weights."""
    out_of_line()
    Cg, Kg, R, S = walk[0], walk[1], walk[5], walk[6]
    k_blocks, chunks = (Kg + filters - 1) // filters, (Cg + chunk - 1) // chunk
    w_c, w_r, w_s = grad_weight.strides[1] // 4, grad_weight.strides[2] // 4, grad_weight.strides[3] // 4
    c0, k = task % chunks * chunk, task // chunks
    g, k_block, row = k // Kg, k % Kg // filters, k % Kg % filters
    channels = min(chunk, Cg - c0)
    job = ((g * k_blocks + k_block) * chunks + task % chunks) * parts
    source = job * sums.shape[1] + row * ((R * S * chunk + 2 * L - 1) // (2 * L) * 2 * L)
    target = k * (grad_weight.strides[0] // 4) + c0 * w_c
    if parts > 1:
        for i in range(0, R * S * channels, L):
            total = load(sums, source + i)
            for part in range(1, parts):
                total = total + load(sums, source + part * sums.shape[1] + i)
            store(sums, source + i, total)
    for r in range(R):
        for s in range(S):
            for c in range(0, channels, L):
                at, to, lanes = source + (r * S + s) * channels + c, target + c * w_c + r * w_r + s * w_s, min(L, channels - c)
                if w_c == 1:
                    store_partial(grad_weight, to, load_partial(sums, at, lanes), lanes)
                elif lanes == L:
                    store_strided(grad_weight, to, w_c, load(sums, at))
                else:
                    for lane in range(lanes):
                        grad_weight[k, c0 + c + lane, r, s] = sums[job, at - job * sums.shape[1] + lane]


@kernel("void(const T[:,:,:,:], const T[:,:,:,:], const T[:,::1], T[:,:,:,:], T[:,::1], T[:,::1], const i8[::1], i8, i8, i8, i8)",
        parallel=True)
def conv2d_backward_weight_gather(grad_y, x, preactivation, grad_weight, scratch, sums, walk, filters, chunk, parts, block):
    """grad_y (N, OH, OW, K), x (N, H, W, C), grad_weight (K, Cg, R, S), scratch (slots, floats); `preactivation`: see `preactivate.py`.

    sums (jobs, rows * columns): `filters` rounded up to MK rows of T * chunk columns, rounded up to 2L.
    """
    for slot in prange(scratch.shape[0]):
        _sum_jobs(np.int64(slot), grad_y, x, preactivation, scratch, sums, walk, filters, chunk, parts, block)
    for task in prange(walk[1] * walk[2] * ((walk[0] + chunk - 1) // chunk)):
        _merge(np.int64(task), sums, grad_weight, walk, filters, chunk, parts)
