"""Workers of channel normalization over blocks of rows, and the layout that they share.

Letters: P independent parts (1 in batch norm, the samples in group norm), S rows of a part, V columns. A column is a
channel, or with few channels several rows lie side by side (see `fold_rows`), so that every inner loop is long and runs
over neighbours in memory, where LLVM vectorises it. Column v is channel v % C. A part is cut into blocks of rows by its
shape alone; what a block yields is merged in order, so that results do not depend on threads.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import prange

from numbanet.backends.cpu.compile import kernel, worker

LONG_ENOUGH = 512             # columns: loop overhead vanishes, and accumulators stay in the L1 cache
BLOCK_ELEMENTS = 1 << 15      # of x and grad_y in float32: 256 KB, which a second pass finds in the L2 cache
LINE = 16                     # channels of a cache line
BLOCKS = 32                   # for fewer elements, down to half a block: work for many cores


@lru_cache(maxsize=4096)
def fold_rows(S: int, C: int) -> int:
    """How many rows are laid side by side: the largest divisor of S that keeps the columns at LONG_ENOUGH."""
    return max((d for d in range(1, min(S, LONG_ENOUGH // max(C, 1)) + 1) if S % d == 0), default=1)


@lru_cache(maxsize=4096)
def block_rows(S: int, V: int) -> int:
    """Rows of a block."""
    most = max(BLOCK_ELEMENTS // V, 8)
    return min(max(-(-S // BLOCKS), most // 2), most, S)


@lru_cache(maxsize=4096)
def block_counts(S: int, rows: int) -> np.ndarray:
    """Rows of each block."""
    return np.minimum(rows, S - np.arange(0, S, rows))


@worker
def block_moments(x, begin, end, mean, m2):
    """Mean and sum of squared deviations of every column of x (S, V) over rows begin ... end - 1, in float64.

    Two passes over a block that lies in the cache. The first mean is rounded; the deviations from it correct it
    (Chan, Golub and LeVeque, 1983, eq. 1.7).
    """
    V = x.shape[1]
    center, first, second = np.zeros(V, x.dtype), np.zeros(V, x.dtype), np.zeros(V, x.dtype)
    for s in range(begin, end):
        row = x[s]
        for v in range(V):
            center[v] += row[v]
    for v in range(V):
        center[v] /= end - begin
    for s in range(begin, end):
        row = x[s]
        for v in range(V):
            deviation = row[v] - center[v]
            first[v] += deviation
            second[v] += deviation * deviation
    for v in range(V):
        correction = np.float64(first[v]) / (end - begin)
        mean[v] = center[v] + correction
        m2[v] = second[v] - correction * first[v]


@worker
def _merge_channels(moments, counts, begin, end, mean, variance):
    """Channels begin, ..., end - 1, LINE at most."""
    B, V, C = len(counts), moments.shape[2], len(mean)
    start, total, squares, elements = np.zeros(LINE), np.zeros(LINE), np.zeros(LINE), np.int64(0)
    for j in range(end - begin):
        start[j] = moments[0, 0, begin + j]
    for b in range(B):
        elements += counts[b] * (V // C)
        for fold in range(begin, V, C):
            if end - begin == LINE:             # a constant, so that LLVM makes vectors of it
                _merge_block(moments, b, fold, LINE, np.float64(counts[b]), start, total, squares)
            else:
                _merge_block(moments, b, fold, end - begin, np.float64(counts[b]), start, total, squares)
    for j in range(end - begin):
        distance = total[j] / elements
        mean[begin + j], variance[begin + j] = start[j] + distance, squares[j] / elements - distance * distance


@worker(inline=True)
def _merge_block(moments, b, fold, columns, count, start, total, squares):
    for j in range(columns):
        distance, first = np.float64(moments[b, 0, fold + j]) - start[j], np.float64(moments[b, 1, fold + j])
        total[j] += count * distance + first
        squares[j] += np.float64(moments[b, 2, fold + j]) + distance * (2 * first + count * distance)


@kernel("void(const T[:,:,::1], const i8[::1], T[::1], T[::1])", parallel=True)
def merge_block_moments(moments, counts, mean, variance):
    """Fill mean and variance (C,) from the rows center, first and second of each block's columns, moments (B, 3, V).

    Each column of block b is of counts[b] elements x: first and second are the sums of x - center and of its square. In float64, in the
    order of the blocks, all are brought to the first block's center: sum of (x - start)^2 = second + 2 d first + n d^2, d = center - start
    (Chan, Golub and LeVeque, 1983). A center is near elements of x, so that at most 1e-16 times their number is lost.
    """
    C = len(mean)
    for strip in prange((C + LINE - 1) // LINE):
        _merge_channels(moments, counts, np.int64(strip) * LINE, min(C, np.int64(strip) * LINE + LINE), mean, variance)


@worker
def block_gradient_sums(grad_y, x, center, begin, end, sums, products):
    """Of every column: the sums of grad_y and of grad_y * (x - center), over rows begin ... end - 1, in float64."""
    V = x.shape[1]
    first, second = np.zeros(V, x.dtype), np.zeros(V, x.dtype)
    for s in range(begin, end):
        gradients, row = grad_y[s], x[s]
        for v in range(V):
            first[v] += gradients[v]
            second[v] += gradients[v] * (row[v] - center[v])
    for v in range(V):
        sums[v], products[v] = first[v], second[v]


@worker
def block_normalize(x, begin, end, center, scale, shift, y):
    """y = (x - center) * scale + shift."""
    for s in range(begin, end):
        row, result = x[s], y[s]
        for v in range(x.shape[1]):
            result[v] = (row[v] - center[v]) * scale[v] + shift[v]


@worker
def block_combine(grad_y, x, begin, end, center, of_gradient, of_deviation, constant, grad_x):
    """grad_x = grad_y * of_gradient + (x - center) * of_deviation + constant."""
    for s in range(begin, end):
        gradients, row, result = grad_y[s], x[s], grad_x[s]
        for v in range(x.shape[1]):
            result[v] = gradients[v] * of_gradient[v] + ((row[v] - center[v]) * of_deviation[v] + constant[v])


@worker
def block_scale(grad_y, begin, end, of_gradient, grad_x):
    """grad_x = grad_y * of_gradient."""
    for s in range(begin, end):
        gradients, result = grad_y[s], grad_x[s]
        for v in range(grad_y.shape[1]):
            result[v] = gradients[v] * of_gradient[v]
