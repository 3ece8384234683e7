"""LeNet-5, modern and of 1998."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import numbanet
from numbanet import nn, zoo
from numbanet.errors import ShapeError, UsageError
from numbanet.zoo.digit_bitmaps import digit_codes
from numbanet.zoo.lenet import C3_CONNECTIONS


def _digits(rng, count=2, channels=1):
    return numbanet.tensor(rng.standard_normal((count, channels, 32, 32)).astype(np.float32))


def _trainable(model) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_modern_counts_and_shapes(rng):
    model = zoo.lenet5()
    assert _trainable(model) == 61_706
    x = _digits(rng, 3)
    assert model(x).shape == (3, 10) and model.forward_features(x).shape == (3, 16, 5, 5)
    in_two_parts = model.forward_head(model.forward_features(x))
    np.testing.assert_array_equal(in_two_parts.detach().numpy(), model(x).detach().numpy())
    assert model(x[:0]).shape == (0, 10)


def test_modern_agrees_with_torch(rng):
    torch = pytest.importorskip("torch")
    model = zoo.lenet5()
    tn = torch.nn
    theirs = tn.Sequential(
        tn.Conv2d(1, 6, 5), tn.ReLU(), tn.MaxPool2d(2), tn.Conv2d(6, 16, 5), tn.ReLU(), tn.MaxPool2d(2), tn.Flatten(),
        tn.Linear(400, 120), tn.ReLU(), tn.Linear(120, 84), tn.ReLU(), tn.Linear(84, 10))
    values = [torch.tensor(t.numpy()) for t in model.state_dict().values()]
    theirs.load_state_dict(dict(zip(theirs.state_dict(), values, strict=True)))
    x = _digits(rng, 4)
    target = rng.integers(0, 10, 4)
    loss = nn.functional.cross_entropy(model(x), numbanet.tensor(target))
    expected = torch.nn.functional.cross_entropy(theirs(torch.tensor(x.numpy())), torch.tensor(target))
    loss.backward()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for (name, p), q in zip(model.named_parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-4, atol=1e-6, err_msg=name)


def test_modern_options(rng):
    model = zoo.create_model("lenet5", num_classes=4, in_chans=3)
    assert model(_digits(rng, 2, 3)).shape == (2, 4)
    model.reset_classifier(7)
    assert model(_digits(rng, 2, 3)).shape == (2, 7) and model.num_classes == 7
    model.reset_classifier(0)
    assert model(_digits(rng, 2, 3)).shape == (2, 84)


@pytest.mark.parametrize("name", ["lenet5", "lenet5_1998"])
def test_other_sizes_are_refused(name):
    with pytest.raises(ShapeError, match=r"x expects \(N, 1, 32, 32\), received \(2, 1, 28, 28\); pad 28 x 28"):
        zoo.create_model(name)(numbanet.ones(2, 1, 28, 28))


def test_1998_counts():
    model = zoo.lenet5_1998()
    assert _trainable(model) == 60_000
    assert model.connections() == 340_908
    layers = {name: sum(p.numel() for p in layer.parameters())
              for name, layer in (*model.features.named_children(), *model.classifier.named_children())}
    assert {name: count for name, count in layers.items() if count} == {
        "c1": 156, "s2": 12, "c3": 1_516, "s4": 32, "c5": 48_120, "f6": 10_164}


def test_1998_table_of_connections():
    assert [len(c) for c in C3_CONNECTIONS] == [3] * 6 + [4] * 9 + [6]
    assert len(set(C3_CONNECTIONS)) == 16
    readers = np.bincount([channel for channels in C3_CONNECTIONS for channel in channels])
    assert list(readers) == [10] * 6        # every map of S2 is read ten times


def test_1998_computes_what_the_paper_says(rng):
    """Every layer again, in NumPy and float64, by its definition."""
    model = zoo.lenet5_1998().double()
    p = {name: t.detach().numpy() for name, t in model.named_parameters()}
    x = rng.standard_normal((2, 1, 32, 32))

    def squash(a):
        return 1.7159 * np.tanh(2 * a / 3)

    def convolve(a, weight, bias, connections):
        size = a.shape[2] - weight.shape[-1] + 1
        windows = np.lib.stride_tricks.sliding_window_view(a, weight.shape[-2:], (2, 3))
        y, kernel = np.zeros((len(a), len(connections), size, size)), 0
        for filter, read in enumerate(connections):
            y[:, filter] = bias[filter]
            for channel in read:
                y[:, filter] += np.einsum("nhwrs,rs->nhw", windows[:, channel], weight.reshape(-1, 5, 5)[kernel])
                kernel += 1
        return y

    def subsample(a, weight, bias):
        n, c, h, w = a.shape
        return a.reshape(n, c, h // 2, 2, w // 2, 2).sum((3, 5)) * weight + bias

    a = squash(convolve(x, p["features.c1.weight"], p["features.c1.bias"], [(0,)] * 6))
    a = squash(subsample(a, p["features.s2.weight"], p["features.s2.bias"]))
    a = squash(convolve(a, p["features.c3.weight"], p["features.c3.bias"], C3_CONNECTIONS))
    a = squash(subsample(a, p["features.s4.weight"], p["features.s4.bias"]))
    a = squash(convolve(a, p["features.c5.weight"], p["features.c5.bias"], [range(16)] * 120)).reshape(2, 120)
    a = squash(a @ p["classifier.f6.weight"].T + p["classifier.f6.bias"])
    distances = ((a[:, None] - np.array(digit_codes())) ** 2).sum(2)
    received = model(numbanet.tensor(x)).detach().numpy()
    np.testing.assert_allclose(received, -distances, rtol=1e-10)


def test_1998_initial_range():
    model = zoo.lenet5_1998()
    maps, head = model.features, model.classifier
    for layer, inputs in ((maps.c1, 25), (maps.s4, 4), (maps.c5, 400), (head.f6, 120)):
        values = layer.weight.detach().numpy()
        assert np.abs(values).max() <= 2.4 / inputs and np.abs(values).max() > 0.6 * 2.4 / inputs
    kernels = maps.c3.weight.detach().numpy()
    assert np.abs(kernels[:3]).max() <= 2.4 / 75 and np.abs(kernels[-6:]).max() <= 2.4 / 150


def test_bitmaps_differ_and_are_binary():
    codes = np.array(digit_codes())
    assert codes.shape == (10, 84) and set(np.unique(codes)) == {-1.0, 1.0}
    distances = ((codes[:, None] - codes) ** 2).sum(2) / 4      # pixels that differ
    assert distances[~np.eye(10, dtype=bool)].min() >= 8


def test_1998_has_ten_classes():
    with pytest.raises(UsageError, match="num_classes expects 10, received 3; use lenet5"):
        zoo.create_model("lenet5_1998", num_classes=3)


def test_map_criterion(rng):
    distances, target, j = rng.random((5, 10)) * 4, rng.integers(0, 10, 5), 0.7
    expected = distances[np.arange(5), target] + np.log(np.exp(-j) + np.exp(-distances).sum(1))
    logits = numbanet.tensor(-distances, requires_grad=True)
    received = zoo.map_criterion(logits, numbanet.tensor(target), j, reduction="none")
    np.testing.assert_allclose(received.detach().numpy(), expected, rtol=1e-12)
    assert zoo.map_criterion(logits, numbanet.tensor(target), j).item() == pytest.approx(expected.mean())
    assert numbanet.autograd.gradient_check(lambda t: zoo.map_criterion(t, numbanet.tensor(target), j), logits)
    with pytest.raises(UsageError, match="j expects a positive number, received 0"):
        zoo.map_criterion(logits, numbanet.tensor(target), 0)


@pytest.mark.parametrize("name", ["lenet5", "lenet5_1998"])
def test_learns_and_copies(name, rng):
    """A few steps of gradient descent by hand lower the loss, and a copy gives the same results."""
    numbanet.random.manual_seed(1)
    model = zoo.create_model(name)
    x, target = _digits(rng, 8), numbanet.tensor(rng.integers(0, 10, 8))
    criterion = zoo.map_criterion if name == "lenet5_1998" else nn.functional.cross_entropy
    losses = []
    for _ in range(5):
        model.zero_grad()
        loss = criterion(model(x), target)
        loss.backward()
        losses.append(loss.item())
        with numbanet.no_grad():
            for p in model.parameters():
                p.sub_(p.grad * (0.0005 if name == "lenet5_1998" else 0.05))
    assert losses[-1] < losses[0]
    np.testing.assert_array_equal(copy.deepcopy(model)(x).detach().numpy(), model(x).detach().numpy())
