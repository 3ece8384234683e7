"""Pooling on the CPU. Average pooling is a sum over windows, see `resample.py`; the kernels here find maxima.

    y[n, oh, ow, c] = max over the window of x[n, h, w, c];   argmax = h * W + w
    grad_x[n, h, w, c] = sum over the windows that hold (h, w) of grad_y where argmax == h * W + w

x (N, H, W, C), y, argmax and grad_y (N, OH, OW, C), all with unit stride over channels, which are the vector's lanes.
The windows come as tables (`windows.py`), so that regular and adaptive pooling are the same kernels. Backward gathers:
each element of grad_x is written once, its windows added in row-major order, so that rows are independent tasks.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import prange

from numbanet.backends.cpu import threads, windows
from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.layout import finish_pixels, pixels
from numbanet.backends.cpu.registry import implements
from numbanet.backends.cpu.resample import Taps, make_taps, resample, resample_kernels
from numbanet.backends.cpu.shares import begin_shares, next_job
from numbanet.backends.cpu.simd import L, any_lane, load, load_partial, select, splat, splat_int, store, store_partial

JOB = 4096      # elements of x

_FORWARD = "void(const T[:,:,:,:], T[:,:,:,:], i4[:,:,:,:], const i8[:,::1], const i8[:,::1], i8, i8)"
_BACKWARD = "void(const T[:,:,:,:], const i4[:,:,:,:], T[:,:,:,:], const i8[:,::1], const i8[:,::1])"


@worker
def rows_of_a_job(x):
    """Rows of y in forward, of grad_x in backward: some microseconds' work."""
    return max(1, JOB // max(1, x.shape[2] * x.shape[3]))


@worker(inline=True)
def keep_larger(value, position, best, where):
    """The running maximum and its position after one more value; the first NaN, else the first maximum, stays."""
    better = ~(value <= best) & (best == best)
    return select(better, value, best), select(better, position, where)


@worker(inline=True)
def load_lanes(x, offset, count, whole):
    """A vector of which `count` lanes matter; `whole`, a constant, says that the others may be read too."""
    return load(x, offset) if whole else load_partial(x, offset, count)


@worker(inline=True)
def store_lanes(x, offset, value, count, whole):
    if whole:
        store(x, offset, value)
    else:
        store_partial(x, offset, value, count)


@worker(inline=True)
def quad_of(p, q, r, s, W):
    """The maximum of a window's upper left, upper right and lower elements, and its position: 0, 1, W or W + 1."""
    total = (p + q) + (r + s)
    if any_lane(~(total == total)):         # a NaN, or infinities of both signs: in order, as the first NaN wins
        best, where = splat(-np.inf), splat_int(0)
        best, where = keep_larger(p, splat_int(0), best, where)
        best, where = keep_larger(q, splat_int(1), best, where)
        best, where = keep_larger(r, splat_int(W), best, where)
        best, where = keep_larger(s, splat_int(W + 1), best, where)
    else:
        right, lower_right = q > p, s > r
        upper, lower = select(right, q, p), select(lower_right, s, r)
        below = lower > upper
        best = select(below, lower, upper)
        where = select(below, select(lower_right, splat_int(W + 1), splat_int(W)), select(right, splat_int(1), splat_int(0)))
    return best, where


@worker(inline=True)
def quad_maximum(x, a, x_row, x_column, first, W, y, y_offset, argmax, a_offset, count, whole):
    """The window of 2 x 2 elements from x[a] on, as a tournament of three comparisons; it begins at position `first`."""
    p, q = load_lanes(x, a, count, whole), load_lanes(x, a + x_column, count, whole)
    r, s = load_lanes(x, a + x_row, count, whole), load_lanes(x, a + x_row + x_column, count, whole)
    best, where = quad_of(p, q, r, s, W)
    store_lanes(y, y_offset, best, count, whole)
    store_lanes(argmax, a_offset, where + first, count, whole)


@worker
def quad_row(x, a, step, first, y, y_offset, argmax, a_offset):
    """A row of windows of 2 x 2 elements, `step` columns apart; the first begins at x[a], position `first` of its map.

    Masked vectors take longer than whole ones. Where the channels fill no vector, the lanes behind them belong to the next
    pixel, which is written later: so only the last pixels of the row, and those at the end of x, need masks.
    """
    W, C, OW = x.shape[2], x.shape[3], y.shape[2]
    x_row, x_column = x.strides[1] // 4, x.strides[2] // 4
    y_column, a_column = y.strides[2] // 4, argmax.strides[2] // 4
    whole = 0
    if C < L and y_column == C and a_column == C:
        readable, writable = readable_from(x, a + x_row + x_column) - L, OW * C - L
        whole = min(OW, min(readable // (step * x_column), writable // C) + 1) if readable >= 0 and writable >= 0 else 0
    for _ow in range(whole):
        quad_maximum(x, a, x_row, x_column, first, W, y, y_offset, argmax, a_offset, C, True)
        a, first, y_offset, a_offset = a + step * x_column, first + step, y_offset + y_column, a_offset + a_column
    for _ow in range(whole, OW):
        for c in range(0, C - L + 1, L):
            quad_maximum(x, a + c, x_row, x_column, first, W, y, y_offset + c, argmax, a_offset + c, L, True)
        if C % L:
            c = C - C % L
            quad_maximum(x, a + c, x_row, x_column, first, W, y, y_offset + c, argmax, a_offset + c, C % L, False)
        a, first, y_offset, a_offset = a + step * x_column, first + step, y_offset + y_column, a_offset + a_column


@worker
def readable_from(x, offset):
    """How many elements may be read from x[offset] on; none where an axis runs backwards."""
    last = x.shape[3] - 1
    for axis in range(3):
        if x.strides[axis] <= 0:
            return 0
        last += (x.shape[axis] - 1) * (x.strides[axis] // 4)
    return last + 1 - offset


@worker
def quad_step(columns, column_step):
    """The distance between windows of two neighbouring columns each, 0 where the windows are others."""
    step = columns[1, 0] - columns[0, 0] if len(columns) > 1 else 1
    for ow in range(len(columns)):
        if columns[ow, 0] != columns[0, 0] + ow * step or columns[ow, 1] - columns[ow, 0] != 2:
            return 0
    return step if column_step == 1 else 0


@worker(inline=True)
def window_maximum(x, sample, top, bottom, left, right, row_step, column_step, first, y, y_offset, argmax, a_offset, count, whole):
    """A window of any size."""
    W, x_row, x_column = x.shape[2], x.strides[1] // 4, x.strides[2] // 4
    best, where = splat(-np.inf), splat_int(first)
    for h in range(top, bottom, row_step):
        a = sample + h * x_row
        for w in range(left, right, column_step):
            best, where = keep_larger(load_lanes(x, a + w * x_column, count, whole), h * W + w, best, where)
    store_lanes(y, y_offset, best, count, whole)
    store_lanes(argmax, a_offset, where, count, whole)


@worker
def max_pool2d_forward_row(x, y, argmax, n, oh, rows, columns, row_step, column_step, step):
    """Row oh of sample n: y and argmax."""
    W, C = x.shape[2], x.shape[3]
    x_row, x_column = x.strides[1] // 4, x.strides[2] // 4
    top, bottom = rows[oh, 0], rows[oh, 1]
    x_sample = n * (x.strides[0] // 4)
    y_offset = n * (y.strides[0] // 4) + oh * (y.strides[1] // 4)
    a_offset = n * (argmax.strides[0] // 4) + oh * (argmax.strides[1] // 4)
    if step and bottom - top == 2 and row_step == 1:        # most networks' windows: several times as fast
        left = columns[0, 0]
        quad_row(x, x_sample + top * x_row + left * x_column, step, top * W + left, y, y_offset, argmax, a_offset)
        return
    for ow in range(y.shape[2]):
        left, right = columns[ow, 0], columns[ow, 1]
        first = top * W + left if bottom > top and right > left else -1
        for c in range(0, C - L + 1, L):
            window_maximum(x, x_sample + c, top, bottom, left, right, row_step, column_step, first, y, y_offset + c, argmax, a_offset + c,
                           L, True)
        if C % L:
            c = C - C % L
            window_maximum(x, x_sample + c, top, bottom, left, right, row_step, column_step, first, y, y_offset + c, argmax, a_offset + c,
                           C % L, False)
        y_offset += y.strides[2] // 4
        a_offset += argmax.strides[2] // 4


@worker
def forward_jobs(slot, slots, counters, x, y, argmax, rows, columns, row_step, column_step, step):
    OH = y.shape[1]
    count = y.shape[0] * OH
    block = rows_of_a_job(x)
    jobs = (count + block - 1) // block
    job = next_job(counters, slot, slots, jobs)
    while job >= 0:
        for row in range(job * block, min(count, (job + 1) * block)):
            max_pool2d_forward_row(x, y, argmax, row // OH, row % OH, rows, columns, row_step, column_step, step)
        job = next_job(counters, slot, slots, jobs)


@kernel(_FORWARD[:-1] + ", i8)", parallel=True)
def max_pool2d_forward_vector(x, y, argmax, rows, columns, row_step, column_step, slots):
    step = quad_step(columns, column_step)
    block = rows_of_a_job(x)
    counters = begin_shares(slots, (y.shape[0] * y.shape[1] + block - 1) // block)
    for slot in prange(slots):
        forward_jobs(np.int64(slot), slots, counters, x, y, argmax, rows, columns, row_step, column_step, step)


@worker(inline=True)
def spread_pair(grad_y, g, argmax, a, grad_x, offset, x_column, position, count, whole):
    """Two neighbouring elements, from `position` on, of one window: its gradient where its maximum was, else 0."""
    where, gradient = load_lanes(argmax, a, count, whole), load_lanes(grad_y, g, count, whole)
    store_lanes(grad_x, offset, select(where == position, gradient, 0.0), count, whole)
    store_lanes(grad_x, offset + x_column, select(where == position + 1, gradient, 0.0), count, whole)


@worker
def pairs_row(grad_y, g, argmax, a, grad_x, offset, position):
    """The columns of a row that windows 2 wide and 2 apart cover. Masks as in `quad_row`."""
    C, OW, W = grad_y.shape[3], grad_y.shape[2], grad_x.shape[2]
    g_column, a_column, x_column = grad_y.strides[2] // 4, argmax.strides[2] // 4, grad_x.strides[2] // 4
    whole = 0
    if C < L and x_column == C:
        readable, writable = min(readable_from(grad_y, g), readable_from(argmax, a)) - L, (W - 1) * C - L
        whole = min(OW, min(readable // max(g_column, a_column), writable // (2 * C)) + 1) if readable >= 0 and writable >= 0 else 0
    for _ow in range(whole):
        spread_pair(grad_y, g, argmax, a, grad_x, offset, x_column, position, C, True)
        g, a, offset, position = g + g_column, a + a_column, offset + 2 * x_column, position + 2
    for _ow in range(whole, OW):
        for c in range(0, C - L + 1, L):
            spread_pair(grad_y, g + c, argmax, a + c, grad_x, offset + c, x_column, position, L, True)
        if C % L:
            c = C - C % L
            spread_pair(grad_y, g + c, argmax, a + c, grad_x, offset + c, x_column, position, C % L, False)
        g, a, offset, position = g + g_column, a + a_column, offset + 2 * x_column, position + 2


@worker
def are_pairs(columns, OW):
    """Whether window ow covers exactly the columns 2 ow and 2 ow + 1."""
    if 2 * OW > len(columns):
        return False
    for w in range(len(columns)):
        if (columns[w, 0] != w // 2 or columns[w, 1] != w // 2 + 1) if w < 2 * OW else columns[w, 0] < columns[w, 1]:
            return False
    return True


@worker(inline=True)
def windows_gradient(grad_y, g, argmax, a, position, top, bottom, left, right, grad_x, target, count, whole):
    """One element of grad_x: the gradients of those windows whose maximum it was."""
    g_row, g_column = grad_y.strides[1] // 4, grad_y.strides[2] // 4
    a_row, a_column = argmax.strides[1] // 4, argmax.strides[2] // 4
    total = splat(0.0)
    for oh in range(top, bottom):
        for ow in range(left, right):
            where = load_lanes(argmax, a + oh * a_row + ow * a_column, count, whole)
            gradient = load_lanes(grad_y, g + oh * g_row + ow * g_column, count, whole)
            total = select(where == position, total + gradient, total)
    store_lanes(grad_x, target, total, count, whole)


@worker
def max_pool2d_backward_row(grad_y, argmax, grad_x, n, h, rows, columns, pairs):
    """Row h of sample n of grad_x."""
    W, C = grad_x.shape[2], grad_x.shape[3]
    g_row, a_row, x_column = grad_y.strides[1] // 4, argmax.strides[1] // 4, grad_x.strides[2] // 4
    top, bottom = rows[h, 0], rows[h, 1]
    g_sample, a_sample = n * (grad_y.strides[0] // 4), n * (argmax.strides[0] // 4)
    x_offset = n * (grad_x.strides[0] // 4) + h * (grad_x.strides[1] // 4)
    done = 0
    if pairs and bottom - top == 1:
        pairs_row(grad_y, g_sample + top * g_row, argmax, a_sample + top * a_row, grad_x, x_offset, h * W)
        done = 2 * grad_y.shape[2]
    for w in range(done, W):
        position, left, right, target = h * W + w, columns[w, 0], columns[w, 1], x_offset + w * x_column
        for c in range(0, C - L + 1, L):
            windows_gradient(grad_y, g_sample + c, argmax, a_sample + c, position, top, bottom, left, right, grad_x, target + c, L, True)
        if C % L:
            c = C - C % L
            windows_gradient(grad_y, g_sample + c, argmax, a_sample + c, position, top, bottom, left, right, grad_x, target + c,
                             C % L, False)


@worker
def backward_jobs(slot, slots, counters, grad_y, argmax, grad_x, rows, columns, pairs):
    H = grad_x.shape[1]
    count = grad_x.shape[0] * H
    block = rows_of_a_job(grad_x)
    jobs = (count + block - 1) // block
    job = next_job(counters, slot, slots, jobs)
    while job >= 0:
        for row in range(job * block, min(count, (job + 1) * block)):
            max_pool2d_backward_row(grad_y, argmax, grad_x, row // H, row % H, rows, columns, pairs)
        job = next_job(counters, slot, slots, jobs)


@kernel(_BACKWARD[:-1] + ", i8)", parallel=True)
def max_pool2d_backward_vector(grad_y, argmax, grad_x, rows, columns, slots):
    block = rows_of_a_job(grad_x)
    counters = begin_shares(slots, (grad_x.shape[0] * grad_x.shape[1] + block - 1) // block)
    pairs = are_pairs(columns, grad_y.shape[2])
    for slot in prange(slots):
        backward_jobs(np.int64(slot), slots, counters, grad_y, argmax, grad_x, rows, columns, pairs)


@kernel(_FORWARD, dtypes=("float64",))
def max_pool2d_forward_loops(x, y, argmax, rows, columns, row_step, column_step):
    W = x.shape[2]
    for n, oh, ow, c in np.ndindex(y.shape):
        best, where = -np.inf, -1
        for h in range(rows[oh, 0], rows[oh, 1], row_step):
            for w in range(columns[ow, 0], columns[ow, 1], column_step):
                if where < 0 or (not x[n, h, w, c] <= best and best == best):
                    best, where = x[n, h, w, c], h * W + w
        y[n, oh, ow, c], argmax[n, oh, ow, c] = best, where


@kernel(_BACKWARD, dtypes=("float64",))
def max_pool2d_backward_loops(grad_y, argmax, grad_x, rows, columns):
    W = grad_x.shape[2]
    for n, h, w, c in np.ndindex(grad_x.shape):
        total = 0.0
        for oh in range(rows[h, 0], rows[h, 1]):
            for ow in range(columns[w, 0], columns[w, 1]):
                if argmax[n, oh, ow, c] == h * W + w:
                    total += grad_y[n, oh, ow, c]
        grad_x[n, h, w, c] = total


def _forward(x, rows, columns, row_step, column_step, out):
    y, argmax = pixels(out[0]), pixels(out[1])
    if x.dtype == np.float32:
        max_pool2d_forward_vector(pixels(x), y, argmax, rows, columns, row_step, column_step, threads.get_num_threads())
    else:
        max_pool2d_forward_loops(pixels(x), y, argmax, rows, columns, row_step, column_step)
    finish_pixels(y, out[0])
    finish_pixels(argmax, out[1])


def _backward(grad_y, argmax, rows, columns, out):
    grad_x = pixels(out)
    if out.dtype == np.float32:
        max_pool2d_backward_vector(pixels(grad_y), pixels(argmax), grad_x, rows, columns, threads.get_num_threads())
    else:
        max_pool2d_backward_loops(pixels(grad_y), pixels(argmax), grad_x, rows, columns)
    finish_pixels(grad_x, out)


@implements
def max_pool2d_forward(x, geometry, out):
    _forward(x, windows.regular(geometry, 0)[0], windows.regular(geometry, 1)[0], *geometry.dilation, out)


@implements
def max_pool2d_backward_input(grad_y, argmax, geometry, out):
    _backward(grad_y, argmax, windows.regular(geometry, 0)[1], windows.regular(geometry, 1)[1], out)


@implements
def adaptive_max_pool2d_forward(x, output_size, out):
    rows, columns = (windows.adaptive(*sizes)[0] for sizes in zip(x.shape[2:], output_size))
    _forward(x, rows, columns, 1, 1, out)


@implements
def adaptive_max_pool2d_backward_input(grad_y, argmax, input_size, out):
    rows, columns = (windows.adaptive(*sizes)[1] for sizes in zip(input_size, grad_y.shape[2:]))
    _backward(grad_y, argmax, rows, columns, out)


@lru_cache(maxsize=1024)
def _average_taps(geometry, axis: int, dtype) -> Taps:
    targets, sources = windows.pairs(windows.regular(geometry, axis)[0])
    return make_taps(targets, sources, 1, geometry.output_size[axis], dtype)


@lru_cache(maxsize=1024)
def _average_divisors(geometry, count_include_pad: bool, divisor_override: int | None, dtype) -> np.ndarray:
    if divisor_override:
        return np.full(geometry.output_size, divisor_override, dtype)
    rows, columns = (windows.divisors(geometry, axis, count_include_pad) for axis in range(2))
    return np.outer(rows, columns).astype(dtype)


@lru_cache(maxsize=1024)
def _average_taps_backward(geometry, axis: int, count_include_pad: bool, divisor_override: int | None, dtype) -> Taps:
    targets, sources = windows.pairs(windows.regular(geometry, axis)[0])
    if divisor_override:
        weights = 1 / divisor_override if axis == 0 else 1       # it divides once, not once an axis
    else:
        weights = 1 / windows.divisors(geometry, axis, count_include_pad)[targets]
    return make_taps(sources, targets, weights, geometry.input_size[axis], dtype)


@lru_cache(maxsize=1024)
def _adaptive_taps(size: int, outputs: int, dtype) -> tuple[Taps, np.ndarray, Taps]:
    """Of one axis: taps of the forward pass, sizes of the windows, taps of the backward pass."""
    table = windows.adaptive(size, outputs)[0]
    sizes = table[:, 1] - table[:, 0]
    targets, sources = windows.pairs(table)
    return (make_taps(targets, sources, 1, outputs, dtype), sizes.astype(dtype),
            make_taps(sources, targets, 1 / sizes[targets], size, dtype))


@lru_cache(maxsize=1024)
def _adaptive_divisors(input_size, output_size, dtype) -> np.ndarray:
    return np.outer(*(_adaptive_taps(*sizes, dtype)[1] for sizes in zip(input_size, output_size)))


def _averages(x, geometry, count_include_pad, divisor_override):
    return (*(_average_taps(geometry, axis, x.dtype) for axis in (0, 1)),
            _average_divisors(geometry, count_include_pad, divisor_override, x.dtype))


@implements
def avg_pool2d_forward(x, geometry, count_include_pad, divisor_override, out):
    resample(x, *_averages(x, geometry, count_include_pad, divisor_override), out)


avg_pool2d_forward.kernels = lambda x, *given: resample_kernels(x, *_averages(x, *given[:-1]), given[-1])


@implements
def avg_pool2d_backward_input(grad_y, geometry, count_include_pad, divisor_override, out):
    rows, columns = (_average_taps_backward(geometry, axis, count_include_pad, divisor_override, out.dtype)
                     for axis in range(2))
    resample(grad_y, rows, columns, None, out)


def _adaptive_averages(x, output_size):
    return (*(_adaptive_taps(*sizes, x.dtype)[0] for sizes in zip(x.shape[2:], output_size)),
            _adaptive_divisors(x.shape[2:], output_size, x.dtype))


@implements
def adaptive_avg_pool2d_forward(x, output_size, out):
    resample(x, *_adaptive_averages(x, output_size), out)


adaptive_avg_pool2d_forward.kernels = lambda x, output_size, out: resample_kernels(x, *_adaptive_averages(x, output_size), out)


@implements
def adaptive_avg_pool2d_backward_input(grad_y, input_size, out):
    rows, columns = (_adaptive_taps(*sizes, out.dtype)[2] for sizes in zip(input_size, grad_y.shape[2:]))
    resample(grad_y, rows, columns, None, out)
