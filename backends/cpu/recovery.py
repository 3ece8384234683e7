"""Weights computed back, to the bit, from what a prepared call holds of them. See `Backend.recovery`.

What is packed was multiplied by a factor a filter (batch norm, scales), and perhaps transformed. Undoing both in double precision gives
each weight to a few units in its last place, and what is missing is stored: the difference of the bit patterns, in as few bits as serve,
where most are 0, 1 or -1. A pattern that is farther off (a small tap beside large ones, a NaN, all of a filter whose factor is 0) is
stored whole. The guess is the same each time, since it is made of the same numbers by the same operations, without contraction.

    bits(weight[k, i]) = bits(float32(rows[k, i] * inverse[k])) + code[k, i],   or the next exception of filter k at the lowest code

rows: what `Held.read` gives; inverse (K,): 1 / factor.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import prange

from numbanet.backends.cpu import memory
from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.prepared import Held
from numbanet.backends.cpu.simd import L
from numbanet.backends.interface import dense_strides, order_of
from numbanet.backends.reference.fused import exact_scale

F32, I32 = np.dtype(np.float32), np.dtype(np.int32)
LEAST = 1 << 16             # bytes of weights that are worth it
NUMBERS_AT_ONCE = 1 << 18   # of weights, which keeps what is in double precision small
BITS = (1, 2, 4, 8)
STRIP = 2 * L


@worker(fastmath=())
def _guess(rows, inverse, guess):
    """The nearest float32 to each number of a filter times its factor; a NaN's bits are no concern of arithmetic, so none is guessed."""
    for i in range(rows.shape[0]):
        guess[i] = np.float32(rows[i] * inverse)
        if guess[i] != guess[i]:
            guess[i] = 0


@kernel("void(const T[:,::1], const f8[:,::1], const f8[::1], i1[:,::1], i8[:,::1])", parallel=True, fastmath=())
def find_differences(weight, rows, inverse, codes, exceptions):
    """codes (K, I) in -127 to 127, -128 for what is farther off; exceptions (K, 4): how many 1, 2, 4 and 8 bits do not hold."""
    K, count = weight.shape
    for k in prange(K):
        guess = np.empty(count, np.float32)
        _guess(rows[k], inverse[k], guess)
        wanted, bits = weight[k].view(np.int32), guess.view(np.int32)
        n1, n2, n4, n8 = 0, 0, 0, 0
        for i in range(count):
            d = np.int64(wanted[i]) - np.int64(bits[i])
            far = abs(d)
            n1 += far >= 1
            n2 += far >= 2
            n4 += far >= 8
            n8 += far >= 128
            codes[k, i] = d if far < 128 else -128
        exceptions[k, 0], exceptions[k, 1], exceptions[k, 2], exceptions[k, 3] = n1, n2, n4, n8


@kernel("void(const T[:,::1], const i1[:,::1], i8, u1[:,::1], const i8[::1], i4[::1])", parallel=True)
def write_codes(weight, codes, bits, packed, begin, exceptions):
    """packed (K, bytes) of codes of that many bits; exceptions of filter k from begin[k] on."""
    K, count = weight.shape
    lowest, mask = -(1 << (bits - 1)), (1 << bits) - 1
    for k in prange(K):
        wanted, at = weight[k].view(np.int32), begin[k]
        packed[k] = 0
        for i in range(count):
            code = np.int64(codes[k, i])
            if code <= lowest or code >= -lowest:
                code = lowest
                exceptions[at] = wanted[i]
                at += 1
            packed[k, i * bits >> 3] |= np.uint8((code & mask) << (i * bits & 7))


@kernel("void(T[:,::1], const f8[:,::1], const f8[::1], i8, const u1[:,::1], const i8[::1], const i4[::1])", parallel=True, fastmath=())
def read_codes(weight, rows, inverse, bits, packed, begin, exceptions):
    """Fill weight (K, I); bits 0: all is as guessed."""
    K, count = weight.shape
    lowest, mask = -(1 << max(bits - 1, 0)), (1 << bits) - 1
    for k in prange(K):
        guess = np.empty(count, np.float32)
        _guess(rows[k], inverse[k], guess)
        found, at, target = guess.view(np.int32), begin[k], weight[k].view(np.int32)
        for i in range(count):
            code = 0 if bits == 0 else (np.int64(packed[k, i * bits >> 3]) >> (i * bits & 7) & mask ^ -lowest) + lowest
            if bits and code == lowest:
                target[i] = exceptions[at]
                at += 1
            else:
                target[i] = np.int64(found[i]) + code


