"""How a window walks over a feature map, as the integers that kernels take, and the panels of windows that they multiply.

Letters, here and in every file of this folder: N images, C channels and K filters of which each of G groups has Cg and Kg, H x W input
pixels, R x S taps, OH x OW output pixels; T = R * S. Feature maps are channels-last in memory, (N, H, W, C), with any stride between
pixels. A *walk* is the array [Cg, Kg, G, H, W, R, S, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, OH, OW].
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from numbanet.backends.cpu.compile import worker
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
    """The windows over grad_y whose products with the mirrored weights are grad_x: a convolution again, where the stride is 1."""
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
def pack_windows(x, walk, first, count, channel, channels, panel, base, pitch, one):
    """panel[p, (r, s, c)] = x under the window of output pixel first + p; zeros outside of x; then a 1 where `one` is set.

    x (N, H, W, C), channels channel, ..., channel + channels - 1; panel rows are `pitch` floats apart, from `base` on. Up to L - 1
    floats behind each row are overwritten, so rows are written upwards.
    """
    H, W, R, S = walk[3], walk[4], walk[5], walk[6]
    stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w = walk[7], walk[8], walk[9], walk[10], walk[11], walk[12]
    OH, OW = walk[13], walk[14]
    x_n, x_h, x_w = x.strides[0] // 4, x.strides[1] // 4, x.strides[2] // 4
    whole_rows = dilation_w == 1 and (x_w == channels or S == 1)     # the taps of a row are neighbours in memory
    run = S * channels
    ow, oh, n = first % OW, first // OW % OH, first // (OW * OH)
    for p in range(count):
        h0, w0 = oh * stride_h - pad_h, ow * stride_w - pad_w
        source = n * x_n + h0 * x_h + w0 * x_w + channel
        target = base + p * pitch
        inside = w0 >= 0 and w0 + (S - 1) * dilation_w < W
        for r in range(R):
            h = h0 + r * dilation_h
            if h < 0 or h >= H:
                clear_run(panel, target, run)
            elif inside and whole_rows:
                copy_run(x, source, panel, target, run)
            else:
                for s in range(S):
                    w = w0 + s * dilation_w
                    if w < 0 or w >= W:
                        clear_run(panel, target + s * channels, channels)
                    else:
                        copy_run(x, source + s * dilation_w * x_w, panel, target + s * channels, channels)
            source += dilation_h * x_h
            target += run
        if one:
            store_partial(panel, target, splat(np.float32(1)), 1)
        ow += 1
        if ow == OW:
            ow = 0
            oh += 1
            if oh == OH:
                oh = 0
                n += 1


@worker(inline=True)
def odd_pitch(floats):
    """The distance of panel rows: whole cache lines, an odd number of them, so that rows fall into different cache sets."""
    return ((floats + 15) // 16 | 1) * 16
