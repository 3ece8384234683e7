"""uint8 images cut out or sampled through affine maps, and normalised: one thread an output element, in float64 until it is stored."""

from __future__ import annotations

import numpy as np

from numbanet.backends.contract.image import check_images_of_windows
from numbanet.backends.cuda.compile import device, float64, kernel
from numbanet.backends.cuda.constants import on_device
from numbanet.backends.cuda.index import quotient, thread, threads
from numbanet.backends.cuda.launch import launch
from numbanet.backends.cuda.mathematics import floor
from numbanet.backends.cuda.pointwise import on_host
from numbanet.backends.cuda.registry import implements


@device
def pixel(images, begin, y, x, H, W, y_step, x_step):
    """The value at a row and a column; 0 outside of the image."""
    if y < 0 or y >= H or x < 0 or x >= W:
        return float64(0.0)
    return float64(images[begin + y * y_step + x * x_step])


@kernel
def affine_kernel(images, matrices, mean, std, out, total, C, H, W, OH, OW, steps, matrix_steps, out_steps):
    for t in range(thread(), total, threads()):
        place = quotient(t, C)
        c = t - place * C
        row = quotient(place, OW)
        j = place - row * OW
        n = quotient(row, OH)
        i = row - n * OH
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


@kernel
def crop_kernel(images, windows, mean, std, out, total, C, H, W, OH, OW, steps, window_steps, out_steps):
    for t in range(thread(), total, threads()):
        place = quotient(t, C)
        c = t - place * C
        row = quotient(place, OW)
        j = place - row * OW
        m = quotient(row, OH)
        i = row - m * OH
        at, step = m * window_steps[0], window_steps[1]
        y, x = windows[at + step] + i, windows[at + 2 * step] + (OW - 1 - j if windows[at + 3 * step] else j)
        value = pixel(images, windows[at] * steps[0] + c * steps[3], y, x, H, W, steps[1], steps[2]) / 255.0
        out[m * out_steps[0] + c * out_steps[1] + i * out_steps[2] + j * out_steps[3]] = (value - mean[c]) / std[c]


def _launch(kernel_of, images, places, output_size, mean, std, out) -> None:
    steps = images.steps if len(images.shape) == 4 else (*images.steps, 0)
    tables = [on_device(images.lease.allocator, np.array(values, np.float64)) for values in (mean, std)]
    launch(kernel_of, out.size, images, places, *tables, out, out.size, len(mean), *images.shape[1:3], *output_size, steps, places.steps,
           out.steps)


@implements
def images_affine_normalize(images, matrices, output_size, mean, std, out):
    _launch(affine_kernel, images, matrices, output_size, mean, std, out)


@implements
def images_crop_normalize(images, windows, output_size, mean, std, out):
    check_images_of_windows(on_host(windows), images.shape[0])
    _launch(crop_kernel, images, windows, output_size, mean, std, out)
