"""Primitives by tile programs from arrays to arrays, on an emulated GPU: run by `test_tiles_backend.py` in a process of its own.

By hand: NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/backends/cuda/tiled.py
"""

from __future__ import annotations

import copy

import numpy as np
import pytest

import numbanet
from numbanet import nn
from numbanet.backends import PRIMITIVES, get_backend
from numbanet.backends.cuda import choose, convolution_direct, convolution_tiles, matrix, matrix_tiles
from numbanet.geometry import conv_geometry
from numbanet.nn import functional as F
from tests.backends.agreement import CASES, agree, agree_overwriting, arguments_of, name_of, outputs
from tests.backends.cuda import emulated
from tests.backends.cuda.device import NHWC, cast, integers
from tests.cases.case import channels_last

emulated.install()
CUDA, REFERENCE = get_backend("cuda"), get_backend("reference")
PRODUCTS = ("matmul", "linear_forward", "linear_backward_input", "linear_backward_weight", "linear_fused", "conv2d_forward", "conv2d_fused",
            "conv2d_backward_input", "conv2d_backward_weight", "conv2d_backward_input_added", "conv2d_with_statistics")


@pytest.fixture(autouse=True)
def tiles(monkeypatch):
    """Tiles are on, and nothing is too small for them."""
    monkeypatch.setattr(choose, "LEAST", 1)
    numbanet.cuda.set_tiles(True)
    yield
    numbanet.cuda.set_tiles(None)
    numbanet.set_float32_precision("fast")


def ran() -> int:
    return sum(CUDA.device.programs.values())


MINE = [c for c in CASES if c.primitive in PRODUCTS and not c.large]


@pytest.mark.parametrize("case", [c if i % 8 == 0 else pytest.param(c, marks=pytest.mark.full)
                                  for i, c in enumerate(MINE)], ids=name_of)
def test_every_case_of_products_and_convolutions(case):
    """Odd sizes, strides, dilation, groups, empty batches, views: in strict float32 as exact as the plain kernels."""
    numbanet.set_float32_precision("strict")
    arguments, before = arguments_of(case), ran()
    agree("cuda", case, arguments, case.tolerance)
    results = outputs(REFERENCE, PRIMITIVES[case.primitive], arguments)
    agree_overwriting("cuda", case, arguments)
    is_empty = not all(a.size for a in (*arguments[:2], *results))
    assert ran() > before or is_empty or case.primitive == "matmul" and results[0].ndim > 3         # of several axes of batches


LAYERS = {
    "1x1": (16, 24, (5, 7), (1, 1), 1, 0, 1, 1), "3x3": (12, 20, (7, 6), (3, 3), 1, 1, 1, 1), "first": (3, 16, (11, 9), (7, 5), 2, 3, 1, 1),
    "strided": (8, 10, (9, 8), (3, 3), 2, 1, 1, 1), "stride 3, dilated": (9, 7, (10, 13), (3, 2), (3, 2), (2, 1), (2, 3), 1),
    "groups": (12, 18, (6, 5), (3, 3), 1, 1, 1, 3), "groups of one channel": (5, 10, (6, 5), (3, 3), 2, 1, 1, 5),
    "depthwise": (18, 18, (7, 8), (3, 3), 2, 1, 1, 18), "depthwise 5x5": (7, 7, (9, 6), (5, 5), 1, 2, 1, 7),
    "uneven padding": (8, 8, (6, 6), (2, 2), 1, ((0, 1), (1, 0)), 1, 1), "one channel": (1, 6, (8, 8), (5, 5), 1, 2, 1, 1)}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", LAYERS)
