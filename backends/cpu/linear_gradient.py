"""All gradients of a small linear layer, and of what limits its result, in one: see `contract/fused_training.py`.

    p[m, o] = grad_y[m, o] where y[m, o] lies inside of (low, high), else 0            (M, O)
    grad_bias[o] = sum over m of p[m, o]
    grad_x[m, i] = sum over o of p[m, o] * weight[o, i];    grad_weight[o, i] = sum over m of p[m, o] * x[m, i]

One thread makes p and grad_bias, a vector of columns at a time and blocks of SUMMED rows, so that sums of any length stay exact; then
jobs of BLOCK rows of a panel of either product go to all of them. Several small kernels would take longer to start than to run.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu import threads
from numbanet.backends.cpu.compile import alone, kernel, worker
from numbanet.backends.cpu.gemm import PANEL, is_small, multiply_rows
from numbanet.backends.cpu.gemm.blocking import ROWS
from numbanet.backends.cpu.hardware import cache_sizes
from numbanet.backends.cpu.limits import limits
from numbanet.backends.cpu.linear import F32, linear_backward_bias, linear_backward_input, linear_backward_weight
from numbanet.backends.cpu.memory import empty
from numbanet.backends.cpu.out_of_line import out_of_line
from numbanet.backends.cpu.registry import implements
from numbanet.backends.cpu.shares import begin_shares, next_job
from numbanet.backends.cpu.simd import L, load_partial, select, splat, store, store_partial

SUMMED = 32
BLOCK = 5 * ROWS            # rows of a job, for which a panel of B stays in the first-level cache
MOST_ROWS = 1024            # of x, beyond which one thread takes too long over p
NONE = np.empty((0, 0), F32)
LINE = 16                   # floats: rows an odd number of cache lines apart fall into different sets


@worker
def _pass_gradients(grad_y, y, low, high, passed, grad_bias):
    """p into `passed`, (M, O and more), and its sums."""
    M, O = grad_y.shape
    g_row, y_row, width = grad_y.strides[0] // 4, y.strides[0] // 4, passed.shape[1]
    for o in range(0, O, L):
        count = min(L, O - o)
        total, block = splat(np.float32(0)), splat(np.float32(0))
        for m in range(M):
            g = load_partial(grad_y, m * g_row + o, count)
            if y.size:
                result = load_partial(y, m * y_row + o, count)
                g = select((result <= low) | (result >= high), 0.0, g)
            store(passed, m * width + o, g)
            block = block + g
            if m % SUMMED == SUMMED - 1:
                total, block = total + block, splat(np.float32(0))
        store_partial(grad_bias, o, total + block, count)


@worker
def _product_block(job, rows, depth, columns, a, a_row, a_step, b, c, accumulate):
    """BLOCK rows of one panel of C (+)= A @ B."""
    out_of_line()
    blocks = (rows + BLOCK - 1) // BLOCK
    begin, j, c_row = job % blocks * BLOCK, job // blocks * PANEL, c.strides[0] // 4
    multiply_rows(min(BLOCK, rows - begin), min(PANEL, columns - j), a, begin * a_row, a_row, a_step, b, j, b.strides[0] // 4,
                  c, begin * c_row + j, c_row, depth, accumulate)


@worker
def _jobs(slot, slots, counters, jobs, of_input, passed, x, weight, grad_x, grad_weight, one):
    M, (O, I), width = x.shape[0], grad_weight.shape, passed.shape[1]
    job = next_job(counters, slot, slots, jobs)
    while job >= 0:
        if job < of_input:
            _product_block(job, M, O, I, passed, width, one, weight, grad_x, one - 1)
        else:
            _product_block(job - of_input, O, M, I, passed, one, width, x, grad_weight, one - 1)
        job = next_job(counters, slot, slots, jobs)


@kernel("void(const T[:,:], const T[:,:], const T[:,:], const T[:,:], T[:,:], T[:,:], T[::1], f4, f4, T[:,::1], i8, i8)", parallel=True)
def linear_gradients(grad_y, y, x, weight, grad_x, grad_weight, grad_bias, low, high, passed, slots, one):
    """Rows of all have unit stride; y is empty where nothing is limited, grad_x where it is not wanted.

    `one` is 1, which LLVM must not know: it would make indices of the tile's addresses, which take twice as long (`README.md`, Traps).
    """
    _pass_gradients(grad_y, y, low, high, passed, grad_bias)
    panels = (grad_weight.shape[1] + PANEL - 1) // PANEL
    of_input = (grad_x.shape[0] + BLOCK - 1) // BLOCK * panels
    jobs = of_input + (grad_weight.shape[0] + BLOCK - 1) // BLOCK * panels
    counters = begin_shares(slots, jobs)
    for slot in prange(slots):
        _jobs(np.int64(slot), slots, counters, jobs, of_input, passed, x, weight, grad_x, grad_weight, one)


def _fits(*matrices) -> bool:
    """Whether rows have unit stride."""
    return all(a is None or a.strides[1] == a.itemsize for a in matrices)


def linear_fused_backward_kernels(grad_y, y, x, weight, minimum, maximum, out):
    """What the gradients of a small layer are, as (kernel, arguments) in a list; None where others are faster, or operands lie badly."""
    grad_x, grad_weight, grad_bias = out
    (M, O), I = grad_y.shape, x.shape[1]
    if (x.dtype != F32 or 0 in (M, O, I) or M > MOST_ROWS or O * I * F32.itemsize > cache_sizes().l2 // 2
            or not _fits(grad_y, y, x, weight, grad_x, grad_weight)):
        return None
    passed, small = empty((M, (-(-O // LINE) | 1) * LINE), F32), is_small(1, M, I, 2 * O)
    limited = y is not None and (minimum, maximum) != (None, None)
    return [(linear_gradients, (grad_y, y if limited else NONE, x, NONE if weight is None else weight,
                                NONE if grad_x is None else grad_x, grad_weight, grad_bias, *limits(minimum, maximum), passed,
                                1 if small else threads.get_num_threads(), 1), not small)]


@implements
def linear_fused_backward(grad_y, y, x, weight, minimum, maximum, out):
    kernels = linear_fused_backward_kernels(grad_y, y, x, weight, minimum, maximum, out)
    if kernels is not None:
        for one, arguments, in_parallel in kernels:
            alone(one, not in_parallel)(*arguments)
        return
    grad_x, grad_weight, grad_bias = out
    passed = grad_y
    if minimum is not None:
        passed = np.where(y <= minimum, np.zeros((), x.dtype), passed)
    if maximum is not None:
        passed = np.where(y >= maximum, np.zeros((), x.dtype), passed)
    if grad_x is not None:
        linear_backward_input(passed, weight, grad_x)
    linear_backward_weight(passed, x, grad_weight)
    linear_backward_bias(passed, grad_bias)


linear_fused_backward.kernels = linear_fused_backward_kernels
