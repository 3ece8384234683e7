"""Products with many weights and few rows, as of fully connected layers: weights are read once, as they lie.

    C[m, n] = sum_k A[m, k] * W[n, k] (+ bias[n]), limited to [low, high]        A (M, K), W (N, K), C (M, N)

Rows of W stand side by side in memory, and so do those of A: each result is a dot product of vectors along k. Five rows of W and four
of A give twenty sums in registers, or four and three, where there are 16 of these. A copy of W in panels would cost more than the
products, and its memory: VGG-16's first linear layer has 411 MB. W is float32, or bfloat16 (uint16, the upper halves of float32), which
halves what has to come from memory.

A job is BLOCK rows of W. It walks over k in chunks of CHUNK, so that a chunk of A and of some rows of W stays near; sums of chunks are
added in C, upwards, so that bits depend on K alone.
"""
import numpy as np
from numba import prange

from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.gemm.dot_tile import dot_tile
from numbanet.backends.cpu.gemm.kernels import finish
from numbanet.backends.cpu.hardware import vector_registers
from numbanet.backends.cpu.shares import begin_shares, next_job

TALL, WIDE = (4, 5) if vector_registers() == 32 else (3, 4)    # rows of A and of W in a tile
BLOCK = 20              # rows of W in a job
CHUNK = 4096            # steps of k


@worker(inline=True)
def _columns(MR, a, p, a_row, w, n, w_row, c, q, c_row, k, rows, depth):
    """The sums of MR rows of A from offset p on, by `rows` rows of W, n, n + 1, ..."""
    j = 0
    while j + WIDE <= rows:
        dot_tile(MR, WIDE, a, p, a_row, w, (n + j) * w_row + k, w_row, c, q + j, c_row, depth, k)
        j += WIDE
    while j < rows:
        dot_tile(MR, 1, a, p, a_row, w, (n + j) * w_row + k, w_row, c, q + j, c_row, depth, k)
        j += 1


@worker
def _chunk(a, w, c, n, rows, k, depth):
    """Sums over steps k, ..., k + depth - 1 for rows n, ..., n + rows - 1 of W, added to C from the second chunk on."""
    M = a.shape[0]
    a_row, w_row, c_row = a.strides[0] // a.itemsize, w.strides[0] // w.itemsize, c.strides[0] // c.itemsize
    for first in range(0, rows, WIDE):
        count, m = min(WIDE, rows - first), 0
        while m < M:
            p, q, left = m * a_row + k, m * c_row + n + first, M - m
            if left >= TALL:
                _columns(TALL, a, p, a_row, w, n + first, w_row, c, q, c_row, k, count, depth)
                m += TALL
            elif left >= 2:
                _columns(2, a, p, a_row, w, n + first, w_row, c, q, c_row, k, count, depth)
                m += 2
            else:
                _columns(1, a, p, a_row, w, n + first, w_row, c, q, c_row, k, count, depth)
                m += 1


@worker
def _jobs(slot, slots, counters, jobs, a, w, c, bias, low, high):
    N, K = w.shape
    c_row = c.strides[0] // c.itemsize
    job = next_job(counters, slot, slots, jobs)
    while job >= 0:
        n = job * BLOCK
        rows = min(BLOCK, N - n)
        for k in range(0, K, CHUNK):
            _chunk(a, w, c, n, rows, k, min(CHUNK, K - k))
        finish(c.shape[0], rows, c, n, c_row, bias, 0, n, low, high)
        job = next_job(counters, slot, slots, jobs)


@kernel("void(const T[:,:], const T[:,:], T[:,:], const T[:,:], f4, f4, i8)", parallel=True)
def multiply_dots(a, w, c, bias, low, high, slots):
    """Rows of A, W and C have unit stride."""
    jobs = (w.shape[0] + BLOCK - 1) // BLOCK
    slots = min(slots, jobs)
    counters = begin_shares(slots, jobs)
    for slot in prange(slots):
        _jobs(np.int64(slot), slots, counters, jobs, a, w, c, bias, low, high)


@kernel("void(const T[:,:], const u2[:,:], T[:,:], const T[:,:], f4, f4, i8)", parallel=True)
def multiply_dots_bfloat16(a, w, c, bias, low, high, slots):
    """As `multiply_dots`, W in bfloat16."""
    jobs = (w.shape[0] + BLOCK - 1) // BLOCK
    slots = min(slots, jobs)
    counters = begin_shares(slots, jobs)
    for slot in prange(slots):
        _jobs(np.int64(slot), slots, counters, jobs, a, w, c, bias, low, high)
