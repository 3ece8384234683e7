"""Running sums along an axis: each line in chunks, the sums of the chunks first."""

from __future__ import annotations

import numpy as np

from numbanet.backends.cuda.compile import Sizes, kernel
from numbanet.backends.cuda.index import grid_stride, offset, quotient
from numbanet.backends.cuda.launch import launch, number
from numbanet.backends.cuda.layout import merged_in_order
from numbanet.backends.cuda.pointwise import converted
from numbanet.backends.cuda.registry import implements
from numbanet.dtypes import is_floating_point

CHUNK = 64


@kernel
def chunk_sums(x, sums, zero, total, chunks, chunk, count, lines: Sizes, line_steps, step):
    """sums[line, k] = the sum of chunk k; one thread a chunk."""
    for i in grid_stride(total):
        line = quotient(i, chunks)
        k = i - line * chunks
        begin, value = offset(line, lines, line_steps), zero
        for e in range(k * chunk, min((k + 1) * chunk, count)):
            value += x[begin + e * step]
        sums[i] = value


@kernel
def sums_before(sums, zero, total, chunks):
    """Each sum replaced by the sum of those before it; one thread a line."""
    for line in grid_stride(total):
        value = zero
        for k in range(chunks):
            own = sums[line * chunks + k]
            sums[line * chunks + k] = value
            value += own


@kernel
def running_sums(x, sums, out, total, chunks, chunk, count, lines: Sizes, line_steps, out_line_steps, step, out_step):
    for i in grid_stride(total):
        line = quotient(i, chunks)
        k = i - line * chunks
        begin, out_begin, value = offset(line, lines, line_steps), offset(line, lines, out_line_steps), sums[i]
        for e in range(k * chunk, min((k + 1) * chunk, count)):
            value += x[begin + e * step]
            out[out_begin + e * out_step] = value


@implements
def cumsum(x, axis, out):
    if out.size == 0:
        return
    x = x if is_floating_point(x.dtype) else converted(x, out.dtype)
    count, rest = x.shape[axis], [a for a in range(len(x.shape)) if a != axis]
    lines, line_steps, out_line_steps = merged_in_order(*[tuple([s[a] for a in rest]) for s in (x.shape, x.steps, out.steps)])
    chunk, chunks = CHUNK, -(-count // CHUNK)
    total = out.size // count * chunks
    sums = x.lease.allocator.empty((total,), np.dtype(np.float32) if out.dtype.itemsize == 2 else out.dtype)
    zero = number(0, sums.dtype)
    launch(chunk_sums, total, x, sums, zero, total, chunks, chunk, count, lines, line_steps, x.steps[axis])
    launch(sums_before, total // chunks, sums, zero, total // chunks, chunks)
    launch(running_sums, total, x, sums, out, total, chunks, chunk, count, lines, line_steps, out_line_steps, x.steps[axis],
           out.steps[axis])
