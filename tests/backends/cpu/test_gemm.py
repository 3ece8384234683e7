"""The matrix product against NumPy: exact on small integers, whatever the shapes and strides."""
import os
import subprocess
import sys

import numpy as np
import pytest

from numbanet.backends.cpu import threads
from numbanet.backends.cpu.compile import JIT
from numbanet.backends.cpu.gemm import gemm
from numbanet.backends.cpu.gemm.blocking import MAXIMUM_DEPTH, PANEL, ROWS, blocking
from numbanet.errors import ShapeError

SHAPES = [(1, 1, 1), (3, 17, 33), (33, 130, 3), (130, 33, 17), (14, 32, 400), (17, 130, 1), (1, 33, 130), (33, 1, 130)]
if JIT:                                                                # the twins would take minutes
    SHAPES += [(64, 120, 400), (300, 70, 800), (270, 96, 40), (5, 3, 1000)]


def integers(rng, *shape, dtype="float32"):
    return rng.integers(-3, 4, shape).astype(dtype)


def stored(array, how):
    """The same numbers in another memory order."""
    if how == "columns":
        return np.ascontiguousarray(array.swapaxes(-1, -2)).swapaxes(-1, -2)
    if how == "scattered":
        larger = np.full((*array.shape[:-2], 2 * array.shape[-2], 3 * array.shape[-1]), np.nan, array.dtype)
        larger[..., ::2, ::3] = array
        return larger[..., ::2, ::3]
    return array[..., ::-1, :].copy()[..., ::-1, :] if how == "reversed" else array


@pytest.mark.parametrize("M, N, K", SHAPES)
@pytest.mark.parametrize("a_order, b_order, c_order", [
    ("rows", "rows", "rows"), ("columns", "rows", "rows"), ("rows", "columns", "rows"), ("columns", "columns", "columns"),
    ("scattered", "scattered", "scattered"), ("rows", "columns", "columns"), ("reversed", "reversed", "reversed")])
def test_small_integers_are_exact(rng, M, N, K, a_order, b_order, c_order):
    a, b = integers(rng, M, K), integers(rng, K, N)
    c = stored(np.full((M, N), np.nan, np.float32), c_order)
    read_only = stored(a, a_order)
    read_only.setflags(write=False)
    gemm(read_only, stored(b, b_order), c)
    assert np.array_equal(c, a @ b)
    for bias in (integers(rng, N), integers(rng, M, 1), integers(rng, M, 2 * N)[:, ::2]):
        gemm(a, stored(b, b_order), c, bias)
        assert np.array_equal(c, a @ b + bias)
        gemm(read_only, b, c, bias, accumulate=True)
        assert np.array_equal(c, 2 * (a @ b + bias))


def test_what_lies_between_the_rows_of_c_is_left_alone(rng):
    a, b = integers(rng, 20, 7), integers(rng, 7, PANEL + 5)
    whole = np.full((20, PANEL + 50), np.nan, np.float32)
    gemm(a, b, whole[:, 10:PANEL + 15])
    assert np.isnan(whole[:, :10]).all() and np.isnan(whole[:, PANEL + 15:]).all()
    assert np.array_equal(whole[:, 10:PANEL + 15], a @ b)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_batches_also_with_one_factor_for_all(rng, dtype):
    a, b = integers(rng, 3, 9, 21, dtype=dtype), integers(rng, 3, 21, 37, dtype=dtype)
    bias = integers(rng, 37, dtype=dtype)
    for left, right in ((a, b), (a[:1], b), (a, b[:1]), (a, b.swapaxes(1, 2).copy().swapaxes(1, 2)[:1]), (a[::-1], b)):
        c = np.full((3, 9, 37), np.nan, dtype)
        gemm(left, right, c, bias)
        assert np.array_equal(c, left @ right + bias)
        gemm(left, right, c, None, accumulate=True)
        assert np.array_equal(c, 2 * (left @ right) + bias)


