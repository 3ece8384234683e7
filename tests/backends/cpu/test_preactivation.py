"""Convolutions that normalise what they read: bit for bit what batch norm and the convolution give one after the other."""

from __future__ import annotations

import numpy as np
import pytest

from numbanet.backends import get_backend
from numbanet.backends.cpu.convolution import candidates, forward, weight_gradient_name
from numbanet.geometry import conv_geometry
from tests.backends.cpu.narrower import on_narrower_vectors, run_narrower
from tests.backends.cpu.thread_counts import run_with_four_threads
from tests.cases.case import channels_last, floats, strided

CPU = get_backend("cpu")
# batch, geometry, algorithms of the forward pass and of the weight gradient, and whether plans should use them in inference and in training
LAYERS = {
    "pointwise": (3, conv_geometry(33, 70, (23, 17), (1, 1)), "gather", "gather", True, True),
    "pointwise-in-chunks": (2, conv_geometry(2100, 33, (8, 7), (1, 1)), "gather", "gather", False, True),
    "few-pixels": (2, conv_geometry(130, 140, (9, 8), (1, 1)), "gather", "product", False, True),
    "strided": (3, conv_geometry(20, 50, (59, 43), (3, 3), 2, 1), "gather", "gather", True, True),
    "packed-together": (1, conv_geometry(200, 300, (9, 10), (3, 3), 2, 1), "gather", "gather", False, True),
    "grouped": (2, conv_geometry(24, 42, (13, 9), (3, 3), 1, (1, 2), (1, 2), groups=2), "gather", "gather", True, True),
    "winograd": (5, conv_geometry(19, 33, (42, 39), (3, 3), 1, 1), "winograd", "winograd", True, True),
    "winograd-5": (3, conv_geometry(20, 70, (25, 27), (5, 5), 1, 2), "winograd", "gather", True, True),
    "winograd-phases": (3, conv_geometry(190, 180, (15, 14), (3, 3), 1, 1), "winograd", "winograd", True, True),
    "depthwise": (2, conv_geometry(37, 37, (23, 19), (3, 3), 1, 1, groups=37), "depthwise", "depthwise", True, True),
    "depthwise-strided": (3, conv_geometry(83, 83, (40, 21), (5, 5), (2, 1), (2, 3), groups=83), "depthwise", "depthwise", True, True),
    "bands": (3, conv_geometry(3, 70, (37, 45), (7, 7), 2, 3), "band", "gather", False, False),
    "windows": (3, conv_geometry(6, 16, (14, 14), (5, 5)), "windows", "windows", False, False),
    "whole": (5, conv_geometry(3, 21, (5, 4), (5, 4)), None, "whole", False, False),
}
TERMS = {"relu": (0.0, None), "relu6": (0.0, 6.0), "affine": (None, None), "beyond-zero": (0.5, 2.0)}


def _layer(name, rng, layout=channels_last):
    """x, weight, grad_y, geometry, gamma, beta, mean, variance."""
    batch, g, *_ = LAYERS[name]
    C = g.channels
    x, grad_y = floats(rng, batch, C, *g.input_size) * 3 + 5, floats(rng, batch, g.filters, *g.output_size)
    return (layout(x), floats(rng, *g.weight_shape), layout(grad_y), g, floats(rng, C), floats(rng, C), floats(rng, C) + 5,
            np.abs(floats(rng, C)) + np.float32(0.1))


@pytest.mark.parametrize("name", LAYERS)
def test_backends_are_asked_who_normalizes(name):
    batch, geometry, algorithm, of_weight, in_inference, in_training = LAYERS[name]
    x = channels_last(np.zeros((batch, geometry.channels, *geometry.input_size), np.float32))
    assert algorithm is None or candidates.kind(forward(geometry, batch, True)) == algorithm
    assert weight_gradient_name(geometry, x) == of_weight
    assert CPU.preactivates(geometry, batch, False) == in_inference
    assert CPU.preactivates(geometry, batch, True) == in_training


@pytest.mark.parametrize("limits", TERMS.values(), ids=TERMS)
@pytest.mark.parametrize("name", LAYERS)
def test_the_bits_of_batch_norm_and_convolution(name, limits, rng):
    """Where nothing is added, maps have gaps between their pixels."""
    layout = channels_last if limits[0] == 0 else strided
    x, weight, grad_y, g, gamma, beta, mean, variance = _layer(name, rng, layout)
    residual = channels_last(floats(rng, *grad_y.shape)) if limits[0] == 0 else None
    z = layout(CPU.batch_norm_given_forward(x, gamma, beta, None, mean, variance, 1e-5, *limits))
    terms = mean, CPU.batch_norm_scale(gamma, variance, 1e-5), beta, *limits
    rest = weight, None, residual, g, None, 4.0
    np.testing.assert_array_equal(CPU.conv2d_preactivated(x, *rest, *terms), CPU.conv2d_fused(z, *rest))
    for received, expected in zip(CPU.conv2d_preactivated_with_statistics(x, *rest, *terms), CPU.conv2d_with_statistics(z, *rest)):
        np.testing.assert_array_equal(received, expected)
    np.testing.assert_array_equal(CPU.conv2d_preactivated_backward_weight(grad_y, x, g, *terms), CPU.conv2d_backward_weight(grad_y, z, g))