class Differences(NamedTuple):
    """Of some filters."""

    first: int
    bits: int
    codes: np.ndarray           # (filters, bytes)
    begin: np.ndarray           # (filters,): where the exceptions of each begin
    exceptions: np.ndarray

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes + self.begin.nbytes + self.exceptions.nbytes


class Recovery:
    """Computes a weight: call it."""

    __slots__ = ("held", "shape", "order", "inverse", "parts")

    def __init__(self, held: Held, shape: tuple[int, ...], order, inverse: np.ndarray, parts: list[Differences]):
        self.held, self.shape, self.order, self.inverse, self.parts = held, shape, order, inverse, parts

    @property
    def nbytes(self) -> int:
        """Of what is kept beside the packed weights."""
        return sum(part.nbytes for part in self.parts)

    def __call__(self) -> np.ndarray:
        array = memory.empty(self.shape, F32, self.order)
        for part in self.parts:
            filters = array[part.first:part.first + len(part.codes)]
            target = filters if filters.flags.c_contiguous else memory.empty(filters.shape, F32)
            _read(_rows(self.held, self.shape, part.first, len(filters)), self.inverse, part, target)
            if target is not filters:
                np.copyto(filters.view(I32), target.view(I32))
        return array


def _rows(held: Held, shape, first: int, filters: int) -> np.ndarray:
    rows = memory.empty((filters, math.prod(shape[1:])), np.float64)
    with np.errstate(invalid="ignore"):                     # of signalling NaN
        held.read(held.packed.value, shape, first, rows)
    return rows


def _read(rows, inverse, part: Differences, filters) -> None:
    read_codes(filters.reshape(rows.shape), rows, inverse[part.first:part.first + len(rows)], part.bits, part.codes, part.begin,
               part.exceptions)


def recovery(array, steps, call, operand, known=None) -> Recovery | None:
    """See `Backend.recovery`."""
    held = getattr(call, "weights", {}).get(operand)
    if held is None or array.dtype != F32 or array.nbytes < LEAST or any(name not in FACTORS for name, _ in steps):
        return None
    if known is not None and known.held.packed is held.packed:
        return known
    order = order_of(array)
    if array.strides != dense_strides(array.shape, F32, order):
        return None
    with np.errstate(all="ignore"):
        factor = np.ones(len(array))
        for name, arguments in steps:
            factor = factor * FACTORS[name](*arguments)
        inverse = 1 / factor
    inverse[~np.isfinite(inverse)] = 0
    made = Recovery(held, array.shape, order, inverse, [])
    for first, filters in _blocks(array.shape, held.groups):
        part = _differences(held, array, first, filters, inverse)
        if part is None:
            return None
        made.parts.append(part)
    return made if made.nbytes <= array.nbytes // 2 else None


def _blocks(shape, groups: int):
    """(first filter, filters) of blocks of whole strips, each within a group."""
    Kg = shape[0] // groups
    step = max(1, NUMBERS_AT_ONCE // (math.prod(shape[1:]) * STRIP)) * STRIP
    return [(g * Kg + k, min(step, Kg - k)) for g in range(groups) for k in range(0, Kg, step)]


def _differences(held: Held, array, first: int, filters: int, inverse) -> Differences | None:
    """None where they take more than half of what the weights do, or do not give them back."""
    rows = _rows(held, array.shape, first, filters)
    weight = np.ascontiguousarray(array[first:first + filters]).reshape(rows.shape)
    codes, counts = memory.empty(rows.shape, np.int8), memory.empty((filters, len(BITS)), np.int64)
    find_differences(weight, rows, inverse[first:first + filters], codes, counts)
    totals = counts.sum(0)
    which = int(np.argmin([rows.size * bits / 8 + 4 * count for bits, count in zip(BITS, totals)]))
    bits = BITS[which] if totals[0] else 0
    begin = np.zeros(filters, np.int64)
    np.cumsum(counts[:-1, which], out=begin[1:])
    part = Differences(first, bits, np.empty((filters, -(-rows.shape[1] * bits // 8)), np.uint8), begin,
                       np.empty(int(totals[which]), np.int32))
    if part.nbytes > weight.nbytes // 2:
        return None
    if bits:
        write_codes(weight, codes, bits, part.codes, begin, part.exceptions)
    again = memory.empty(rows.shape, F32)
    _read(rows, inverse, part, again)
    return part if np.array_equal(again.view(I32), weight.view(I32)) else None


# By primitive: what a step multiplied each filter with, of the step's arguments after the weight.
FACTORS = {
    "fold_batch_norm": lambda bias, gamma, beta, mean, variance, epsilon: exact_scale(gamma, variance, epsilon),
    "multiply": lambda factors: np.asarray(factors, np.float64).reshape(-1),
}