@pytest.mark.parametrize("M, N, K", [(0, 3, 4), (3, 0, 4), (0, 0, 0)])
def test_empty_results(M, N, K):
    gemm(np.zeros((M, K), np.float32), np.zeros((K, N), np.float32), np.zeros((M, N), np.float32), np.zeros(N, np.float32))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_empty_sum_is_zero(dtype):
    a, b, c = np.zeros((3, 0), dtype), np.zeros((0, 5), dtype), np.full((3, 5), np.nan, dtype)
    gemm(a, b, c)
    assert (c == 0).all()
    gemm(a, b, c, np.arange(5, dtype=dtype), accumulate=True)
    assert (c == np.arange(5)).all()


def test_float64_is_accurate(rng):
    a, b = rng.standard_normal((23, 45)), rng.standard_normal((45, 31)).T.copy().T
    c = np.full((31, 23), np.nan).T
    gemm(a, b, c)
    assert np.allclose(c, a @ b, rtol=1e-13, atol=1e-13)


def test_nan_and_infinity_go_where_they_belong(rng):
    a, b = integers(rng, 20, 12), integers(rng, 12, 40)
    a[3, 5], b[7, 11], b[:, 20] = np.nan, np.inf, 0
    a[:, 7] = 1
    c = np.zeros((20, 40), np.float32)
    gemm(a, b, c)
    with np.errstate(invalid="ignore"):
        assert np.array_equal(c, a @ b, equal_nan=True)


@pytest.mark.parametrize("a, b, c", [((3, 4), (5, 6), (3, 6)), ((3, 4), (4, 6), (6, 3)), ((2, 3, 4), (3, 4, 6), (2, 3, 6))])
def test_shapes_that_do_not_fit_are_named(a, b, c):
    with pytest.raises(ShapeError, match=r"gemm: expected A \(M, K\)"):
        gemm(*(np.zeros(shape, np.float32) for shape in (a, b, c)))


@pytest.mark.parametrize("shape", [(5,), (0,), (6, 3), (3, 2)])
def test_a_bias_that_does_not_fit_is_named(shape):
    a, b, c = (np.zeros(size, np.float32) for size in ((3, 4), (4, 6), (3, 6)))
    with pytest.raises(ShapeError, match="gemm: expected a bias"):
        gemm(a, b, c, np.zeros(shape, np.float32))


@pytest.mark.parametrize("G, M, N, K", [(1, 1, 1, 1), (1, 64, 120, 400), (8, 3136, 64, 576), (1, 1, 100_000, 20),
                                        (1, 100_000, 1, 5000), (64, 33, 33, 33)])
def test_blocks_cover_the_product_and_stay_small(G, M, N, K):
    rows, panels, depth = blocking(G, M, N, K)
    jobs = G * -(-M // rows) * -(-N // (panels * PANEL))
    assert rows % ROWS == 0 and panels >= 1 and 1 <= depth <= MAXIMUM_DEPTH
    if G * M * N * K > 1e8:
        assert jobs >= 32


def threaded_products():
    """The bits of some products; run at several thread counts."""
    rng = np.random.default_rng(5)
    result = []
    for M, N, K in ((64, 120, 401), (301, 77, 800), (30, 1000, 50)):
        a, b = rng.standard_normal((M, K), dtype=np.float32), rng.standard_normal((N, K), dtype=np.float32).T
        c = np.full((M, N), np.nan, np.float32)
        gemm(a, b, c, b[0])
        result.append(c)
    return result


@pytest.mark.skipif(not JIT, reason="no threads without the JIT")
def test_same_bits_at_every_thread_count():
    source = ("from numbanet.backends.cpu import threads\nimport numpy as np\n"
              "from tests.backends.cpu.test_gemm import threaded_products\n"
              "first = threaded_products()\n"
              "for count in (1, 2, 4):\n"
              "    threads.set_num_threads(count)\n"
              "    assert all(np.array_equal(a, b) for a, b in zip(first, threaded_products()))\n")
    environment = {name: value for name, value in os.environ.items() if name not in threads.VARIABLES}
    subprocess.run([sys.executable, "-c", source], env=environment | {"NUMBANET_NUM_THREADS": "4"}, check=True)


@pytest.mark.full
@pytest.mark.parametrize("variables", [{"NUMBA_DISABLE_JIT": "1"}, {"NUMBANET_SIMD_WIDTH": "8"}, {"NUMBA_CPU_NAME": "generic"}],
                         ids=str)
def test_other_cpus_and_twins_pass_this_file(variables):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
