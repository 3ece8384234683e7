"""Maxima of windows of pixels, a vector of channels at a time, as max pooling without positions needs them; a NaN wins.

Windows come as tables, see `windows.py`.
"""

from __future__ import annotations

import numpy as np

from numbanet.backends.cpu.compile import worker
from numbanet.backends.cpu.out_of_line import out_of_line
from numbanet.backends.cpu.simd import L, any_lane, load, load_partial, maximum, select, splat, store, store_partial


@worker(inline=True)
def larger(a, b):
    """The larger, b where one is a NaN: one instruction. Not all NaNs win, so whoever uses it looks for them."""
    return select(a > b, a, b)


@worker(inline=True, borrows=True)
def triple_maximum(x, a, x_row, x_column, rows):
    """Maximum of `rows` x 3 elements, one row at least, and a NaN if there is one: the sum tells."""
    p, q, r = load(x, a), load(x, a + x_column), load(x, a + 2 * x_column)
    best, total = larger(larger(p, q), r), (p + q) + r
    for _row in range(1, rows):
        a += x_row
        p, q, r = load(x, a), load(x, a + x_column), load(x, a + 2 * x_column)
        best, total = larger(larger(larger(p, q), r), best), ((p + q) + r) + total
    return best, total


@worker(inline=True, borrows=True)
def pair_maximum(x, a, x_row, x_column, rows):
    """As `triple_maximum`, of `rows` x 2 elements."""
    p, q = load(x, a), load(x, a + x_column)
    best, total = larger(p, q), p + q
    for _row in range(1, rows):
        a += x_row
        p, q = load(x, a), load(x, a + x_column)
        best, total = larger(larger(p, q), best), (p + q) + total
    return best, total


@worker(borrows=True)
def window_maximum(x, a, x_row, x_column, rows, columns, count):
    """Maximum of `rows` x `columns` elements in `count` lanes, -inf where there are none; a NaN wins."""
    out_of_line()
    best = splat(-np.inf)
    for row in range(rows):
        for column in range(columns):
            best = maximum(best, load_partial(x, a + row * x_row + column * x_column, count))
    return best


@worker(borrows=True)
def maximum_row(x, line, x_h, x_w, end, y, target, y_w, OW, C, height, columns, row_step, column_step):
    """OW pixels of C channels from offset `target` of y on, `y_w` floats apart: each the maximum of a window of `height` rows.

    Windows begin in the row of x at offset `line`; its rows and pixels are x_h and x_w floats apart, nothing from offset `end` on is read.
    """
    x_row, x_column = row_step * x_h, column_step * x_w
    # channels that fill no vector: the lanes behind them are the next pixels', in y written later
    joined = C < L and x_w == C and y_w == C
    total = splat(np.float32(0))
    for ow in range(OW):
        span = columns[ow, 1] - columns[ow, 0]
        width = (span + column_step - 1) // column_step if column_step > 1 else span
        a = line + columns[ow, 0] * x_w
        whole = C // L * L if height > 0 and (width == 3 or width == 2) else 0
        if joined and height > 0 and (width == 3 or width == 2) and a + (height - 1) * x_row + (width - 1) * x_column + L <= end:
            whole = C
        for c in range(0, whole, L):
            if width == 3:
                best, sum_of_window = triple_maximum(x, a + c, x_row, x_column, height)
            else:
                best, sum_of_window = pair_maximum(x, a + c, x_row, x_column, height)
            total = total + sum_of_window
            if joined and (OW - ow) * C < L:
                store_partial(y, target + ow * C, best, (OW - ow) * C)
            else:
                store(y, target + ow * y_w + c, best)
        if whole < C:
            _maximum_of_channels(x, a, x_row, x_column, height, width, whole, C, y, target + ow * y_w)
    if any_lane(~(total == total)):                             # a NaN somewhere, or infinities of both signs
        for ow in range(OW):
            width = (columns[ow, 1] - columns[ow, 0] + column_step - 1) // column_step
            _maximum_of_channels(x, line + columns[ow, 0] * x_w, x_row, x_column, height, width, np.int64(0), C, y, target + ow * y_w)


@worker(borrows=True)
def _maximum_of_channels(x, a, x_row, x_column, height, width, begin, end, y, target):
    """One window, with NaNs."""
    for c in range(begin, end, L):
        count = min(L, end - c)
        store_partial(y, target + c, window_maximum(x, a + c, x_row, x_column, height, width, count), count)
