"""How a window walks over a feature map, as integers for kernels, and the panels of windows that they multiply.

Letters, here and in every file of this folder: N images, C channels and K filters of which each of G groups has Cg and
Kg, H x W input pixels, R x S taps, OH x OW output pixels; T = R * S. Feature maps are channels-last in memory,
(N, H, W, C), with any stride between pixels. A *walk* is the array [Cg, Kg, G, H, W, R, S, stride_h, stride_w,
pad_h, pad_w, dilation_h, dilation_w, OH, OW].
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numbanet.backends.cpu.compile import worker
from numbanet.backends.cpu.convolution.compact import compact
from numbanet.backends.cpu.simd import L, load, load_partial, splat, store, store_partial

from numbanet.geometry import ConvGeometry


@lru_cache(maxsize=4096)
def forward_walk(geometry: ConvGeometry) -> np.ndarray:
    """The windows of a convolution over x."""
    before = [pair[0] for pair in geometry.padding]
    return _walk(geometry.channels_per_group, geometry.filters_per_group, geometry.groups, geometry.input_size,
                 geometry.kernel_size, geometry.stride, before, geometry.dilation, geometry.output_size)


@lru_cache(maxsize=4096)
def mirrored_walk(geometry: ConvGeometry) -> np.ndarray:
    """The windows over grad_y whose products with the mirrored weights are grad_x, where the stride is 1."""
    before = [d * (f - 1) - pair[0] for d, f, pair in zip(geometry.dilation, geometry.kernel_size, geometry.padding)]
    return _walk(geometry.filters_per_group, geometry.channels_per_group, geometry.groups, geometry.output_size,
                 geometry.kernel_size, (1, 1), before, geometry.dilation, geometry.input_size)


def _walk(channels, filters, groups, *pairs) -> np.ndarray:
    walk = np.array([channels, filters, groups, *(n for pair in pairs for n in pair)], np.int64)
    walk.flags.writeable = False
    return walk


@worker(inline=True)
def copy_run(x, source, panel, target, count):
    """Copy `count` floats; up to L - 1 zeros follow them in the panel."""
    done = 0
    while done + L <= count:
        store(panel, target + done, load(x, source + done))
        done += L
    if done < count:
        store(panel, target + done, load_partial(x, source + done, count - done))


@worker(inline=True)
def clear_run(array, target, count):
    """Write `count` zeros."""
    done = 0
    while done + L <= count:
        store(array, target + done, splat(np.float32(0)))
        done += L
    if done < count:
        store_partial(array, target + done, splat(np.float32(0)), count - done)


@worker
def pack_windows(x, walk, first, count, channel, channels, panel, base, pitch):
    """panel[p, (r, s, c)] = x under the window of output pixel first + p, zeros outside of x; a 1 follows.

    x (N, H, W, C), of which channels channel, ..., channel + channels - 1; panel rows are `pitch` floats apart, from
    `base` on. Up to L floats behind each row are overwritten, so rows are written upwards.
    """
    compact()
    H, W, R, S = walk[3], walk[4], walk[5], walk[6]
    stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w = walk[7], walk[8], walk[9], walk[10], walk[11], walk[12]
    OH, OW = walk[13], walk[14]
    x_n, x_h, x_w = x.strides[0] // 4, x.strides[1] // 4, x.strides[2] // 4
    joined = S if dilation_w == 1 and x_w == channels else 1     # taps that are neighbours in memory are copied at once
    ow, oh, n = first % OW, first // OW % OH, first // (OW * OH)
    for p in range(count):
        h0, w0 = oh * stride_h - pad_h, ow * stride_w - pad_w
        target = base + p * pitch
        for r in range(R):
            h = h0 + r * dilation_h
            source = n * x_n + h * x_h + w0 * x_w + channel
            s = 0
            while s < S:
                w = w0 + s * dilation_w
                if h >= 0 and h < H and w >= 0 and w < W:
                    taps = min(joined, S - s, W - w)
                    copy_run(x, source + s * dilation_w * x_w, panel, target, taps * channels)
                else:
                    taps = 1
                    clear_run(panel, target, channels)
                target += taps * channels
                s += taps
        store_partial(panel, target, splat(np.float32(1)), 1)
        ow += 1
        if ow == OW:
            ow = 0
            oh += 1
            if oh == OH:
                oh = 0
                n += 1


@worker
def pack_pixels(y, first, count, channel, channels, panel, base, pitch):
    """panel[p, c] = pixel first + p of y (N, OH, OW, K), channels channel, ..., channel + channels - 1."""
    compact()
    _, OH, OW, _ = y.shape
    y_n, y_h, y_w = y.strides[0] // 4, y.strides[1] // 4, y.strides[2] // 4
    for p in range(count):
        pixel = first + p
        source = pixel // (OH * OW) * y_n + pixel // OW % OH * y_h + pixel % OW * y_w + channel
        copy_run(y, source, panel, base + p * pitch, channels)


@worker
def first_inside(position, dilation):
    """The first tap that does not fall before the map, where tap 0 is at `position`."""
    return 0 if position >= 0 else (dilation - 1 - position) // dilation


@worker
def last_inside(position, dilation, taps, size):
    """One more than the last tap that does not fall behind a map of `size`, where tap 0 is at `position`."""
    return min(taps, (size - 1 - position) // dilation + 1) if position < size else 0


@worker
def odd_pitch(floats):
    """The distance of panel rows: an odd number of cache lines, so that rows fall into different cache sets."""
    return ((floats + 15) // 16 | 1) * 16
