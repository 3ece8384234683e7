"""Padding: slices and index tables."""

from __future__ import annotations

from numbanet.backends.contract.padding import padding_sources
from numbanet.backends.reference.registry import implements


def kept(shape, padding):
    """Slices of the elements of an input of `shape` that are kept, and of where they stand in the output."""
    inner, outer = [], []
    for n, (before, after) in zip(shape, padding):
        first, last = max(-before, 0), n - max(-after, 0)
        count = max(last - first, 0)
        inner.append(slice(first, first + count))
        outer.append(slice(first + before, first + before + count))
    return tuple(inner), tuple(outer)


def _tables(input_size, padding, mode):
    return (padding_sources(size, *pair, mode) for size, pair in zip(input_size, padding[2:]))


@implements
def pad_forward(x, padding, mode, value, out):
    if mode == "constant":
        inner, outer = kept(x.shape, padding)
        out[...] = value
        out[outer] = x[inner]
    else:
        rows, columns = _tables(x.shape[2:], padding, mode)
        out[...] = x[:, :, rows[:, None], columns]


@implements
def pad_backward_input(grad_y, padding, mode, out):
    out[...] = 0
    if mode == "constant":
        inner, outer = kept(out.shape, padding)
        out[inner] = grad_y[outer]
    else:
        rows, columns = _tables(out.shape[2:], padding, mode)
        for i, h in enumerate(rows):
            for j, w in enumerate(columns):
                out[:, :, h, w] += grad_y[:, :, i, j]
