"""The SIMD vocabulary against NumPy. The last test runs this file again over the scalar twins, which must pass it too."""
import os
import subprocess
import sys

import numpy as np
import pytest

from numbanet.backends.cpu import simd
from numbanet.backends.cpu.compile import JIT, kernel
from numbanet.backends.cpu.hardware import has_fma, vector_registers
from numbanet.backends.cpu.memory import empty
from numbanet.backends.cpu.simd import (
    L,
    absolute,
    any_lane,
    bits,
    copysign,
    floor,
    fma,
    from_bits,
    lane_indices,
    load,
    load_partial,
    load_strided,
    maximum,
    minimum,
    reduce_add,
    reduce_max,
    reduce_min,
    round_even,
    select,
    splat,
    splat_int,
    sqrt,
    store,
    store_partial,
    store_streamed,
    store_strided,
    tile,
    tile_partial,
    to_float,
    to_int,
    transpose_block,
)

SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 0.5, -2.5, 3.5, 1e-45, -1e-45, 1e-38, 3e38, -3e38, 7.0],
                   np.float32)
SCALAR_TWINS = not JIT
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")     # NumPy's, from the twins


# --- arithmetic -------------------------------------------------------------------------------------------------------

@kernel("void(const T[:], const T[:], T[:,:])")
def float_operations(x, y, out):
    n = x.size
    for i in range(0, n, L):
        u, v = load(x, i), load(y, i)
        store(out, i, u + v)
        store(out, n + i, u - v)
        store(out, 2 * n + i, u * v)
        store(out, 3 * n + i, u / v)
        store(out, 4 * n + i, -u)
        store(out, 5 * n + i, 2 * u - 0.5)
        store(out, 6 * n + i, minimum(u, v))
        store(out, 7 * n + i, maximum(u, v))
        store(out, 8 * n + i, absolute(u))
        store(out, 9 * n + i, sqrt(u))
        store(out, 10 * n + i, floor(u))
        store(out, 11 * n + i, round_even(u))
        store(out, 12 * n + i, copysign(u, v))
        store(out, 13 * n + i, maximum(u, 0.0))
        store(out, 14 * n + i, splat(out[14, i]) + 1)


@kernel("void(const T[:], const T[:], T[:,:])")
def comparisons(x, y, out):
    n = x.size
    for i in range(0, n, L):
        u, v = load(x, i), load(y, i)
        store(out, i, select(u < v, splat(1.0), 0.0))
        store(out, n + i, select(u <= v, splat(1.0), 0.0))
        store(out, 2 * n + i, select(u > v, splat(1.0), 0.0))
        store(out, 3 * n + i, select(u >= v, splat(1.0), 0.0))
        store(out, 4 * n + i, select(u == v, splat(1.0), 0.0))
        store(out, 5 * n + i, select(u != v, splat(1.0), 0.0))
        store(out, 6 * n + i, select((u < v) & ~(u < 0.0) | (v > 3) ^ (u > 3), u, v))
        out[7, i] = any_lane(u > 0)
        out[8, i], out[9, i], out[10, i] = reduce_add(u), reduce_max(u), reduce_min(u)


@kernel("void(const T[:], T[:], i8)", dtypes=("int32",))
def integer_operations(x, out, n):
    for i in range(0, n, L):
        u = load(x, i)
        store(out, i, (u + 3) * 5 - u)
        store(out, n + i, (u & 255) | (u << 2) ^ splat_int(7))
        store(out, 2 * n + i, u >> 3)
        store(out, 3 * n + i, select(u > 2, -u, lane_indices()))


@kernel("void(const T[:], T[:,:])")
def conversions(x, out):
    n = x.size
    for i in range(0, n, L):
        u = load(x, i)
        store(out, i, to_float(to_int(u) + 1))
        store(out, n + i, from_bits(bits(u) & 0x7FFFFFFF))
        store(out, 2 * n + i, fma(u, 3, load(x, n - L - i)))


def pairs():
    """Every special value against every other, padded to whole vectors."""
    x, y = (grid.ravel() for grid in np.meshgrid(SPECIAL, SPECIAL))
    return x.copy(), y.copy()


