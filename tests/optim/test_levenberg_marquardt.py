"""Stochastic diagonal Levenberg-Marquardt: its step, and its curvatures against what algebra gives."""

import numpy as np
import pytest

import numbanet
from numbanet import nn, optim
from numbanet.errors import UsageError
from numbanet.optim.levenberg_marquardt import gauss_newton_diagonal, probe_logits, probe_units


class Chooses:
    """In place of a random generator: always the choice at this position."""

    def __init__(self, position):
        self.position = position

    def choice(self, values, shape=None, p=None):
        if shape is None:
            return self.position
        return np.array([values[(self.position >> i) & 1] for i in range(np.prod(shape))]).reshape(shape)


def test_squared_distance_of_a_linear_layer():
    """|W x + b - t|^2 has the second derivatives 2 x_j^2 along W_ij and 2 along b_i, whatever the signs drawn."""
    layer = nn.Linear(3, 2).double()
    x = numbanet.tensor(np.random.default_rng(0).standard_normal((5, 3)))
    found = gauss_newton_diagonal(lambda x, generator: probe_units(layer(x), generator), [layer.weight, layer.bias], x,
                                  np.random.default_rng(1))
    np.testing.assert_allclose(found[0], np.tile(2 * (x.numpy() ** 2).mean(0), (2, 1)), rtol=1e-12)
    np.testing.assert_allclose(found[1], [2, 2], rtol=1e-12)


def test_squared_distance_through_a_hidden_layer():
    """2 sum over outputs of (d output / d w)^2: the mean over all signs is exact."""
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    x = numbanet.tensor(np.random.default_rng(2).standard_normal((3, 4)))
    parameters = list(net.parameters())
    found = [np.mean(all_signs, axis=0) for all_signs in zip(*[
        gauss_newton_diagonal(lambda x, generator: probe_units(net(x), generator), parameters, x, Chooses(signs)) for signs in range(4)])]
    for position in range(len(parameters)):
        wanted = np.mean([sum(2 * numbanet.autograd.grad(net(x[i:i + 1])[0, k], parameters, allow_unused=True)[position].numpy() ** 2
                              for k in range(2)) for i in range(3)], axis=0)
        np.testing.assert_allclose(found[position], wanted, rtol=1e-10, atol=1e-14)


def test_cross_entropy_of_a_linear_layer():
    """The second derivative along W_kj is p_k (1 - p_k) x_j^2: the mean over classes, weighted by their probabilities."""
    layer = nn.Linear(3, 4).double()
    x = numbanet.tensor(np.random.default_rng(3).standard_normal((1, 3)))
    p = nn.functional.softmax(layer(x), 1).detach().numpy()[0]
    found = sum(p[k] * gauss_newton_diagonal(lambda x, generator: probe_logits(layer(x), generator), [layer.weight], x, Chooses(k))[0]
                for k in range(4))
    np.testing.assert_allclose(found, (p * (1 - p))[:, None] * x.numpy() ** 2, rtol=1e-10)


def test_classes_are_drawn_by_their_probabilities():
    logits = numbanet.tensor([[0.0, np.log(3.0)]], requires_grad=True)
    generator = np.random.default_rng(4)
    drawn = [probe_logits(logits, generator).item() for _ in range(2000)]
    assert np.mean(np.isclose(drawn, np.log(4 / 3))) == pytest.approx(0.75, abs=0.04) and set(np.round(drawn, 4)) == {0.2877, 1.3863}


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_a_step(device):
    p = numbanet.tensor([[1.0, -2.0, 3.0]], requires_grad=True, device=device)
    optimizer = optim.DiagonalLevenbergMarquardt([p], lr=0.1, eps=0.5, weight_decay=0.25)
    optimizer.set_curvature([(p, [[0.0, 1.5, 9.5]])])
    p.grad = numbanet.tensor([[2.0, 2.0, 2.0]], device=device)
    optimizer.step()
    np.testing.assert_allclose(p.detach().numpy(), [[1 - 0.1 * 2.25 / 0.5, -2 - 0.1 * 1.5 / 2, 3 - 0.1 * 2.75 / 10]], rtol=1e-6)
    np.testing.assert_array_equal(p.grad.numpy(), [[2, 2, 2]])


def test_narrow_valleys_are_no_obstacle():
    """sum of c w^2 / 2 with c from 1 to 10,000: one rate for all would take thousands of steps."""
    curvature = np.array([1.0, 100.0, 1e4])
    p = numbanet.tensor([1.0, 1.0, 1.0], requires_grad=True)
    optimizer = optim.DiagonalLevenbergMarquardt([p], lr=0.9, eps=0.02)
    optimizer.set_curvature([(p, curvature)])
    for _ in range(10):
        optimizer.zero_grad()
        (p * p * numbanet.tensor(curvature, dtype="float32") * 0.5).sum().backward()
        optimizer.step()
    assert np.abs(p.detach().numpy()).max() < 1e-6


def test_its_state_is_saved_and_loaded():
    def make():
        p = numbanet.tensor([1.0, 2.0], requires_grad=True)
        return p, optim.DiagonalLevenbergMarquardt([p], lr=0.1)
    (p, first), (q, second) = make(), make()
    first.set_curvature([(p, [3.0, 0.25])])
    second.load_state_dict(first.state_dict())
    for parameter, optimizer in ((p, first), (q, second)):
        parameter.grad = numbanet.tensor([1.0, -1.0])
        optimizer.step()
    assert p.detach().numpy().tobytes() == q.detach().numpy().tobytes()


def test_what_it_refuses():
    p, other = numbanet.tensor([1.0, 2.0], requires_grad=True), numbanet.tensor([1.0], requires_grad=True)
    with pytest.raises(UsageError, match="eps expects a number above 0, received 0"):
        optim.DiagonalLevenbergMarquardt([p], eps=0)
    optimizer = optim.DiagonalLevenbergMarquardt([p])
    p.grad = numbanet.tensor([1.0, 1.0])
    with pytest.raises(UsageError, match=r"no curvature was given for a parameter of shape \(2,\); call set_curvature"):
        optimizer.step()
    for wrong, message in (([1.0, -1.0], r"at least 0 of shape \(2,\), received shape \(2,\) with others among them"),
                           ([np.nan, 1.0], "with others among them"), ([1.0], r"of shape \(2,\), received shape \(1,\)")):
        with pytest.raises(UsageError, match=message):
            optimizer.set_curvature([(p, wrong)])
    with pytest.raises(UsageError, match="none of its parameters"):
        optimizer.set_curvature([(other, [1.0])])
    with pytest.raises(UsageError, match="at least one sample"):
        gauss_newton_diagonal(lambda x, generator: x.sum(), [p], numbanet.zeros(0, 3), np.random.default_rng(0))
    for maps in (numbanet.zeros(1, 3, 4, 4), numbanet.zeros(2, 3)):
        with pytest.raises(UsageError, match=r"logits are \(1, classes\); received .* curvature_probe\(x, generator\)"):
            probe_logits(maps, np.random.default_rng(0))
