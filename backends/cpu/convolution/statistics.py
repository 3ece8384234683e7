"""Statistics of a convolution's result, a block of pixels at a time, while the block is still in a cache.

    center[k] = mean of the block's first pixels,  first[k] = sum of (y - center),  second[k] = sum of (y - center)^2

What is kept of a block is the row (center, first, second), which `normalization/moments.py` merges in the order of the blocks. The center
is a mean of m of the block's n pixels, so these alone deviate by at least m (center - mean)^2 from the block's mean: `second` is at most
1 + n / m times what remains when the center is corrected, however the pixels lie, and loses as many units in the last place at worst.
"""

from __future__ import annotations

import numpy as np

from numbanet.backends.cpu.compile import worker
from numbanet.backends.cpu.out_of_line import out_of_line
from numbanet.backends.cpu.simd import L, fma, load_partial, splat, store_partial

NO_MOMENTS = np.empty((0, 0, 0), np.float32)
FIRST = 8       # lines, and pixels of each, that the center is a mean of, at most


@worker(borrows=True)
def take_moments(moments, block, k, y, offset, lines, line, count, pixel, filters, is_first):
    """Add `lines` times `count` pixels of y to those of a block; lines are `line` floats apart, pixels `pixel`, and begin at `offset`.

    moments (B, 3, K), of which filters k, k + 1, ...; `is_first`: nothing has been added to this block yet.
    """
    out_of_line()
    plane = moments.shape[2]
    at = 3 * block * plane + k
    for v in range(0, filters, L):
        left = filters - v
        if is_first:
            sums = splat(np.float32(0))
            tall, wide = min(lines, FIRST), min(count, FIRST)
            for i in range(tall):
                for j in range(wide):
                    sums = sums + load_partial(y, offset + i * line + j * pixel + v, left)
            center = sums * (np.float32(1) / np.float32(tall * wide))
            store_partial(moments, at + v, center, left)
            first, second = splat(np.float32(0)), splat(np.float32(0))
        else:
            center = load_partial(moments, at + v, left)
            first, second = load_partial(moments, at + plane + v, left), load_partial(moments, at + 2 * plane + v, left)
        # four pixels side by side: one sum alone waits for each addition
        f1, f2, f3 = splat(np.float32(0)), splat(np.float32(0)), splat(np.float32(0))
        s1, s2, s3 = splat(np.float32(0)), splat(np.float32(0)), splat(np.float32(0))
        for i in range(lines):
            here = offset + i * line + v
            for _ in range(count // 4):
                d0, d1 = load_partial(y, here, left) - center, load_partial(y, here + pixel, left) - center
                d2, d3 = load_partial(y, here + 2 * pixel, left) - center, load_partial(y, here + 3 * pixel, left) - center
                first, f1, f2, f3 = first + d0, f1 + d1, f2 + d2, f3 + d3
                second, s1, s2, s3 = fma(d0, d0, second), fma(d1, d1, s1), fma(d2, d2, s2), fma(d3, d3, s3)
                here += 4 * pixel
            for _ in range(count % 4):
                d0 = load_partial(y, here, left) - center
                first, second = first + d0, fma(d0, d0, second)
                here += pixel
        store_partial(moments, at + plane + v, (first + f1) + (f2 + f3), left)
        store_partial(moments, at + 2 * plane + v, (second + s1) + (s2 + s3), left)
