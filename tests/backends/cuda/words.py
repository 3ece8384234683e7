"""Words of 32 bits in the lanes of warps, as the PTX ISA says: conversions, matrix fragments, products of them.

What the emulator of tile programs and the machine of PTX both compute with. An array has one element a thread, 32 a warp.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np

LANE = np.arange(32)
ROW, WORD = LANE >> 2, LANE & 3                # of a fragment of 8 rows: the lane's row, and its word of two numbers
HALVES = {"bf16": ml_dtypes.bfloat16, "fp16": np.float16}


def rounded_tf32(word):
    """To the nearest of 10 bits of mantissa, ties away from zero; a NaN becomes the one of the hardware."""
    rounded = (word + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
    magnitude = word & np.uint32(0x7FFFFFFF)
    return np.where(magnitude > 0x7F800000, np.uint32(0x7FFFFFFF), np.where(magnitude == 0x7F800000, word, rounded))


def packed(low, high, kind: str):
    """Words of two 16-bit numbers from float32."""
    low, high = np.broadcast_arrays(np.asarray(low, np.float32), np.asarray(high, np.float32))
    with np.errstate(over="ignore"):
        return np.stack([low, high], -1).astype(HALVES[kind]).view(np.uint32)[..., 0]


def unpacked(word, kind: str):
    """(low, high) as float32."""
    pair = np.ascontiguousarray(word)[..., None].view(HALVES[kind]).astype(np.float32)
    return pair[..., 0], pair[..., 1]


def _numbers(words, kind: str):
    """What products read: of TF32 the upper bits alone."""
    return (words & np.uint32(0xFFFFE000)).view(np.float32) if kind == "tf32" else words.view(HALVES[kind])


def _fragments(words, rows, columns):
    """(warps, 16 or 8, depth) from words (count, threads): `rows`, `columns` (count, 32) say where each word of a lane belongs."""
    words = np.stack(words)
    words = words.reshape(len(words), -1, 32)
    table = np.empty((words.shape[1], rows.max() + 1, columns.max() + 1), np.uint32)
    table[:, rows, columns] = words.transpose(1, 0, 2)
    return table


def mma(kind: str, a, b, c) -> list[np.ndarray]:
    """The four results of mma.m16n8k8 (TF32) or m16n8k16 of each lane: words a0..a3, b0, b1 and float32 c0..c3, one an element a thread."""
    a = _numbers(_fragments(a, np.stack([ROW, ROW + 8, ROW, ROW + 8]), np.stack([WORD, WORD, WORD + 4, WORD + 4])), kind)
    b = _numbers(_fragments(b, np.stack([ROW, ROW]), np.stack([WORD, WORD + 4])), kind)                      # (warps, 8 columns, depth)
    product = np.einsum("wik,wjk->wij", a.astype(np.float64), b.astype(np.float64))
    return [(product[:, ROW + 8 * (i >> 1), 2 * WORD + (i & 1)].reshape(-1) + one.astype(np.float64)).astype(np.float32)
            for i, one in enumerate(c)]


def matrix_words(rows, trans: bool):
    """Words (warps, matrices, 32) that lanes receive of 8 x 8 matrices of 16-bit numbers, by ldmatrix."""
    if trans:
        pairs = np.stack([rows[:, :, 2 * WORD, ROW], rows[:, :, 2 * WORD + 1, ROW]], -1)
    else:
        pairs = np.stack([rows[:, :, ROW, 2 * WORD], rows[:, :, ROW, 2 * WORD + 1]], -1)
    return np.ascontiguousarray(pairs).view(np.uint32)[..., 0]

