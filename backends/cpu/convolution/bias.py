"""Backward-bias: the sum of grad_y over all pixels, by vectors of filters. Letters: `walk.py`."""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu.compile import kernel
from numbanet.backends.cpu.simd import L, load_partial, splat, store


@kernel("void(const T[:,:,:,:], T[:], T[:,::1])", parallel=True)
def conv2d_backward_bias_vectors(grad_y, grad_bias, sums):
    """sums (parts, K rounded up to L): the partial sums, added upwards."""
    N, OH, OW, K = grad_y.shape
    y_n, y_h, y_w = grad_y.strides[0] // 4, grad_y.strides[1] // 4, grad_y.strides[2] // 4
    parts = sums.shape[0]
    for part in prange(parts):
        for k in range(0, K, L):
            lanes = min(L, K - k)
            # four sums, so that an addition need not wait for the one before
            a, b, c, d = splat(np.float32(0)), splat(np.float32(0)), splat(np.float32(0)), splat(np.float32(0))
            for row in range(part * N * OH // parts, (part + 1) * N * OH // parts):
                at = row // OH * y_n + row % OH * y_h + k
                ow = 0
                while ow + 4 <= OW:
                    a = a + load_partial(grad_y, at, lanes)
                    b = b + load_partial(grad_y, at + y_w, lanes)
                    c = c + load_partial(grad_y, at + 2 * y_w, lanes)
                    d = d + load_partial(grad_y, at + 3 * y_w, lanes)
                    at += 4 * y_w
                    ow += 4
                while ow < OW:
                    a = a + load_partial(grad_y, at, lanes)
                    at += y_w
                    ow += 1
            store(sums, part * sums.shape[1] + k, (a + b) + (c + d))
    for k in range(K):
        total = sums[0, k]
        for part in range(1, parts):
            total += sums[part, k]
        grad_bias[k] = total


@kernel("void(const T[:,:,:,:], T[:])", dtypes=("float64",))
def conv2d_backward_bias_plain(grad_y, grad_bias):
    N, OH, OW, K = grad_y.shape
    for k in range(K):
        total = 0.0
        for n in range(N):
            for oh in range(OH):
                for ow in range(OW):
                    total += grad_y[n, oh, ow, k]
        grad_bias[k] = total