def test_convolutions_in_three_passes(rng, name, dtype):
    """Small integers: bit for bit what the reference gives, in TF32, BF16 and FP16; row-major maps are copied first."""
    dtype = numbanet.dtypes.as_dtype(dtype)
    geometry = conv_geometry(*LAYERS[name])
    x = integers(rng, (3, geometry.channels, *geometry.input_size), np.float32, 3, NHWC if name != "3x3" else None)
    weight = integers(rng, geometry.weight_shape, np.float32, 2)
    bias = integers(rng, (geometry.filters,), np.float32, 3)
    grad_y = integers(rng, (3, geometry.filters, *geometry.output_size), np.float32, 2, NHWC)
    residual = integers(rng, grad_y.shape, np.float32, 3)                       # row-major
    added = integers(rng, x.shape, np.float32, 3, NHWC)
    for call, arguments in (("conv2d_forward", (x, weight, bias, geometry)), ("conv2d_forward", (x, weight, None, geometry)),
                            ("conv2d_fused", (x, weight, bias, residual, geometry, 0.0, 6.0)),
                            ("conv2d_backward_input", (grad_y, weight, geometry)),
                            ("conv2d_backward_input_added", (grad_y, weight, added, geometry)),
                            ("conv2d_backward_weight", (grad_y, x, geometry))):
        before = ran()
        expected, = outputs(REFERENCE, PRIMITIVES[call], arguments)
        received, = outputs(CUDA, PRIMITIVES[call], tuple(cast(a, dtype) for a in arguments))
        assert received.dtype == dtype and ran() > before
        np.testing.assert_array_equal(received.astype(np.float32), expected.astype(dtype).astype(np.float32), err_msg=call)


def sums_ran() -> int:
    """How often a program took statistics."""
    return sum(count for name, count in CUDA.device.programs.items() if name.endswith("_sums"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", LAYERS)
def test_convolutions_with_statistics(rng, name, dtype):
    """y has the bits that it has without, statistics are what `batch_norm_forward` finds in it; depthwise ones are not by sums."""
    geometry, dtype = conv_geometry(*LAYERS[name]), numbanet.dtypes.as_dtype(dtype)
    x, weight, residual = (rng.standard_normal(shape).astype(np.float32) for shape in (
        (3, geometry.channels, *geometry.input_size), geometry.weight_shape, (3, geometry.filters, *geometry.output_size)))
    x, weight, bias, residual = (CUDA.from_numpy(cast(a, dtype)) for a in (x, weight, np.full(geometry.filters, 30, np.float32), residual))
    before = sums_ran()
    y, *received = CUDA.conv2d_with_statistics(x, weight, bias, residual, geometry, 0.0, None)
    assert sums_ran() - before == (not choose.is_depthwise(geometry))
    assert choose.takes_statistics(geometry, 3, dtype, CUDA.device) == (not choose.is_depthwise(geometry))
    plain = CUDA.conv2d_fused(x, weight, bias, residual, geometry, 0.0, None)
    assert CUDA.to_numpy(y).tobytes() == CUDA.to_numpy(plain).tobytes()
    for mine, theirs in zip(received, CUDA.batch_norm_forward(y, None, None, 0.0)[1:], strict=True):
        np.testing.assert_allclose(CUDA.to_numpy(mine), CUDA.to_numpy(theirs), rtol=1e-6)


def test_statistics_of_many_blocks_survive_a_mean_of_ten_thousand_deviations(rng):
    """More blocks than one merge takes; the first element is far from the others."""
    geometry = conv_geometry(8, 8, (90, 80), (1, 1))
    numbanet.set_float32_precision("strict")
    x, weight = channels_last(rng.standard_normal((1, 8, 90, 80)).astype(np.float32)), np.eye(8, dtype=np.float32)[:, :, None, None]
    residual = channels_last(np.zeros(x.shape, np.float32))
    residual[0, :, 0, 0] = -1e4
    x, weight, bias, residual = (CUDA.from_numpy(a) for a in (x, weight, np.full(8, 1e4, np.float32), residual))
    before = sums_ran()
    y, mean, variance = (CUDA.to_numpy(a) for a in CUDA.conv2d_with_statistics(x, weight, bias, residual, geometry, None, None))
    assert sums_ran() == before + 1 and 90 * 80 / 64 > 64
    exact = y.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean((0, 2, 3)), rtol=1e-7)
    np.testing.assert_allclose(variance, exact.var((0, 2, 3)), rtol=1e-6)


def test_who_takes_statistics():
    """Whole products of float32 by tiles: neither those in splits, nor depthwise ones, nor any where tiles are off."""
    whole, split, depthwise = (conv_geometry(*numbers) for numbers in (
        (64, 64, (14, 14), (3, 3), 1, 1), (512, 64, (7, 7), (3, 3), 1, 1), (64, 64, (14, 14), (3, 3), 1, 1, 1, 64)))
    assert CUDA.takes_statistics(whole, 32) and not CUDA.takes_statistics(split, 1) and not CUDA.takes_statistics(depthwise, 32)
    numbanet.cuda.set_tiles(False)
    assert not CUDA.takes_statistics(whole, 32)


def test_a_split_convolution_reads_its_result_again(rng):
    geometry = conv_geometry(512, 64, (7, 7), (3, 3), 1, 1)
    x, weight = (CUDA.from_numpy(rng.standard_normal(shape).astype(np.float32)) for shape in ((1, 512, 7, 7), geometry.weight_shape))
    before = sums_ran()
    y, mean, variance = (CUDA.to_numpy(a) for a in CUDA.conv2d_with_statistics(x, weight, None, None, geometry, None, None))
    assert sums_ran() == before
    np.testing.assert_allclose(mean, y.mean((0, 2, 3)), rtol=0, atol=1e-4)
    np.testing.assert_allclose(variance, y.var((0, 2, 3)), rtol=1e-5)


def test_a_compiled_training_step_takes_statistics(rng):
    """Each convolution before a batch norm, as calls and as a graph; losses and parameters are the reference's."""
    numbanet.set_float32_precision("strict")
    numbanet.manual_seed(5)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, stride=2),
                          nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 12, 3, groups=12), nn.BatchNorm2d(12), nn.AdaptiveAvgPool2d(1),
                          nn.Flatten(), nn.Linear(12, 10))
    x, labels, results = rng.standard_normal((3, 3, 13, 11)).astype(np.float32), rng.integers(0, 10, 3), {}
    for device in ("cuda", "reference"):
        mine = copy.deepcopy(model).to(device)
        batch = numbanet.tensor(x, device=device), numbanet.tensor(labels, device=device)
        optimizer = numbanet.optim.SGD(mine.parameters(), lr=0.1)
        step = numbanet.compile(mine, batch, loss=F.cross_entropy, optimizer=optimizer)
        losses = []
        for _ in range(3):
            CUDA.device.programs.clear()
            losses.append(step(*batch).item())
            assert device == "reference" or sums_ran() == 2
        names = step.plan().graph.primitives()
        assert names.count("conv2d_with_statistics") == names.count("batch_norm_given_forward") == (2 if device == "cuda" else 0)
        results[device] = [np.array(losses), *[value.numpy() for value in mine.state_dict().values()]]
    for received, expected in zip(results["cuda"], results["reference"], strict=True):
        np.testing.assert_allclose(received, expected, rtol=0, atol=2e-5 * (np.abs(expected).max() or 1))


