"""Weights computed back from what prepared calls hold: every packing, every bit pattern, on one thread and on all."""

from __future__ import annotations

import numpy as np
import pytest

from numbanet.backends import get_backend
from numbanet.backends.cpu import memory, recovery, threads
from numbanet.backends.cpu.simd import L
from numbanet.backends.precision import get_float32_precision, set_float32_precision
from numbanet.geometry import conv_geometry
from tests.backends.cpu.narrower import on_narrower_vectors, run_narrower
from tests.cases.case import channels_last, floats

CPU = get_backend("cpu")

# name: batch, geometry, choice
CONVOLUTIONS = {
    "gather": (2, conv_geometry(19, 70, (9, 8), (3, 2)), None),
    "gather-in-chunks": (2, conv_geometry(1100, 37, (5, 6), (3, 3), 2), "gather"),
    "gather-in-groups": (1, conv_geometry(3 * 24, 3 * 50, (7, 6), (3, 3), groups=3), None),
    "band": (2, conv_geometry(3, 70, (19, 24), (5, 3), 2, 1), None),
    "pointwise": (1, conv_geometry(40, 33, (6, 7), (1, 1)), None),
    "winograd": (11, conv_geometry(33, 70, (9, 10), (3, 3), padding=1), "winograd"),
    "winograd-2x2": (4, conv_geometry(33, 70, (7, 7), (3, 3), padding=1), "winograd 2x2"),
    "winograd-5x5": (4, conv_geometry(33, 70, (9, 10), (5, 5), padding=2), None),
    "small-groups": (2, conv_geometry(72, 72, (9, 8), (3, 3), padding=1, groups=18), None),
    "depthwise": (2, conv_geometry(130, 130, (9, 8), (5, 3), groups=130), None),
}


@pytest.fixture(autouse=True)
def small_ones_too(monkeypatch):
    monkeypatch.setattr(recovery, "LEAST", 1)
    monkeypatch.setattr(recovery, "NUMBERS_AT_ONCE", 1 << 12)        # several blocks
    before = get_float32_precision()
    set_float32_precision("fast")
    yield
    set_float32_precision(before)


def _bits(array):
    return np.ascontiguousarray(array).view(np.uint32)


def _weights(rng, shape):
    return floats(rng, *shape) * np.float32(0.05)


def _hostile(rng, weight, share):
    """Some weights replaced by any bits: NaN of all payloads, infinities, denormals, both zeros."""
    weight = weight.copy()
    anywhere = rng.random(weight.shape) < share
    bits = rng.integers(0, 1 << 32, weight.shape, dtype=np.uint32)
    weight.view(np.uint32)[anywhere] = bits[anywhere]
    flat = weight.reshape(-1)
    flat[:7] = np.array([0x7F800001, 0xFFC12345, 0x7F800000, 0xFF800000, 1, 0x80000000, 0x807FFFFF], np.uint32).view(np.float32)
    return weight


def _folded(rng, weight, gammas=None):
    """What batch norm makes of a weight, and the step that says so."""
    K = len(weight)
    gamma = (rng.uniform(0.2, 1.5, K) if gammas is None else gammas).astype(np.float32)
    arguments = None, gamma, floats(rng, K), floats(rng, K), rng.uniform(0.01, 3, K).astype(np.float32), 1e-5
    with np.errstate(all="ignore"):
        folded, _ = CPU.fold_batch_norm(weight, *arguments)
    return folded, [("fold_batch_norm", arguments)]


def _convolution(rng, name, weight_of):
    """(weight, what computes it back), weight_of(shape) -> (weight, what the call is given, steps)."""
    batch, g, choice = CONVOLUTIONS[name]
    weight, given, steps = weight_of(g.weight_shape)
    x = channels_last(floats(rng, batch, g.channels, *g.input_size))
    arguments = x, given, floats(rng, g.filters), None, g, 0.0, None
    call = CPU.prepare("conv2d_fused", arguments, frozenset({1, 2}), choice)
    wanted = choice or name.partition("-in-")[0].partition("-5x5")[0].replace("pointwise", "gather").replace("-", " ")
    assert call.kernel == f"conv2d {wanted}"
    return weight, CPU.recovery(weight, steps, call, 1)


def _assert_same(recover, weight):
    np.testing.assert_array_equal(_bits(recover()), _bits(weight))


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_every_packing(name, rng):
    def plain(shape):
        weight = _weights(rng, shape)
        return weight, weight, []
    weight, recover = _convolution(rng, name, plain)
    _assert_same(recover, weight)
    exact = not name.startswith("winograd")
    assert all(part.bits == 0 for part in recover.parts) == exact
    assert len(recover.parts) > 1 or weight.size < 1 << 12

    def normalised(shape):
        weight = _weights(rng, shape)
        return weight, *_folded(rng, weight)
    weight, recover = _convolution(rng, name, normalised)
    _assert_same(recover, weight)
    assert recover.nbytes < weight.nbytes * (0.07 if exact else 0.3) + 8 * len(weight)


