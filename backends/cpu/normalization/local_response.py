"""Local response normalization of pixels x (M, C), contiguous.

    base[c] = k + alpha / size * sum over the neighbours j of c of x[j]**2
    y = x * base**-beta
    grad_x[c] = g[c] * base[c]**-beta - 2 * alpha * beta / size * x[c] * sum over j whose neighbour is c of
                g[j] * x[j] * base[j]**(-beta - 1)

The neighbours of c are c - size // 2 ... c + (size - 1) // 2, those that exist; C channels, M pixels. Sums add one
shifted row at a time, so that each loop runs over neighbours in memory.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.layout import finish_pixels, pixels
from numbanet.backends.cpu.registry import implements

ROWS = 64      # pixels of a task


@worker
def neighbour_sums(values, before, after, sums):
    """sums[c] = values[c - before] + ... + values[c + after], those that exist."""
    C = len(values)
    sums[:] = 0
    for shift in range(-before, after + 1):
        begin, end = max(0, -shift), min(C, C - shift)
        shifted, target = values[begin + shift:end + shift], sums[begin:end]
        for c in range(max(end - begin, 0)):
            target[c] += shifted[c]


@worker
def negative_power(base, beta, result):
    """base**-beta; roots where they do, as they are vectors and a power is not."""
    one = base.dtype.type(1)
    if beta == 0.75:
        for c in range(len(base)):
            root = np.sqrt(base[c])
            result[c] = one / (root * np.sqrt(root))
    elif beta == 0.5:
        for c in range(len(base)):
            result[c] = one / np.sqrt(base[c])
    else:
        for c in range(len(base)):
            result[c] = base[c] ** base.dtype.type(-beta)


@worker
def bases(row, size, alpha, k, squares, base):
    """base, with `squares` as scratch."""
    scale, offset = row.dtype.type(alpha / size), row.dtype.type(k)
    for c in range(len(row)):
        squares[c] = row[c] * row[c]
    neighbour_sums(squares, size // 2, (size - 1) // 2, base)
    for c in range(len(row)):
        base[c] = base[c] * scale + offset


@kernel("void(const T[:,::1], const T[:,::1], i8, f8, f8, f8, b1, T[:,::1])",
        dtypes=("float32", "float64"), parallel=True)
def local_response_norm_pixels(grad_y, x, size, alpha, beta, k, backward, out):
    """y, or grad_x where `backward`; the forward pass does not read grad_y."""
    M, C = x.shape
    factor = x.dtype.type(-2 * alpha * beta / size)
    for task in prange((M + ROWS - 1) // ROWS):
        scratch, base, power = np.empty(C, x.dtype), np.empty(C, x.dtype), np.empty(C, x.dtype)
        for m in range(task * ROWS, min((task + 1) * ROWS, M)):
            row, gradients, result = x[m], grad_y[m], out[m]
            bases(row, size, alpha, k, scratch, base)
            negative_power(base, beta, power)
            if backward:
                for c in range(C):
                    scratch[c] = gradients[c] * row[c] * power[c] / base[c]
                neighbour_sums(scratch, (size - 1) // 2, size // 2, base)
                for c in range(C):
                    result[c] = gradients[c] * power[c] + factor * row[c] * base[c]
            else:
                for c in range(C):
                    result[c] = row[c] * power[c]


def _run(grad_y, x, size, alpha, beta, k, backward, out):
    if not x.size:
        return
    C = x.shape[1]
    filled = pixels(out)
    if not filled.flags.c_contiguous:
        filled = np.empty(filled.shape, out.dtype)
    gradients, values = (np.ascontiguousarray(pixels(a)).reshape(-1, C) for a in (grad_y, x))
    local_response_norm_pixels(gradients, values, size, alpha, beta, k, backward, filled.reshape(-1, C))
    finish_pixels(filled, out)


@implements
def local_response_norm_forward(x, size, alpha, beta, k, out):
    _run(x, x, size, alpha, beta, k, False, out)


@implements
def local_response_norm_backward_input(grad_y, x, size, alpha, beta, k, out):
    _run(grad_y, x, size, alpha, beta, k, True, out)
