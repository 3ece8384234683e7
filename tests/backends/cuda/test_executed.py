"""The PTX of every kernel, executed: what the compiler made of it gives what the reference gives, and touches nothing that it must not.

The simulator runs Python, and the emulator the source of tile programs; this is what a GPU is given, as NumPy reads it (`executed/`).
"""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba_cuda")

import numbanet
from numbanet.backends import PRIMITIVES, get_backend
from numbanet.backends.cuda import choose, implements
from numbanet.backends.cuda import launch as launching
from numbanet.backends.cuda.tiles.choose import TILES
from numbanet.geometry import conv_geometry
from tests.backends.agreement import CASES, agree, agree_overwriting, arguments_of, converted, name_of, outputs, overwriting
from tests.backends.cuda import wide
from tests.backends.cuda.device import NHWC, cast, integers
from tests.backends.cuda.wide import single_elements  # noqa: F401

MINE = [case for case in CASES if case.primitive in implements and not case.large]


def _some(cases: list, step: int) -> list:
    """Every so many-th, whose kernels are compiled for this test alone; the others with `-m full`."""
    return [case if i % step == 0 else pytest.param(*(case if type(case) is tuple else (case,)), marks=pytest.mark.full)
            for i, case in enumerate(cases)]


@pytest.fixture(scope="module", autouse=True)
def cuda(executing):
    """The backend, whose kernels are executed."""
    return executing


@pytest.fixture(autouse=True)
def trimmed(cuda):
    """What a test leaves is given back, and touched by nobody."""
    yield
    cuda.allocator.trim()


@pytest.mark.parametrize("case", MINE, ids=name_of)
def test_cuda_agrees_with_reference(case):
    agree("cuda", case, arguments_of(case), case.tolerance)


@pytest.mark.parametrize("case", _some([c for c in MINE if c.float64], 32), ids=name_of)
def test_cuda_agrees_with_reference_in_float64(case):
    agree("cuda", case, tuple(converted(a) for a in arguments_of(case)), 1e-12)


@pytest.mark.parametrize("case", overwriting(MINE), ids=name_of)
def test_a_result_may_lie_in_an_operand(case):
    agree_overwriting("cuda", case, arguments_of(case))


@pytest.mark.parametrize("case", MINE[::11], ids=name_of)
def test_bits_do_not_depend_on_the_grid(cuda, case, monkeypatch):
    first = outputs(cuda, PRIMITIVES[case.primitive], arguments_of(case))
    monkeypatch.setattr(launching, "THREADS", 32)
    monkeypatch.setattr(launching, "WAVES", 1)
    second = outputs(cuda, PRIMITIVES[case.primitive], arguments_of(case))
    assert [x.tobytes() for x in first] == [x.tobytes() for x in second]


@pytest.mark.parametrize("case", _some(MINE, 64), ids=name_of)
def test_64_bit_indices_give_the_same_bits(cuda, case, monkeypatch):
    """What arrays of more than 2**31 elements take."""
    first = outputs(cuda, PRIMITIVES[case.primitive], arguments_of(case))
    monkeypatch.setattr(launching, "_INT32_LIMIT", -1)
    second = outputs(cuda, PRIMITIVES[case.primitive], arguments_of(case))
    assert [x.tobytes() for x in first] == [x.tobytes() for x in second]


@pytest.mark.parametrize("primitive, make, kernels", _some(wide.CASES, 4), ids=[f"{i}-{case[0]}" for i, case in enumerate(wide.CASES)])
def test_wide_launches_have_the_bits_of_single_elements(primitive, make, kernels, single_elements):  # noqa: F811
    wide.test_wide_launches_have_the_bits_of_single_elements(primitive, make, kernels, single_elements)


# Tile programs: those that `test_cubins.py` compiles by default, and some of other pieces; the others are compiled for this alone.

@pytest.fixture
def tiles(monkeypatch):
    """A function that switches them on, for products of any size, with the tile whose size is given if any."""
    def switch(size: str = ""):
        monkeypatch.setattr(choose, "LEAST", 1)
        numbanet.cuda.set_tiles(True)
        for math, tiles in TILES.items():
            monkeypatch.setitem(TILES, math, tuple(tile for tile in tiles if size in ("", f"{tile.rows}x{tile.columns}")))
    yield switch
    numbanet.cuda.set_tiles(None)
    numbanet.set_float32_precision("fast")


def _product(rng, transposed_a: bool, transposed_b: bool):
    a, b = (integers(rng, shape, np.float32, 3) for shape in ((136, 40), (40, 144)))
    return [x.T.copy().T if t else x for x, t in ((a, transposed_a), (b, transposed_b))]


