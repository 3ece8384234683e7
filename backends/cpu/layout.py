"""Copies between memory orders.

    y[n, q, p] = x[n, p, q]        for x channels-last, p a pixel and q a channel; or the other way round

x (N, P, Q) has unit stride over q, y (N, Q, P) over p. Reading in order and writing with strides is the fastest of the
loop orders (0.3 ns an element; tiles of 16 x 16 took 0.8, NumPy 0.4 to 1.0).
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu.compile import kernel
from numbanet.backends.cpu.simd import L, load_partial, splat, store_partial
from numbanet.backends.interface import channels_last

SMALL = 2048    # elements that NumPy copies before threads would have started
BLOCK = 64      # pixels of a task: four cache lines of each channel


@kernel("void(const T[:,:,::1], T[:,:,::1])", parallel=True)
def copy_swapped(x, y):
    N, P, Q = x.shape
    blocks = (P + BLOCK - 1) // BLOCK
    for task in prange(N * blocks):
        n, begin = task // blocks, task % blocks * BLOCK
        for p in range(begin, min(begin + BLOCK, P)):
            for q in range(Q):
                y[n, q, p] = x[n, p, q]


@kernel("void(const T[:,:,:,:], T[:,:,:,:])", parallel=True)
def copy_pixels(x, y):
    """x and y (N, H, W, C), of neighbouring channels."""
    N, H, W, C = x.shape
    x_w, y_w = x.strides[2] // 4, y.strides[2] // 4
    for row in prange(N * H):
        n, h = np.int64(row) // H, np.int64(row) % H
        source, target = n * (x.strides[0] // 4) + h * (x.strides[1] // 4), n * (y.strides[0] // 4) + h * (y.strides[1] // 4)
        for _ in range(W):
            for c in range(0, C, L):
                store_partial(y, target + c, load_partial(x, source + c, C - c), C - c)
            source, target = source + x_w, target + y_w


def copy_into(x: np.ndarray, out: np.ndarray) -> None:
    """Copy x to `out`, of equal shape; kernels do channels-last to row-major and back, and slices of channels, NumPy all else."""
    copying = _copying(x, out) if x.ndim > 2 and x.size >= SMALL else None
    if copying is None:
        np.copyto(out, x)
    else:
        function, arguments = copying
        function(*arguments)


def _copying(x, out):
    """The kernel that copies x to `out`, with its arguments, or None."""
    swapped = _swapped(x, out)
    if swapped is not None:
        return copy_swapped, swapped
    are_pixels = x.ndim == 4 and x.dtype == out.dtype == np.float32 and x.strides[1] == out.strides[1] == x.itemsize and x.shape[1] > 1
    if are_pixels and not np.may_share_memory(x, out):
        return copy_pixels, (x.transpose(0, 2, 3, 1), out.transpose(0, 2, 3, 1))
    return None


def _swapped(x, out):
    """The operands of `copy_swapped` that copy x to `out`, or None."""
    if x.dtype == out.dtype == np.float32 and not (x.flags.c_contiguous and out.flags.c_contiguous):
        order = channels_last(x.ndim)
        N, C = x.shape[:2]
        P = x.size // (N * C)
        if out.flags.c_contiguous and (last := x.transpose(order)).flags.c_contiguous:
            return last.reshape(N, P, C), out.reshape(N, C, P)
        if x.flags.c_contiguous and (last := out.transpose(order)).flags.c_contiguous:
            return x.reshape(N, C, P), last.reshape(N, P, C)
    return None


@kernel("void(const T[:,:,:,:], T[:,:,:,:], T[:,::1])", parallel=True)
def copy_rows_into_zeros(x, part, out):
    N, H, W, C = x.shape
    x_n, x_h, x_w = x.strides[0] // 4, x.strides[1] // 4, x.strides[2] // 4
    p_n, p_h, p_w = part.strides[0] // 4, part.strides[1] // 4, part.strides[2] // 4
    size = out.shape[1]
    for n in prange(N):
        for i in range(0, size, L):
            store_partial(out, n * size + i, splat(np.float32(0)), size - i)
        for h in range(H):
            for w in range(W):
                source, target = n * x_n + h * x_h + w * x_w, n * p_n + h * p_h + w * p_w
                for c in range(0, C, L):
                    store_partial(part, target + c, load_partial(x, source + c, C - c), C - c)


def copy_into_zeros(x: np.ndarray, part: np.ndarray, out: np.ndarray) -> bool:
    """Copy x to `part`, a view of every image of `out`, and zeros to the rest, where both are large maps; whether it did.

    Image by image, on all threads: what is written twice is in a cache the second time.
    """
    if not (x.ndim == out.ndim == 4 and x.dtype == out.dtype == np.float32 and x.size >= SMALL and len(x) == len(out)
            and part.strides[0] == out.strides[0]):
        return False
    x, part, whole = (a.transpose(0, 2, 3, 1) for a in (x, part, out))
    if not whole.flags.c_contiguous or any(a.strides[3] != 4 and a.shape[3] > 1 for a in (x, part)):
        return False
    copy_rows_into_zeros(x, part, whole.reshape(len(out), -1))
    return True


def copy_kernels(x: np.ndarray, out: np.ndarray) -> list | None:
    """What copies x, where that is a kernel: see `program.joined`."""
    copying = _copying(x, out) if x.ndim > 2 and x.size else None
    return copying and [(*copying, x.size >= SMALL)]


_CHANNELS_TO_THE_END = {rank: (0, *range(2, rank), 1) for rank in range(2, 8)}
_CHANNELS_BACK = {rank: (0, rank - 1, *range(1, rank - 1)) for rank in range(2, 8)}


def pixels(x: np.ndarray) -> np.ndarray:
    """(N, C, ...) as (N, ..., C) with unit stride over the channels: a view where the memory allows it, else a copy."""
    last = x.transpose(_CHANNELS_TO_THE_END[x.ndim])
    if last.strides[-1] == x.itemsize or last.shape[-1] == 1:
        return last
    copy = np.empty(last.shape, x.dtype)
    copy_into(x, copy.transpose(_CHANNELS_BACK[x.ndim]))
    return copy


def are_pixels(*maps: np.ndarray) -> bool:
    """Whether `pixels` copies none of them."""
    return all(m.strides[1] == m.itemsize or m.shape[1] == 1 for m in maps)


def finish_pixels(filled: np.ndarray, out: np.ndarray) -> None:
    """Bring what a kernel wrote to ``pixels(out)`` into `out`, where that was a copy."""
    if filled.base is not out and (filled.base is None or filled.base is not out.base):
        np.copyto(out, filled.transpose(_CHANNELS_BACK[out.ndim]))