@on_narrower_vectors
def test_every_packing_on_narrower_vectors(width, cpu):
    run_narrower(__file__, "test_every_packing and not narrower", width, cpu, 2)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_every_bit_pattern(name, rng):
    def hostile(shape):
        weight = _hostile(rng, _weights(rng, shape), 0.001)
        gammas = rng.uniform(0.2, 1.5, len(weight))
        gammas[[0, 3, 5]] = 0, 1e-42, -0.7
        return weight, *_folded(rng, weight, gammas)
    weight, recover = _convolution(rng, name, hostile)
    _assert_same(recover, weight)


@pytest.mark.parametrize("seed", range(30))
def test_it_is_right_or_nothing(seed):
    rng = np.random.default_rng(seed)
    name = list(CONVOLUTIONS)[seed % len(CONVOLUTIONS)]

    def anything(shape):
        weight = _hostile(rng, _weights(rng, shape) * np.float32(10.0 ** rng.integers(-45, 36)), rng.choice([0, 0.01, 0.2, 1]))
        gammas = np.where(rng.random(len(weight)) < rng.choice([0, 0.1, 1]), rng.choice([0, np.inf, np.nan, 1e-44, -1e30]), 1.3)
        return weight, *_folded(rng, weight, gammas)
    with np.errstate(all="ignore"):
        weight, recover = _convolution(rng, name, anything)
    if recover is not None:
        _assert_same(recover, weight)
        assert recover.nbytes <= weight.nbytes // 2


def test_what_cannot_be_compressed_is_not(rng):
    def all_gone(shape):
        weight = _weights(rng, shape)
        return weight, *_folded(rng, weight, np.zeros(len(weight)))
    assert _convolution(rng, "pointwise", all_gone)[1] is None


def test_one_thread_gives_the_same(rng, monkeypatch):
    def normalised(shape):
        weight = _hostile(rng, _weights(rng, shape), 0.01)
        return weight, *_folded(rng, weight)
    found = [_convolution(rng, name, normalised) for name in CONVOLUTIONS]
    monkeypatch.setattr(threads, "launch_mode", lambda: threads.SERIAL)
    for weight, recover in found:
        _assert_same(recover, weight)


@pytest.mark.parametrize("order", [(0, 2, 3, 1), (1, 0, 3, 2)])
def test_memory_order(order, rng):
    def ordered(shape):
        weight = memory.empty(shape, np.float32, order)
        weight[...] = _weights(rng, shape)
        return weight, weight, []
    weight, recover = _convolution(rng, "gather", ordered)
    _assert_same(recover, weight)
    assert recover().strides == weight.strides


def test_a_part_of_an_array_stays(rng):
    def part(shape):
        weight = _weights(rng, (2 * shape[0], *shape[1:]))[::2]
        return weight, weight, []
    assert _convolution(rng, "gather", part)[1] is None


def test_scales_after_batch_norm(rng):
    batch, g, _ = CONVOLUTIONS["pointwise"]
    weight, scale = _weights(rng, g.weight_shape), rng.uniform(0.1, 2, (g.filters, 1, 1, 1)).astype(np.float32)
    folded, steps = _folded(rng, weight)
    given = CPU.multiply(folded, scale)
    x = channels_last(floats(rng, batch, g.channels, *g.input_size))
    call = CPU.prepare("conv2d_forward", (x, given, floats(rng, g.filters), g), frozenset({1, 2}))
    _assert_same(CPU.recovery(weight, [*steps, ("multiply", (scale,))], call, 1), weight)
    assert CPU.recovery(weight, [("round_to_bfloat16", ())], call, 1) is None
    assert CPU.recovery(weight, steps, call, 2) is None


@pytest.mark.parametrize(("rows", "filters"), [(40, 4 * L), (33, 130), (40, 7)])
def test_linear_layers(rows, filters, rng):
    weight = _hostile(rng, _weights(rng, (filters, 50)), 0.01)
    x, bias = floats(rng, rows, 50), floats(rng, filters)
    calls = [CPU.prepare(name, (x, weight, bias, *more), frozenset({1, 2})) for name, more in (
        ("linear_forward", ()), ("linear_fused", (0.0, None)), ("linear_activated", ("silu",)))]
    for call in calls:
        recover = CPU.recovery(weight, [], call, 1)
        _assert_same(recover, weight)
        assert CPU.recovery(weight, [], calls[0], 1, recover) is recover     # packed the same, and once


def test_chains(rng):
    geometries = (conv_geometry(24, 144, (28, 28), (1, 1)), conv_geometry(144, 144, (28, 28), (3, 3), padding=1, groups=144),
                  conv_geometry(144, 40, (28, 28), (1, 1)))
    weights = [_hostile(rng, _weights(rng, g.weight_shape), 0.001) for g in geometries]
    x = channels_last(floats(rng, 1, 24, 28, 28))
    call = CPU.prepare("conv2d_chain", (x, weights, [floats(rng, g.filters) for g in geometries], None, geometries,
                                        ((0.0, 6.0), (0.0, 6.0), (None, None))), frozenset({1, 2}))
    for i, weight in enumerate(weights):
        _assert_same(CPU.recovery(weight, [], call, (1, i)), weight)
