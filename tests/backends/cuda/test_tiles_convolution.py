"""The three passes of convolution by tile programs, in the emulator, against the reference backend, bit for bit on small integers."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from numbanet.backends import get_backend
from numbanet.backends.cuda.tiles.arguments import (
    Epilogue,
    conv_backward_input,
    conv_backward_weight,
    conv_forward,
    depthwise_backward_input,
    depthwise_backward_weight,
    depthwise_forward,
    sums_shape,
    workspace_bytes,
)
from numbanet.backends.cuda.tiles.shape import Tile
from numbanet.errors import BackendError
from numbanet.geometry import conv_geometry
from tests.backends.cuda.device import NHWC, Device, integers

DTYPES = {"tf32": np.float32, "float32": np.float32, "bf16": ml_dtypes.bfloat16, "fp16": np.float16}
SMALL = {"tf32": Tile("tf32", 32, 32, 32, 2, 1, 3), "float32": Tile("float32", 32, 32, 32, 1, 1, 2),
         "bf16": Tile("bf16", 32, 32, 32, 1, 2, 4), "fp16": Tile("fp16", 64, 32, 64, 2, 1, 2)}

# batch, channels, filters, size, kernel, stride, padding, dilation, groups
CASES = {
    "1x1": (2, 8, 12, (5, 3), (1, 1), 1, 0, 1, 1),
    "1x1 strided": (2, 8, 12, (5, 6), (1, 1), 2, 0, 1, 1),
    "1x1 padded": (1, 4, 8, (4, 3), (1, 1), 1, 1, 1, 1),
    "3x3": (2, 8, 16, (5, 6), (3, 3), 1, 1, 1, 1),
    "3x3 strided": (1, 16, 8, (7, 8), (3, 3), 2, 1, 1, 1),
    "first layer": (2, 3, 8, (9, 8), (5, 5), 2, ((2, 1), (2, 2)), 1, 1),
    "3x2 dilated": (1, 5, 7, (9, 8), (3, 2), (1, 2), (2, 1), (2, 3), 1),
    "stride 2 dilation 2": (1, 4, 4, (8, 7), (3, 3), 2, 2, 2, 1),
    "stride beyond the window": (1, 4, 8, (8, 7), (2, 1), 3, 0, 1, 1),
    "groups": (1, 8, 16, (4, 5), (3, 3), 1, 1, 1, 2),
    "groups of odd sizes": (2, 6, 9, (4, 5), (2, 3), (2, 1), 1, 1, 3),
}


def problem(rng, case, dtype):
    """Geometry, x, weight, grad_y, channels-last."""
    N, C, K, size, kernel, stride, padding, dilation, groups = CASES[case]
    geometry = conv_geometry(C, K, size, kernel, stride, padding, dilation, groups)
    return (geometry, integers(rng, (N, C, *size), dtype, 3, NHWC), integers(rng, geometry.weight_shape, dtype, 3, NHWC),
            integers(rng, (N, K, *geometry.output_size), dtype, 3, NHWC))


def expected(name, *arguments):
    wide = [a.astype(np.float64) if isinstance(a, np.ndarray) else a for a in arguments]
    return getattr(get_backend("reference"), name)(*wide)


def check(device, view, dtype, result):
    np.testing.assert_array_equal(device.get(view).astype(np.float64), result.astype(dtype).astype(np.float64))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("math", ["tf32", "bf16"])
def test_forward(rng, case, math):
    geometry, x, weight, _ = problem(rng, case, DTYPES[math])
    device = Device()
    y = device.empty((len(x), geometry.filters, *geometry.output_size), DTYPES[math], NHWC)
    device.run(conv_forward(SMALL[math], device.put(x), device.put(weight), y, geometry))
    check(device, y, DTYPES[math], expected("conv2d_forward", x, weight, None, geometry))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("math", ["tf32", "fp16"])
def test_backward_input(rng, case, math):
    geometry, x, weight, grad_y = problem(rng, case, DTYPES[math])
    device = Device()
    grad_x = device.empty(x.shape, DTYPES[math], NHWC)
    device.run(conv_backward_input(SMALL[math], device.put(grad_y), device.put(weight), grad_x, geometry))
    check(device, grad_x, DTYPES[math], expected("conv2d_backward_input", grad_y, weight, geometry))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("math", ["tf32", "bf16"])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), NHWC], ids=["KCRS", "KRSC"])
def test_backward_weight(rng, case, math, order):
    geometry, x, weight, grad_y = problem(rng, case, DTYPES[math])
    device = Device()
    grad_weight = device.empty(weight.shape, DTYPES[math], order)
    splits = 2 if order == NHWC else 1
    room = device.room(workspace_bytes(geometry.filters_per_group, weight[0].size, geometry.groups, splits))
    device.run(conv_backward_weight(SMALL[math], device.put(grad_y), device.put(x), grad_weight, geometry, splits=splits, workspace=room))
    check(device, grad_weight, DTYPES[math], expected("conv2d_backward_weight", grad_y, x, geometry))


@pytest.mark.parametrize("case", ["3x3 strided", "first layer", "groups of odd sizes"])
def test_strict_float32(rng, case):
    geometry, x, weight, grad_y = problem(rng, case, np.float32)
    device, tile = Device(), SMALL["float32"]
    x_view, weight_view, grad_view = device.put(x), device.put(weight), device.put(grad_y)
    y, grad_x = device.empty(grad_y.shape, np.float32, NHWC), device.empty(x.shape, np.float32, NHWC)
    grad_weight = device.empty(weight.shape, np.float32)
    device.run(conv_forward(tile, x_view, weight_view, y, geometry))
    device.run(conv_backward_input(tile, grad_view, weight_view, grad_x, geometry))
    device.run(conv_backward_weight(tile, grad_view, x_view, grad_weight, geometry))
    check(device, y, np.float32, expected("conv2d_forward", x, weight, None, geometry))
    check(device, grad_x, np.float32, expected("conv2d_backward_input", grad_y, weight, geometry))
    check(device, grad_weight, np.float32, expected("conv2d_backward_weight", grad_y, x, geometry))


@pytest.mark.parametrize("math", ["tf32", "fp16"])
@pytest.mark.parametrize("splits", [1, 3])
def test_epilogue(rng, math, splits):
    """scale, shift, residual and limits, of a product in one piece and of one in splits; the same bits twice."""
    geometry, x, weight, grad_y = problem(rng, "groups", DTYPES[math])
    residual = integers(rng, grad_y.shape, DTYPES[math], 9, NHWC)
    scale, shift = rng.integers(1, 4, 16).astype(np.float32), rng.integers(-5, 6, 16).astype(np.float32)
    results = []
    for _ in range(2):
        device = Device()
        y = device.empty(grad_y.shape, DTYPES[math], NHWC)
        epilogue = Epilogue(device.put(scale).address, device.put(shift).address, device.put(residual), -20, 60)
        N = len(x) * geometry.output_size[0] * geometry.output_size[1]
        room = device.room(workspace_bytes(N, geometry.filters_per_group, geometry.groups, splits))
        device.run(conv_forward(SMALL[math], device.put(x), device.put(weight), y, geometry, epilogue, splits, room))
        results.append(device.get(y))
    plain = expected("conv2d_forward", x, weight, None, geometry)
    wanted = np.clip(plain * scale[:, None, None] + shift[:, None, None] + residual.astype(np.float64), -20, 60)
    assert (wanted == -20).any() and (wanted == 60).any()
    np.testing.assert_array_equal(results[0].astype(np.float64), wanted)
    np.testing.assert_array_equal(results[0], results[1])


def test_epilogue_keeps_nan_and_adds_in_place(rng):
    """A NaN of x reaches the outputs whose windows hold it, through the limits; a gradient is added to what stands there."""
    geometry, x, weight, grad_y = problem(rng, "3x3", np.float32)
    x[0, 3, 2, 2] = np.nan
    device = Device()
    y = device.put(integers(rng, grad_y.shape, np.float32, 5, NHWC), writable=True)
    before = device.get(y)
    device.run(conv_forward(SMALL["tf32"], device.put(x), device.put(weight), y, geometry, Epilogue(residual=y, minimum=0.0)))
    wanted = expected("conv2d_forward", x, weight, None, geometry) + before
    assert np.isnan(wanted).any() and not np.isnan(wanted).all()
    np.testing.assert_array_equal(device.get(y), np.where(np.isnan(wanted), np.nan, np.maximum(wanted, 0)))


def merged(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance from (4, blocks, K), in float64."""
    count, mean, rest, squares = sums.astype(np.float64)
    mean, n = mean + rest, count.sum(0)
    center = (count * mean).sum(0) / n
    return center, (squares + count * (mean - center) ** 2).sum(0) / n


