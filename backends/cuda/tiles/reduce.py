"""The second pass of a split product. Everything is added in a fixed order, so that the bits are the same in every run:

    y = epilogue(sum over splits of partial[split, batch, row, column]), split 0 first

One thread has two neighbouring columns.
"""

from __future__ import annotations

from dataclasses import dataclass

from numpy import int32, int64

from numbanet.backends.cuda.tiles import layout
from numbanet.backends.cuda.tiles.epilogue import build_element, build_result_locator

THREADS = 256


@dataclass(frozen=True)
class SplitEpilogue:
    """The kernel that adds up splits; `math` says the type of y, `result` where it lies."""

    math: str
    result: str

    threads, shared_bytes = THREADS, 0

    @property
    def name(self) -> str:
        return f"splits_{self.math}_{self.result}"


def build_split_epilogue(program: SplitEpilogue, machine):
    """(pointers, sizes, limits, y parameters, residual parameters); pointers and sizes as below."""
    item, load_pair, store_pair = build_element(program.math, machine)
    row_offset, column_offset = build_result_locator(program.result, machine)
    divide, select = machine.worker(layout.divide), machine.select
    load_float, minimum, maximum, fma = machine.load_float, machine.minimum, machine.maximum, machine.fma
    thread_index, block_x, block_y, float32 = machine.thread_index, machine.block_x, machine.block_y, machine.float32

    def kernel(pointers, sizes, limits, y_parameters, residual_parameters):
        partial, y_pointer, residual_pointer, scale_pointer, shift_pointer, y_batch, residual_batch, split_bytes = pointers
        rows, columns, splits, pairs, channels, half, half_magic, half_shift = sizes
        index = int32(block_x() * THREADS + thread_index())
        row = divide(index, half_magic, half_shift)
        column = int32(2 * (index - row * half))
        has_first, has_second = row < rows, (row < rows) & (column + 1 < columns)
        batch = block_y()
        place = partial + ((int64(batch) * rows + int64(row)) * columns + int64(column)) * 4
        low, high = load_float(place, has_first), load_float(place + 4, has_second)
        for _ in range(1, splits):
            place = place + split_bytes
            low, high = low + load_float(place, has_first), high + load_float(place + 4, has_second)
        channel = int64(select(has_first, int32(batch * channels + column), int32(0))) * 4
        scale_low, scale_high, shift_low, shift_high = float32(1), float32(1), float32(0), float32(0)
        if scale_pointer != 0:
            scale_low, scale_high = load_float(scale_pointer + channel, has_first), load_float(scale_pointer + channel + 4, has_second)
        if shift_pointer != 0:
            shift_low, shift_high = load_float(shift_pointer + channel, has_first), load_float(shift_pointer + channel + 4, has_second)
        low, high = fma(low, scale_low, shift_low), fma(high, scale_high, shift_high)
        if residual_pointer != 0:
            start = residual_pointer + int64(batch) * residual_batch
            offset = row_offset(row, residual_parameters)
            more_low, more_high = load_pair(start + (offset + int64(column_offset(column, residual_parameters))) * item,
                                            start + (offset + int64(column_offset(column + 1, residual_parameters))) * item,
                                            pairs, has_first, has_second)
            low, high = low + more_low, high + more_high
        low = minimum(maximum(low, limits[0]), limits[1])
        high = minimum(maximum(high, limits[0]), limits[1])
        start = y_pointer + int64(batch) * y_batch
        offset = row_offset(row, y_parameters)
        store_pair(start + (offset + int64(column_offset(column, y_parameters))) * item,
                   start + (offset + int64(column_offset(column + 1, y_parameters))) * item, low, high, pairs, has_first, has_second)
    kernel.__name__ = kernel.__qualname__ = program.name
    return kernel
