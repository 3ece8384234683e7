"""Padding: constant along any axes, or from the map's own elements along H and W.

`padding` holds (before, after) for every axis. Along an axis of n elements, output position `before + i` is element i,
and outside of 0 ... n - 1::

    constant     value; a negative number cuts elements off instead
    reflect      ... 2 1 | 0 1 2 ... n-1 | n-2 n-3 ...      less than n elements on either side
    replicate    ... 0 0 | 0 1 2 ... n-1 | n-1 n-1 ...
    circular     ... n-2 n-1 | 0 1 2 ... n-1 | 0 1 ...      at most n elements on either side
"""

from __future__ import annotations

import numpy as np

from numbanet.backends.contract.checks import check_float
from numbanet.backends.interface import Array, ArraySpec, Scalar, order_of, primitive
from numbanet.errors import ShapeError

Padding = tuple[tuple[int, int], ...]
MODES = ("constant", "reflect", "replicate", "circular")


def padding_sources(size: int, before: int, after: int, mode: str) -> np.ndarray:
    """The input position of every output position along an axis; for all modes but "constant"."""
    position = np.arange(-before, size + after)
    if mode == "reflect":
        return (size - 1) - np.abs((size - 1) - np.abs(position))
    return np.clip(position, 0, size - 1) if mode == "replicate" else position % size


def _check(operation: str, shape: tuple[int, ...], padding: Padding, mode: str) -> None:
    if mode not in MODES:
        raise ShapeError(f"{operation}: mode expects {', '.join(MODES)}, received {mode!r}")
    if len(padding) != len(shape):
        raise ShapeError(f"{operation}: padding expects a pair (before, after) for each axis of {shape}, received {padding}")
    if mode == "constant":
        return
    if len(shape) != 4 or any(padding[0] + padding[1]):
        raise ShapeError(f"{operation}: mode {mode!r} pads H and W of (N, C, H, W), received shape {shape}, padding {padding}")
    for size, pair in zip(shape[2:], padding[2:]):
        most = {"reflect": size - 1, "circular": size, "replicate": max(pair)}[mode]
        if min(pair) < 0 or max(pair) > most or any(pair) and not size:
            raise ShapeError(f"{operation}: mode {mode!r} expects 0 to {most} elements before and after an axis of {size}, "
                             f"received {pair}")


def _padded(operation: str, shape: tuple[int, ...], padding: Padding, sign: int) -> tuple[int, ...]:
    result = tuple(n + sign * (before + after) for n, (before, after) in zip(shape, padding))
    if min(result, default=0) < 0:
        raise ShapeError(f"{operation}: padding {padding} of shape {shape} gives the size {result}; cut off less")
    return result


@primitive
def pad_forward(x: Array, padding: Padding, mode: str, value: Scalar):
    """x with more (or fewer) elements before and after each axis; `value` counts in mode "constant" only."""
    _check("pad", x.shape, padding, mode)
    return ArraySpec(_padded("pad", x.shape, padding, 1), x.dtype, order_of(x))


@primitive
def pad_backward_input(grad_y: Array, padding: Padding, mode: str):
    """Each element of grad_y added to the element that it was copied from."""
    check_float("pad_backward_input", grad_y=grad_y)
    shape = _padded("pad_backward_input", grad_y.shape, padding, -1)
    _check("pad_backward_input", shape, padding, mode)
    return ArraySpec(shape, grad_y.dtype, order_of(grad_y))