@pytest.mark.parametrize("math", ["tf32", "float32", "bf16", "fp16"])
@pytest.mark.parametrize("case", ["3x3", "groups of odd sizes"])
def test_statistics(rng, case, math):
    """Of y as it is stored, rounded, by blocks; y is what it is without them, bit for bit."""
    geometry, x, weight, grad_y = problem(rng, case, DTYPES[math])
    device, tile, (N, K, OH, OW) = Device(), SMALL[math], grad_y.shape
    results = [device.empty(grad_y.shape, DTYPES[math], NHWC) for _ in range(2)]
    shift = device.put(rng.standard_normal(K).astype(np.float32)).address
    residual = device.put(integers(rng, grad_y.shape, DTYPES[math], 9, NHWC))
    sums = device.empty(sums_shape(N * OH * OW, K, tile), np.float32)
    given = device.put(x), device.put(weight)
    for y, address in zip(results, (0, sums.address)):
        device.run(conv_forward(tile, *given, y, geometry, Epilogue(shift=shift, residual=residual, minimum=-20.0, sums=address)))
    y, plain = (device.get(view).astype(np.float64) for view in results)
    np.testing.assert_array_equal(y, plain)
    assert (y == -20).any()
    mean, variance = merged(device.get(sums))
    np.testing.assert_allclose(mean, y.mean((0, 2, 3)), rtol=0, atol=1e-6)
    np.testing.assert_allclose(variance, y.var((0, 2, 3)), rtol=1e-6)


