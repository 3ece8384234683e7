"""Gradients of a convolution whose map is pooled by maxima: of each window one pixel has a gradient, and only it is multiplied.

For each image the gradients that no limit stopped and the offsets of what they meet are listed, pooled pixel by pooled pixel, filter by
filter. With windows of 2 x 2 pixels that are a quarter of the products with the whole map, which is never made.

    grad_weight[k, c, r, s] = sum over entries of k of g * x under tap (r, s) at the maximum
    grad_bias[k]            = sum over entries of k of g
    grad_x                  = sum over entries of g * weight[k], placed where the maximum's window lies

Weight: two filters and two vectors of (s, c) stay in registers over all pixels of an image; where there is one channel, INTERLEAVED rows
are brought side by side first, so that taps (s, r) fill the vectors. Parts are fixed ranges of images, added upwards.

Input: a *patch* is what one pooled pixel adds to grad_x: the windows of all pixels of its pooling window. Weights lie packed as patches,
once for each position that a maximum can have, so that BLOCK vectors of a patch are sums over filters in registers.

A tap of a pixel without gradient counts as nothing, where a product with 0 would make inf and NaN a NaN. Letters: `walk.py`, `pooled.py`.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.convolution.columns import pack_planes, plane_pitch, plane_size
from numbanet.backends.cpu.convolution.compact import compact
from numbanet.backends.cpu.convolution.interleave import interleave
from numbanet.backends.cpu.convolution.listed_tile import listed_tile
from numbanet.backends.cpu.convolution.walk import clear_run
from numbanet.backends.cpu.hardware import vector_registers
from numbanet.backends.cpu.out_of_line import out_of_line
from numbanet.backends.cpu.shares import begin_shares, next_job
from numbanet.backends.cpu.simd import (
    L,
    floor,
    lane_indices,
    load,
    load_partial,
    select,
    splat,
    splat_int,
    store,
    store_partial,
    to_float,
    to_int,
)

INTERLEAVED = 6             # rows
TOGETHER = 5 if vector_registers() == 32 else 3     # rows of windows whose sums stay in registers
CELL = 4 * L                # sums of two filters and two vectors
BLOCK = 7                   # vectors of a patch: with 16 filters and 4 positions their weights take 28 KB of the first-level cache
PATCHES = 64                # pooled pixels whose patches are kept at once


@worker
def _list_gradients(grad_y, y, argmax, n, first, last, low, high, OW, pixel_row, pixel_column, row, column, lane, gradients, at,
                    offsets, place, pitch, sums, cell):
    """Entries of the rows first, ..., last - 1 of image n: gradients, and offsets ph * pixel_row + pw * pixel_column + k * lane + what
    the maximum's place in the window adds, a `row`, a `column` or both. Filters take `pitch` entries a pixel, the last ones zeros.

    Sums over pixels are added to sums[cell:], where that array is not empty.
    """
    compact()
    _, _, PW, K = grad_y.shape
    if lane == 0 and K == pitch and K % L and _is_dense(grad_y) and _is_dense(y) and _is_dense(argmax):
        _list_dense_gradients(grad_y, y, argmax, n, first, last, low, high, OW, row, column, gradients, at, offsets, place, sums, cell)
        return
    adjacent, flat = grad_y.strides[3] == 4, gradients.reshape(gradients.size)
    g_n, g_h, g_w, g_k = grad_y.strides[0] // 4, grad_y.strides[1] // 4, grad_y.strides[2] // 4, grad_y.strides[3] // 4
    y_n, y_h, y_w = y.strides[0] // 4, y.strides[1] // 4, y.strides[2] // 4
    a_n, a_h, a_w = argmax.strides[0] // 4, argmax.strides[1] // 4, argmax.strides[2] // 4
    lanes = lane_indices()
    below = row - OW * column
    for k in range(0, K, L):
        count, room = min(L, K - k), min(L, pitch - k)
        total, entry = splat(np.float32(0)), k
        for ph in range(first, last):
            for pw in range(PW):
                source = n * g_n + ph * g_h + pw * g_w + k * g_k
                if adjacent:
                    g = load_partial(grad_y, source, count)
                else:
                    for i in range(count):
                        flat[at + entry + i] = grad_y[n, ph, pw, k + i]
                    g = load_partial(gradients, at + entry, count)
                if low > -np.inf or high < np.inf:
                    result = load_partial(y, n * y_n + ph * y_h + pw * y_w + k, count)
                    g = select((result <= low) | (result >= high), 0.0, g)
                place_in_window = load_partial(argmax, n * a_n + ph * a_h + pw * a_w + k, count) - (2 * ph * OW + 2 * pw)
                begin = ph * pixel_row + pw * pixel_column + k * lane
                offset = place_in_window * column + select(place_in_window >= OW, splat_int(below), splat_int(0)) + lanes * lane + begin
                store_partial(gradients, at + entry, g, room)
                store_partial(offsets, place + entry, select(lanes < count, offset, splat_int(0)), room)
                total = total + g
                entry += pitch
        if sums.size:
            store(sums, cell + k, load(sums, cell + k) + total)


@worker
def _is_dense(x):
    """Whether the rows of an image (N, H, W, C) follow one another."""
    return x.strides[3] == 4 and x.strides[2] == 4 * x.shape[3] and x.strides[1] == x.strides[2] * x.shape[2]


@worker
def _list_dense_gradients(grad_y, y, argmax, n, first, last, low, high, OW, row, column, gradients, at, offsets, place, sums, cell):
    """As `_list_gradients`, the numbers of all pixels and filters as one run: vectors are full whatever the number of filters."""
    compact()
    _, _, PW, K = grad_y.shape
    count, skipped = (last - first) * PW * K, first * PW * K
    g_at, y_at, a_at = n * (grad_y.strides[0] // 4) + skipped, n * (y.strides[0] // 4) + skipped, n * (argmax.strides[0] // 4) + skipped
    limits, below, width = low > -np.inf or high < np.inf, row - OW * column, np.float32(1) / np.float32(OW)
    for i in range(0, count, L):
        g = load_partial(grad_y, g_at + i, count - i)
        if limits:
            result = load_partial(y, y_at + i, count - i)
            g = select((result <= low) | (result >= high), 0.0, g)
        position = load_partial(argmax, a_at + i, count - i)
        oh = to_int(floor((to_float(position) + np.float32(0.5)) * width))      # maps of so few pixels that float32 counts them
        store_partial(gradients, at + i, g, count - i)
        store_partial(offsets, place + i, oh * below + position * column, count - i)
    if sums.size:
        period = K                                      # vectors until a lane belongs to the same filter again
        while period % 2 == 0 and period // 2 * L % K == 0:
            period //= 2
        flat, numbers = sums.reshape(sums.size), gradients.reshape(gradients.size)
        for i in range(0, min(period * L, count), L):
            total = splat(np.float32(0))
            for j in range(i, count, period * L):
                total = total + load_partial(gradients, at + j, count - j)
            store(gradients, at + count, total)         # lists end with room for a vector
            k = i % K
            for lane in range(L):
                flat[cell + k] += numbers[at + count + lane]
                k += 1
                k = 0 if k == K else k


@worker
def _add_windows(planes, base, run, runs, gradients, at, offsets, place, pitch, pixels, sums, cell, cell_run):
    """sums[cell:] += the windows of two filters' entries times their gradients: `runs` runs of two vectors."""
    out_of_line()
    u = 0
    while u < runs:
        source, target = base + u * run, cell + u * cell_run
        if runs - u >= 5 and TOGETHER == 5:
            listed_tile(2, 5, 2, gradients, at, offsets, place, pitch, pixels, planes, source, run, sums, target, 2 * L, cell_run, 1)
            u += 5
        elif runs - u >= 3:
            listed_tile(2, 3, 2, gradients, at, offsets, place, pitch, pixels, planes, source, run, sums, target, 2 * L, cell_run, 1)
            u += 3
        else:
            listed_tile(2, 1, 2, gradients, at, offsets, place, pitch, pixels, planes, source, run, sums, target, 2 * L, cell_run, 1)
            u += 1


