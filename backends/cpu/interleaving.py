"""Channels interleaved, as ShuffleNet mixes those of its branches, and separated again, for maps of pixels.

    interleave_channels     y[p, j * g + i] = x_i[p, j]         for g maps x_i (pixels, C)
    separate_channels       y[p, i * C + j] = x[p, j * g + i]   for one map (pixels, g * C)
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu.compile import JIT, alone, kernel
from numbanet.backends.cpu.layout import are_pixels, finish_pixels, pixels
from numbanet.backends.cpu.registry import implements
from numbanet.backends.cpu.simd import L, load_partial, store_partial
from numbanet.backends.reference import shape as numpy

if JIT:
    import llvmlite.ir as ir
    from numba import types
    from numba.extending import intrinsic

    from numbanet.backends.cpu.simd.types import I32, f32xL

    def _picking(half, lanes):
        """Signature and code of what picks lanes of two vectors, by a literal number."""
        if not isinstance(half, types.IntegerLiteral):
            return None
        places = ir.Constant(ir.VectorType(I32, L), [lanes(i, half.literal_value) for i in range(L)])

        def codegen(context, builder, sig, args):
            return builder.shuffle_vector(args[0], args[1], places)
        return f32xL(f32xL, f32xL, half), codegen

    @intrinsic(prefer_literal=True)
    def zipped(typingctx, x, y, half):
        """(x[0], y[0], x[1], y[1], ...): of 2L numbers the first L, or the last where `half` is 1."""
        return _picking(half, lambda i, half: half * L // 2 + i // 2 + i % 2 * L)

    @intrinsic(prefer_literal=True)
    def unzipped(typingctx, x, y, odd):
        """Every second number of x and y together, from number `odd` on."""
        return _picking(odd, lambda i, odd: 2 * i + odd)
else:
    def zipped(x, y, half):
        """The scalar twin."""
        return np.stack([x, y], axis=1).ravel()[half * L:(half + 1) * L]

    def unzipped(x, y, odd):
        """The scalar twin."""
        return np.concatenate([x, y])[odd::2]

SMALL = 1 << 14     # elements that one thread has done before another would have begun


@kernel("void(const T[:,:,:,:], const T[:,:,:,:], T[:,:,:,::1])", parallel=True)
def interleave_pairs(a, b, y):
    """a and b (N, H, W, C), y (N, H, W, 2 C); channels are neighbours in all."""
    N, H, W, C = a.shape
    for row in prange(N * H):
        n, h = np.int64(row) // H, np.int64(row) % H
        a_0, b_0 = n * (a.strides[0] // 4) + h * (a.strides[1] // 4), n * (b.strides[0] // 4) + h * (b.strides[1] // 4)
        for w in range(W):
            a_at, b_at, target = a_0 + w * (a.strides[2] // 4), b_0 + w * (b.strides[2] // 4), (np.int64(row) * W + w) * 2 * C
            for c in range(0, C, L):
                x, z, left = load_partial(a, a_at + c, C - c), load_partial(b, b_at + c, C - c), 2 * (C - c)
                store_partial(y, target + 2 * c, zipped(x, z, 0), left)
                if left > L:
                    store_partial(y, target + 2 * c + L, zipped(x, z, 1), left - L)


@kernel("void(const T[:,:,:,:], T[:,:,:,::1])", parallel=True)
def separate_pairs(x, y):
    """x and y (N, H, W, 2 C); channels are neighbours in both."""
    N, H, W, both = x.shape
    C = both // 2
    for row in prange(N * H):
        source, target = np.int64(row) // H * (x.strides[0] // 4) + np.int64(row) % H * (x.strides[1] // 4), np.int64(row) * W * both
        for _ in range(W):
            for c in range(0, C, L):
                left = 2 * (C - c)
                first = load_partial(x, source + 2 * c, left)
                last = load_partial(x, source + 2 * c + L, left - L) if left > L else first
                store_partial(y, target + c, unzipped(first, last, 0), C - c)
                store_partial(y, target + C + c, unzipped(first, last, 1), C - c)
            source, target = source + x.strides[2] // 4, target + both


@kernel("void(const T[:,:,:,:], T[:,:,:,::1], i8, i8, i8, i8)", parallel=True)
def place_channels(x, y, source, source_step, target, target_step):
    """Copy the channels source, source + source_step, ... of x to the channels target, target + target_step, ... of y."""
    N, H, W, C = x.shape
    for row in prange(N * H):
        n, h = np.int64(row) // H, np.int64(row) % H
        for w in range(W):
            for i in range((C - source + source_step - 1) // source_step):
                y[n, h, w, target + i * target_step] = x[n, h, w, source + i * source_step]


def _interleaving(arrays, y) -> list[tuple]:
    """What fills y (N, H, W, g * C) with the channels of maps."""
    is_shared, g = y.size > SMALL, len(arrays)
    if g == 2:
        return [(interleave_pairs, (*arrays, y), is_shared)]
    return [(place_channels, (x, y, 0, 1, i, g), is_shared) for i, x in enumerate(arrays)]


def _separating(x, g, y) -> list[tuple]:
    """What fills y (N, H, W, g * C)."""
    is_shared, C = y.size > SMALL, x.shape[3] // g
    if g == 2:
        return [(separate_pairs, (x, y), is_shared)]
    return [(place_channels, (x, y, i, g, i * C, 1), is_shared) for i in range(g)]


def _run(calls, arrays, out, in_numpy) -> None:
    """`calls(*maps of pixels, y)`, which fill `out`; by NumPy where there is no such kernel."""
    if out.dtype != np.float32 or out.ndim != 4:
        return in_numpy()
    y = pixels(out)
    filled = y if y.flags.c_contiguous else np.empty(y.shape, y.dtype)
    for function, arguments, is_shared in calls([pixels(x) for x in arrays], filled):
        alone(function, not is_shared)(*arguments)
    if filled is not y:
        np.copyto(y, filled)
    finish_pixels(y, out)


def _tell(calls, arrays, out) -> list | None:
    """As `_run`, where that needs no copies: see `program.joined`."""
    if out.dtype != np.float32 or out.ndim != 4 or not out.size or not are_pixels(*arrays, out) or not pixels(out).flags.c_contiguous:
        return None
    return calls([pixels(x) for x in arrays], pixels(out))


@implements
def interleave_channels(arrays, out):
    _run(_interleaving, arrays, out, lambda: numpy.interleave_channels(arrays, out))


@implements
def separate_channels(x, groups, out):
    _run(lambda maps, y: _separating(*maps, groups, y), [x], out, lambda: numpy.separate_channels(x, groups, out))


interleave_channels.kernels = lambda arrays, out: _tell(_interleaving, arrays, out)
separate_channels.kernels = lambda x, groups, out: _tell(lambda maps, y: _separating(*maps, groups, y), [x], out)
