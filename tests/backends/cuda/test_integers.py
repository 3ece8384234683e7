"""Integers and loops of kernels: what the compiler makes of them, executed."""

from __future__ import annotations

import ctypes
import random
import re

import numpy as np
import pytest

pytest.importorskip("numba_cuda")

from numbanet.backends.cuda.compile import _specialised
from numbanet.backends.cuda.cubin import compile_ptx
from numbanet.backends.cuda.index import extent, grid_stride, narrow, offset, quotient, size_words, split, strided
from numbanet.backends.cuda.launch import numba_type
from numbanet.errors import BackendError
from tests.backends.cuda.executed.code import Program
from tests.backends.cuda.executed.machine import Machine, Memory
from tests.backends.cuda.executed.source import parse

THREADS, LARGEST = 64, 2**31 - 1


def _ptx(kernel, *types: str) -> str:
    return compile_ptx("kernel", _specialised(kernel, np.float32), types, numba_type=numba_type, is_narrow=True)


def _filled(kernel, types, *words: int, blocks: int = 1, rows: int = 1, dtype=np.int64) -> np.ndarray:
    """`out` of a kernel (out, *words), (threads, rows), -1 where nobody wrote."""
    memory, out = Memory(1 << 20), np.full((blocks * THREADS, rows), -1, dtype)
    address = memory.allocate(out.nbytes)
    memory.write(address, out.view(np.uint8).ravel())
    program = Program(parse(_ptx(kernel, f"*{np.dtype(dtype).name}", *types)))
    Machine(memory).launch(program, (blocks, 1, 1), THREADS, [ctypes.c_void_p(address), *[ctypes.c_int64(w) for w in words]])
    return memory.read(address, out.nbytes).view(dtype).reshape(out.shape)


def test_sizes_divide_every_number_of_31_bits():
    draw = random.Random(0)
    special = [2**k + d for k in range(2, 31) for d in (-1, 0, 1)]
    for n in [*range(1, 1000), *special, LARGEST, *[draw.randrange(1, LARGEST) for _ in range(2000)]]:
        _, multiplier, shift = size_words(n)
        assert multiplier < 2**32
        multiples = [n * q for q in (0, 1, draw.randrange(LARGEST // n + 1), LARGEST // n)]
        for i in {i for m in multiples for i in (m - 1, m, m + 1)} | {LARGEST}:
            if 0 <= i <= LARGEST:
                assert i * multiplier >> shift == i // n, (i, n)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 56, 64, 1000, 2**16, 2**30 + 1, LARGEST])
def test_a_kernel_divides_by_a_size(n):
    def kernel(out, first, size, plain):
        for i in grid_stride(64):
            number = first + i * 33554393
            q, rest = split(number, size)
            out[4 * i], out[4 * i + 1], out[4 * i + 2], out[4 * i + 3] = q, rest, extent(size), quotient(number, plain)
    found = _filled(kernel, ("int32", "size", "int32"), 5, *size_words(n), n, rows=4)
    number = 5 + np.arange(THREADS) * 33554393
    assert (found == np.stack([number // n, number % n, np.full(THREADS, n), number // n], 1)).all()


@pytest.mark.parametrize("types", [("int32x3", "int32x3"), ("sizex3", "int32x3"), ("int64x3", "int64x3")])
def test_offsets_are_those_of_row_major_positions(types):
    def kernel(out, shape, steps):
        for i in grid_stride(60):
            out[i] = offset(i, shape, steps)
    shape, steps = (3, 4, 5), (100, 7, 11)
    words = [word for n in shape for word in (size_words(n) if types[0] == "sizex3" else (n,))]
    expected = [i // 20 * 100 + i // 5 % 4 * 7 + i % 5 * 11 for i in range(60)] + [-1] * 4
    assert _filled(kernel, types, *words, *steps).ravel().tolist() == expected


@pytest.mark.parametrize("first, end, step", [(0, 7, 1), (3, 3, 2), (5, 3, 4), (2, 33, 7), (0, 33, 33), (1, 34, 33), (-5, 6, 5)])
def test_ranges_are_those_of_python(first, end, step):
    def kernel(out, first, end, step):
        for t in grid_stride(2):
            counted, plain, turns, uncounted = narrow(0, first), narrow(0, first), narrow(0, first), narrow(0, first)
            for i in range(first, end, step):
                counted = counted * 31 + i
            for i in range(first, end):
                plain = plain * 31 + i
            for i in range(end):
                turns = turns * 31 + i
            for i in strided(first, end, step):
                uncounted = uncounted * 31 + i
            out[4 * t], out[4 * t + 1], out[4 * t + 2], out[4 * t + 3] = counted, plain, turns, uncounted

    def folded(numbers) -> int:
        value = 0
        for i in numbers:
            value = (value * 31 + i + 2**31) % 2**32 - 2**31
        return value
    stepped = folded(range(first, end, step))
    expected = [stepped, folded(range(first, end)), folded(range(end)), stepped]
    assert _filled(kernel, ("int32",) * 3, first, end, step, rows=4)[0].tolist() == expected


@pytest.mark.parametrize("blocks, total", [(1, 10), (1, 64), (3, 500), (3, 0)])
def test_every_position_is_one_threads(blocks, total):
    def kernel(out, total):
        for i in grid_stride(total):
            out[i] = i
    found = _filled(kernel, ("int32",), total, blocks=blocks, rows=8).ravel()
    assert (found[:total] == np.arange(total)).all() and (found[total:] == -1).all()


def test_a_range_that_goes_down_is_refused():
    def kernel(out, n):
        for i in range(n, 0, -1):
            out[i] = i
    with pytest.raises(BackendError, match="a step of -1, expected a positive one"):
        _ptx(kernel, "*int64", "int32")


def test_int32_stays_int32():
    def kernel(out, a, b):
        out[0] = (a * b + 3 - b) * 2 - a // 4 + (a & 7) + (b >> 3) + a % 8
    ptx = _ptx(kernel, "*int32", "int32", "int32")
    assert re.search(r"\bm(ul|ad)\.lo\.s32\b", ptx) and not re.search(r"\b(mul|mad|div|rem|add|sub|shr)\S*[su]64\b", ptx)
    for wide in (("int64", "int64"), ("int64", "int32")):
        assert re.search(r"\bm(ul|ad)\.lo\.s64\b", _ptx(kernel, "*int64", *wide))


def test_numba_outside_of_kernels_is_as_it_was():
    """Other code of the process keeps Numba's rules."""
    import operator

    from numba.cuda import types
    from numba.cuda.descriptor import cuda_target

    def kernel(out, a, b):
        out[0] = a * b
    _ptx(kernel, "*int32", "int32", "int32")
    resolved = cuda_target.typing_context.resolve_function_type(operator.mul, (types.int32, types.int32), {})
    assert resolved.return_type == types.int64
