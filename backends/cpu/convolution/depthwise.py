"""Depthwise convolution, one filter a channel: vectors of channels, no matrix product.

    y[n, oh, ow, c] = bias[c] + sum over r, s of x[n, h, w, c] * weight[r, s, c]
    grad_weight[r, s, c] = sum over n, oh, ow of grad_y[n, oh, ow, c] * x[n, h, w, c]

A job is a band of rows and L channels. It copies the rows of x that the windows of its next pixels cover into a ring of
lines in the first-level cache, each row once, with zeros for the padding and for missing channels; tiles of ROWS x COLUMNS
pixels read the lines in place, so that neither borders nor strides of memory concern them. Backward-input is this forward
pass over grad_y too: at stride s, one for each of the s * s sets of pixels of grad_x that the same taps reach. Letters:
`walk.py` (Cg = Kg = 1, C = G channels). Weights are packed as (blocks of L channels, T + 1, L), the last row being the bias.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.convolution.compact import compact
from numbanet.backends.cpu.convolution.depthwise_tile import forward_tile, gradient_tile
from numbanet.backends.cpu.convolution.finishing_tile import limited
from numbanet.backends.cpu.hardware import vector_registers
from numbanet.backends.cpu.out_of_line import out_of_line
from numbanet.backends.cpu.simd import L, load, load_partial, splat, store, store_partial

ROWS, COLUMNS = (2, 7) if vector_registers() == 32 else (1, 7)      # maps of 7, 14, ..., 112 columns leave nothing over
WHOLE_WINDOW = vector_registers() == 32                             # 5 x 5 sums fit into the registers


@worker
def _fill_line(x, source, x_w, begin, W, scratch, target, columns, lanes):
    """Pixels begin, ..., begin + columns - 1 of a row of x, zeros outside of it."""
    first, last = min(max(0, -begin), columns), max(min(columns, W - begin), 0)
    for q in range(first):
        store(scratch, target + q * L, splat(np.float32(0)))
    at = source + (begin + first) * x_w
    if lanes == L:
        for q in range(first, last):
            store(scratch, target + q * L, load(x, at))
            at += x_w
    else:
        for q in range(first, last):
            store(scratch, target + q * L, load_partial(x, at, lanes))
            at += x_w
    for q in range(max(first, last), columns):
        store(scratch, target + q * L, splat(np.float32(0)))


@worker
def _bring_lines(x, n, c, h0, need, filled, scratch, base, pitch, begin, columns, lanes, lines, at):
    """lines[at + t] = the line of row h0 + t, for t < need; rows below `filled` are there already. The new `filled`.

    The ring has `need` lines and one more, of zeros, for rows outside of x.
    """
    compact()
    H, W = x.shape[1], x.shape[2]
    x_w = x.strides[2] // 4
    source = n * (x.strides[0] // 4) + c
    for t in range(need):
        h = h0 + t
        if h < 0 or h >= H:
            lines[at + t] = base + need * pitch
        else:
            lines[at + t] = base + h % need * pitch
            if h >= filled:
                _fill_line(x, source + h * (x.strides[1] // 4), x_w, begin, W, scratch, base + h % need * pitch, columns, lanes)
    return max(filled, h0 + need)


@worker
def _part_of_tile(x, lines, first, stride_h, stride, dilation_h, dilation, weight, w, R, S, corner, y, at, y_h, y_w,
                  residual, added, r_h, r_w, low, high, rows, columns, lanes):
    """A tile of which only some rows, columns or lanes exist, through a corner of the scratch memory."""
    out_of_line()
    forward_tile(ROWS, COLUMNS, x, lines, first, stride_h, stride, dilation_h, dilation, weight, w, R, S,
                 x, corner, COLUMNS * L, L, x[:0], 0, 0, 0, -np.inf, np.inf)
    for i in range(rows):
        for j in range(columns):
            value = load(x, corner + (i * COLUMNS + j) * L)
            if residual.size:
                value = value + load_partial(residual, added + i * r_h + j * r_w, lanes)
            store_partial(y, at + i * y_h + j * y_w, limited(value, low, high), lanes)


@worker
def _forward_job(x, n, begin, end, block, weight, y, residual, low, high, scratch, base, lines, at, walk):
    """Rows begin, ..., end - 1 and one block of channels of image n."""
    out_of_line()
    R, S, stride_h, stride_w, pad_h, pad_w = walk[5], walk[6], walk[7], walk[8], walk[9], walk[10]
    dilation_h, dilation = walk[11], walk[12] * L
    OW, C = y.shape[2], y.shape[3]
    y_h, y_w = y.strides[1] // 4, y.strides[2] // 4
    r_h, r_w = residual.strides[1] // 4, residual.strides[2] // 4
    c = block * L
    lanes, w = min(L, C - c), block * (R * S + 1) * L
    columns = (max(OW, COLUMNS) - 1) * stride_w + (S - 1) * walk[12] + 1
    pitch = columns * L
    need = (ROWS - 1) * stride_h + (R - 1) * dilation_h + 1
    corner = base + (need + 1) * pitch
    for q in range(columns):
        store(scratch, base + need * pitch + q * L, splat(np.float32(0)))
    filled = begin * stride_h - pad_h
    for oh in range(begin, end, ROWS):
        filled = _bring_lines(x, n, c, oh * stride_h - pad_h, need, filled, scratch, base, pitch, -pad_w, columns, lanes, lines, at)
        rows = min(ROWS, end - oh)
        for start in range(0, OW, COLUMNS):
            ow = max(0, min(start, OW - COLUMNS))
            for t in range(need):
                lines[at + need + t] = lines[at + t] + ow * stride_w * L
            target = n * (y.strides[0] // 4) + oh * y_h + ow * y_w + c
            added = n * (residual.strides[0] // 4) + oh * r_h + ow * r_w + c
            if rows == ROWS and lanes == L and OW >= COLUMNS:
                forward_tile(ROWS, COLUMNS, scratch, lines, at + need, stride_h, stride_w * L, dilation_h, dilation, weight, w, R, S,
                             y, target, y_h, y_w, residual, added, r_h, r_w, low, high)
            else:
                _part_of_tile(scratch, lines, at + need, stride_h, stride_w * L, dilation_h, dilation, weight, w, R, S, corner,
                              y, target, y_h, y_w, residual, added, r_h, r_w, low, high, rows, min(COLUMNS, OW - ow), lanes)


@kernel("void(const T[:,:,:,:], const T[:,:,::1], T[:,:,:,:], const T[:,:,:,:], f4, f4, T[:,::1], i8[:,::1], const i8[::1], i8)",
        parallel=True)
def conv2d_forward_depthwise(x, weight, y, residual, low, high, scratch, lines, walk, band):
    """x (N, H, W, C), y and residual (N, OH, OW, C), scratch (slots, floats), lines (slots, rows); bands of `band` rows of y."""
    slots, (N, OH, _, C) = scratch.shape[0], y.shape
    bands, blocks = (OH + band - 1) // band, (C + L - 1) // L
    jobs = N * bands * blocks
    for slot in prange(slots):
        for job in range(slot * jobs // slots, (slot + 1) * jobs // slots):
            begin = job // blocks % bands * band
            _forward_job(x, job // (blocks * bands), begin, min(OH, begin + band), job % blocks, weight, y, residual, low, high,
                         scratch, np.int64(slot) * scratch.shape[1], lines.reshape(lines.size), np.int64(slot) * lines.shape[1], walk)


@worker
def _add_taps(x, lines, at, stride, dilation_h, dilation, R, S, grad_y, g, g_w, lanes, count, sums, place):
    """sums (T, L) from `place` on += one row of grad_y times the windows under it."""
    out_of_line()
    if R == 3 and S == 3:
        gradient_tile(3, 3, x, lines, at, stride, dilation_h, dilation, grad_y, g, g_w, lanes, count, sums, place, 3 * L)
    elif WHOLE_WINDOW and R == 5 and S == 5:
        gradient_tile(5, 5, x, lines, at, stride, dilation_h, dilation, grad_y, g, g_w, lanes, count, sums, place, 5 * L)
    else:
        for r in range(R):
            s = 0
            while s < S:
                tap, line = place + (r * S + s) * L, at + r * dilation_h
                if S - s >= 5:
                    gradient_tile(1, 5, x[s * dilation:], lines, line, stride, dilation_h, dilation, grad_y, g, g_w, lanes, count,
                                  sums, tap, L)
                    s += 5
                elif S - s >= 2:
                    gradient_tile(1, 2, x[s * dilation:], lines, line, stride, dilation_h, dilation, grad_y, g, g_w, lanes, count,
                                  sums, tap, L)
                    s += 2
                else:
                    gradient_tile(1, 1, x[s * dilation:], lines, line, stride, dilation_h, dilation, grad_y, g, g_w, lanes, count,
                                  sums, tap, L)
                    s += 1


@worker
def _gradient_job(grad_y, x, begin, end, block, sums, place, scratch, base, lines, at, walk):
    """sums (T, L) from `place` on, of rows begin, ..., end - 1 of all images of grad_y and one block of channels."""
    out_of_line()
    R, S, stride_h, stride_w, pad_h, pad_w = walk[5], walk[6], walk[7], walk[8], walk[9], walk[10]
    dilation_h, dilation = walk[11], walk[12] * L
    _, OH, OW, C = grad_y.shape
    c = block * L
    lanes = min(L, C - c)
    columns = (max(OW, COLUMNS) - 1) * stride_w + (S - 1) * walk[12] + 1
    pitch, need = columns * L, (R - 1) * dilation_h + 1
    for q in range(columns):
        store(scratch, base + need * pitch + q * L, splat(np.float32(0)))
    for t in range(R * S):
        store(sums, place + t * L, splat(np.float32(0)))
    flat = scratch.reshape(scratch.size)
    filled = 0
    for row in range(begin, end):
        n, oh = row // OH, row % OH
        h0 = oh * stride_h - pad_h
        filled = _bring_lines(x, n, c, h0, need, h0 if oh == 0 or row == begin else filled, scratch, base, pitch, -pad_w, columns,
                              lanes, lines, at)
        _add_taps(flat, lines, at, stride_w * L, dilation_h, dilation, R, S, grad_y,
                  n * (grad_y.strides[0] // 4) + oh * (grad_y.strides[1] // 4) + c, grad_y.strides[2] // 4, lanes, OW, sums, place)


@kernel("void(const T[:,:,:,:], const T[:,:,:,:], T[:,:,:,:], T[:,:,:,::1], T[:,::1], i8[:,::1], const i8[::1])", parallel=True)
def conv2d_backward_weight_depthwise(grad_y, x, grad_weight, sums, scratch, lines, walk):
    """grad_weight (C, 1, R, S); sums (parts, blocks, T, L): rows of grad_y in fixed ranges, added upwards."""
    rows, R, S = grad_y.shape[0] * grad_y.shape[1], walk[5], walk[6]
    slots, parts, blocks, T = scratch.shape[0], sums.shape[0], sums.shape[1], R * S
    for slot in prange(slots):
        for job in range(slot * parts * blocks // slots, (slot + 1) * parts * blocks // slots):
            part = job // blocks
            _gradient_job(grad_y, x, part * rows // parts, (part + 1) * rows // parts, job % blocks, sums, job * T * L,
                          scratch, np.int64(slot) * scratch.shape[1], lines.reshape(lines.size), np.int64(slot) * lines.shape[1], walk)
    for c in range(grad_weight.shape[0]):
        for r in range(R):
            for s in range(S):
                total = sums[0, c // L, r * S + s, c % L]
                for part in range(1, parts):
                    total += sums[part, c // L, r * S + s, c % L]
                grad_weight[c, 0, r, s] = total
