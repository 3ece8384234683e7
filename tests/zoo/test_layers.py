"""Layers that networks share."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet
from numbanet import nn
from numbanet.errors import UsageError
from numbanet.zoo.layers import ConvNormActivation, LayerNorm2d, SqueezeExcitation, StochasticDepth, make_divisible, stochastic_depth


@pytest.mark.parametrize("value, divisor, expected", [(32 * 1.1, 8, 32), (36, 8, 40), (3, 8, 8), (23, 16, 32), (400, 16, 400)])
def test_make_divisible(value, divisor, expected):
    assert make_divisible(value, divisor) == expected


@pytest.mark.parametrize("mode", ["row", "batch"])
def test_stochastic_depth_drops_whole_branches(mode):
    x = numbanet.ones(200, 2, 3, 3, requires_grad=True)
    generator = numbanet.random.Generator(5)
    y = stochastic_depth(x, 0.25, mode, generator=generator)
    factors = y.detach().numpy().reshape(200, -1)
    assert (factors == factors[:, :1]).all()
    if mode == "row":
        np.testing.assert_allclose(np.unique(factors), [0, 1 / 0.75], rtol=1e-6)
        assert 0.15 < (factors[:, 0] == 0).mean() < 0.35
    else:
        assert (factors == factors[0]).all()
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.detach().numpy())           # the same draw again
    again = stochastic_depth(x, 0.25, mode, generator=numbanet.random.Generator(5))
    np.testing.assert_array_equal(again.detach().numpy(), y.detach().numpy())


def test_stochastic_depth_of_a_batch_keeps_and_drops():
    x = numbanet.ones(3, 2)
    outcomes = {float(stochastic_depth(x, 0.5, "batch", generator=numbanet.random.Generator(seed)).numpy().max()) for seed in range(20)}
    assert outcomes == {0.0, 2.0}


def test_stochastic_depth_layer():
    x = numbanet.ones(64, 1, 1, 1)
    layer = StochasticDepth(0.5)
    assert set(np.unique(layer(x).numpy())) == {0.0, 2.0}
    assert layer.eval()(x) is x and StochasticDepth(0.0)(x) is x
    assert not StochasticDepth(1.0)(x).numpy().any()
    assert repr(layer) == "StochasticDepth(p=0.5, mode=row)"


@pytest.mark.parametrize("arguments, message", [((1.5,), "p expects a probability from 0 to 1, received 1.5"),
                                                ((0.5, "column"), "mode expects 'row' or 'batch', received 'column'")])
def test_stochastic_depth_refuses(arguments, message):
    with pytest.raises(UsageError, match=message):
        StochasticDepth(*arguments)
    with pytest.raises(UsageError, match=message):
        stochastic_depth(numbanet.ones(2, 1), *arguments)


def test_layer_norm_over_channels(rng):
    x = rng.standard_normal((2, 5, 3, 4))
    layer = LayerNorm2d(5, eps=1e-3).double()
    expected = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-3)
    np.testing.assert_allclose(layer(numbanet.tensor(x)).detach().numpy(), expected, rtol=1e-12)


def test_squeeze_excitation(rng):
    x = rng.standard_normal((2, 6, 3, 5))
    layer = SqueezeExcitation(6, 3).double()
    w1, b1, w2, b2 = (p.detach().numpy() for p in layer.parameters())
    hidden = np.maximum(x.mean((2, 3)) @ w1[:, :, 0, 0].T + b1, 0)
    factors = 1 / (1 + np.exp(-(hidden @ w2[:, :, 0, 0].T + b2)))
    np.testing.assert_allclose(layer(numbanet.tensor(x)).detach().numpy(), x * factors[:, :, None, None], rtol=1e-12)


def test_convolution_normalisation_activation():
    layer = ConvNormActivation(4, 6, 3, dilation=2)
    assert [type(child).__name__ for child in layer] == ["Conv2d", "BatchNorm2d", "ReLU"]
    assert layer[0].bias is None and layer(numbanet.ones(1, 4, 9, 7)).shape == (1, 6, 9, 7)
    bare = ConvNormActivation(4, 6, 5, 2, norm=None, activation=None)
    assert len(bare) == 1 and isinstance(bare[0], nn.Conv2d) and bare[0].bias is not None and bare[0].padding == (2, 2)
