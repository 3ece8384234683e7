"""uint8 images cut out or sampled through affine maps, and normalised.

A cut-out is a lookup: what becomes of each byte is computed on the host, in float64. A thread makes an output element, or a piece of a row
(`wide.py`). Sampling computes in float64 until it stores, and reads four bytes anywhere for each element: it waits for arithmetic, so that
wider stores would not make it faster.
"""

from __future__ import annotations

import numpy as np

from numbanet.backends.contract.image import check_images_of_windows
from numbanet.backends.cuda.compile import Sizes, device, float64, int32, kernel, lanewise, uint8
from numbanet.backends.cuda.constants import on_device
from numbanet.backends.cuda.index import grid_stride, narrow, split
from numbanet.backends.cuda.lanes import element, lane_numbers, lanes
from numbanet.backends.cuda.launch import launch
from numbanet.backends.cuda.layout import merged_in_order
from numbanet.backends.cuda.mathematics import floor
from numbanet.backends.cuda.pointwise import on_host
from numbanet.backends.cuda.registry import implements
from numbanet.backends.cuda.wide import pieces


@device
def pixel(images, begin, y, x, H, W, y_step, x_step):
    """The value at a row and a column; 0 outside of the image."""
    if y < 0 or y >= H or x < 0 or x >= W:
        return float64(0.0)
    return float64(images[begin + y * y_step + x * x_step])


@kernel
def affine_kernel(images, matrices, mean, std, out, total, C: Sizes, H, W, OH: Sizes, OW: Sizes, steps, matrix_steps, out_steps):
    for t in grid_stride(total):
        place, c = split(t, C)
        row, j = split(place, OW)
        n, i = split(row, OH)
        begin, at, a_row, a_column = n * steps[0] + c * steps[3], n * matrix_steps[0], matrix_steps[1], matrix_steps[2]
        x = matrices[at] * j + matrices[at + a_column] * i + matrices[at + 2 * a_column]
        y = matrices[at + a_row] * j + matrices[at + a_row + a_column] * i + matrices[at + a_row + 2 * a_column]
        x, y = held(x, W), held(y, H)
        left, top = floor(x), floor(y)
        value = 0.0
        for dy in range(2):
            for dx in range(2):
                weight = abs(1.0 - dy - (y - top)) * abs(1.0 - dx - (x - left))
                value += weight * pixel(images, begin, int(top) + dy, int(left) + dx, H, W, steps[1], steps[2])
        value = value / 255.0
        out[n * out_steps[0] + c * out_steps[1] + i * out_steps[2] + j * out_steps[3]] = (value - mean[c]) / std[c]


@device
def held(x, size):
    """x at most one pixel outside, where all counts as 0; NaN too."""
    return -1.0 if not x > -1.0 else min(x, float64(size))


@lanewise
def normalised(e, lane, C, OW, images, begin, is_inside, left, is_mirrored, W, x_step, c_step, table):
    """The value of element e + lane of an output row, pixels and their channels counted together."""
    j, c = split(narrow(e + lane, C), C)
    x = left + (OW - 1 - j if is_mirrored else j)
    byte = images[begin + x * x_step + c * c_step] if is_inside and 0 <= x < W else uint8(0)
    return table[c * 256 + int32(byte)]


@kernel
def crop_kernel(images, windows, table, out, total, count: Sizes, C: Sizes, H, W, OH: Sizes, OW, steps, window_steps, out_steps):
    """Output rows have `count` elements or pieces; table (C, 256) is what becomes of each byte."""
    for t in grid_stride(total):
        (row, e), lane = split(t, count), lane_numbers(element(out, 0.0))
        (m, i), e = split(row, OH), e * lanes(lane)
        at, step = m * window_steps[0], window_steps[1]
        y, left, is_mirrored = windows[at + step] + i, windows[at + 2 * step], windows[at + 3 * step] != 0
        is_inside = 0 <= y < H
        begin, (j, c) = windows[at] * steps[0] + (y * steps[1] if is_inside else 0), split(e, C)
        out[m * out_steps[0] + c * out_steps[1] + i * out_steps[2] + j * out_steps[3]] = normalised(
            e, lane, C, OW, images, begin, is_inside, left, is_mirrored, W, steps[2], steps[3], table)


def _steps(images) -> tuple[int, ...]:
    """Along images, rows, columns and channels."""
    return images.steps if len(images.shape) == 4 else (*images.steps, 0)


@implements
def images_affine_normalize(images, matrices, output_size, mean, std, out):
    tables = [on_device(images.lease.allocator, np.array(values, np.float64)) for values in (mean, std)]
    launch(affine_kernel, out.size, images, matrices, *tables, out, out.size, len(mean), *images.shape[1:3], *output_size, _steps(images),
           matrices.steps, out.steps)


@implements
def images_crop_normalize(images, windows, output_size, mean, std, out):
    check_images_of_windows(on_host(windows), images.shape[0])
    table = (np.arange(256) / 255 - np.array(mean)[:, None]) / np.array(std)[:, None]
    M, C, OH, OW = out.shape
    _, along = merged_in_order((OW, C), (out.steps[3], out.steps[1]))               # one axis where a row lies on end
    rows = (M, OH, OW * C), (out.steps[0], out.steps[2], along[0] if len(along) == 1 else 0)
    total, ((*_, count), _), (wide,) = pieces(rows, out)
    launch(crop_kernel, total, images, windows, on_device(images.lease.allocator, table.astype(out.dtype)), wide, total, count, C,
           *images.shape[1:3], OH, OW, _steps(images), windows.steps, out.steps)
