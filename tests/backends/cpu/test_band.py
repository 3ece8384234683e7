"""Bands of rows: the numbers of the gathered product bit for bit, from maps that lie in larger ones, and who takes them."""

from __future__ import annotations

import numpy as np
import pytest

from numbanet.backends import get_backend
from numbanet.backends.cpu.convolution import candidates, choose, forward, max_pooling
from numbanet.geometry import conv_geometry, pool_geometry
from tests.backends.cpu.narrower import on_narrower_vectors, run_narrower
from tests.cases.case import channels_last, floats
from tests.cases.convolution import GEOMETRIES
from tests.cases.fused_training import BANDS

CPU = get_backend("cpu")
LABELS = [label for label, (batch, _) in GEOMETRIES.items() if label.startswith("bands") and batch]


def _other(given, out, choice):
    CPU.prepare("conv2d_fused", given, frozenset({1, 2}), choice)(*given, out)
    return out


def _slice(x):
    """The same values as a slice of the channels of a larger map, NaN around them."""
    N, C, H, W = x.shape
    large = channels_last(np.full((N, C + 3, H + 2, W), np.nan, np.float32))
    large[:, 1:1 + C, 1:-1] = x
    return large[:, 1:1 + C, 1:-1]


@pytest.mark.parametrize("label", LABELS)
def test_as_the_gathered_product(label, rng):
    """Fractions: sums run in the same order, and slices of channels are read and written in place."""
    batch, g = GEOMETRIES[label]
    x, weight, bias = (floats(rng, *shape) for shape in ((batch, g.channels, *g.input_size), g.weight_shape, (g.filters,)))
    x[0, 0, 0, 0], x[-1, -1, -1, -1], weight[1, 0, 0, 0] = np.nan, np.inf, -np.inf
    residual = _slice(floats(rng, batch, g.filters, *g.output_size))
    given = _slice(x), weight, bias, residual, g, -0.5, 3.0
    assert candidates.kind(forward(g, batch, False)) == "band"
    assert "gather" in CPU.candidates("conv2d_fused", given, frozenset())
    expected = _other(given, channels_last(np.empty(residual.shape, np.float32)), "gather")
    np.testing.assert_array_equal(CPU.conv2d_fused(*given), expected)
    y = _slice(np.empty(residual.shape, np.float32))
    np.testing.assert_array_equal(_other(given, y, None), expected)
    assert np.isnan(y.base).sum() == y.base.size - y.size + np.isnan(expected).sum()
    planes = np.ascontiguousarray(given[0]), *given[1:]
    np.testing.assert_array_equal(CPU.conv2d_fused(*planes), expected)
    _other(given, residual, None)                                   # in place of what is added
    np.testing.assert_array_equal(residual, expected)


@pytest.mark.parametrize("label", BANDS)
def test_gathered_maps_pooled(label, rng):
    """The maxima of the map that the gathered product makes, in bands whose rows of the map overlap."""
    batch, channels, filters, size, kernel, stride, padding, dilation, *pooling = BANDS[label]
    g = conv_geometry(channels, filters, size, (kernel, kernel) if isinstance(kernel, int) else kernel, stride, padding, dilation)
    pooling = pool_geometry(g.output_size, *pooling)
    x, weight, bias = (floats(rng, *shape) for shape in ((batch, g.channels, *g.input_size), g.weight_shape, (g.filters,)))
    if batch:
        x[0, 0, 0, 0], x[-1, -1, -1, -1] = np.nan, np.inf
    assert max_pooling.pools(g, pooling, for_values=True) == (max_pooling.BAND if pooling.dilation == (1, 1) else None)
    map_ = CPU.conv2d_fused(x, weight, bias, None, g, -0.5, 3.0)
    np.testing.assert_array_equal(CPU.conv2d_max_pool_values(x, weight, bias, g, pooling, -0.5, 3.0), CPU.max_pool2d_values(map_, pooling))


@pytest.mark.parametrize("geometry, expected", [
    (conv_geometry(3, 64, (224, 224), (7, 7), 2, 3), True),
    (conv_geometry(3, 64, (224, 224), (11, 11), 4, 2), True),
    (conv_geometry(15, 64, (13, 24), (3, 3), padding=1), True),
    (conv_geometry(16, 64, (13, 24), (3, 3), padding=1), False),    # Winograd's
    (conv_geometry(3, 64, (224, 224), (1, 1)), False),              # a product of pixels
    (conv_geometry(3, 768, (224, 224), (16, 16), 16), False),       # weights that every row would read from afar
    (conv_geometry(3, 64, (224, 224), (3, 3), 1, 2, 2), False),     # taps apart
    (conv_geometry(4, 64, (224, 224), (3, 3), 1, 1, groups=2), False),
    (conv_geometry(3, 64, (30, 1), (3, 1)), False),                 # a tile has one pixel
    (conv_geometry(3, 64, (9, 1 << 16), (7, 7)), False),            # rows that no cache holds
])
def test_who_takes_bands(geometry, expected):
    assert choose.has_few_channels(geometry) == expected


@pytest.mark.parametrize("batch", [1, 3, 16, 100])
@pytest.mark.parametrize("label", LABELS)
def test_bands_cover_the_map(label, batch):
    g = GEOMETRIES[label][1]
    plan = choose.band_plan(g, batch)
    counts = choose.band_counts(batch, g.output_size, plan.band)
    assert len(counts) == plan.jobs and counts.min() > 0 and counts.sum() == batch * g.output_size[0] * g.output_size[1]


@on_narrower_vectors
def test_on_narrower_vectors(width, cpu):
    run_narrower(__file__, "gathered or cover", width, cpu, 2)