def assert_same(actual, expected):
    """Equal bits, except that any NaN equals any other."""
    expected = np.asarray(expected, np.float32)
    assert np.array_equal(actual, expected, equal_nan=True)
    numbers = ~np.isnan(expected)
    assert np.array_equal(np.signbit(actual[numbers]), np.signbit(expected[numbers]))


def test_float_operations_are_those_of_numpy_also_on_special_values():
    x, y = pairs()
    out = np.full((15, x.size), np.nan, np.float32)
    out[14] = 4
    float_operations(x, y, out)
    with np.errstate(all="ignore"):
        expected = [x + y, x - y, x * y, x / y, -x, 2 * x - np.float32(0.5), None, None, np.abs(x), np.sqrt(x), np.floor(x),
                    np.rint(x), np.copysign(x, y)]
        for row, values in enumerate(expected):
            if values is not None:
                assert_same(out[row], values)
        for row, values in ((6, np.minimum(x, y)), (7, np.maximum(x, y)), (13, np.maximum(x, 0))):
            assert np.array_equal(out[row], values, equal_nan=True)      # the sign of zero is not specified
    assert (out[14] == 5).all()


def test_comparisons_masks_and_reductions():
    x, y = pairs()
    out = np.full((11, x.size), np.nan, np.float32)
    comparisons(x, y, out)
    for row, values in enumerate((x < y, x <= y, x > y, x >= y, x == y, x != y)):
        assert np.array_equal(out[row], values)
    assert np.array_equal(out[6], np.where((x < y) & ~(x < 0) | (y > 3) ^ (x > 3), x, y), equal_nan=True)
    vectors = x.reshape(-1, L)
    assert np.array_equal(out[7, ::L], (vectors > 0).any(1))
    assert np.array_equal(out[9, ::L], vectors.max(1), equal_nan=True)
    assert np.array_equal(out[10, ::L], vectors.min(1), equal_nan=True)


def test_a_sum_over_the_lanes_adds_halves(rng):
    x = rng.standard_normal(8 * L).astype(np.float32)
    out = np.full((11, x.size), np.nan, np.float32)
    comparisons(x, x, out)
    expected = x.reshape(-1, L)
    while expected.shape[1] > 1:
        half = expected.shape[1] // 2
        expected = expected[:, :half] + expected[:, half:]
    assert np.array_equal(out[8, ::L], expected[:, 0])


def test_integer_operations(rng):
    x = rng.integers(-2**31, 2**31, 8 * L).astype(np.int32)
    x[:L] = np.arange(L) - 3
    out = np.zeros(4 * x.size, np.int32)
    integer_operations(x, out, x.size)
    with np.errstate(over="ignore"):
        expected = [(x + 3) * 5 - x, (x & 255) | (x << 2) ^ 7, x >> 3,
                    np.where(x > 2, -x, np.arange(x.size, dtype=np.int32) % L)]
    assert np.array_equal(out, np.concatenate(expected))


@kernel("void(const u2[:], T[:], i8)")
def widen(halves, out, count):
    store(out, 0, load(halves, 1))
    store(out, L, load_partial(halves, 1, count))