def test_a_compiled_training_step_of_16_bits_takes_statistics(rng):
    """The loss is that of the same step without them."""
    numbanet.manual_seed(5)
    model = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                          nn.Linear(16, 10)).to("cuda")
    batch = (numbanet.tensor(rng.standard_normal((3, 8, 9, 7)).astype(np.float32), device="cuda"),
             numbanet.tensor(rng.integers(0, 10, 3), device="cuda"))
    losses = []
    for takes in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            if not takes:
                patch.setattr(type(CUDA), "takes_statistics", lambda self, geometry, batch: False)
            mine = copy.deepcopy(model)
            step = numbanet.compile(mine, batch, loss=F.cross_entropy, optimizer=numbanet.optim.SGD(mine.parameters(), lr=0.1),
                                    precision="bf16")
            before = sums_ran()
            losses.append([step(*batch).item() for _ in range(3)])
            assert sums_ran() - before == 3 * takes
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_tf32_rounds_and_strict_does_not(rng):
    a, b = (rng.standard_normal((24, 40)).astype(np.float32), rng.standard_normal((40, 16)).astype(np.float32))
    exact, errors = a.astype(np.float64) @ b, {}
    for precision in ("strict", "fast"):
        numbanet.set_float32_precision(precision)
        errors[precision] = np.abs(CUDA.to_numpy(CUDA.matmul(CUDA.from_numpy(a), CUDA.from_numpy(b))) - exact).max()
    assert errors["strict"] < 5e-6 < 1e-4 < errors["fast"] < 2e-2


