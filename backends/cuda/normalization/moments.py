"""Mean and variance a channel, from deviations, so that a mean of many deviations costs no digits.

Rows are the positions of batch and pixels together. A thread walks through the rows of one channel in groups of 16: the mean of a group,
then the sum of squared deviations from it (the group is read twice, the second time from cache), then both are merged into what it has,
after T. Chan, G. Golub, R. LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979):

    n = n_a + n_b,  d = mean_b - mean_a,  mean = mean_a + d * n_b / n,  m2 = m2_a + m2_b + d**2 * n_a * n_b / n

A mean is two numbers, one that is rounded and the rest that rounding took: the means of parts may differ by less than one rounding of them.

What the threads have, or the blocks of a convolution (`tiles/epilogue.py`), is merged in the same way, 64 to 1, in an order that the shape
alone decides; the last 64 or fewer are left to `batch.py`, which goes on with them.
"""

from __future__ import annotations

from math import prod

import numpy as np

from numbanet.backends.cuda.block import REAL
from numbanet.backends.cuda.compile import Sizes, device, kernel
from numbanet.backends.cuda.index import grid_stride, offset, quotient
from numbanet.backends.cuda.launch import launch
from numbanet.backends.cuda.layout import merged_in_order
from numbanet.backends.cuda.memory import DeviceArray
from numbanet.backends.cuda.reduction import parts_of
from numbanet.backends.cuda.wide import pieces_of_rows

GROUP = 16
MERGED = 64


@device
def merged_count(count, mean, rest, m2, other_count, other_mean, other_rest, other_m2):
    """(count, mean, rest, m2) of two sets together."""
    together = count + other_count
    if together == 0.0:
        return count, mean, rest, m2
    share = other_count / together
    apart, further = other_mean - mean, other_rest - rest
    step = apart * share
    center = mean + step
    rest = rest + further * share + (mean - center + step)
    apart = apart + further
    return together, center, rest, m2 + other_m2 + apart * apart * count * share


@kernel
def moments_of_parts(x, out, total, channels, parts, count, rows: Sizes, row_steps, channel_step, out_step):
    """out (4, parts, C): count, mean, rest and m2 of the groups p, p + parts, ... of each channel, or of each piece of channels."""
    for i in grid_stride(total):
        p = quotient(i, channels)
        begin = (i - p * channels) * channel_step
        n, mean, rest, m2 = 0.0, 0.0, 0.0, 0.0
        for first in range(p * GROUP, count, parts * GROUP):
            last = min(first + GROUP, count)
            size, value = REAL(last - first), 0.0
            for row in range(first, last):
                value += x[begin + offset(row, rows, row_steps)]
            center, value, squares = value / size, 0.0, 0.0
            for row in range(first, last):
                deviation = x[begin + offset(row, rows, row_steps)] - center
                value += deviation
                squares += deviation * deviation
            correction = value / size                   # what rounding took from the mean
            n, mean, rest, m2 = merged_count(n, mean, rest, m2, size, center, correction, squares - value * correction)
        out[i * out_step], out[(total + i) * out_step] = n, mean
        out[(2 * total + i) * out_step], out[(3 * total + i) * out_step] = rest, m2


@device
def merged_parts(moments, first, last, parts, channels, c):
    """(count, mean, rest, m2) of channel c from the parts first to last of moments (4, parts, C)."""
    n, mean, rest, m2, step = 0.0, 0.0, 0.0, 0.0, parts * channels
    for p in range(first, last):
        at = p * channels + c
        n, mean, rest, m2 = merged_count(n, mean, rest, m2, moments[at], moments[step + at], moments[2 * step + at], moments[3 * step + at])
    return n, mean, rest, m2


@kernel
def moments_merged(moments, out, total, channels, parts):
    """out (4, total / C, C): each from MERGED parts of moments (4, parts, C)."""
    for i in grid_stride(total):
        q = quotient(i, channels)
        c, first, last = i - q * channels, q * MERGED, min((q + 1) * MERGED, parts)
        out[i], out[total + i], out[2 * total + i], out[3 * total + i] = merged_parts(moments, first, last, parts, channels, c)


def rows_of(*arrays: DeviceArray) -> tuple[tuple[int, ...], ...]:
    """Shape and steps of the rows of maps (N, C, ...), merged."""
    shape = arrays[0].shape
    return merged_in_order((shape[0], *shape[2:]), *[(x.steps[0], *x.steps[2:]) for x in arrays])


def moments(x: DeviceArray, dtype: np.dtype) -> DeviceArray:
    """(4, parts, C): count, mean, rest and m2 of the parts of each channel of x (N, C, ...)."""
    channels, count = x.shape[1], x.shape[0] * prod(x.shape[2:])
    parts = max(1, min(parts_of(channels, count), -(-count // GROUP)))
    found = x.lease.allocator.empty((4, parts, channels), dtype)
    rows, row_steps = rows_of(x)
    of_channels = (channels,), (1,), (x.steps[1],)
    width, (*_, steps), (written, x) = pieces_of_rows((rows, (0,) * len(rows), row_steps), of_channels, found, x)
    total = parts * channels // width
    launch(moments_of_parts, total, x, written, total, channels // width, parts, count, rows, row_steps, steps[-1], width)
    return found


def merged_moments(found: DeviceArray) -> DeviceArray:
    """The same of fewer parts, MERGED at most."""
    _, parts, channels = found.shape
    while parts > MERGED:
        fewer = -(-parts // MERGED)
        merged = found.lease.allocator.empty((4, fewer, channels), found.dtype)
        launch(moments_merged, fewer * channels, found, merged, fewer * channels, channels, parts)
        found, parts = merged, fewer
    return found