@pytest.mark.parametrize("name", ["pointwise", "strided", "winograd", "winograd-phases"])
def test_the_bits_of_channel_affine_and_convolution(name, rng):
    x, weight, _, g, scale, shift, *_ = _layer(name, rng)
    z = CPU.channel_affine(x, scale, shift, 0.0, None)
    expected = CPU.conv2d_fused(z, weight, None, None, g, 0.0, None)
    given = x, weight, None, None, g, 0.0, None, None, scale, shift, 0.0, None
    np.testing.assert_array_equal(CPU.conv2d_preactivated(*given), expected)
    for constant in (frozenset(), frozenset({1}), frozenset({1, 8}), frozenset({1, 8, 9})):
        call, out = CPU.prepare("conv2d_preactivated", given, constant), np.full_like(expected, np.nan)
        assert (call is None) == (constant != {1, 8, 9})
        if call is not None:
            assert set(call.unread) >= {1, 8, 9} and call.kernels(*given, out) is not None
            call(*given, out)
            np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("name", ["pointwise", "strided", "winograd"])
def test_what_is_not_a_number_stays_so_and_edges_are_zeros(name, rng):
    """ReLU keeps NaN; what is added to x would be infinite at the edges if these were normalised."""
    x, weight, _, g, gamma, beta, mean, variance = _layer(name, rng)
    x[0, 2, 5, 5], beta[3] = np.nan, np.inf
    z = CPU.batch_norm_given_forward(x, gamma, beta, None, mean, variance, 1e-5, 0.0, 9.0)
    terms = mean, CPU.batch_norm_scale(gamma, variance, 1e-5), beta, 0.0, 9.0
    y = CPU.conv2d_preactivated(x, weight, None, None, g, None, None, *terms)
    assert np.isnan(z).sum() == 1 and 0 < np.isnan(y).sum() < y.size
    np.testing.assert_array_equal(y, CPU.conv2d_fused(z, weight, None, None, g, None, None))


def test_no_images(rng):
    x, weight, grad_y, g, scale, shift, *_ = _layer("pointwise", rng)
    terms = None, scale, shift, 0.0, None
    assert CPU.conv2d_preactivated(x[:0], weight, None, None, g, None, None, *terms).shape == (0, 70, 23, 17)
    assert not CPU.conv2d_preactivated_backward_weight(grad_y[:0], x[:0], g, *terms).any()


@pytest.mark.parametrize("name", ["strided", "winograd", "winograd-phases"])
def test_other_algorithms_normalize_too(name, rng):
    """What `numbanet.autotune` may choose, with weights that change and with packed ones."""
    x, weight, grad_y, g, scale, shift, mean, _ = _layer(name, rng)
    terms = mean, scale, shift, 0.0, 6.0
    given = x, weight, None, None, g, None, None, *terms
    expected = CPU.conv2d_preactivated(*given)
    for constant in (frozenset(), frozenset({1, 7, 8, 9})):
        found = CPU.candidates("conv2d_preactivated", given, constant)
        assert found or name == "strided"
        for choice in found:
            out = np.full_like(expected, np.nan)
            CPU.prepare("conv2d_preactivated", given, constant, choice)(*given, out)
            np.testing.assert_allclose(out, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
            y, *_ = received = tuple(np.full_like(a, np.nan) for a in CPU.conv2d_preactivated_with_statistics(*given))
            CPU.prepare("conv2d_preactivated_with_statistics", given, constant, choice)(*given, received)
            np.testing.assert_array_equal(y, out)
    given = grad_y, x, g, *terms
    expected = CPU.conv2d_preactivated_backward_weight(*given)
    for choice in CPU.candidates("conv2d_preactivated_backward_weight", given, frozenset()):
        out = np.full_like(expected, np.nan)
        CPU.prepare("conv2d_preactivated_backward_weight", given, frozenset(), choice)(*given, out)
        np.testing.assert_allclose(out, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


AT_EVERY_THREAD_COUNT = """
import numpy as np
import numbanet
from numbanet.backends import get_backend
from tests.backends.cpu.test_preactivation import LAYERS, _layer
cpu = get_backend("cpu")
for name in LAYERS:
    x, weight, grad_y, g, scale, shift, mean, _ = _layer(name, np.random.default_rng(3))
    terms, results = (mean, scale, shift, 0.0, None), []
    for count in (1, 2, 4):
        numbanet.set_num_threads(count)
        y = cpu.conv2d_preactivated(x, weight, None, None, g, None, None, *terms)
        results.append(y.tobytes() + cpu.conv2d_preactivated_backward_weight(grad_y, x, g, *terms).tobytes())
    assert results[0] == results[1] == results[2], name
print(len(LAYERS))
"""


def test_the_same_bits_at_every_thread_count():
    assert int(run_with_four_threads(AT_EVERY_THREAD_COUNT)) == len(LAYERS)


@on_narrower_vectors
def test_on_narrower_vectors(width, cpu):
    run_narrower(__file__, "bits_of or number", width, cpu, 2)
