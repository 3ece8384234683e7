"""Images through affine maps on the CPU, as `contract/image.py` defines it, in one pass.

    out[n, i, j, c] = scale[c] * bilinear(padded[n], x, y)[c] + shift[c]        (x, y) = matrices[n] @ (j, i, 1) + 1

padded (N, H + 3, W + 3, C): the images with zeros around them, one row and column before and two after, so that a point held
within one pixel of the image has four neighbours and the loop no branches. out (N, OH, OW, C) of any strides;
scale = 1 / (255 std), shift = -mean / std.
The kernel is serial and does not hold Python's lock: loader threads run it side by side and never enter a parallel region.
"""

from __future__ import annotations

import numpy as np

from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.memory import allocator
from numbanet.backends.cpu.registry import implements


@worker(inline=True)
def held(x, limit):
    """x within 0 .. limit, 0 for NaN."""
    x = x if x > 0.0 else 0.0
    return x if x < limit else limit


@kernel("void(const u1[:,:,:,::1], const f8[:,:,:], const T[:], const T[:], T[:,:,:,:])")
def images_affine_normalize_bilinear(padded, matrices, scale, shift, out):
    N, OH, OW, C = out.shape
    last_x, last_y = np.float64(padded.shape[2] - 2), np.float64(padded.shape[1] - 2)
    for n in range(N):
        step_x, step_y = matrices[n, 0, 0], matrices[n, 1, 0]
        for i in range(OH):
            x_begin = matrices[n, 0, 1] * i + matrices[n, 0, 2] + 1.0
            y_begin = matrices[n, 1, 1] * i + matrices[n, 1, 2] + 1.0
            for c in range(C):
                factor, offset = scale[c], shift[c]
                for j in range(OW):
                    x, y = held(x_begin + step_x * j, last_x), held(y_begin + step_y * j, last_y)
                    left, top = np.int64(x), np.int64(y)
                    right, down = np.float32(x - np.floor(x)), np.float32(y - np.floor(y))
                    a, b = np.float32(padded[n, top, left, c]), np.float32(padded[n, top, left + 1, c])
                    d, e = np.float32(padded[n, top + 1, left, c]), np.float32(padded[n, top + 1, left + 1, c])
                    above, below = a + right * (b - a), d + right * (e - d)
                    out[n, i, j, c] = (above + down * (below - above)) * factor + offset


@implements
def images_affine_normalize(images, matrices, output_size, mean, std, out):
    images = images[..., None] if images.ndim == 3 else images
    N, H, W, C = images.shape
    padded = allocator.empty((N, H + 3, W + 3, C), images.dtype)
    padded[:, 0] = padded[:, H + 1:] = 0
    padded[:, :, 0] = padded[:, :, W + 1:] = 0
    padded[:, 1:H + 1, 1:W + 1] = images
    std, mean = np.array(std), np.array(mean)
    images_affine_normalize_bilinear(padded, matrices, (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32),
                                     out.transpose(0, 2, 3, 1))
