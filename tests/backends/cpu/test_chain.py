"""Chains of convolutions: the same bits at every thread count, what is prepared, and bands that stay in the caches."""


import numpy as np

from numbanet.backends import get_backend
from numbanet.backends.cpu.convolution.chaining import _floats, chain_plan, chains
from numbanet.backends.cpu.hardware import cache_sizes
from numbanet.geometry import conv_geometry
from tests.backends.cpu.thread_counts import run_with_four_threads


def inverted_residual(channels, expansion, filters, size, stride=1):
    inner = channels * expansion
    expand = conv_geometry(channels, inner, size, (1, 1))
    middle = conv_geometry(inner, inner, size, (3, 3), stride, 1, 1, inner)
    return expand, middle, conv_geometry(inner, filters, middle.output_size, (1, 1))


def arguments(geometries, batch, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((batch, *geometries[0].input_size, geometries[0].channels), dtype=np.float32).transpose(0, 3, 1, 2)
    weights = [rng.standard_normal(g.weight_shape, dtype=np.float32) for g in geometries]
    biases = [rng.standard_normal(g.filters, dtype=np.float32) for g in geometries]
    return x, weights, biases, None, geometries, ((0.0, 6.0), (0.0, 6.0), (None, None))


AT_EVERY_THREAD_COUNT = """
import numbanet
from numbanet.backends import get_backend
from tests.backends.cpu.test_chain import arguments, inverted_residual
given = arguments(inverted_residual(11, 6, 19, (59, 61), 2), 3)
results = []
for count in (1, 2, 4):
    numbanet.set_num_threads(count)
    results.append(get_backend("cpu").conv2d_chain(*given).tobytes())
print(results[0] == results[1] == results[2])
"""


def test_the_same_bits_at_every_thread_count():
    assert run_with_four_threads(AT_EVERY_THREAD_COUNT).strip() == "True"


def test_as_exact_as_the_plain_convolutions():
    given = arguments(inverted_residual(24, 6, 24, (40, 37)), 2)
    wide = [[x.astype(np.float64) for x in a] if isinstance(a, list) else a for a in given]
    exact = get_backend("reference").conv2d_chain(given[0].astype(np.float64), *wide[1:])
    x = given[0]
    for weight, bias, geometry, pair in zip(given[1], given[2], given[4], given[5]):
        x = get_backend("cpu").conv2d_fused(x, weight, bias, None, geometry, *pair)
    error, plain = (np.linalg.norm(y - exact) / np.linalg.norm(exact) for y in (get_backend("cpu").conv2d_chain(*given), x))
    assert error < 1.1 * plain < 1e-6


def test_prepared_calls_share_packed_weights_and_read_no_others():
    backend, geometries = get_backend("cpu"), inverted_residual(12, 4, 20, (30, 29))
    given = arguments(geometries, 4)
    call = backend.prepare("conv2d_chain", given, frozenset({1, 2}))
    out = backend.empty((4, 20, 30, 29), np.dtype(np.float32), (0, 2, 3, 1))
    expected = backend.conv2d_chain(*given)
    empty = [np.full_like(w, np.nan) for w in given[1]]
    call(given[0], empty, given[2], None, *given[4:], out)
    np.testing.assert_array_equal(out, expected)
    assert call.kernel == "conv2d chain of 3"
    assert backend.prepare("conv2d_chain", given, frozenset({1})) is None


def test_bands_stay_in_the_second_level_cache():
    for size, channels, stride in ((112, 16, 2), (56, 24, 1), (28, 32, 1), (14, 96, 1), (7, 160, 1), (300, 64, 1)):
        geometries = inverted_residual(channels, 6, channels, (size, size), stride)
        for batch in (1, 2, 16):
            plan = chain_plan(geometries, batch)
            if plan is None:            # not even one row of the last map
                assert size == 300 and 8 * _floats(geometries, 1) > cache_sizes().l2
                continue
            assert plan.scratch * 4 <= cache_sizes().l2 * 0.6
            assert 1 <= plan.band <= plan.segment <= geometries[-1].output_size[0]


def test_where_chains_pay():
    assert chains(inverted_residual(24, 6, 24, (56, 56)), 16)
    assert not chains(inverted_residual(4, 2, 4, (8, 8)), 16)                       # maps that stay near anyway
    pixelwise = conv_geometry(64, 128, (56, 56), (1, 1)), conv_geometry(128, 64, (56, 56), (1, 1))
    assert not chains(pixelwise, 16)                                                # no depthwise map, which waits for memory
    grouped = conv_geometry(64, 64, (56, 56), (3, 3), 1, 1, 1, 4), conv_geometry(64, 64, (56, 56), (3, 3), 1, 1, 1, 64)
    assert chain_plan(grouped, 16) is None
