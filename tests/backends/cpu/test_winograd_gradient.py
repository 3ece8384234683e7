"""Winograd's weight gradient: its rounding error, where it is chosen, memory orders, and what ends a tile or a block."""

from __future__ import annotations

import numpy as np
import pytest

from numbanet.backends import get_backend
from numbanet.backends.cpu.convolution import choose
from numbanet.backends.precision import get_float32_precision, set_float32_precision
from numbanet.geometry import conv_geometry
from tests.backends.cpu.narrower import on_narrower_vectors, run_narrower
from tests.cases.case import channels_last

CPU = get_backend("cpu")
BOUND = 4e-6        # of the L2 norm; 1.0e-6 to 1.8e-6 are measured, and 2.4e-7 to 5e-7 by the direct product

GEOMETRIES = {
    "ragged": (3, conv_geometry(40, 72, (9, 11), (3, 3), 1, 1)),
    "odd-lanes": (3, conv_geometry(33, 45, (17, 22), (3, 3), 1, 1)),
    "uneven-padding": (7, conv_geometry(64, 32, (15, 17), (3, 3), 1, ((0, 2), (2, 0)))),
    "no-padding": (6, conv_geometry(32, 65, (20, 18), (3, 3))),
    "padded-beyond-kernel": (4, conv_geometry(32, 40, (6, 9), (3, 3), 1, 4)),
    "blocks": (8, conv_geometry(150, 290, (7, 7), (3, 3), 1, 1)),
    "parts": (12, conv_geometry(32, 48, (27, 30), (3, 3), 1, 1)),
}


@pytest.fixture(autouse=True)
def fast():
    before = get_float32_precision()
    set_float32_precision("fast")
    yield
    set_float32_precision(before)


def _realistic(rng, batch, geometry):
    """Activations behind a rectifier, and gradients with a mean."""
    x = np.maximum(rng.standard_normal((batch, geometry.channels, *geometry.input_size)) + 0.3, 0)
    grad_y = 1e-3 * (rng.standard_normal((batch, geometry.filters, *geometry.output_size)) + 0.1)
    return channels_last(grad_y.astype(np.float32)), channels_last(x.astype(np.float32))


def _exact(grad_y, x, geometry):
    """By its definition, tap by tap, in float64."""
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), *geometry.padding))
    OH, OW = geometry.output_size
    return np.stack([np.stack([np.einsum("nkhw,nchw->kc", grad_y.astype(np.float64), padded[:, :, r:r + OH, s:s + OW], optimize=True)
                               for s in range(3)], -1) for r in range(3)], -2)


def _error(received, exact):
    return np.linalg.norm(received - exact) / np.linalg.norm(exact)


@pytest.mark.parametrize("label", GEOMETRIES)
@pytest.mark.parametrize("make", ["normal", "realistic"])
def test_rounding_error(label, make, rng):
    batch, g = GEOMETRIES[label]
    assert choose.may_use_winograd_gradient(g) and choose.winograd_gradient_plan(g, batch) is not None
    if make == "realistic":
        grad_y, x = _realistic(rng, batch, g)
    else:
        grad_y = channels_last(rng.standard_normal((batch, g.filters, *g.output_size), np.float32))
        x = channels_last(rng.standard_normal((batch, g.channels, *g.input_size), np.float32))
    received = CPU.conv2d_backward_weight(grad_y, x, g, out=np.full(g.weight_shape, np.nan, np.float32))
    assert _error(received, _exact(grad_y, x, g)) <= BOUND
    set_float32_precision("strict")
    assert (CPU.conv2d_backward_weight(grad_y, x, g) != received).any(), "the algorithm was not used"


def test_the_error_does_not_grow_with_the_map(rng):
    """4,000 tiles: one chain of sums would lose a digit."""
    g = conv_geometry(32, 32, (128, 124), (3, 3), 1, 1)
    grad_y, x = (channels_last(rng.standard_normal((4, 32, 128, 124), np.float32)) for _ in range(2))
    assert _error(CPU.conv2d_backward_weight(grad_y, x, g), _exact(grad_y, x, g)) <= BOUND


