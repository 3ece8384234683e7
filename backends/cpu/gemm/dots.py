"""Products with many weights and few rows, as of fully connected layers: weights are read once, as they lie.

    C[m, n] = sum_k A[m, k] * W[n, k] (+ bias[n]), limited to [low, high]        A (M, K), W (N, K), C (M, N)

Rows of W stand side by side in memory, and so do those of A: each result is a dot product of vectors along k. Four rows of W and three
of A give twelve sums in registers. A copy of W in panels would cost more than the products, and its memory: VGG-16's first linear layer
has 411 MB. W is float32, or bfloat16 (uint16, the upper halves of float32), which halves what has to come from memory.

A job is BLOCK rows of W. It walks over k in chunks of CHUNK, so that a chunk of A stays near; sums of chunks are added in C, upwards, so
that bits depend on K alone.
"""
import numpy as np
from numba import prange

from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.gemm.kernels import finish
from numbanet.backends.cpu.shares import begin_shares, next_job
from numbanet.backends.cpu.simd import L, fma, load, load_partial, reduce_add, splat

BLOCK = 16              # rows of W in a job
CHUNK = 8192            # steps of k


@worker
def _dots_3(a, p, a_row, w, q, w_row, depth):
    """The sums of three rows of A by four of W."""
    a1, a2, w1, w2, w3 = p + a_row, p + 2 * a_row, q + w_row, q + 2 * w_row, q + 3 * w_row
    zero = splat(np.float32(0))
    s00, s01, s02, s03 = zero, zero, zero, zero
    s10, s11, s12, s13 = zero, zero, zero, zero
    s20, s21, s22, s23 = zero, zero, zero, zero
    whole = depth // L * L
    for k in range(0, whole, L):
        x, y, z = load(a, p + k), load(a, a1 + k), load(a, a2 + k)
        v = load(w, q + k)
        s00, s10, s20 = fma(x, v, s00), fma(y, v, s10), fma(z, v, s20)
        v = load(w, w1 + k)
        s01, s11, s21 = fma(x, v, s01), fma(y, v, s11), fma(z, v, s21)
        v = load(w, w2 + k)
        s02, s12, s22 = fma(x, v, s02), fma(y, v, s12), fma(z, v, s22)
        v = load(w, w3 + k)
        s03, s13, s23 = fma(x, v, s03), fma(y, v, s13), fma(z, v, s23)
    if whole < depth:
        left = depth - whole
        x, y, z = load_partial(a, p + whole, left), load_partial(a, a1 + whole, left), load_partial(a, a2 + whole, left)
        v = load_partial(w, q + whole, left)
        s00, s10, s20 = fma(x, v, s00), fma(y, v, s10), fma(z, v, s20)
        v = load_partial(w, w1 + whole, left)
        s01, s11, s21 = fma(x, v, s01), fma(y, v, s11), fma(z, v, s21)
        v = load_partial(w, w2 + whole, left)
        s02, s12, s22 = fma(x, v, s02), fma(y, v, s12), fma(z, v, s22)
        v = load_partial(w, w3 + whole, left)
        s03, s13, s23 = fma(x, v, s03), fma(y, v, s13), fma(z, v, s23)
    return (reduce_add(s00), reduce_add(s01), reduce_add(s02), reduce_add(s03), reduce_add(s10), reduce_add(s11), reduce_add(s12),
            reduce_add(s13), reduce_add(s20), reduce_add(s21), reduce_add(s22), reduce_add(s23))


@worker
def _dots_1(a, p, w, q, w_row, depth):
    """The sums of one row of A by four of W."""
    w1, w2, w3 = q + w_row, q + 2 * w_row, q + 3 * w_row
    zero = splat(np.float32(0))
    s0, s1, s2, s3 = zero, zero, zero, zero
    whole = depth // L * L
    for k in range(0, whole, L):
        x = load(a, p + k)
        s0, s1 = fma(x, load(w, q + k), s0), fma(x, load(w, w1 + k), s1)
        s2, s3 = fma(x, load(w, w2 + k), s2), fma(x, load(w, w3 + k), s3)
    if whole < depth:
        left = depth - whole
        x = load_partial(a, p + whole, left)
        s0, s1 = fma(x, load_partial(w, q + whole, left), s0), fma(x, load_partial(w, w1 + whole, left), s1)
        s2, s3 = fma(x, load_partial(w, w2 + whole, left), s2), fma(x, load_partial(w, w3 + whole, left), s3)
    return reduce_add(s0), reduce_add(s1), reduce_add(s2), reduce_add(s3)


@worker
def _dot(a, p, w, q, depth):
    """One sum."""
    total, whole = splat(np.float32(0)), depth // L * L
    for k in range(0, whole, L):
        total = fma(load(a, p + k), load(w, q + k), total)
    if whole < depth:
        total = fma(load_partial(a, p + whole, depth - whole), load_partial(w, q + whole, depth - whole), total)
    return reduce_add(total)


@worker
def _chunk(a, w, c, n, rows, k, depth):
    """Sums over steps k, ..., k + depth - 1 for rows n, ..., n + rows - 1 of W, added to C from the second chunk on."""
    M = a.shape[0]
    a_row, w_row = a.strides[0] // a.itemsize, w.strides[0] // w.itemsize
    for j in range(n, n + rows - rows % 4, 4):
        q = j * w_row + k
        for m in range(0, M - M % 3, 3):
            sums = _dots_3(a, m * a_row + k, a_row, w, q, w_row, depth)
            for i in range(3):
                for o in range(4):
                    c[m + i, j + o] = sums[4 * i + o] + (c[m + i, j + o] if k else np.float32(0))
        for m in range(M - M % 3, M):
            sums = _dots_1(a, m * a_row + k, w, q, w_row, depth)
            for o in range(4):
                c[m, j + o] = sums[o] + (c[m, j + o] if k else np.float32(0))
    for j in range(n + rows - rows % 4, n + rows):
        for m in range(M):
            total = _dot(a, m * a_row + k, w, j * w_row + k, depth)
            c[m, j] = total + (c[m, j] if k else np.float32(0))


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
