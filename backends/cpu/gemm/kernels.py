"""Kernels of the matrix product.

    C[g, i, j] (+)= sum_k A[g, i, k] * B[g, k, j] (+ bias[i, j]), limited to [low, high], then given to an activation

A job is a block of rows by some panels of PANEL columns. It passes over K in blocks of `depth`, adding to C in
memory, and covers each panel with register tiles. Each sum runs over k upwards whatever the blocks are, so the bits
depend on K alone. B is read in place, or from panels that `pack_panels` made: packed[g, p, k, :] = B[g, k, p * PANEL
: (p + 1) * PANEL], zero behind N.
"""
import numpy as np
from numba import prange

from numbanet.backends.cpu.activating import activate
from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.gemm.blocking import PANEL, ROWS, SHALLOW, VECTORS
from numbanet.backends.cpu.limits import limited
from numbanet.backends.cpu.shares import begin_shares, next_job
from numbanet.backends.cpu.simd import (
    L,
    load_partial,
    load_strided,
    splat,
    store,
    store_partial,
    tile,
    tile_partial,
    transpose_block,
)

# Heights of the tiles that cover what ROWS leaves over.
HALF, QUARTER, PAIR = (8, 4, 2) if ROWS == 14 else (4, 3, 2)


@worker
def multiply_rows(rows, columns, a, a_offset, a_row, a_step, b, b_offset, b_step, c, c_offset, c_row, depth,
                  accumulate):
    """C[:rows, :columns] (+)= A[:rows, :depth] @ B[:depth, :columns], at most PANEL columns; addresses as in `tile`."""
    if columns == PANEL:
        _full_rows(rows, a, a_offset, a_row, a_step, b, b_offset, b_step, c, c_offset, c_row, depth, accumulate)
    else:
        for j in range(0, columns, L):
            _partial_rows(rows, min(L, columns - j), a, a_offset, a_row, a_step, b, b_offset + j, b_step,
                          c, c_offset + j, c_row, depth, accumulate)


@worker
def _full_rows(rows, a, a_offset, a_row, a_step, b, b_offset, b_step, c, c_offset, c_row, depth, accumulate):
    i = 0
    while i < rows:
        left, at_a, at_c = rows - i, a_offset + i * a_row, c_offset + i * c_row
        if left >= ROWS:
            tile(ROWS, VECTORS, a, at_a, a_row, a_step, b, b_offset, b_step, c, at_c, c_row, depth, accumulate)
            i += ROWS
        elif left >= HALF:
            tile(HALF, VECTORS, a, at_a, a_row, a_step, b, b_offset, b_step, c, at_c, c_row, depth, accumulate)
            i += HALF
        elif left >= QUARTER:
            tile(QUARTER, VECTORS, a, at_a, a_row, a_step, b, b_offset, b_step, c, at_c, c_row, depth, accumulate)
            i += QUARTER
        elif left >= PAIR:
            tile(PAIR, VECTORS, a, at_a, a_row, a_step, b, b_offset, b_step, c, at_c, c_row, depth, accumulate)
            i += PAIR
        else:
            tile(1, VECTORS, a, at_a, a_row, a_step, b, b_offset, b_step, c, at_c, c_row, depth, accumulate)
            i += 1


@worker
def _partial_rows(rows, lanes, a, a_offset, a_row, a_step, b, b_offset, b_step, c, c_offset, c_row, depth, accumulate):
    i = 0
    while i < rows:
        left, at_a, at_c = rows - i, a_offset + i * a_row, c_offset + i * c_row
        if left >= ROWS:
            tile_partial(ROWS, 1, a, at_a, a_row, a_step, b, b_offset, b_step, c, at_c, c_row, depth, accumulate, lanes)
            i += ROWS
        elif left >= QUARTER:
            tile_partial(QUARTER, 1, a, at_a, a_row, a_step, b, b_offset, b_step, c, at_c, c_row, depth, accumulate,
                         lanes)
            i += QUARTER
        else:
            tile_partial(1, 1, a, at_a, a_row, a_step, b, b_offset, b_step, c, at_c, c_row, depth, accumulate, lanes)
            i += 1


@worker
def finish(rows, columns, c, c_offset, c_row, bias, first_row, first_column, low, high):
    """C[:rows, :columns] + bias[first_row:, first_column:], limited; an axis of size 1 stands for all of it, an empty bias for 0."""
    row = bias.strides[0] // 4 if bias.shape[0] > 1 else 0
    for i in range(rows):
        for j in range(0, columns, L):
            at, count = c_offset + i * c_row + j, min(L, columns - j)
            total = load_partial(c, at, count)
            if not bias.shape[0]:
                added = splat(np.float32(0))
            elif bias.shape[1] == 1:
                added = splat(bias[first_row + i if row else 0, 0])
            else:
                added = load_partial(bias, (first_row + i) * row + first_column + j, count)
            store_partial(c, at, limited(total + added, low, high), count)


