"""Statistics that convolutions take of their results: as exact as a pass over the map, at every number of threads, whatever the numbers."""

from __future__ import annotations

import numpy as np
import pytest

from numbanet.backends import get_backend
from numbanet.backends.cpu.convolution import candidates, forward, takes_statistics
from numbanet.geometry import conv_geometry
from tests.backends.cpu.narrower import on_narrower_vectors, run_narrower
from tests.backends.cpu.thread_counts import run_with_four_threads
from tests.cases.case import channels_last, floats, strided

CPU = get_backend("cpu")
# batch, geometry, algorithm: None for those that leave statistics to a pass of their own
LAYERS = {
    "pointwise": (3, conv_geometry(33, 70, (19, 17), (1, 1)), "gather"),
    "ranges-of-filters": (1, conv_geometry(20, 200, (5, 5), (1, 1), 2), "gather"),
    "one-pixel": (1, conv_geometry(20, 50, (2, 2), (3, 3), 2, 1), "gather"),
    "channels-in-chunks": (2, conv_geometry(600, 33, (9, 7), (3, 3), 2, 1), "gather"),
    "grouped": (2, conv_geometry(24, 42, (13, 9), (3, 3), 1, 1, groups=2), "gather"),
    "winograd": (5, conv_geometry(16, 33, (42, 39), (3, 3), 1, 1), "winograd"),
    "winograd-5": (3, conv_geometry(20, 70, (25, 27), (5, 5), 1, 2), "winograd"),
    "winograd-phases": (3, conv_geometry(190, 180, (15, 14), (3, 3), 1, 1), "winograd"),
    "depthwise": (2, conv_geometry(83, 83, (23, 19), (3, 3), 1, 1, groups=83), "depthwise"),
    "depthwise-strided": (1, conv_geometry(17, 17, (40, 21), (5, 5), 2, 2, groups=17), "depthwise"),
    "bands": (3, conv_geometry(3, 70, (37, 45), (7, 7), 2, 3), "band"),
    "bands-of-one-row": (1, conv_geometry(1, 19, (9, 25), (3, 2), (1, 2)), "band"),
    "columns": (2, conv_geometry(1, 6, (14, 13), (5, 5)), None),
    "small-groups": (2, conv_geometry(22, 22, (9, 6), (3, 3), 1, 1, groups=11), None),
    "whole": (5, conv_geometry(3, 21, (5, 4), (5, 4)), None),
}


def _layer(name, rng, offset=0.0, layout=channels_last):
    batch, g, _ = LAYERS[name]
    weight = floats(rng, *g.weight_shape) / np.sqrt(g.weight_shape[1] * g.kernel_size[0] * g.kernel_size[1], dtype=np.float32)
    return layout(floats(rng, batch, g.channels, *g.input_size)), weight, floats(rng, g.filters) + np.float32(offset), None, g, None, None


def _exact(y):
    wide = y.astype(np.float64)
    return wide.mean((0, 2, 3)), wide.var((0, 2, 3))


@pytest.mark.parametrize("name", LAYERS)
def test_backends_are_asked_who_takes_statistics(name):
    batch, geometry, algorithm = LAYERS[name]
    assert CPU.takes_statistics(geometry, batch) == takes_statistics(geometry, batch) == (algorithm is not None)
    if algorithm is not None:
        made = forward(geometry, batch, True)
        assert candidates.kind(made) == algorithm
        assert made.counts.sum() == batch * geometry.output_size[0] * geometry.output_size[1] and made.counts.min() > 0


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("name", LAYERS)
def test_as_exact_as_float64_of_the_same_map(name, offset, rng):
    """A mean of 1e4 beside a deviation of 1: in float32 its square alone is uncertain by 8."""
    given = _layer(name, rng, offset, strided if offset else channels_last)
    y, mean, variance = CPU.conv2d_with_statistics(*given)
    np.testing.assert_array_equal(y, CPU.conv2d_fused(*given))
    expected_mean, expected_variance = _exact(y)
    deviation = np.sqrt(expected_variance)
    assert np.all(np.abs(mean - expected_mean) <= 3e-7 * deviation + 6e-8 * np.abs(expected_mean))
    np.testing.assert_allclose(variance, expected_variance, rtol=2e-6, atol=0)


