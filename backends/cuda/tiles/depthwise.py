"""Convolution with one filter a channel: no product of matrices is in it, it is bound by memory.

    y[n, c, p, q] = sum over r, s of x[n, c, p * step + r * dilation - padding, ...] * weight[c, r, s]

forward, backward_input
    A thread has two neighbouring channels of one pixel and walks over the taps. Neighbouring threads have neighbouring channels, so
    that accesses are whole lines, and the windows of neighbouring pixels meet in L1. The weight's elements lie in the order R, S, C.
backward_weight
    A block has 32 pairs of channels, one tap and a part of the pixels; its 8 rows of threads each sum every eighth pixel, and
    are added in order. `reduce.py` adds the parts in order.

What is outside of the map counts as 0. The arithmetic is float32, fused multiply-adds in the order of the taps, or of the pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

from numpy import int32, int64

from numbanet.backends.cuda.tiles import layout
from numbanet.backends.cuda.tiles.epilogue import build_element, build_result_locator
from numbanet.backends.cuda.tiles.operands import build_pixel_locator

THREADS = 256
PASSES = ("forward", "backward_input", "backward_weight")


@dataclass(frozen=True)
class Depthwise:
    """One kernel of depthwise convolution: `math` is "float32", "bf16" or "fp16", the type of the arrays."""

    math: str
    direction: str

    threads = THREADS

    @property
    def shared_bytes(self) -> int:
        return 8 * THREADS if self.direction == "backward_weight" else 0

    @property
    def name(self) -> str:
        return f"depthwise_{self.math}_{self.direction}"


def build_depthwise(program: Depthwise, machine):
    """The kernel of a pass; see `arguments.py` for its arguments."""
    return (_backward_weight if program.direction == "backward_weight" else _forward)(program, machine)


def _forward(program: Depthwise, machine):
    item, load_pair, store_pair = build_element(program.math, machine)
    row_offset, _ = build_result_locator("pixels", machine)
    locate, divide, inside = build_pixel_locator(machine), machine.worker(layout.divide), machine.inside
    load_float, fma, minimum, maximum = machine.load_float, machine.fma, machine.minimum, machine.maximum
    thread_index, block_x, float32 = machine.thread_index, machine.block_x, machine.float32
    backward, absolute = program.direction == "backward_input", machine.absolute

    def kernel(pointers, sizes, limits, pixels, taps, y_parameters, residual_parameters):
        x, weight, y, residual, scale, shift = pointers
        rows, channels, pairs, half, half_magic, half_shift = sizes
        R, S, h_dilation, w_dilation, r_stride, s_stride, h_step, h_magic, h_shift, w_step, w_magic, w_shift = taps
        index = int32(block_x() * THREADS + thread_index())
        row = divide(index, half_magic, half_shift)
        channel = int32(2 * (index - row * half))
        has_first, has_second = row < rows, (row < rows) & (channel + 1 < channels)
        start, h, w = locate(row, pixels)
        low, high = float32(0), float32(0)
        for r in range(R):
            for s in range(S):
                if backward:                    # pixel h of x was read by pixel (h + padding - r * dilation) / step of y, if that is whole
                    above, left = int32(h - r * h_dilation), int32(w - s * w_dilation)
                    p, q = divide(absolute(above), h_magic, h_shift), divide(absolute(left), w_magic, w_shift)
                    exists = (above >= 0) & (left >= 0) & (p * h_step == above) & (q * w_step == left) & inside(p, pixels[13]) & inside(
                        q, pixels[14])
                    place = start + int32(p * pixels[1] + q * pixels[2] - h * pixels[1] - w * pixels[2])
                else:
                    exists = inside(int32(h + r * h_dilation), pixels[13]) & inside(int32(w + s * w_dilation), pixels[14])
                    place = start + int32(r * h_dilation * pixels[1] + s * w_dilation * pixels[2])
                at = x + (int64(place) + int64(channel)) * item
                x_low, x_high = load_pair(at, at + item, pairs, has_first & exists, has_second & exists)
                at = weight + int64(int32(r * r_stride + s * s_stride + channel)) * item
                weight_low, weight_high = load_pair(at, at + item, pairs, has_first, has_second)
                low, high = fma(x_low, weight_low, low), fma(x_high, weight_high, high)
        scale_low, scale_high, shift_low, shift_high = float32(1), float32(1), float32(0), float32(0)
        if scale != 0:
            at = scale + int64(channel) * 4
            scale_low, scale_high = load_float(at, has_first), load_float(at + 4, has_second)
        if shift != 0:
            at = shift + int64(channel) * 4
            shift_low, shift_high = load_float(at, has_first), load_float(at + 4, has_second)
        low, high = fma(low, scale_low, shift_low), fma(high, scale_high, shift_high)
        if residual != 0:
            at = residual + (row_offset(row, residual_parameters) + int64(channel)) * item
            more_low, more_high = load_pair(at, at + item, pairs, has_first, has_second)
            low, high = low + more_low, high + more_high
        low = minimum(maximum(low, limits[0]), limits[1])
        high = minimum(maximum(high, limits[0]), limits[1])
        at = y + (row_offset(row, y_parameters) + int64(channel)) * item
        store_pair(at, at + item, low, high, pairs, has_first, has_second)
    kernel.__name__ = kernel.__qualname__ = program.name
    return kernel


def _backward_weight(program: Depthwise, machine):
    item, load_pair, _ = build_element(program.math, machine)
    locate, divide, inside = build_pixel_locator(machine), machine.worker(layout.divide), machine.inside
    fma, barrier, store_float = machine.fma, machine.barrier, machine.store_float
    load_shared, store_shared, shared_memory = machine.load_shared_float, machine.store_shared_float, machine.shared_memory
    thread_index, block_x, block_y, block_z, float32 = (
        machine.thread_index, machine.block_x, machine.block_y, machine.block_z, machine.float32)

    def kernel(pointers, sizes, pixels, taps, grad_parameters):
        grad_y, x, partial, split_bytes = pointers
        rows, channels, pairs, rows_per_split, tap_count = sizes
        S, S_magic, S_shift, h_dilation, w_dilation = taps
        thread = thread_index()
        lane, lead = int32(thread & 31), int32(thread >> 5)
        channel = int32(2 * (block_x() * 32 + lane))
        has_first, has_second = channel < channels, channel + 1 < channels
        tap = block_y()
        r = divide(tap, S_magic, S_shift)
        h_tap, w_tap = int32(r * h_dilation), int32((tap - r * S) * w_dilation)
        first = int32(block_z() * rows_per_split)
        count = int32(min(rows - first, rows_per_split))
        low, high = float32(0), float32(0)
        for step in range(int32((count + 7) >> 3)):
            row = int32(first + 8 * step + lead)
            mine = row < first + count
            start, h, w = locate(row, pixels)
            exists = mine & inside(int32(h + h_tap), pixels[13]) & inside(int32(w + w_tap), pixels[14])
            at = x + (int64(start + int32(h_tap * pixels[1] + w_tap * pixels[2])) + int64(channel)) * item
            x_low, x_high = load_pair(at, at + item, pairs, has_first & exists, has_second & exists)
            start, h, w = locate(row, grad_parameters)
            at = grad_y + (int64(start) + int64(channel)) * item
            grad_low, grad_high = load_pair(at, at + item, pairs, has_first & exists, has_second & exists)
            low, high = fma(x_low, grad_low, low), fma(x_high, grad_high, high)
        shared = shared_memory()
        store_shared(int32(shared + 4 * thread), low, True)
        store_shared(int32(shared + 4 * (THREADS + thread)), high, True)
        barrier()
        low, high = load_shared(int32(shared + 4 * lane)), load_shared(int32(shared + 4 * (THREADS + lane)))
        for other in range(1, 8):
            low = low + load_shared(int32(shared + 4 * (32 * other + lane)))
            high = high + load_shared(int32(shared + 4 * (THREADS + 32 * other + lane)))
        at = partial + block_z() * split_bytes + (int64(channel) * tap_count + tap) * 4
        store_float(at, low, has_first & (lead == 0))
        store_float(at + int64(tap_count) * 4, high, has_second & (lead == 0))
    kernel.__name__ = kernel.__qualname__ = program.name
    return kernel