@pytest.mark.parametrize("count", [0, 1, L - 1, L, L + 3])
def test_bfloat16_is_widened(count):
    """Every lane, from an odd address; what lies behind the count is not read."""
    single = np.array([1.5, -np.inf, np.nan, 2.0 ** -126, -0.0, 3.0e38, 7.0], np.float32)
    halves = np.resize((single.view(np.uint32) >> 16).astype(np.uint16), L + 1)
    out = np.full(2 * L, 9, np.float32)
    widen(halves, out, count)
    expected = (halves[1:].astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(out[:L], expected)
    np.testing.assert_array_equal(out[L:], np.where(np.arange(L) < count, expected, 0))


def test_conversions_and_fma(rng):
    x = (rng.standard_normal(6 * L) * 100).astype(np.float32)
    out = np.full((3, x.size), np.nan, np.float32)
    conversions(x, out)
    assert np.array_equal(out[0], np.trunc(x) + 1)
    assert np.array_equal(out[1], np.abs(x))
    wide = np.float64 if SCALAR_TWINS or has_fma() else np.float32       # without the instruction the product is rounded
    other = x.reshape(-1, L)[::-1].ravel().astype(wide)
    assert np.array_equal(out[2], (x.astype(wide) * 3 + other).astype(np.float32))


# --- memory -----------------------------------------------------------------------------------------------------------

@kernel("void(const T[:,:], T[:,:], i8, i8)", dtypes=("float32", "int32"))
def copies(x, y, count, step):
    row, out = x.shape[1], y.shape[1]
    store_partial(y, 1, load_partial(x, 1, count), count)
    store(y, out, load_partial(x, row, count))
    store_strided(y, 2 * out, step, load_strided(x, 2 * row, step))


@kernel("void(const T[:,:], T[:,:])", dtypes=("float32", "int32"))
def streamed_copy(x, y):
    for i in range(x.shape[0]):
        store_streamed(y, i * y.shape[1] + L, load(x, i * x.shape[1]))


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_streamed_stores_write_their_vector_and_nothing_else(dtype):
    x, y = np.arange(3 * L, dtype=dtype).reshape(3, L), empty((3, 3 * L), np.dtype(dtype))
    y.fill(-1)
    streamed_copy(x, y)
    expected = np.full((3, 3 * L), -1, dtype)
    expected[:, L:2 * L] = x
    assert np.array_equal(y, expected)


@kernel("void(const T[:,:], T[:,:], i8, i8)")
def transposition(x, y, row, target_row):
    transpose_block(x, 2, row, y, 3, target_row)


@pytest.mark.parametrize("dtype", ["float32", "int32"])
@pytest.mark.parametrize("count, step", [(0, 1), (1, 2), (L // 2 + 1, 3), (L, 4), (-2, 1), (L + 9, 1)])
def test_partial_and_strided_accesses_touch_nothing_else(dtype, count, step):
    width = 4 * L + 2
    x = np.arange(3 * width).reshape(3, width).astype(dtype)
    y = np.full((3, width), -1, dtype)
    copies(x, y, count, step)
    lanes = min(max(count, 0), L)
    expected = np.full_like(y, -1)
    expected[0, 1:1 + lanes] = x[0, 1:1 + lanes]
    expected[1, :L] = np.where(np.arange(L) < lanes, x[1, :L], 0)
    expected[2, :L * step:step] = x[2, :L * step:step]
    assert np.array_equal(y, expected)


def test_a_block_is_transposed(rng):
    x = rng.standard_normal((L + 3, L + 5)).astype(np.float32)
    y = np.full((L + 2, L + 7), np.nan, np.float32)
    transposition(x, y, L + 5, L + 7)
    block = np.lib.stride_tricks.as_strided(x.ravel()[2:], (L, L), (4 * (L + 5), 4))
    flat = y.ravel()
    written = np.lib.stride_tricks.as_strided(flat[3:], (L, L), (4 * (L + 7), 4))
    assert np.array_equal(written, block.T)
    assert np.isnan(flat).sum() == flat.size - L * L


# --- functions --------------------------------------------------------------------------------------------------------

@kernel("void(const T[:], T[:,:])")
def functions(x, out):
    n = x.size
    for i in range(0, n, L):
        u = load(x, i)
        store(out, i, simd.exp(u))
        store(out, n + i, simd.expm1(u))
        store(out, 2 * n + i, simd.log(u))
        store(out, 3 * n + i, simd.log1p(u))
        store(out, 4 * n + i, simd.tanh(u))
        store(out, 5 * n + i, simd.sigmoid(u))
        store(out, 6 * n + i, simd.erf(u))


FUNCTIONS = {"exp": 1.0, "expm1": 1.5, "log": 1.0, "log1p": 1.5, "tanh": 1.5, "sigmoid": 2.5, "erf": 1.5}


def test_functions_are_accurate_everywhere(rng):
    torch = pytest.importorskip("torch")
    n = 1 << (11 if SCALAR_TWINS else 16)
    x = rng.integers(0, 2**32, n, dtype=np.uint32).view(np.float32)      # any float32: every exponent, NaN, denormals
    x[:n // 4] = rng.uniform(-1.5, 1.5, n // 4)
    x[n // 4:n // 2] = rng.uniform(-12, 12, n // 4)
    x[n // 2:5 * n // 8] = rng.uniform(-105, 90, n // 8)
    x[-64:] = np.resize(np.concatenate([SPECIAL, np.float32([88.7228, 88.73, -103.9, -104, -87.4, 1e-7, -1, 4])]), 64)
    out = np.full((len(FUNCTIONS), n), 12345, np.float32)
    functions(x, out)
    with np.errstate(invalid="ignore"):
        wide = torch.from_numpy(x.astype(np.float64))
    for (name, limit), actual in zip(FUNCTIONS.items(), out):
        exact = getattr(torch, name)(wide).numpy()
        with np.errstate(over="ignore", invalid="ignore"):
            rounded = exact.astype(np.float32)
        assert np.array_equal(np.isnan(actual), np.isnan(exact)), name
        assert np.array_equal(np.isinf(actual), np.isinf(rounded)), name
        numbers = ~np.isnan(exact)
        assert np.array_equal(np.signbit(actual[numbers]), np.signbit(rounded[numbers])), name
        finite = np.isfinite(rounded) & numbers
        units = np.abs(actual[finite] - exact[finite]) / np.spacing(np.abs(rounded[finite]).clip(1e-45)).astype(np.float64)
        assert units.max() <= limit, (name, units.max(), x[finite][units.argmax()])


# --- the register tile ------------------------------------------------------------------------------------------------

@kernel("void(const T[:,:], const T[:,:], T[:,:], i8, i8, i8, i8, i8, i8)")
def product(a, b, c, a_row, a_step, depth, accumulate, partial, lanes):
    b_row, c_row = b.strides[0] // 4, c.strides[0] // 4
    if partial:
        tile_partial(3, 2, a, 0, a_row, a_step, b, 1, b_row, c, 2, c_row, depth, accumulate, lanes)
    else:
        tile(3, 2, a, 0, a_row, a_step, b, 1, b_row, c, 2, c_row, depth, accumulate)


@pytest.mark.parametrize("depth", [0, 1, 3, 4, 9])
@pytest.mark.parametrize("accumulate", [0, 1])
@pytest.mark.parametrize("lanes", [None, 1, L - 1, L])
@pytest.mark.parametrize("by_columns", [False, True])
def test_a_tile_is_an_exact_product_on_small_integers(rng, depth, accumulate, lanes, by_columns):
    a = rng.integers(-4, 5, (3, 10)).astype(np.float32)
    b = rng.integers(-4, 5, (10, 2 * L + 3)).astype(np.float32)
    c = np.full((4, 2 * L + 6), np.nan, np.float32)
    width = L + (L if lanes is None else lanes)
    b[:, 1 + width:] = np.nan                                            # not to be read
    if accumulate:
        c[:3, 2:2 + width] = 100
    stored = np.asfortranarray(a) if by_columns else a
    product(stored, b, c, *(stride // 4 for stride in stored.strides), depth, accumulate, lanes is not None, lanes or 0)
    expected = np.full_like(c, np.nan)
    expected[:3, 2:2 + width] = a[:, :depth] @ b[:depth, 1:1 + width] + 100 * accumulate
    assert np.array_equal(c, expected, equal_nan=True)


def test_tiles_fit_in_the_registers():
    for rows, vectors in simd.tile_shapes():
        assert rows * vectors + vectors + 1 <= vector_registers()


# --- twins, and other widths ------------------------------------------------------------------------------------------

def run_this_file(**variables):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not this_file", __file__]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.skipif(SCALAR_TWINS, reason="these are the twins")
def test_the_scalar_twins_pass_this_file():
    run_this_file(NUMBA_DISABLE_JIT="1")


@pytest.mark.full
@pytest.mark.parametrize("variables", [{"NUMBANET_SIMD_WIDTH": "8"}, {"NUMBANET_SIMD_WIDTH": "4"},
                                       {"NUMBA_CPU_NAME": "generic"}, {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES":
                                        "+avx,+avx2,+fma,+sse4.1,+sse4.2,+bmi,+bmi2,+popcnt"}], ids=str)
def test_other_cpus_pass_this_file(variables):
    run_this_file(**variables)