@pytest.mark.parametrize("name", ["pointwise", "winograd", "winograd-phases", "depthwise"])
def test_a_block_that_begins_far_from_the_rest(name, rng):
    """The first pixels, which a block's center is taken of, are 1e4; all others lie around 0."""
    batch, g, _ = LAYERS[name]
    x = channels_last(floats(rng, batch, g.channels, *g.input_size))
    residual = channels_last(np.zeros((batch, g.filters, *g.output_size), np.float32))
    residual[:, :, :2, :2] = 1e4
    y, mean, variance = CPU.conv2d_with_statistics(x, floats(rng, *g.weight_shape), None, residual, g, None, None)
    expected_mean, expected_variance = _exact(y)
    np.testing.assert_allclose(mean, expected_mean, rtol=2e-6)
    np.testing.assert_allclose(variance, expected_variance, rtol=2e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_what_is_not_a_number_stays_in_its_channel(name, rng):
    x, weight, bias, *rest = _layer(name, rng)
    bias[1], bias[3], bias[5] = np.nan, np.inf, -np.inf
    y, mean, variance = CPU.conv2d_with_statistics(x, weight, bias, *rest)
    broken = np.isin(np.arange(len(bias)), (1, 3, 5))
    np.testing.assert_array_equal(np.isfinite(mean), ~broken)
    np.testing.assert_array_equal(np.isfinite(variance), ~broken)
    np.testing.assert_allclose(variance[~broken], _exact(y[:, ~broken])[1], rtol=2e-6)


def test_one_value_has_no_variance(rng):
    y, mean, variance = CPU.conv2d_with_statistics(*_layer("one-pixel", rng, 77.0))
    np.testing.assert_array_equal(mean, y[0, :, 0, 0])
    assert not variance.any()


def test_no_images(rng):
    x, *rest = _layer("pointwise", rng)
    y, mean, variance = CPU.conv2d_with_statistics(x[:0], *rest)
    assert y.shape == (0, 70, 19, 17) and np.isnan(mean).all() and np.isnan(variance).all()


AT_EVERY_THREAD_COUNT = """
import numpy as np
import numbanet
from numbanet.backends import get_backend
from tests.backends.cpu.test_statistics import LAYERS, _layer
for name in LAYERS:
    given, results = _layer(name, np.random.default_rng(3)), []
    for count in (1, 2, 4):
        numbanet.set_num_threads(count)
        results.append(b"".join(a.tobytes() for a in get_backend("cpu").conv2d_with_statistics(*given)))
    assert results[0] == results[1] == results[2], name
print(len(LAYERS))
"""


def test_the_same_bits_at_every_thread_count():
    assert int(run_with_four_threads(AT_EVERY_THREAD_COUNT)) == len(LAYERS)


@pytest.mark.parametrize("name", ["winograd", "winograd-phases"])
def test_other_algorithms_take_them_too(name, rng):
    """What `numbanet.autotune` may choose gives statistics of its own map."""
    given = _layer(name, rng)
    found = CPU.candidates("conv2d_with_statistics", given, frozenset())
    assert found
    for choice in found:
        y, mean, variance = (np.full_like(a, np.nan) for a in CPU.conv2d_with_statistics(*given))
        CPU.prepare("conv2d_with_statistics", given, frozenset(), choice)(*given, (y, mean, variance))
        np.testing.assert_allclose(variance, _exact(y)[1], rtol=2e-6)
        np.testing.assert_allclose(mean, _exact(y)[0], rtol=1e-6, atol=1e-6)


@on_narrower_vectors
def test_on_narrower_vectors(width, cpu):
    run_narrower(__file__, "exact or far or number", width, cpu, 2)
