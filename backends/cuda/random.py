"""Random numbers of a key: Philox-4x32-10, whose words `philox.py` defines by position, so that every backend draws the same.

One thread computes a block of four words, and what is made of them. Arithmetic on the words is float64, as the definition says. A key is
a pair of integers, or an array of its words on the device (`philox.key_words`), which a plan fills anew before each replay.
"""

from __future__ import annotations

import math
from math import prod

import numpy as np

from numbanet.backends import philox as definition
from numbanet.backends.cuda.compile import Sizes, device, float64, int64, kernel, lanewise, uint32, uint64
from numbanet.backends.cuda.index import grid_stride, offset
from numbanet.backends.cuda.lanes import element, lane_numbers
from numbanet.backends.cuda.launch import launch, number
from numbanet.backends.cuda.layout import merged, merged_in_order
from numbanet.backends.cuda.mathematics import halves_of_product, product
from numbanet.backends.cuda.memory import DeviceArray
from numbanet.backends.cuda.pointwise import convert
from numbanet.backends.cuda.registry import implements
from numbanet.backends.cuda.sorting import ORDERS
from numbanet.backends.cuda.wide import pieces

M0, M1 = (np.uint32(m) for m in definition.MULTIPLIERS)
STEP0, STEP1 = (np.uint32(s) for s in definition.KEY_STEPS)
LOW, HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
ROUNDS = definition.ROUNDS

@device
def low_half(word):
    """The low 32 bits."""
    return uint32(word & LOW)


@device
def next_key(key, step):
    return low_half(uint64(key) + uint64(step))


@device
def philox(block, key):
    """The four words of a block, as uint64; for the key see `philox.key_words`."""
    c0, c1, c2, c3 = low_half(block), low_half(block >> HALF), low_half(key[0]), low_half(key[1])
    k0, k1 = low_half(key[2]), low_half(key[3])
    for _ in range(ROUNDS):
        (high0, low0), (high1, low1) = halves_of_product(c0, M0), halves_of_product(c2, M1)
        c0, c1, c2, c3 = uint32(high1 ^ c1 ^ k0), low1, uint32(high0 ^ c3 ^ k1), low0
        k0, k1 = next_key(k0, STEP0), next_key(k1, STEP1)
    return uint64(c0), uint64(c1), uint64(c2), uint64(c3)


def _key(key: tuple[int, int] | DeviceArray):
    return key if type(key) is DeviceArray else tuple(definition.key_words(key))


@kernel
def uniform_kernel(out, key, low, width, highest, total, blocks, shape: Sizes, out_steps):
    for b in grid_stride(blocks):
        words = philox(uint64(b), key)
        for j in range(min(4, total - 4 * b)):
            value = low + product(width, float64(words[j]) * 2.0**-32)
            out[offset(4 * b + j, shape, out_steps)] = min(value, highest)


@kernel
def normal_kernel(out, key, mean, std, total, blocks, shape: Sizes, out_steps):
    """Box and Muller (1958): each pair of words gives two numbers."""
    for b in grid_stride(blocks):
        words = philox(uint64(b), key)
        for j in range(min(4, total - 4 * b)):
            radius = math.sqrt(-2.0 * math.log(float64(words[j // 2 * 2]) * 2.0**-32 + 2.0**-32))
            angle = 2.0 * math.pi * (float64(words[j // 2 * 2 + 1]) * 2.0**-32)
            value = radius * (math.cos(angle) if j % 2 == 0 else math.sin(angle))
            out[offset(4 * b + j, shape, out_steps)] = mean + product(std, value)


@kernel
def integers_kernel(out, key, low, width, total, blocks, shape: Sizes, out_steps):
    """Two words make a number of 64 bits, the low one first."""
    for b in grid_stride(blocks):
        words = philox(uint64(b), key)
        for j in range(min(2, total - 2 * b)):
            wide = words[2 * j] | words[2 * j + 1] << HALF
            out[offset(2 * b + j, shape, out_steps)] = low + int64(wide % width)


@kernel
def wide_words_kernel(out, key, total, blocks):
    for b in grid_stride(blocks):
        words = philox(uint64(b), key)
        for j in range(min(2, total - 2 * b)):
            out[2 * b + j] = words[2 * j] | words[2 * j + 1] << HALF


@device
def kept(block, word, key, threshold, scale):
    """`scale`, or 0 where the word is below the threshold."""
    a, b, c, d = philox(uint64(block), key)
    return scale if (a if word == 0 else b if word == 1 else c if word == 2 else d) >= threshold else 0.0


@lanewise
def kept_in_line(place, lane, key, threshold, scale):
    """Of lanes that lie one behind the other from a whole block of words on, so that the compiler draws each block once."""
    return kept((place >> 2) + (lane >> 2), (place & 3) + (lane & 3), key, threshold, scale)


@lanewise
def kept_apart(place, lane, lane_step, key, threshold, scale):
    """Of lanes that lie so many places apart: channels of a map."""
    place += lane * lane_step
    return kept(place >> 2, place & 3, key, threshold, scale)


@kernel
def dropout_kernel(x, out, key, threshold, scale, total, shape: Sizes, x_steps, out_steps, place_steps, lane_step):
    """x times `scale`, or times 0, so that NaN and infinities stay visible as in the definition; places count words in row-major order."""
    for i in grid_stride(total):
        place, lane = offset(i, shape, place_steps), lane_numbers(element(out, scale))
        if lane_step == 1:
            factor = kept_in_line(place, lane, key, threshold, scale)
        else:
            factor = kept_apart(place, lane, lane_step, key, threshold, scale)
        out[offset(i, shape, out_steps)] = x[offset(i, shape, x_steps)] * factor


def _draw(kernel_of, out, key, *numbers, a_block: int = 4) -> None:
    blocks = -(-out.size // a_block)
    launch(kernel_of, blocks, out, _key(key), *numbers, out.size, blocks, *merged_in_order(out.shape, out.steps))


@implements
def random_uniform(shape, dtype, low, high, key, out):
    highest = np.float64(definition.below(high, low, out.dtype))
    _draw(uniform_kernel, out, key, np.float64(low), np.float64(high - low), highest)


@implements
def random_normal(shape, dtype, mean, std, key, out):
    _draw(normal_kernel, out, key, np.float64(mean), np.float64(std))


@implements
def random_integers(shape, low, high, key, out):
    _draw(integers_kernel, out, key, np.int64(low), np.uint64(high - low), a_block=2)


@implements
def random_permutation(count, key, out):
    numbers, blocks = out.lease.allocator.empty((count,), np.dtype(np.uint64)), -(-count // 2)
    launch(wide_words_kernel, blocks, numbers, _key(key), count, blocks)
    order, _ = ORDERS[False](numbers, 0)
    convert(order, out)


@implements
def dropout(x, probability, key, out):
    scale = number(1 / (1 - probability) if probability < 1 else 0.0, x.dtype)
    row_major = tuple([prod(out.shape[axis + 1:]) for axis in range(out.ndim)])
    shape, out_steps, x_steps, places = merged(out.shape, out.steps, x.steps, row_major)
    total, (shape_of_pieces, out_steps, x_steps), (out, x) = pieces((shape, out_steps, x_steps), out, x)
    width = shape[-1] // max(shape_of_pieces[-1], 1)
    launch(dropout_kernel, total, x, out, _key(key), np.uint64(definition.threshold(probability)), scale, total, shape_of_pieces, x_steps,
           out_steps, (*places[:-1], places[-1] * width), places[-1])
