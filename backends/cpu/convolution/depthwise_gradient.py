"""Weight gradient of depthwise convolution.

    grad_weight[r, s, c] = sum over n, oh, ow of grad_y[n, oh, ow, c] * x[n, h, w, c]

A job is a range of rows and L channels. It copies the rows of x under the windows of a row of grad_y into a ring of lines in
the first-level cache, each row once, with zeros for the padding and for missing channels; at stride s a line holds columns
0, s, 2 s, ... first, then 1, s + 1, ..., so that neighbouring windows are neighbours in it. The sums of all taps stay in
registers over a row of grad_y, which is read once. Letters: `walk.py` (Cg = Kg = 1, C = G channels).
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.convolution.compact import compact
from numbanet.backends.cpu.convolution.depthwise_tile import gradient_tile
from numbanet.backends.cpu.convolution.preactivate import limits_of, preactivated, terms_of
from numbanet.backends.cpu.convolution.walk import first_inside, last_inside
from numbanet.backends.cpu.out_of_line import out_of_line
from numbanet.backends.cpu.simd import L, load, load_partial, splat, store
from numbanet.backends.cpu.simd.prefetch import prefetch


@worker
def _fill_lines(x, preactivation, n, c, h0, begin, end, scratch, plane, pad_w, stride, lanes, table, lines, spans):
    """Bring rows h0 + t of x into their lines, table[lines + t], for begin <= t < end; the next job reads the L channels behind.

    A line is `stride` planes, of columns offset, offset + stride, ...; those from table[spans + 2 * offset] on, up to the next
    entry, are inside of x. `preactivation`: see `preactivate.py`.
    """
    compact()
    x_h, x_w = x.strides[1] // 4, x.strides[2] // 4
    terms = terms_of(preactivation, c) + limits_of(preactivation)
    for t in range(max(begin, -h0), min(end, x.shape[1] - h0)):
        row = n * (x.strides[0] // 4) + (h0 + t) * x_h + c
        target = table[lines + t]
        for offset in range(stride):
            first, last = table[spans + 2 * offset], table[spans + 2 * offset + 1]
            at = row + (offset - pad_w + first * stride) * x_w
            for i in range(first):
                store(scratch, target + i * L, splat(np.float32(0)))
            if preactivation.size:
                for i in range(first, last):
                    store(scratch, target + i * L, preactivated(load_partial(x, at, lanes), terms))
                    prefetch(x, at + L)
                    at += stride * x_w
            elif lanes == L:
                for i in range(first, last):
                    store(scratch, target + i * L, load(x, at))
                    prefetch(x, at + L)
                    at += stride * x_w
            else:
                for i in range(first, last):
                    store(scratch, target + i * L, load_partial(x, at, lanes))
                    at += stride * x_w
            for i in range(last, plane):
                store(scratch, target + i * L, splat(np.float32(0)))
            target += plane * L


@worker
def _place_lines(table, at, h0, rows, H, need, base, pitch):
    """table[at + t] = the line of row h0 + t of x: the next of a ring of `need`, or one more, of zeros, for rows outside."""
    slot = 0
    for t in range(rows):
        table[at + t] = base + (slot if 0 <= h0 + t < H else need) * pitch
        slot = slot + 1 if slot + 1 < need else 0


@worker
def _clear_line(scratch, line, size):
    for i in range(0, size, L):
        store(scratch, line + i, splat(np.float32(0)))


@worker
def _place_columns(table, at, walk, plane):
    """table[at + s]: where the column under tap s of the first window lies in a line; behind, the `spans` of `_fill_lines`."""
    W, S, stride, pad_w, dilation = walk[4], walk[6], walk[8], walk[10], walk[12]
    for s in range(S):
        column = s * dilation
        table[at + s] = (column % stride * plane + column // stride) * L
    for offset in range(stride):
        first = min(first_inside(offset - pad_w, stride), plane)
        table[at + S + 2 * offset] = first
        table[at + S + 2 * offset + 1] = max(first, last_inside(offset - pad_w, stride, plane, W))


@worker
def _add_taps(x, table, at, taps, dilation_h, R, S, grad_y, g, g_w, lanes, count, sums, place):
    """sums (T, L) from `place` on += one row of grad_y times the windows under it."""
    out_of_line()
    if R == 3 and S == 3:
        gradient_tile(3, 3, x, table, at, taps, dilation_h, grad_y, g, g_w, lanes, count, sums, place, 3 * L)
        return
    for r in range(R):
        line, s = at + r * dilation_h, 0
        while s < S:
            tap = place + (r * S + s) * L
            if S - s >= 5:
                gradient_tile(1, 5, x, table, line, taps + s, 0, grad_y, g, g_w, lanes, count, sums, tap, 0)
                s += 5
            elif S - s >= 2:
                gradient_tile(1, 2, x, table, line, taps + s, 0, grad_y, g, g_w, lanes, count, sums, tap, 0)
                s += 2
            else:
                gradient_tile(1, 1, x, table, line, taps + s, 0, grad_y, g, g_w, lanes, count, sums, tap, 0)
                s += 1


@worker
def _gradient_job(grad_y, x, preactivation, begin, end, block, sums, place, scratch, base, table, at, walk):
    """sums (T, L) from `place` on, of rows begin, ..., end - 1 of all images of grad_y and one block of channels."""
    out_of_line()
    R, S, stride_h, stride, pad_w, dilation_h = walk[5], walk[6], walk[7], walk[8], walk[10], walk[11]
    _, OH, OW, C = grad_y.shape
    c = block * L
    lanes = min(L, C - c)
    plane = OW + (S - 1) * walk[12] // stride
    pitch, need, spans, lines = stride * plane * L, (R - 1) * dilation_h + 1, at + S, at + S + 2 * stride
    _clear_line(scratch, base + need * pitch, pitch)
    _place_columns(table, at, walk, plane)
    for t in range(R * S):
        store(sums, place + t * L, splat(np.float32(0)))
    h0, filled = np.int64(0), np.int64(0)
    for row in range(begin, end):
        n, oh = row // OH, row % OH
        if oh == 0 or row == begin:
            h0, filled = oh * stride_h - walk[9], np.int64(0)
            _place_lines(table, lines, h0, (OH - 1 - oh) * stride_h + need, x.shape[1], need, base, pitch)
        first = oh * stride_h - walk[9] - h0
        _fill_lines(x, preactivation, n, c, h0, filled, first + need, scratch, plane, pad_w, stride, lanes, table, lines, spans)
        filled = first + need
        _add_taps(scratch, table, lines + first, at, dilation_h, R, S, grad_y,
                  n * (grad_y.strides[0] // 4) + oh * (grad_y.strides[1] // 4) + c, grad_y.strides[2] // 4, lanes, OW, sums, place)


@worker
def _add_parts(sums, grad_weight):
    """grad_weight (C, 1, R, S) = the sum of all parts of sums (parts, blocks, T, L), which are added to the first."""
    parts, blocks, T, _ = sums.shape
    C, _, R, S = grad_weight.shape
    part_step = blocks * T * L
    for i in range(0, part_step, L):
        total = load(sums, i)
        for part in range(1, parts):
            total = total + load(sums, part * part_step + i)
        store(sums, i, total)
    for block in range(blocks):
        for lane in range(min(L, C - block * L)):
            for r in range(R):
                for s in range(S):
                    grad_weight[block * L + lane, 0, r, s] = sums[0, block, r * S + s, lane]


@kernel("void(const T[:,:,:,:], const T[:,:,:,:], const T[:,::1], T[:,:,:,:], T[:,:,:,::1], T[:,::1], i8[:,::1], const i8[::1])",
        parallel=True)
def conv2d_backward_weight_depthwise(grad_y, x, preactivation, grad_weight, sums, scratch, table, walk):
    """grad_weight (C, 1, R, S); sums (parts, blocks, T, L): rows of grad_y in fixed ranges, added upwards."""
    rows, R, S = grad_y.shape[0] * grad_y.shape[1], walk[5], walk[6]
    slots, parts, blocks, T = scratch.shape[0], sums.shape[0], sums.shape[1], R * S
    for slot in prange(slots):
        for job in range(slot * parts * blocks // slots, (slot + 1) * parts * blocks // slots):
            part = job // blocks
            _gradient_job(grad_y, x, preactivation, part * rows // parts, (part + 1) * rows // parts, job % blocks, sums, job * T * L,
                          scratch, np.int64(slot) * scratch.shape[1], table.reshape(table.size), np.int64(slot) * table.shape[1], walk)
    _add_parts(sums, grad_weight)