@worker
def _multiply_block(a, b, c, bias, g, i, rows, p, panels, b_offset, b_panel, b_step, depth_block, accumulate,
                    low, high, activation):
    """One job: rows i, ..., i + rows - 1 of C, panels p, ..., p + panels - 1."""
    K, N = a.shape[2], c.shape[2]
    a_row, a_step, c_row = a.strides[1] // 4, a.strides[2] // 4, c.strides[1] // 4
    a_offset = g * (a.strides[0] // 4) + i * a_row
    c_offset = g * (c.strides[0] // 4) + i * c_row
    together = ROWS if K <= SHALLOW else rows
    for r in range(0, rows, together):
        count = min(together, rows - r)
        for k in range(0, K, depth_block):
            depth = min(depth_block, K - k)
            for panel in range(p, p + panels):
                j = panel * PANEL
                columns, at = min(PANEL, N - j), c_offset + r * c_row + j
                multiply_rows(count, columns, a, a_offset + r * a_row + k * a_step, a_row, a_step,
                              b, b_offset + panel * b_panel + k * b_step, b_step, c, at, c_row, depth, accumulate + k)
                if k + depth == K:
                    if bias.shape[0] or low > -np.inf or high < np.inf:
                        finish(count, columns, c, at, c_row, bias, i + r, j, low, high)
                    activate(activation, c, at, count, c_row, columns)


@worker
def _multiply_blocks(slot, slots, counters, jobs, row_blocks, panel_blocks, a, b, c, bias, accumulate, row_block, panel_block,
                     depth_block, b_batch, b_panel, b_step, low, high, activation):
    """What one slot does."""
    M, panels = c.shape[1], (c.shape[2] + PANEL - 1) // PANEL
    job = next_job(counters, slot, slots, jobs)
    while job >= 0:
        i = job % row_blocks * row_block
        p = job // row_blocks % panel_blocks * panel_block
        g = job // row_blocks // panel_blocks
        _multiply_block(a, b, c, bias, g, i, min(row_block, M - i), p, min(panel_block, panels - p),
                        g * b_batch, b_panel, b_step, depth_block, accumulate, low, high, activation)
        job = next_job(counters, slot, slots, jobs)


@kernel("void(const T[:,:,:], const T[:,:,:], T[:,:,:], const T[:,:], i8, i8, i8, i8, i8, i8, i8, f4, f4, i8, i8)", parallel=True)
def gemm_tiled(a, b, c, bias, accumulate, row_block, panel_block, depth_block, b_batch, b_panel, b_step, low, high, activation,
               slots):
    """C (G, M, N) with unit column stride; panel p of B begins b_panel * p elements after its matrix."""
    G, M, N = c.shape
    row_blocks = (M + row_block - 1) // row_block
    panel_blocks = ((N + PANEL - 1) // PANEL + panel_block - 1) // panel_block
    jobs = G * panel_blocks * row_blocks
    slots = min(slots, jobs)
    counters = begin_shares(slots, jobs)
    for slot in prange(slots):
        _multiply_blocks(np.int64(slot), slots, counters, jobs, row_blocks, panel_blocks, a, b, c, bias, accumulate, row_block,
                         panel_block, depth_block, b_batch, b_panel, b_step, low, high, activation)


@worker
def _pack_panel(b, begin, step, column, columns, K, packed, target):
    """One panel of at most PANEL columns; what is left over of it is zero."""
    for v in range(0, PANEL, L):
        count, source, k = min(L, columns - v), begin + v * column, 0
        if count == L and step == 1:                     # B is stored by columns
            while k + L <= K:
                transpose_block(b, source + k, column, packed, target + k * PANEL + v, PANEL)
                k += L
        while k < K:
            at = target + k * PANEL + v
            if count <= 0 or column == 1:
                store(packed, at, load_partial(b, source + k * step, count))
            elif count == L:
                store(packed, at, load_strided(b, source + k * step, column))
            else:
                for lane in range(count):
                    store_partial(packed, at + lane, load_partial(b, source + k * step + lane * column, 1), L - lane)
            k += 1


@kernel("void(const T[:,:,:], T[:,:,:,::1])", parallel=True)
def pack_panels(b, packed):
    """B (G, K, N) of any strides to packed (G, panels, K, PANEL)."""
    G, K, N = b.shape
    step, column = b.strides[1] // 4, b.strides[2] // 4
    panels = packed.shape[1]
    for job in prange(G * panels):
        g, j = job // panels, job % panels * PANEL
        _pack_panel(b, g * (b.strides[0] // 4) + j * column, step, column, N - j, K, packed, job * K * PANEL)


@kernel("void(const T[:,:,:], const T[:,:,:], T[:,:,:], const T[:,:], i8)", dtypes=("float64",))
def gemm_plain(a, b, c, bias, accumulate):
    """The same in plain loops, for float64."""
    G, M, N = c.shape
    for g in range(G):
        for i in range(M):
            if not accumulate:
                c[g, i, :] = 0.0
            for k in range(a.shape[2]):
                for j in range(N):
                    c[g, i, j] += a[g, i, k] * b[g, k, j]
            if bias.shape[0]:
                for j in range(N):
                    c[g, i, j] += bias[i % bias.shape[0], j % bias.shape[1]]
