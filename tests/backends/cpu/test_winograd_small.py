"""Winograd's tiles of 2 x 2 pixels: exact on small integers, where they are chosen, their rounding error, and what ends a tile."""

from __future__ import annotations

import numpy as np
import pytest

from numbanet.backends import get_backend
from numbanet.backends.cpu import threads
from numbanet.backends.cpu.convolution import choose
from numbanet.backends.cpu.convolution.forward import forward
from numbanet.backends.precision import get_float32_precision, set_float32_precision
from numbanet.geometry import conv_geometry
from tests.backends.cpu.narrower import on_narrower_vectors, run_narrower
from tests.cases.case import channels_last, floats, integers

CPU, REFERENCE = get_backend("cpu"), get_backend("reference")
NAME = "winograd 2x2"
BOUND = 1.5e-6      # of the L2 norm

CASES = {
    "phases": (1, conv_geometry(48, 160, (14, 13), (3, 3), 1, 1)),
    "blocks": (4, conv_geometry(33, 70, (7, 7), (3, 3), 1, 1)),
    "ragged": (3, conv_geometry(40, 72, (9, 11), (3, 3), 1, 1)),
    "uneven-padding": (2, conv_geometry(64, 45, (15, 17), (3, 3), 1, ((0, 2), (2, 0)))),
    "no-padding": (2, conv_geometry(32, 65, (18, 19), (3, 3))),
    "padded-beyond-kernel": (4, conv_geometry(32, 40, (7, 8), (3, 3), 1, 4)),
}


@pytest.fixture(autouse=True)
def fast():
    before = get_float32_precision()
    set_float32_precision("fast")
    yield
    set_float32_precision(before)


def _passes(batch, g, make, rng):
    """(call, arguments) of both passes by these tiles, with all that they take in."""
    x, weight = channels_last(make(rng, batch, g.channels, *g.input_size)), make(rng, *g.weight_shape)
    grad_y, residual = (channels_last(make(rng, batch, g.filters, *g.output_size)) for _ in range(2))
    added = channels_last(make(rng, *x.shape))
    fused = x, weight, make(rng, g.filters), residual, g, -3.0, 200.0
    gradient = grad_y, weight, added, g
    found = (("conv2d_fused", fused, frozenset({1, 2})), ("conv2d_backward_input_added", gradient, frozenset()))
    for primitive, arguments, constant in found:
        chosen = primitive == "conv2d_fused" and forward(g, batch, True, True).packing[0] == NAME
        assert chosen or NAME in CPU.candidates(primitive, arguments, constant)
        call = CPU.prepare(primitive, arguments, constant, NAME)
        assert call.kernel == f"conv2d {NAME}"
        yield primitive, call, arguments


def _wide(array):
    """A slice of channels of a larger array of NaN, for what is written."""
    N, K, OH, OW = array.shape
    return np.full((N, OH, OW, K + 8), np.nan, np.float32)


@pytest.mark.parametrize("label", CASES)
def test_small_integers_bit_for_bit_and_nothing_else_is_written(label, rng):
    for primitive, call, arguments in _passes(*CASES[label], integers, rng):
        expected = getattr(REFERENCE, primitive)(*arguments)
        whole = _wide(expected)
        call(*arguments, whole[..., 3:-5].transpose(0, 3, 1, 2))
        np.testing.assert_array_equal(whole[..., 3:-5].transpose(0, 3, 1, 2), expected)
        assert np.isnan(whole[..., :3]).all() and np.isnan(whole[..., -5:]).all()


@pytest.mark.parametrize("label", CASES)
def test_rounding_error(label, rng):
    for primitive, call, arguments in _passes(*CASES[label], floats, rng):
        exact = getattr(REFERENCE, primitive)(*(a.astype(np.float64) if isinstance(a, np.ndarray) else a for a in arguments))
        out = np.full(exact.shape, np.nan, np.float32)
        call(*arguments, out)
        assert np.linalg.norm(out - exact) <= BOUND * np.linalg.norm(exact)


@pytest.mark.parametrize("label", ["phases", "blocks"])
def test_same_bits_at_every_thread_count(label, rng):
    before = threads.get_num_threads()
    try:
        for primitive, call, arguments in _passes(*CASES[label], floats, rng):
            results = []
            for count in range(1, threads.maximum() + 1):
                threads.set_num_threads(count)
                results.append(np.empty(getattr(REFERENCE, primitive)(*arguments).shape, np.float32))
                call(*arguments, results[-1])
            for other in results[1:]:
                np.testing.assert_array_equal(other, results[0])
    finally:
        threads.set_num_threads(before)


def test_not_a_number_spreads_like_its_window(rng):
    batch, g = CASES["phases"]
    (_, call, arguments), _ = _passes(batch, g, floats, rng)
    arguments[0][0, 5, 6, 6] = np.nan
    out = np.empty((batch, g.filters, *g.output_size), np.float32)
    call(*arguments, out)
    touched = np.isnan(out).any(axis=(0, 1))
    assert touched[5:8, 5:8].all() and not touched[:3].any() and not touched[10:].any() and not touched[:, :3].any()


def test_where_they_are_chosen(monkeypatch):
    """Few tiles of 4 x 4 pixels, large weights that are at hand."""
    large = choose.cache_sizes()._replace(l2=1 << 20, l3=1 << 25)
    monkeypatch.setattr(choose, "cache_sizes", lambda: large)
    monkeypatch.setattr(choose, "MR", 12)

    def size(batch, side, are_packed, taps=3, width=256):
        plan = choose.winograd_plan.__wrapped__(batch, width, width, (side, side), are_packed, taps)
        return plan and plan.size
    assert size(1, 14, True) == size(4, 7, True) == 2                           # 16 tiles of 4 x 4
    assert size(1, 28, True) == size(16, 14, True) == size(16, 14, False) == size(1, 14, True, width=64) == 4
    assert size(1, 7, True) is size(1, 14, False) is None and size(4, 14, True, 5) == 2
    full = choose.winograd_blocks(1, 256, 256, (14, 14), 4, 3)
    assert choose.winograd_blocks(1, 256, 256, (14, 14), 2, 3).weights * 36 == full.weights * 16


@on_narrower_vectors
def test_narrower_vectors(width, cpu):
    run_narrower("tests/backends/cpu/test_winograd_small.py", "not narrower", width, cpu, 2)