def test_a_wide_weight_gradient_is_split(rng):
    """Long sums of few weights: a workspace, and a second pass."""
    geometry = conv_geometry(8, 16, (20, 24), (3, 3), 1, 1)
    x, grad_y = (integers(rng, (2, channels, 20, 24), np.float32, 2, NHWC) for channels in (8, 16))
    CUDA.device.programs.clear()
    received, = outputs(CUDA, PRIMITIVES["conv2d_backward_weight"], (grad_y, x, geometry))
    assert any(name.startswith("splits_") for name in CUDA.device.programs)
    np.testing.assert_array_equal(received, outputs(REFERENCE, PRIMITIVES["conv2d_backward_weight"], (grad_y, x, geometry))[0])


def test_predicates(rng, monkeypatch):
    """Each of them by name: switch, dtype, size, reach, stride."""
    monkeypatch.undo()
    geometry = conv_geometry(8, 16, (6, 6), (3, 3), 1, 1)
    x, weight = CUDA.empty((2, 8, 6, 6), np.dtype(np.float32), NHWC), CUDA.empty((16, 8, 3, 3), np.dtype(np.float32))
    out = CUDA.empty((2, 16, 6, 6), np.dtype(np.float32), NHWC)
    assert choose.convolution("forward", geometry, x, weight, out) is convolution_tiles
    wide = [CUDA.empty(a.shape, np.dtype(np.float64)) for a in (x, weight, out)]
    assert choose.convolution("forward", geometry, *wide) is convolution_direct                      # no program of float64
    thin = conv_geometry(1, 16, (6, 6), (2, 2))
    assert choose.convolution("forward", thin, x, weight, out) is convolution_direct                 # a depth of 4
    far = x.view(x.shape, (1 << 33, *x.strides[1:]))
    assert choose.convolution("forward", geometry, far, weight, out) is convolution_direct           # offsets beyond int32
    a = CUDA.empty((32, 32), np.dtype(np.float32))
    assert choose.matrix_product(a, a, a) is matrix_tiles.multiply
    crossed = CUDA.empty((3, 2, 16, 16), np.dtype(np.float32)).view((2, 3, 16, 16), (1024, 2048, 64, 4))
    assert choose.matrix_product(crossed, CUDA.empty((2, 3, 16, 16), a.dtype), CUDA.empty((2, 3, 16, 16), a.dtype)) is matrix.multiply
    many = [CUDA.empty((70000, 8, 8), a.dtype) for _ in range(3)]
    assert choose.matrix_product(*many) is matrix.multiply                                           # more than a grid has along an axis
    numbanet.cuda.set_tiles(False)
    assert choose.convolution("forward", geometry, x, weight, out) is convolution_direct
    assert choose.matrix_product(a, a, a) is matrix.multiply


def test_a_training_step_of_a_network(rng):
    """Gradients of a small network, all products by tiles, beside the reference."""
    numbanet.set_float32_precision("strict")
    numbanet.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, groups=8), nn.Conv2d(8, 12, 1), nn.ReLU(),
                          nn.Flatten(), nn.Linear(108, 10))
    x, labels = rng.standard_normal((2, 3, 8, 8)).astype(np.float32), rng.integers(0, 10, 2)
    results = {}
    for device in ("cuda", "reference"):
        model = model.to(device)
        model.zero_grad()
        loss = F.cross_entropy(model(numbanet.tensor(x, device=device)), numbanet.tensor(labels, device=device))
        loss.backward()
        results[device] = [loss.detach().numpy(), *[p.grad.numpy() for p in model.parameters()]]
    for mine, theirs in zip(results["cuda"], results["reference"], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5 * (np.abs(theirs).max() or 1))


def test_a_compiled_model(rng):
    """A plan takes the programs too: fused epilogues, weights packed once."""
    numbanet.set_float32_precision("strict")
    numbanet.manual_seed(4)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 10, 3), nn.ReLU(),
                          nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 9)).eval()
    x = rng.standard_normal((3, 3, 9, 7)).astype(np.float32)
    expected = model.to("reference")(numbanet.tensor(x, device="reference")).detach().numpy()
    model = model.to("cuda")
    compiled = numbanet.compile(model, numbanet.tensor(x, device="cuda"))
    for _ in range(2):
        CUDA.device.programs.clear()
        np.testing.assert_allclose(compiled(numbanet.tensor(x, device="cuda")).numpy(), expected, rtol=0, atol=1e-5)
        assert sum(CUDA.device.programs.values()) >= 3