def test_any_memory_order_and_slices_of_channels(rng):
    batch, g = GEOMETRIES["odd-lanes"]
    grad_y, x = _realistic(rng, batch, g)
    expected = CPU.conv2d_backward_weight(grad_y, x, g)
    wide = [channels_last(np.pad(a, ((0, 0), (3, 6), (1, 0), (0, 2)), constant_values=np.nan))[:, 3:-6, 1:, :-2] for a in (grad_y, x)]
    out = np.full((*g.weight_shape[:3], 5), np.nan, np.float32)
    CPU.conv2d_backward_weight(*wide, g, out=out[..., 1:4])
    np.testing.assert_array_equal(out[..., 1:4], expected)
    assert np.isnan(out[..., [0, 4]]).all()
    np.testing.assert_array_equal(CPU.conv2d_backward_weight(*map(np.ascontiguousarray, (grad_y, x)), g), expected)


@pytest.mark.parametrize("label", ["blocks", "parts", "odd-lanes"])
def test_same_bits_at_every_thread_count(label, rng):
    """Several blocks with one part, and one block with several parts."""
    from numbanet.backends.cpu import threads
    batch, g = GEOMETRIES[label]
    grad_y, x = _realistic(rng, batch, g)
    before, results = threads.get_num_threads(), []
    try:
        for count in range(1, threads.maximum() + 1):
            threads.set_num_threads(count)
            results.append(CPU.conv2d_backward_weight(grad_y, x, g))
    finally:
        threads.set_num_threads(before)
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


def test_plans_cover_all_threads_and_keep_to_their_blocks():
    assert choose.winograd_gradient_plan(GEOMETRIES["parts"][1], 12).parts > 1
    assert choose.winograd_gradient_plan(GEOMETRIES["blocks"][1], 8).parts == 1
    for channels, filters, size in ((64, 64, 56), (96, 208, 14), (160, 320, 7), (512, 512, 7)):
        plan = choose.winograd_gradient_plan(conv_geometry(channels, filters, (size, size), (3, 3), 1, 1), 16)
        assert -(-filters // plan.filters) * -(-channels // plan.channels) * plan.parts == plan.jobs >= 3


def test_few_channels_or_tiles_and_other_kernels_take_the_direct_product():
    for g in (conv_geometry(15, 64, (28, 28), (3, 3), 1, 1), conv_geometry(64, 64, (5, 5), (3, 3), 1, 1)):
        assert choose.winograd_gradient_plan(g, 8) is None
    assert choose.winograd_gradient_plan(conv_geometry(64, 64, (7, 7), (3, 3), 1, 1), 2) is None
    for options in ({"stride": 2}, {"dilation": 2}, {"groups": 2}):
        assert not choose.may_use_winograd_gradient(conv_geometry(64, 64, (28, 28), (3, 3), padding=1, **options))


@on_narrower_vectors
def test_narrower_vectors(width, cpu):
    run_narrower("tests/backends/cpu/test_winograd_gradient.py", "rounding or slices or bits", width, cpu, 4)


@pytest.mark.parametrize("kernel, size, batch", [((5, 5), (14, 14), 4), ((5, 5), (10, 11), 2), ((1, 1), (14, 14), 4), ((3, 5), (14, 15), 4),
                                                 ((7, 7), (14, 14), 4)])
def test_other_kernels_take_the_direct_product(kernel, size, batch, rng):
    """Forward has an algorithm of Winograd for 5 x 5 taps, the weight gradient has none."""
    g = conv_geometry(32, 96, size, kernel, 1, [k // 2 for k in kernel])
    x, grad_y = (channels_last(rng.standard_normal((batch, c, *s), np.float32)) for c, s in ((32, size), (96, g.output_size)))
    expected = get_backend("reference").conv2d_backward_weight(grad_y.astype(np.float64), x.astype(np.float64), g)
    received = CPU.conv2d_backward_weight(grad_y, x, g)
    assert np.linalg.norm(received - expected) <= 1e-6 * np.linalg.norm(expected)