def _layer(rng, primitive: str, channels: int, filters: int, kernel: int, size=(9, 7), stride: int = 1, groups: int = 1, batch: int = 3):
    geometry = conv_geometry(channels, filters, size, (kernel, kernel), stride, kernel // 2, 1, groups)
    x, grad_y = (integers(rng, (batch, c, *s), np.float32, 2, NHWC) for c, s in (
        (channels, size), (filters, geometry.output_size)))
    weight = integers(rng, geometry.weight_shape, np.float32, 2, (0, 2, 3, 1) if groups == 1 else (2, 3, 1, 0))
    bias, residual = integers(rng, (filters,), np.float32, 3), integers(rng, grad_y.shape, np.float32, 3, NHWC)
    return {"conv2d_fused": (x, weight, bias, residual, geometry, 0.0, 12.0), "conv2d_backward_input": (grad_y, weight, geometry),
            "conv2d_backward_weight": (grad_y, x, geometry)}[primitive]


# (name of the program in parts, precision and dtype, primitive, its arguments)
PROGRAMS = [
    ("tile_tf32_128x128 matrix16 matrixT16", "fast float32", "matmul", lambda r: _product(r, False, False)),
    ("tile_bf16_128x128 matrixT16 matrixT16", "fast bfloat16", "matmul", lambda r: _product(r, True, False)),
    ("tile_float32_128x128 matrix16 matrix16", "strict float32", "matmul", lambda r: _product(r, False, True)),
    ("tile_tf32_128x128 windows16 matrix16 matrix", "fast float32", "conv2d_fused",
     lambda r: _layer(r, "conv2d_fused", 8, 136, 3)),
    ("tile_fp16_128x128 windows16 tapsT16 matrix", "fast float16", "conv2d_backward_input",
     lambda r: _layer(r, "conv2d_backward_input", 16, 64, 3, batch=16)),
    ("tile_tf32_64x64 matrixT16 windowsT16 partial", "fast float32", "conv2d_backward_weight",
     lambda r: _layer(r, "conv2d_backward_weight", 8, 16, 3, (20, 24), batch=2)),
    ("tile_bf16_64x64 windows2 matrix2 matrix", "fast bfloat16", "conv2d_fused",
     lambda r: _layer(r, "conv2d_fused", 3, 16, 7, (13, 11), 2)),
    ("tile_tf32_64x64 matrixT16 windowsT4 partial", "fast float32", "conv2d_backward_weight",
     lambda r: _layer(r, "conv2d_backward_weight", 3, 16, 7, (33, 41), 2, batch=8)),
    ("tile_bf16_256x128 matrix16 matrixT16", "fast bfloat16", "matmul", lambda r: _product(r, False, False)),
    ("splits_bf16_filters", "fast bfloat16", "conv2d_backward_weight",
     lambda r: _layer(r, "conv2d_backward_weight", 16, 16, 1, (30, 24), batch=3)),
    ("depthwise_float32_forward", "strict float32", "conv2d_fused", lambda r: _layer(r, "conv2d_fused", 18, 18, 3, groups=18)),
    ("depthwise_fp16_backward_input", "fast float16", "conv2d_backward_input",
     lambda r: _layer(r, "conv2d_backward_input", 18, 18, 3, stride=2, groups=18)),
    ("depthwise_float32_backward_weight", "strict float32", "conv2d_backward_weight",
     lambda r: _layer(r, "conv2d_backward_weight", 18, 18, 5, groups=18)),
]
ALONE = [                            # compiled for this alone
    ("tile_tf32_64x64 windows16 tapsT16 matrix", "fast float32", "conv2d_backward_input",
     lambda r: _layer(r, "conv2d_backward_input", 16, 32, 3)),
    ("tile_bf16_64x64 windows16 tapsT16 pixels", "fast bfloat16", "conv2d_backward_input",
     lambda r: _layer(r, "conv2d_backward_input", 16, 64, 3, (9, 8), 2)),
    ("tile_tf32_64x64 pixels16 matrix16 matrix", "fast float32", "conv2d_fused",
     lambda r: _layer(r, "conv2d_fused", 16, 32, 1, (9, 8), 2)),
    ("tile_tf32_128x64 windows16 matrix16 matrix", "fast float32", "conv2d_fused", lambda r: _layer(r, "conv2d_fused", 8, 72, 3)),
    ("tile_tf32_64x128 matrixT16 windowsT16", "fast float32", "conv2d_backward_weight",
     lambda r: _layer(r, "conv2d_backward_weight", 16, 24, 3)),
    ("tile_tf32_64x64 windows16 filtersT16 matrix", "fast float32", "conv2d_backward_input",
     lambda r: _layer(r, "conv2d_backward_input", 16, 24, 3)),
]


@pytest.mark.parametrize("program, kind, primitive, make", [*PROGRAMS, *[pytest.param(*p, marks=pytest.mark.full) for p in ALONE]],
                         ids=[p[0].replace(" ", "_") for p in PROGRAMS + ALONE])
def test_tile_programs_are_exact_on_small_integers(cuda, tiles, rng, program, kind, primitive, make):
    precision, dtype = kind.split()
    dtype = numbanet.dtypes.as_dtype(dtype)
    numbanet.set_float32_precision(precision)
    tiles(program.split()[0].rpartition("_")[2] if program.startswith("tile") else "")
    arguments = make(rng)
    cuda.device.launched.clear()
    received, = outputs(cuda, PRIMITIVES[primitive], tuple(cast(a, dtype) for a in arguments))
    expected, = outputs(get_backend("reference"), PRIMITIVES[primitive], tuple(arguments))
    np.testing.assert_array_equal(received.astype(np.float32), expected.astype(dtype).astype(np.float32))
    ran = [name for name in cuda.device.launched if all(part in name for part in program.split())]
    assert ran, f"expected {program}, ran {list(cuda.device.launched)}"


@pytest.mark.parametrize("dtype, size", [("bfloat16", "128x128"), *[pytest.param(*p, marks=pytest.mark.full) for p in (
    ("float32", "128x128"), ("float32", "256x128"), ("float16", "64x64"))]])
def test_statistics_in_the_epilogue(cuda, tiles, dtype, size, rng):
    """The bits of y are those without statistics, which are those of y as it is stored."""
    dtype = numbanet.dtypes.as_dtype(dtype)
    tiles(size)
    *operands, geometry, low, high = _layer(rng, "conv2d_fused", 16, 136, 3, (19, 17), batch=16)
    operands = [cast(a, dtype) for a in operands]
    operands[2] = (operands[2].astype(np.float32) * 0.37).astype(dtype)         # of a bias that is no small integer
    y, = outputs(cuda, PRIMITIVES["conv2d_fused"], (*operands, geometry, low, high))
    cuda.device.launched.clear()
    found, mean, variance = outputs(cuda, PRIMITIVES["conv2d_with_statistics"], (*operands, geometry, low, high))
    assert any(name.endswith("_sums") for name in cuda.device.launched)
    np.testing.assert_array_equal(found.astype(np.float32), y.astype(np.float32))
    exact = y.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(variance, exact.var((0, 2, 3)), rtol=2e-6)


def test_adaptive_windows_whose_products_need_64_bits(cuda, rng):
    """Window i of 80,000 over 90,000 elements begins at i * 90,000 // 80,000, whose product passes 2**32."""
    size, windows = 90_000, 80_000
    x, grad_y = integers(rng, (1, 1, 1, size), np.float32, 100), integers(rng, (1, 1, 1, windows), np.float32, 100)
    begin, end = np.arange(windows) * size // windows, -(-np.arange(1, windows + 1) * size // windows)
    sums = np.concatenate([[0], np.cumsum(x.ravel(), dtype=np.float64)])
    y, = outputs(cuda, PRIMITIVES["adaptive_avg_pool2d_forward"], (x, (1, windows)))
    np.testing.assert_allclose(y.ravel(), (sums[end] - sums[begin]) / (end - begin), rtol=1e-6, atol=1e-6)
    grad_x, = outputs(cuda, PRIMITIVES["adaptive_avg_pool2d_backward_input"], (grad_y, (1, size)))
    expected = np.zeros(size)
    for k in range(int((end - begin).max())):
        inside = begin + k < end
        np.add.at(expected, (begin + k)[inside], (grad_y.ravel() / (end - begin))[inside])
    np.testing.assert_allclose(grad_x.ravel(), expected, rtol=1e-5, atol=1e-5)


PRODUCTS = ("matmul", "linear_forward", "linear_backward_input", "linear_backward_weight", "linear_fused", "conv2d_forward", "conv2d_fused",
            "conv2d_backward_input", "conv2d_backward_weight", "conv2d_backward_input_added")


@pytest.mark.full
@pytest.mark.parametrize("precision", ["strict", "fast"])
@pytest.mark.parametrize("case", [c for c in MINE if c.primitive in PRODUCTS], ids=name_of)
def test_every_case_of_products_and_convolutions_by_tiles(tiles, case, precision):
    numbanet.set_float32_precision(precision)
    tiles()
    agree("cuda", case, arguments_of(case), case.tolerance if precision == "strict" else 3e-3)