@pytest.mark.parametrize("math", ["tf32", "float32"])
def test_statistics_survive_a_mean_of_ten_thousand_deviations(rng, math):
    """Of normal deviates, from weights of 1: what is left of them in float32 beside a mean of 1e4; the first one is far from the others."""
    geometry, tile = conv_geometry(8, 8, (13, 11), (1, 1)), SMALL[math]
    x = rng.standard_normal((5, 13, 11, 8)).astype(np.float32).transpose(0, 3, 1, 2)
    device, weight = Device(), np.eye(8, dtype=np.float32)[:, None, None].transpose(0, 3, 1, 2)
    residual = np.zeros((5, 13, 11, 8), np.float32).transpose(0, 3, 1, 2)
    residual[0, :, 0, 0] = -10000
    y, sums = device.empty(x.shape, np.float32, NHWC), device.empty(sums_shape(5 * 13 * 11, 8, tile), np.float32)
    shift = device.put(np.full(8, 1e4, np.float32)).address
    device.run(conv_forward(tile, device.put(x), device.put(weight), y, geometry, Epilogue(
        shift=shift, residual=device.put(residual), sums=sums.address)))
    exact = device.get(y).astype(np.float64)
    mean, variance = merged(device.get(sums))
    np.testing.assert_allclose(mean, exact.mean((0, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(variance, exact.var((0, 2, 3)), rtol=2e-6)


def test_views_are_read_and_written_in_place(rng):
    """A crop and a slice of channels: only the strides of n, h, w and the address say where elements are."""
    geometry = conv_geometry(8, 8, (5, 6), (3, 3), 1, 1)
    device, tile = Device(), SMALL["tf32"]
    whole = integers(rng, (2, 16, 7, 9), np.float32, 3, NHWC)
    view = device.put(whole)
    n, c, h, w = view.strides
    x = type(view)(view.address + 4 * (h + 2 * w + 4), (2, 8, 5, 6), view.strides)
    inside = whole[:, 4:12, 1:6, 2:8]
    weight = integers(rng, (8, 8, 3, 3), np.float32, 3, NHWC)
    target = device.empty((2, 24, 5, 6), np.float32, NHWC)
    y = type(view)(target.address + 4 * 8, (2, 8, 5, 6), target.strides)
    device.run(conv_forward(tile, x, device.put(weight), y, geometry))
    result = device.get(target)
    np.testing.assert_array_equal(result[:, 8:16], expected("conv2d_forward", inside, weight, None, geometry))
    assert np.isnan(result[:, :8]).all() and np.isnan(result[:, 16:]).all()


@pytest.mark.parametrize("math", ["float32", "bf16", "fp16"])
@pytest.mark.parametrize("channels, size, kernel, stride, padding, dilation", [
    (8, (7, 6), (3, 3), 1, 1, 1), (5, (8, 7), (3, 2), 2, (1, 1), (1, 2)), (70, (4, 5), (2, 3), (3, 1), ((0, 1), (2, 1)), 1)])
def test_depthwise(rng, math, channels, size, kernel, stride, padding, dilation):
    geometry, dtype = conv_geometry(channels, channels, size, kernel, stride, padding, dilation, channels), DTYPES[math]
    x = integers(rng, (2, channels, *size), dtype, 3, NHWC)
    weight = integers(rng, geometry.weight_shape, dtype, 3, (2, 3, 1, 0))
    grad_y = integers(rng, (2, channels, *geometry.output_size), dtype, 3, NHWC)
    device = Device()
    x_view, weight_view, grad_view = device.put(x), device.put(weight), device.put(grad_y)
    y, grad_x = device.empty(grad_y.shape, dtype, NHWC), device.empty(x.shape, dtype, NHWC)
    grad_weight = device.empty(weight.shape, dtype)
    shift = rng.integers(-5, 6, channels).astype(np.float32)
    residual = integers(rng, grad_y.shape, dtype, 5, NHWC)
    epilogue = Epilogue(shift=device.put(shift).address, residual=device.put(residual), minimum=0.0)
    device.run(depthwise_forward(math, x_view, weight_view, y, geometry, epilogue))
    device.run(depthwise_backward_input(math, grad_view, weight_view, grad_x, geometry))
    room = device.room(workspace_bytes(channels, kernel[0] * kernel[1], 1, 3))
    device.run(depthwise_backward_weight(math, grad_view, x_view, grad_weight, geometry, splits=3, workspace=room))
    wanted = expected("conv2d_forward", x, weight, None, geometry) + shift[:, None, None] + residual.astype(np.float64)
    check(device, y, dtype, np.maximum(wanted, 0))
    check(device, grad_x, dtype, expected("conv2d_backward_input", grad_y, weight, geometry))
    check(device, grad_weight, dtype, expected("conv2d_backward_weight", grad_y, x, geometry))


def test_what_cannot_be_read_in_place_says_which_copy_would_help(rng):
    geometry = conv_geometry(4, 4, (5, 5), (3, 3))
    device, tile = Device(), SMALL["tf32"]
    x, weight = device.put(np.zeros((1, 4, 5, 5), np.float32)), device.put(np.zeros((4, 4, 3, 3), np.float32))
    packed = device.put(integers(rng, (4, 4, 3, 3), np.float32, 3, NHWC))
    channels_last = device.put(integers(rng, (1, 4, 5, 5), np.float32, 3, NHWC))
    y = device.empty((1, 4, 3, 3), np.float32, NHWC)
    with pytest.raises(BackendError, match="x expects unit stride along its channels.*copy it"):
        conv_forward(tile, x, packed, y, geometry)
    with pytest.raises(BackendError, match="weight expects its elements in the order K, R, S, C"):
        conv_forward(tile, channels_last, weight, y, geometry)
    with pytest.raises(BackendError, match="one filter a channel"):
        depthwise_forward("float32", channels_last, weight, y, geometry)
