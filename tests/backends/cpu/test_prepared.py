"""Fused and prepared convolutions and linear layers: what they write, where, and when packed weights are shared."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from numbanet.backends import get_backend
from numbanet.backends.cpu import prepared as prepared_module
from numbanet.backends.cpu.convolution.choose import winograd_plan
from numbanet.backends.cpu.convolution.forward import forward
from numbanet.backends.precision import get_float32_precision, set_float32_precision
from numbanet.geometry import conv_geometry
from tests.cases.case import channels_last, floats, integers
from tests.cases.convolution import GEOMETRIES

CPU, REFERENCE = get_backend("cpu"), get_backend("reference")
WINOGRAD = conv_geometry(33, 70, (9, 10), (3, 3), padding=((1, 0), (1, 1)))          # ragged tiles, channels and filters
PHASES = conv_geometry(48, 160, (18, 19), (3, 3), padding=1)
FIVE = conv_geometry(33, 70, (9, 10), (5, 5), padding=((2, 1), (2, 2)))
WINOGRADS = ((WINOGRAD, 11), (PHASES, 1), (FIVE, 4), (FIVE, 1))
NAMES = ("few", "narrow", "lenet-1", "lenet-2", "strip-and-lanes", "deep", "grouped", "groups-of-four", "groups-of-two", "depthwise",
         "depthwise-strided", "depthwise-dilated", "pointwise", "first-layer", "one-pixel")


@pytest.fixture
def strict():
    before = get_float32_precision()
    set_float32_precision("strict")
    yield
    set_float32_precision(before)


def prepare(primitive, arguments):
    return CPU.prepare(primitive, arguments, frozenset(i for i, name in enumerate(("x", "weight", "bias")) if i))


def operands(rng, batch, g, residual=True, make=integers):
    x = channels_last(make(rng, batch, g.channels, *g.input_size))
    added = channels_last(make(rng, batch, g.filters, *g.output_size)) if residual else None
    return x, make(rng, *g.weight_shape), make(rng, g.filters), added, g


def guarded_slice(batch, g, before=3, behind=5):
    """A slice of channels of a larger channels-last array of sevens, and that array."""
    whole = np.full((batch, *g.output_size, before + g.filters + behind), 7, np.float32)
    out = whole[..., before:before + g.filters].transpose(0, 3, 1, 2)
    out[...] = np.nan
    return out, whole


def guards(whole, g, before=3):
    return np.delete(whole, np.s_[before:before + g.filters], axis=3)


@pytest.mark.parametrize("label", NAMES)
def test_a_prepared_call_writes_the_slice_and_nothing_else(label, rng, strict):
    batch, g = GEOMETRIES[label]
    arguments = (*operands(rng, batch, g), -3.0, 40.0)
    out, whole = guarded_slice(batch, g)
    prepare("conv2d_fused", arguments)(*arguments, out)
    np.testing.assert_array_equal(out, REFERENCE.conv2d_fused(*arguments))
    assert (guards(whole, g) == 7).all()


@pytest.mark.parametrize(("g", "batch"), WINOGRADS, ids=["blocks", "phases", "5x5-blocks", "5x5-phases"])
def test_winograd_writes_the_slice_and_nothing_else(g, batch, rng):
    algorithm = forward(g, batch, True, True)
    assert algorithm.packing[0] == "winograd"
    assert winograd_plan(batch, g.channels, g.filters, g.output_size, True, g.kernel_size[0]).in_phases == ((g, batch) in WINOGRADS[1::2])
    arguments = (*operands(rng, batch, g, make=floats), 0.0, 20.0)
    out, whole = guarded_slice(batch, g)
    prepare("conv2d_fused", arguments)(*arguments, out)
    expected = REFERENCE.conv2d_fused(*(a.astype(np.float64) if isinstance(a, np.ndarray) else a for a in arguments))
    assert np.abs(out - expected).max() <= 5e-6 * np.linalg.norm(expected) / np.sqrt(expected.size) * 10
    assert np.linalg.norm(out - expected) <= 5e-6 * np.linalg.norm(expected)
    assert (guards(whole, g) == 7).all()


@pytest.mark.parametrize(("g", "batch"), [*WINOGRADS, *[(GEOMETRIES[n][1], GEOMETRIES[n][0]) for n in NAMES]])
def test_no_limits_and_no_residual_change_no_bit(g, batch, rng):
    x, weight, bias, _, g = operands(rng, batch, g, False, floats)
    x[0, 0, min(3, g.input_size[0] - 1), min(3, g.input_size[1] - 1)], x[-1, -1, -1, -1] = np.nan, np.inf
    plain, wide = (x, weight, bias, g), (x, weight, bias, None, g, -np.inf, np.inf)
    first, second, third = (CPU.empty((batch, g.filters, *g.output_size), np.dtype(np.float32), (0, 2, 3, 1)) for _ in range(3))
    prepare("conv2d_forward", plain)(*plain, first)
    prepare("conv2d_fused", wide)(*wide, second)
    limited = (x, weight, bias, None, g, -1.0, 2.0)
    prepare("conv2d_fused", limited)(*limited, third)
    np.testing.assert_array_equal(first.view(np.int32), second.view(np.int32))
    assert np.isnan(first).any()
    np.testing.assert_array_equal(third, np.clip(first, -1, 2))          # NaN stays NaN


def test_crops_and_other_orders_are_written_too(rng, strict):
    for label in ("strip-and-lanes", "depthwise", "lenet-2"):
        batch, g = GEOMETRIES[label]
        arguments = (*operands(rng, batch, g), 0.0, None)
        expected = REFERENCE.conv2d_fused(*arguments)
        OH, OW = g.output_size
        crop = np.full((batch, OH + 2, OW + 3, g.filters), 7, np.float32)
        rows = np.full((batch, g.filters, OH, OW), np.nan, np.float32)
        inner = crop[:, 1:-1, 2:-1].transpose(0, 3, 1, 2)
        for out in (inner, rows):
            prepare("conv2d_fused", arguments)(*arguments, out)
            np.testing.assert_array_equal(out, expected)
        crop[:, 1:-1, 2:-1] = 7
        assert (crop == 7).all()


def test_residual_may_be_a_slice(rng, strict):
    for label in ("strip-and-lanes", "depthwise", "groups-of-four", "narrow"):
        batch, g = GEOMETRIES[label]
        x, weight, bias, added, g = operands(rng, batch, g)
        residual, _ = guarded_slice(batch, g)
        residual[...] = added
        expected = REFERENCE.conv2d_fused(x, weight, bias, added, g, 0.0, None)
        np.testing.assert_array_equal(CPU.conv2d_fused(x, weight, bias, residual, g, 0.0, None), expected)


def test_batches_share_packed_weights(rng):
    g = GEOMETRIES["deep"][1]
    _, weight, bias, _, _ = operands(rng, 1, g)
    before = set(prepared_module._shared)
    calls = [prepare("conv2d_forward", (channels_last(integers(rng, batch, g.channels, *g.input_size)), weight, bias, g))
             for batch in (1, 3, 7)]
    assert len(set(prepared_module._shared) - before) == 1
    weight[0, 0, 0, 0] += 1                                              # another content is packed anew
    x = channels_last(integers(rng, 2, g.channels, *g.input_size))
    again = prepare("conv2d_forward", (x, weight, bias, g))
    out = np.empty((2, g.filters, *g.output_size), np.float32)
    again(x, weight, bias, g, out)
    np.testing.assert_allclose(out, REFERENCE.conv2d_forward(x, weight, bias, g), rtol=1e-5, atol=1e-3)
    assert len(set(prepared_module._shared) - before) == 2
    del calls, again
    gc.collect()
    assert set(prepared_module._shared) <= before


def test_weights_that_change_are_not_prepared(rng):
    g = GEOMETRIES["few"][1]
    x, weight, bias, _, _ = operands(rng, 1, g)
    assert CPU.prepare("conv2d_forward", (x, weight, bias, g), frozenset()) is None
    assert CPU.prepare("conv2d_forward", (x, weight, bias, g), frozenset((1,))) is None        # the bias may change
    assert CPU.prepare("conv2d_forward", (x, weight, None, g), frozenset((1,))) is not None
    assert CPU.prepare("relu_forward", (x,), frozenset()) is None
    assert REFERENCE.prepare("conv2d_forward", (x, weight, bias, g), frozenset((1, 2))) is None
    wide = tuple(a.astype(np.float64) for a in (x, weight, bias))
    assert CPU.prepare("conv2d_forward", (*wide, g), frozenset((1, 2))) is None


def test_preparing_reads_no_contents_of_what_may_change(rng):
    class Description:
        def __init__(self, array):
            self.shape, self.strides, self.dtype = array.shape, array.strides, array.dtype

    for label in ("few", "lenet-2", "depthwise", "strip-and-lanes"):
        batch, g = GEOMETRIES[label]
        x, weight, bias, added, g = operands(rng, batch, g)
        call = prepare("conv2d_fused", (Description(x), weight, bias, Description(added), g, 0.0, None))
        out = np.empty(added.shape, np.float32)
        call(x, weight, bias, added, g, 0.0, None, out)
        np.testing.assert_allclose(out, REFERENCE.conv2d_fused(x, weight, bias, added, g, 0.0, None), rtol=1e-5, atol=1e-3)
    x, weight = integers(rng, 3, 7), integers(rng, 5, 7)
    out = np.empty((3, 5), np.float32)
    prepare("linear_forward", (Description(x), weight, None))(x, weight, None, out)
    np.testing.assert_array_equal(out, x @ weight.T)


@pytest.mark.parametrize(("M", "K", "O"), [(1, 70, 33), (5, 17, 40), (37, 64, 64), (300, 33, 5), (2, 512, 1)])
def test_prepared_linear(M, K, O, rng):
    x, weight, bias = integers(rng, M, K), integers(rng, O, K), integers(rng, O)
    whole = np.full((M, O + 4), 7, np.float32)
    call = prepare("linear_fused", (x, weight, bias, 0.0, 9.0))
    for out in (whole[:, 1:-3], np.empty((O, M), np.float32).T):
        call(x, weight, bias, 0.0, 9.0, out)
        np.testing.assert_array_equal(out, np.clip(x @ weight.T + bias, 0, 9))
    plain = prepare("linear_forward", (x, weight, None))
    plain(x, weight, None, whole[:, 1:-3])
    np.testing.assert_array_equal(whole[:, 1:-3], x @ weight.T)
    assert (whole[:, [0, -3, -2, -1]] == 7).all()
    x[0, 0] = np.nan
    call(x, weight, bias, 0.0, 9.0, whole[:, 1:-3])
    assert np.isnan(whole[0, 1:-3]).all()


def test_folded_weights_do_what_batch_norm_does(rng):
    g = GEOMETRIES["strided"][1]
    x, weight, bias, _, _ = operands(rng, 2, g, False, floats)
    gamma, beta, mean = (floats(rng, g.filters) for _ in range(3))
    variance = rng.uniform(0.5, 2, g.filters).astype(np.float32)
    expected = CPU.batch_norm_inference_forward(CPU.conv2d_forward(x, weight, bias, g), gamma, beta, mean, variance, 1e-3)
    folded = CPU.fold_batch_norm(weight, bias, gamma, beta, mean, variance, 1e-3)
    np.testing.assert_allclose(CPU.conv2d_forward(x, *folded, g), expected, rtol=1e-4, atol=1e-4)
    scale, shift = CPU.batch_norm_scale_shift(gamma, beta, mean, variance, 1e-3)
    separate = CPU.channel_affine(CPU.conv2d_forward(x, weight, bias, g), scale, shift, None, None)
    np.testing.assert_allclose(separate, expected, rtol=1e-4, atol=1e-4)


def test_prepared_maxima_of_a_slice(rng):
    """Nothing is read outside of the slice: a NaN beside it stays there."""
    from numbanet.geometry import pool_geometry
    whole = np.full((2, 9, 8, 30), np.nan, np.float32)
    x = whole[..., 5:24].transpose(0, 3, 1, 2)
    x[...] = integers(rng, *x.shape)
    for geometry in (pool_geometry((9, 8), 3, 2, 1), pool_geometry((9, 8), 2)):
        np.testing.assert_array_equal(CPU.max_pool2d_values(x, geometry), REFERENCE.max_pool2d_forward(x, geometry)[0])


@pytest.mark.parametrize("C", [1, 5, 6, 15])
def test_maxima_of_few_channels_stay_within_their_slice(rng, C):
    """Whole vectors are written where the lanes behind the channels are the next pixel's, and nowhere else."""
    from numbanet.geometry import pool_geometry
    x = integers(rng, 2, 13, 12, C).transpose(0, 3, 1, 2)
    for geometry in (pool_geometry((13, 12), 2), pool_geometry((13, 12), 3, 1, 1)):
        expected = REFERENCE.max_pool2d_forward(x, geometry)[0]
        for gap in (0, 2):
            whole = np.full((2, *expected.shape[2:], C + gap), np.nan, np.float32)
            CPU.max_pool2d_values(x, geometry, out=whole[..., :C].transpose(0, 3, 1, 2))
            np.testing.assert_array_equal(whole[..., :C].transpose(0, 3, 1, 2), expected)
            assert np.isnan(whole[..., C:]).all()
