"""Initial values."""

from __future__ import annotations

import math
import threading
from statistics import NormalDist

import numpy as np
import pytest

import numbanet
from numbanet.errors import ShapeError, UsageError
from numbanet.nn import init


@pytest.fixture(autouse=True)
def _seed():
    numbanet.random.manual_seed(11)


def _weight():
    return numbanet.empty(40, 30, 3, 3)


RANDOM = {
    "uniform_": (lambda t: init.uniform_(t, -2, 4), 1.0, 6 / math.sqrt(12), (-2, 4)),
    "normal_": (lambda t: init.normal_(t, 1.0, 3.0), 1.0, 3.0, None),
    "trunc_normal_": (lambda t: init.trunc_normal_(t, 0.0, 1.0, -1.0, 1.0), 0.0, 0.5396, (-1, 1)),
    "xavier_uniform_": (lambda t: init.xavier_uniform_(t, 2.0), 0.0, 2 * math.sqrt(2 / 630), None),
    "xavier_normal_": (lambda t: init.xavier_normal_(t), 0.0, math.sqrt(2 / 630), None),
    "kaiming_uniform_": (lambda t: init.kaiming_uniform_(t, math.sqrt(5)), 0.0, math.sqrt(1 / 3 / 270), None),
    "kaiming_normal_": (lambda t: init.kaiming_normal_(t, mode="fan_out", nonlinearity="relu"), 0.0, math.sqrt(2 / 360),
                        None),
}


@pytest.mark.parametrize("name", RANDOM)
def test_distribution(name):
    fill, mean, std, bounds = RANDOM[name]
    tensor = _weight()
    assert fill(tensor) is tensor
    values = tensor.numpy()
    assert abs(values.mean() - mean) < 4 * std / math.sqrt(values.size)
    assert abs(values.std() - std) < 0.03 * std
    if bounds:
        assert bounds[0] <= values.min() and values.max() <= bounds[1]
        assert values.max() - values.min() > 0.95 * (bounds[1] - bounds[0])
    numbanet.random.manual_seed(11)
    again = _weight()
    fill(again)
    np.testing.assert_array_equal(again.numpy(), values)


def test_a_generator_is_used():
    first, second = numbanet.empty(10), numbanet.empty(10)
    init.uniform_(first, generator=numbanet.random.Generator(5))
    init.uniform_(second, generator=numbanet.random.Generator(5))
    np.testing.assert_array_equal(first.numpy(), second.numpy())


def test_truncated_normal_in_the_far_tail():
    values = init.trunc_normal_(numbanet.empty(1000, dtype=numbanet.float64), 0.0, 1.0, 6.0, 7.0).numpy()
    assert 6 <= values.min() and values.max() <= 7 and 6.1 < values.mean() < 6.2        # E[x | x > 6] = 6.158


def test_normal_quantile():
    p = np.array([1e-300, 1e-30, 1e-12, 1e-5, 0.01, 0.074, 0.076, 0.3, 0.5, 0.8, 0.99, 1 - 1e-12])
    np.testing.assert_allclose(init.normal_quantile(p), [NormalDist().inv_cdf(v) for v in p], rtol=1e-14)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 2, 2), (3, 3)])
def test_orthogonal(shape):
    values = init.orthogonal_(numbanet.empty(*shape), gain=2.0).numpy().reshape(shape[0], -1)
    gram = values @ values.T if values.shape[0] <= values.shape[1] else values.T @ values
    np.testing.assert_allclose(gram, 4 * np.eye(len(gram)), atol=1e-5)


def test_constants():
    assert (init.constant_(numbanet.empty(3), 2.5).numpy() == 2.5).all()
    assert (init.ones_(numbanet.empty(3)).numpy() == 1).all() and (init.zeros_(numbanet.empty(3)).numpy() == 0).all()
    np.testing.assert_array_equal(init.eye_(numbanet.empty(2, 3)).numpy(), np.eye(2, 3))


@pytest.mark.parametrize("shape, groups", [((4, 2, 3, 3), 1), ((4, 2, 3), 2), ((2, 3, 1, 2, 3), 1)])
def test_dirac(shape, groups):
    torch = pytest.importorskip("torch")
    expected = torch.nn.init.dirac_(torch.empty(*shape), groups).numpy()
    np.testing.assert_array_equal(init.dirac_(numbanet.empty(*shape), groups).numpy(), expected)


def test_gains():
    torch = pytest.importorskip("torch")
    for name in ("linear", "conv2d", "conv_transpose3d", "sigmoid", "tanh", "relu", "selu", "leaky_relu"):
        assert init.calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name))
    assert init.calculate_gain("leaky_relu", 0.3) == pytest.approx(torch.nn.init.calculate_gain("leaky_relu", 0.3))


def test_parameters_stay_leaves_and_their_version_rises():
    parameter = numbanet.nn.Parameter(numbanet.empty(4, 4))
    for fill in (init.zeros_, init.normal_, init.eye_, init.kaiming_uniform_):
        version = parameter.storage.version
        fill(parameter)
        assert parameter.is_leaf and parameter.requires_grad and parameter.storage.version > version


@pytest.mark.parametrize("call, error, message", [
    (lambda t: init.calculate_gain("swish"), UsageError, "expected one of .*leaky_relu, received 'swish'"),
    (lambda t: init.kaiming_normal_(t), ShapeError, r"at least 2 dimensions, received shape \(4,\)"),
    (lambda t: init.kaiming_normal_(numbanet.empty(2, 2), mode="fan"), UsageError, "mode expects"),
    (lambda t: init.orthogonal_(t), ShapeError, "at least 2 dimensions"),
    (lambda t: init.eye_(t), ShapeError, "expected 2 dimensions"),
    (lambda t: init.dirac_(t), ShapeError, "weight of a convolution"),
    (lambda t: init.dirac_(numbanet.empty(3, 2, 1), 2), ShapeError, "divisor of 3 filters"),
    (lambda t: init.trunc_normal_(t, a=2.0, b=1.0), UsageError, "expected a < b"),
])
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call(numbanet.empty(4))


def test_skip_leaves_values_and_generator_alone():
    state = numbanet.random.get_rng_state()
    fills = [fill for fill, *_ in RANDOM.values()] + [init.zeros_, init.ones_, init.eye_, init.dirac_, init.orthogonal_]
    tensor = numbanet.full((3, 3, 1, 1), 5.0)
    with init.skip():
        with init.skip():
            pass
        for fill in fills:
            assert fill(tensor) is tensor
    assert (tensor.numpy() == 5).all() and str(numbanet.random.get_rng_state()) == str(state)
    assert (init.zeros_(tensor).numpy() == 0).all()


def test_skip_holds_for_one_thread():
    tensor = numbanet.full((2, 2), 5.0)
    with init.skip():
        thread = threading.Thread(target=init.zeros_, args=(tensor,))
        thread.start()
        thread.join()
    assert (tensor.numpy() == 0).all()
