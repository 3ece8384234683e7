"""Padding on the CPU: copies of whole regions for a constant, else taps for the kernel of `resample.py`."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from numbanet.backends.contract.padding import padding_sources
from numbanet.backends.cpu.registry import implements
from numbanet.backends.cpu.resample import Taps, make_taps, resample


@lru_cache(maxsize=1024)
def _taps(size: int, padding: tuple[int, int], mode: str, backward: bool, dtype) -> Taps:
    sources = padding_sources(size, *padding, mode)
    targets = np.arange(len(sources))
    return make_taps(sources, targets, 1, size, dtype) if backward else make_taps(targets, sources, 1, len(targets), dtype)


def _place(x, offsets, value, out) -> None:
    """Lay x into `out` with its first element at `offsets` (negative ones cut), and `value` wherever it does not reach.

    Slab by slab, so that each element is written once; NumPy's copies run at the speed of memory.
    """
    for axis, offset in enumerate(offsets):
        begin = min(max(offset, 0), out.shape[axis])
        end = max(min(offset + x.shape[axis], out.shape[axis]), begin)
        lead = (slice(None),) * axis
        out[(*lead, slice(0, begin))] = value
        out[(*lead, slice(end, None))] = value
        out, x = out[(*lead, slice(begin, end))], x[(*lead, slice(begin - offset, end - offset))]
    np.copyto(out, x)


@implements
def pad_forward(x, padding, mode, value, out):
    if mode == "constant":
        _place(x, [before for before, _ in padding], value, out)
    elif out.dtype.kind == "f" and out.dtype.itemsize >= 4:
        rows, columns = (_taps(size, pair, mode, False, out.dtype) for size, pair in zip(x.shape[2:], padding[2:]))
        resample(x, rows, columns, None, out)
    else:       # control data: masks and indices
        rows, columns = (padding_sources(size, *pair, mode) for size, pair in zip(x.shape[2:], padding[2:]))
        np.copyto(out, x[:, :, rows[:, None], columns])


@implements
def pad_backward_input(grad_y, padding, mode, out):
    if mode == "constant":
        _place(grad_y, [-before for before, _ in padding], 0, out)
    else:
        rows, columns = (_taps(size, pair, mode, True, out.dtype) for size, pair in zip(out.shape[2:], padding[2:]))
        resample(grad_y, rows, columns, None, out)
