"""Backward-input as a matrix product whose result is scattered: for strides above 1 and for few channels.

    q[pixel, (r, s, c)] = sum over k of grad_y[pixel, k] * weight[k, c, r, s]
    grad_x[n, oh * stride + r * dilation - pad, ow * stride + s * dilation - pad, c] += q[pixel, (r, s, c)]

Taps and channels together fill the vector lanes where channels alone would not, and no product with a skipped pixel is
computed. A job owns a block of images and a block of channels, so nothing is added by two threads and the order is
fixed by the shapes. Letters: `walk.py`.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.convolution.compact import compact
from numbanet.backends.cpu.convolution.gather import MR
from numbanet.backends.cpu.convolution.walk import clear_run, first_inside, last_inside, odd_pitch, pack_pixels
from numbanet.backends.cpu.out_of_line import out_of_line
from numbanet.backends.cpu.simd import L, load, load_partial, store, store_partial, tile


@kernel("void(const T[:,:,:,:,:], T[:,:,::1], i8)", parallel=True)
def pack_scattered_weights(weight, packed, chunk):
    """packed[(g, chunk), column // 2L, k, column % 2L], column = (r * S + s) * channels + c."""
    G, Kg, Cg, R, S = weight.shape
    chunks = (Cg + chunk - 1) // chunk
    for task in prange(G * chunks * Kg):
        k, rest = task % Kg, task // Kg
        g, c0 = rest // chunks, rest % chunks * chunk
        channels = min(chunk, Cg - c0)
        columns = R * S * channels
        for c in range(channels):
            for r in range(R):
                for s in range(S):
                    column = (r * S + s) * channels + c
                    packed[rest, column // (2 * L) * Kg + k, column % (2 * L)] = weight[g, k, c0 + c, r, s]
        for column in range(columns, (columns + 2 * L - 1) // (2 * L) * 2 * L):
            packed[rest, column // (2 * L) * Kg + k, column % (2 * L)] = np.float32(0)


@worker(inline=True)
def _add_run(q, source, x, target, count):
    done = 0
    while done + L <= count:
        store(x, target + done, load(x, target + done) + load(q, source + done))
        done += L
    if done < count:
        left = count - done
        store_partial(x, target + done, load_partial(x, target + done, left) + load(q, source + done), left)


@worker
def _add_windows(q, base, pitch, x, walk, first, count, channel, channels):
    """Add the panel's rows to the windows of x that belong to the output pixels first, ..., first + count - 1."""
    compact()
    H, W, R, S = walk[3], walk[4], walk[5], walk[6]
    stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w = walk[7], walk[8], walk[9], walk[10], walk[11], walk[12]
    OH, OW = walk[13], walk[14]
    x_n, x_h, x_w = x.strides[0] // 4, x.strides[1] // 4, x.strides[2] // 4
    joined = S if dilation_w == 1 and x_w == channels else 1     # taps that are neighbours in memory are added at once
    ow, oh, n = first % OW, first // OW % OH, first // (OW * OH)
    for p in range(count):
        h0, w0 = oh * stride_h - pad_h, ow * stride_w - pad_w
        s0, s1 = 0, S
        if w0 < 0 or w0 + (S - 1) * dilation_w >= W:
            s0, s1 = first_inside(w0, dilation_w), last_inside(w0, dilation_w, S, W)
        for r in range(R):
            h = h0 + r * dilation_h
            if h >= 0 and h < H:
                source = base + p * pitch + r * S * channels
                target = n * x_n + h * x_h + w0 * x_w + channel
                for s in range(s0, s1, joined):
                    taps = min(joined, s1 - s)
                    _add_run(q, source + s * channels, x, target + s * dilation_w * x_w, taps * channels)
        ow += 1
        if ow == OW:
            ow = 0
            oh += 1
            if oh == OH:
                oh = 0
                n += 1


@worker
def _clear_images(x, n0, n1, channel, channels):
    compact()
    _, H, W, _ = x.shape
    x_n, x_h, x_w = x.strides[0] // 4, x.strides[1] // 4, x.strides[2] // 4
    for n in range(n0, n1):
        for h in range(H):
            if x_w == channels:
                clear_run(x, n * x_n + h * x_h + channel, W * channels)
            else:
                for w in range(W):
                    clear_run(x, n * x_n + h * x_h + w * x_w + channel, channels)


@worker
def _multiply(scratch, a, a_pitch, q, q_pitch, packed, b, count, columns, filters):
    """q[p, column] = sum over k of a[p, k] * packed[column, k] for `count` rows, rounded up to whole tiles."""
    out_of_line()
    for column in range(0, columns, 2 * L):
        for p in range(0, count, MR):
            tile(MR, 2, scratch, a + p * a_pitch, a_pitch, 1, packed, b + column * filters, 2 * L,
                 scratch, q + p * q_pitch + column, q_pitch, filters, 0)


@worker
def _scatter_jobs(slot, grad_y, packed, grad_x, scratch, walk, chunk, images, block):
    """The share of one slot."""
    out_of_line()
    Cg, Kg, G, T = walk[0], walk[1], walk[2], walk[5] * walk[6]
    OH, OW = walk[13], walk[14]
    N, slots = grad_y.shape[0], scratch.shape[0]
    chunks, image_blocks = (Cg + chunk - 1) // chunk, (N + images - 1) // images
    jobs = G * chunks * image_blocks
    a_pitch, q_pitch = odd_pitch(Kg), odd_pitch((T * chunk + 2 * L - 1) // (2 * L) * 2 * L)
    a = slot * scratch.shape[1]
    q = a + block * a_pitch + L
    for job in range(slot * jobs // slots, (slot + 1) * jobs // slots):
        rest, n0 = job // image_blocks, job % image_blocks * images
        g, c0 = rest // chunks, rest % chunks * chunk
        n1, channels = min(n0 + images, N), min(chunk, Cg - c0)
        _clear_images(grad_x, n0, n1, g * Cg + c0, channels)
        for first in range(n0 * OH * OW, n1 * OH * OW, block):
            count = min(block, n1 * OH * OW - first)
            pack_pixels(grad_y, first, count, g * Kg, Kg, scratch, a, a_pitch)
            _multiply(scratch, a, a_pitch, q, q_pitch, packed, rest * packed.shape[1] * 2 * L, count, T * channels, Kg)
            _add_windows(scratch, q, q_pitch, grad_x, walk, first, count, g * Cg + c0, channels)


@kernel("void(const T[:,:,:,:], const T[:,:,::1], T[:,:,:,:], T[:,::1], const i8[::1], i8, i8, i8)", parallel=True)
def conv2d_backward_input_scatter(grad_y, packed, grad_x, scratch, walk, chunk, images, block):
    """grad_y (N, OH, OW, K), grad_x (N, H, W, C); a job is `images` images and `chunk` channels, in blocks."""
    for slot in prange(scratch.shape[0]):
        _scatter_jobs(np.int64(slot), grad_y, packed, grad_x, scratch, walk, chunk, images, block)