@worker
def interleaves(walk):
    """Whether taps (s, r) of one channel fill the vectors, and not taps (s, c) of each row."""
    return walk[0] == 1 and walk[5] <= INTERLEAVED


@worker
def _pack_interleaved(x, n, walk, planes, base, source):
    """planes[oh, w, r] = x under tap r of output row oh, from `base` on; `source`: where the plane goes before."""
    compact()
    stride_h, dilation_h, OH = walk[7], walk[11], walk[13]
    _, columns = plane_size(walk)
    pitch = plane_pitch(columns)
    pack_planes(x, n, walk, planes, source, pitch)
    for oh in range(OH):
        for w in range(0, columns, L):
            interleave(INTERLEAVED, planes, source + oh * stride_h * pitch + w, dilation_h * pitch,
                       planes, base + (oh * pitch + w) * INTERLEAVED, INTERLEAVED * L)


@worker
def _pack_image(x, n, walk, planes, base):
    """planes[h + pad_h, (w + pad_w, c)] = x[n, h, w, c], zeros around."""
    compact()
    H, W, pad_h, pad_w = walk[3], walk[4], walk[9], walk[10]
    rows, columns = plane_size(walk)
    C = x.shape[3]
    pitch, x_w = image_pitch(walk), x.strides[2] // 4
    first, last = max(0, -pad_w), min(W, columns - pad_w)
    for row in range(rows):
        h, at = row - pad_h, base + row * pitch
        clear_run(planes, at, pitch)
        if 0 <= h < H:
            source = n * (x.strides[0] // 4) + h * (x.strides[1] // 4) + first * x_w
            if x_w == C:
                for i in range(0, (last - first) * C, L):
                    store_partial(planes, at + (first + pad_w) * C + i, load_partial(x, source + i, (last - first) * C - i),
                                  (last - first) * C - i)
            else:
                for w in range(last - first):
                    for i in range(0, C, L):
                        store_partial(planes, at + (first + w + pad_w) * C + i, load_partial(x, source + w * x_w + i, C - i), C - i)


@worker
def image_pitch(walk):
    """Floats of a row of `_pack_image`, with room for the last vectors of a window."""
    return (plane_size(walk)[1] * walk[0] + 3 * L - 1) // L * L


@worker
def _sum_image(grad_y, y, argmax, x, n, low, high, planes, base, gradients, at, offsets, place, sums, cells, walk):
    """Add one image to the sums from offset `cells` on."""
    out_of_line()
    C, K, R, S, stride_h, dilation_h, OW = walk[0], walk[1], walk[5], walk[6], walk[7], walk[11], walk[14]
    _, PH, PW, _ = grad_y.shape
    pitch = (K + 1) // 2 * 2
    if interleaves(walk):
        rows, columns = plane_size(walk)
        column, row = INTERLEAVED, plane_pitch(columns) * INTERLEAVED
        runs, run, width = 1, 0, S * INTERLEAVED
        _pack_interleaved(x, n, walk, planes, base, base + walk[13] * row)
    else:
        column, row = C, stride_h * image_pitch(walk)
        runs, run, width = R, dilation_h * image_pitch(walk), S * C
        _pack_image(x, n, walk, planes, base)
    _list_gradients(grad_y, y, argmax, n, 0, PH, low, high, OW, 2 * row, 2 * column, row, column, 0, gradients, at, offsets, place, pitch,
                    sums, cells)
    cell = cells + bias_sums(K)
    blocks = (width + 2 * L - 1) // (2 * L)
    for k in range(0, K, 2):
        for block in range(blocks):
            _add_windows(planes, base + block * 2 * L, run, runs, gradients, at + k, offsets, place + k, pitch, PH * PW,
                         sums, cell + block * CELL, blocks * CELL)
        cell += runs * blocks * CELL


@worker
def bias_sums(K):
    """Floats before the cells of a part."""
    return (K + L - 1) // L * L


@worker
def _sum_parts(slot, counters, grad_y, y, argmax, x, low, high, planes, gradients, offsets, sums, walk):
    slots, N, (parts, size) = planes.shape[0], x.shape[0], sums.shape
    part = next_job(counters, slot, slots, parts)
    while part >= 0:
        clear_run(sums, part * size, size)
        for n in range(part * N // parts, (part + 1) * N // parts):
            _sum_image(grad_y, y, argmax, x, n, low, high, planes, slot * planes.shape[1], gradients, slot * gradients.shape[1],
                       offsets, slot * offsets.shape[1], sums, part * size, walk)
        part = next_job(counters, slot, slots, parts)


@kernel("void(const T[:,:,:,:], const T[:,:,:,:], const i4[:,:,:,:], const T[:,:,:,:], T[:,:,:,:], T[::1], f4, f4, T[:,::1], T[:,::1], "
        "i4[:,::1], T[:,::1], const i8[::1])", parallel=True)
def conv2d_max_pool_weight_gradient(grad_y, y, argmax, x, grad_weight, grad_bias, low, high, planes, gradients, offsets, sums, walk):
    """grad_y, y, argmax (N, PH, PW, K), x (N, H, W, C), grad_weight (K, C, R, S); planes, gradients, offsets (slots, ...), sums (parts,
    ...)."""
    counters = begin_shares(planes.shape[0], sums.shape[0])
    for slot in prange(planes.shape[0]):
        _sum_parts(np.int64(slot), counters, grad_y, y, argmax, x, low, high, planes, gradients, offsets, sums, walk)
    (parts, size), (K, C, R, S) = sums.shape, grad_weight.shape
    for i in range(0, size, L):
        total = load(sums, i)
        for part in range(1, parts):
            total = total + load(sums, part * size + i)
        store(sums, i, total)
    flat, together = sums.reshape(sums.size), interleaves(walk)
    runs, width = (1, S * INTERLEAVED) if together else (R, S * C)
    blocks = (width + 2 * L - 1) // (2 * L)
    for k in range(K):
        grad_bias[k] = flat[k]
        for r in range(R):
            for s in range(S):
                for c in range(C):
                    run, i = (0, s * INTERLEAVED + r) if together else (r, s * C + c)
                    cell = bias_sums(K) + ((k // 2 * runs + run) * blocks + i // (2 * L)) * CELL
                    grad_weight[k, c, r, s] = flat[cell + k % 2 * 2 * L + i % (2 * L)]


@worker
def patch_size(walk):
    """Rows and columns that the windows of 2 x 2 neighbouring pixels read."""
    return walk[7] + (walk[5] - 1) * walk[11] + 1, walk[8] + (walk[6] - 1) * walk[12] + 1


@worker
def _pack_patch(weight, k, position, walk, packed, at, block):
    """Filter k where the maximum is at `position` of its window; blocks of the patch are `block` floats apart."""
    compact()
    stride_h, stride_w, dilation_h, dilation_w = walk[7], walk[8], walk[11], walk[12]
    _, C, R, S = weight.shape
    rows, columns = patch_size(walk)
    flat = packed.reshape(packed.size)
    for i in range(0, rows * columns * C, BLOCK * L):
        clear_run(packed, at + i // (BLOCK * L) * block, BLOCK * L)
    for r in range(R):
        for s in range(S):
            i = ((position // 2 * stride_h + r * dilation_h) * columns + position % 2 * stride_w + s * dilation_w) * C
            for c in range(C):
                flat[at + (i + c) // (BLOCK * L) * block + (i + c) % (BLOCK * L)] = weight[k, c, r, s]


@worker
def _make_patches(packed, base, gradients, at, offsets, place, filters, pixels, patches, target, step):
    """BLOCK vectors of each pixel's patch, `step` floats apart: sums over `filters` entries."""
    out_of_line()
    for _ in range(pixels):
        listed_tile(1, 1, BLOCK, gradients, at, offsets, place, 1, filters, packed, base, 0, patches, target, 0, 0, 0)
        at += filters
        place += filters
        target += step


@worker
def map_pitch(walk):
    """Floats of a row of grad_x in scratch memory, the padding and room for a vector included."""
    return (((walk[14] - 1) * walk[8] + (walk[6] - 1) * walk[12] + 1 + walk[4]) * walk[0] + 2 * L - 1) // L * L


@worker
def map_rows(walk):
    """Rows of grad_x in scratch memory, the padding included."""
    return max((walk[13] - 1) * walk[7] + (walk[5] - 1) * walk[11] + 1, walk[9] + walk[3])


@worker
def _input_of_image(grad_y, y, argmax, n, low, high, packed, grad_x, scratch, base, offsets, place, walk):
    """scratch from `base` on: the map, PATCHES patches and gradients."""
    out_of_line()
    C, K, stride_h, stride_w, pad_h, pad_w, OW = walk[0], walk[1], walk[7], walk[8], walk[9], walk[10], walk[14]
    _, PH, PW, _ = grad_y.shape
    _, H, W, _ = grad_x.shape
    (rows, columns), pitch = patch_size(walk), map_pitch(walk)
    blocks, run = (rows * columns * C + BLOCK * L - 1) // (BLOCK * L), columns * C
    together = max(1, PATCHES // PW)
    patches = base + map_rows(walk) * pitch
    at = patches + together * PW * blocks * BLOCK * L + L
    clear_run(scratch, base, map_rows(walk) * pitch)
    size = 4 * K * BLOCK * L
    for first in range(0, PH, together):
        last = min(PH, first + together)
        pixels = (last - first) * PW
        _list_gradients(grad_y, y, argmax, n, first, last, low, high, OW, 0, 0, 2 * K * BLOCK * L, K * BLOCK * L, BLOCK * L,
                        scratch, at, offsets, place, K, scratch[:0], 0)
        for block in range(blocks):
            _make_patches(packed, block * size, scratch, at, offsets, place, K, pixels, scratch, patches + block * BLOCK * L,
                          blocks * BLOCK * L)
        for pixel in range(pixels):
            target = base + (first + pixel // PW) * 2 * stride_h * pitch + pixel % PW * 2 * stride_w * C
            source = patches + pixel * blocks * BLOCK * L
            for row in range(rows):
                for i in range(0, run, L):
                    added = load_partial(scratch, source + row * run + i, run - i)
                    store(scratch, target + row * pitch + i, load(scratch, target + row * pitch + i) + added)
    for h in range(H):
        source = base + (h + pad_h) * pitch + pad_w * C
        for i in range(0, W * C, L):
            store_partial(grad_x, (n * H + h) * W * C + i, load_partial(scratch, source + i, W * C - i), W * C - i)


@worker
def _inputs(slot, counters, grad_y, y, argmax, low, high, packed, grad_x, scratch, offsets, walk):
    slots, N = scratch.shape[0], grad_y.shape[0]
    n = next_job(counters, slot, slots, N)
    while n >= 0:
        _input_of_image(grad_y, y, argmax, n, low, high, packed, grad_x, scratch, slot * scratch.shape[1], offsets,
                        slot * offsets.shape[1], walk)
        n = next_job(counters, slot, slots, N)


@kernel("void(const T[:,:,:,:], const T[:,:,:,:], const i4[:,:,:,:], const T[:,:,:,:], T[:,:,:,::1], f4, f4, T[::1], T[:,::1], "
        "i4[:,::1], const i8[::1])", parallel=True)
def conv2d_max_pool_input_gradient(grad_y, y, argmax, weight, grad_x, low, high, packed, scratch, offsets, walk):
    """grad_y, y, argmax (N, PH, PW, K), weight (K, C, R, S), grad_x (N, H, W, C); packed (blocks, 4, K, BLOCK * L), scratch and offsets
    (slots, ...)."""
    K = weight.shape[0]
    for task in prange(4 * K):
        _pack_patch(weight, np.int64(task) % K, np.int64(task) // K, walk, packed, np.int64(task) * BLOCK * L, 4 * K * BLOCK * L)
    counters = begin_shares(scratch.shape[0], grad_y.shape[0])
    for slot in prange(scratch.shape[0]):
        _inputs(np.int64(slot), counters, grad_y, y, argmax, low, high, packed, grad_x, scratch, offsets, walk)
