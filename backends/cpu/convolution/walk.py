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
from numbanet.backends.cpu.convolution.preactivate import preactivated_run
from numbanet.backends.cpu.simd import L, load, load_partial, splat, store, store_partial
from numbanet.geometry import ConvGeometry


@lru_cache(maxsize=4096)
def forward_walk(geometry: ConvGeometry) -> np.ndarray:
    """The windows of a convolution over x."""
    before = [pair[0] for pair in geometry.padding]
    return make_walk(geometry.channels_per_group, geometry.filters_per_group, geometry.groups, geometry.input_size,
                 geometry.kernel_size, geometry.stride, before, geometry.dilation, geometry.output_size)


@lru_cache(maxsize=4096)
def mirrored_walk(geometry: ConvGeometry) -> np.ndarray:
    """The windows over grad_y whose products with the mirrored weights are grad_x, where the stride is 1."""
    before = [d * (f - 1) - pair[0] for d, f, pair in zip(geometry.dilation, geometry.kernel_size, geometry.padding)]
    return make_walk(geometry.filters_per_group, geometry.channels_per_group, geometry.groups, geometry.output_size,
                 geometry.kernel_size, (1, 1), before, geometry.dilation, geometry.input_size)


def make_walk(channels, filters, groups, *pairs) -> np.ndarray:
    """`pairs`: sizes of the input and of the kernel, stride, padding before, dilation, size of the output."""
    walk = np.array([channels, filters, groups, *(n for pair in pairs for n in pair)], np.int64)
    walk.flags.writeable = False
    return walk


@worker(inline=True, borrows=True)
def copy_run(x, source, panel, target, count, end):
    """Copy `count` floats; up to L - 1 others follow them in the panel, but nothing of x from offset `end` on is read."""
    for done in range(0, count, L):
        if source + done + L <= end:
            store(panel, target + done, load(x, source + done))
        else:
            store(panel, target + done, load_partial(x, source + done, count - done))


@worker
def end_of(x):
    """The offset behind the last element of x (N, H, W, C) in memory."""
    end = 1
    for axis in range(4):
        end += max(0, (x.shape[axis] - 1) * (x.strides[axis] // 4))
    return end


@worker(inline=True, borrows=True)
def clear_run(array, target, count):
    """Write `count` zeros."""
    done = 0
    while done + L <= count:
        store(array, target + done, splat(np.float32(0)))
        done += L
    if done < count:
        store_partial(array, target + done, splat(np.float32(0)), count - done)


@worker
def strides_of(x):
    """Floats from image to image, from row to row and from pixel to pixel of x (N, H, W, C)."""
    return x.strides[0] // 4, x.strides[1] // 4, x.strides[2] // 4


@worker(borrows=True)
def pack_windows(x, preactivation, channel, origin, strides, end, walk, first, count, channels, panel, base, pitch):
    """panel[p, (r, s, c)] = x under the window of output pixel first + p, zeros outside of x.

    Pixel (n, h, w) of x has `channels` channels from offset `origin` + the `strides` of (n, h, w) on, and nothing from offset
    `end` on is read; panel rows are `pitch` floats apart, from `base` on. Up to L floats behind each row are overwritten, so rows
    are written upwards. Where `preactivation` is not empty, its z is packed for x (`preactivate.py`), the first channel being `channel`.
    """
    compact()
    H, W, R, S = walk[3], walk[4], walk[5], walk[6]
    stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w = walk[7], walk[8], walk[9], walk[10], walk[11], walk[12]
    OH, OW = walk[13], walk[14]
    x_n, x_h, x_w = strides
    # taps that are neighbours in memory are copied at once
    joined = S if dilation_w == 1 and x_w == channels and not preactivation.size else 1
    extent_h, extent_w = (R - 1) * dilation_h, (S - 1) * dilation_w
    runs, run, step = S // joined, joined * channels, joined * dilation_w * x_w
    ow, oh, n = first % OW, first // OW % OH, first // (OW * OH)
    for p in range(count):
        h0, w0 = oh * stride_h - pad_h, ow * stride_w - pad_w
        source, target = origin + n * x_n + h0 * x_h + w0 * x_w, base + p * pitch
        if h0 >= 0 and w0 >= 0 and h0 + extent_h < H and w0 + extent_w < W:
            for _ in range(R):
                for i in range(runs):
                    if preactivation.size:
                        preactivated_run(x, source + i * step, preactivation, channel, panel, target, run, end)
                    else:
                        copy_run(x, source + i * step, panel, target, run, end)
                    target += run
                source += dilation_h * x_h
        else:
            _pack_clipped(x, preactivation, channel, source, x_h, x_w, h0, w0, walk, joined, channels, panel, target, end)
            target += R * S * channels
        ow += 1
        if ow == OW:
            ow = 0
            oh += 1
            if oh == OH:
                oh = 0
                n += 1


@worker(borrows=True)
def _pack_clipped(x, preactivation, channel, source, x_h, x_w, h0, w0, walk, joined, channels, panel, target, end):
    """One row of `pack_windows` whose window leaves x."""
    compact()
    H, W, R, S, dilation_h, dilation_w = walk[3], walk[4], walk[5], walk[6], walk[11], walk[12]
    for r in range(R):
        h = h0 + r * dilation_h
        s = 0
        while s < S:
            w = w0 + s * dilation_w
            if h >= 0 and h < H and w >= 0 and w < W:
                taps, at = min(joined, S - s, W - w), source + r * dilation_h * x_h + s * dilation_w * x_w
                if preactivation.size:
                    preactivated_run(x, at, preactivation, channel, panel, target, channels, end)
                else:
                    copy_run(x, at, panel, target, taps * channels, end)
            else:
                taps = 1
                clear_run(panel, target, channels)
            target += taps * channels
            s += taps


@worker(borrows=True)
def pack_pixels(y, first, count, channel, channels, panel, base, pitch):
    """panel[p, c] = pixel first + p of y (N, OH, OW, K), channels channel, ..., channel + channels - 1."""
    compact()
    _, OH, OW, _ = y.shape
    y_n, y_h, y_w = y.strides[0] // 4, y.strides[1] // 4, y.strides[2] // 4
    end = end_of(y)
    ow, oh, n = first % OW, first // OW % OH, first // (OW * OH)
    for p in range(count):
        copy_run(y, n * y_n + oh * y_h + ow * y_w + channel, panel, base + p * pitch, channels, end)
        ow += 1
        if ow == OW:
            ow = 0
            oh += 1
            if oh == OH:
                oh = 0
                n += 1


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
