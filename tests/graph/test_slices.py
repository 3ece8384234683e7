"""Batches that are walked in slices: the same numbers as eager, and only where no node mixes samples."""

import numpy as np
import pytest

import numbanet
import numbanet.nn as nn
import numbanet.nn.functional as F
from numbanet.backends import Backend
from numbanet.graph.passes import FOR_INFERENCE
from numbanet.graph.slices import Slices, keeps_samples_apart
from numbanet.graph.trace import trace_step


class Separable(nn.Module):
    def __init__(self):
        super().__init__()
        self.expand, self.depthwise = nn.Conv2d(3, 24, 1), nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.project, self.norm, self.head = nn.Conv2d(24, 3, 1), nn.BatchNorm2d(3), nn.Linear(3, 5)

    def forward(self, x):
        y = x + self.norm(self.project(F.relu6(self.depthwise(F.relu6(self.expand(x))))))
        return self.head(F.adaptive_avg_pool2d(y, 1).flatten(1)), y


@pytest.fixture
def three_at_once(monkeypatch):
    numbanet.zeros(1)                       # the backend's class exists
    for kind in Backend.__subclasses__() + [k for c in Backend.__subclasses__() for k in c.__subclasses__()]:
        monkeypatch.setattr(kind, "samples_at_once", lambda self, memory, results, work: 3, raising=False)


def images(batch):
    return numbanet.tensor(np.random.default_rng(batch).standard_normal((batch, 3, 9, 7), dtype=np.float32))


@pytest.mark.parametrize("batch", [1, 3, 4, 6, 7, 11])
def test_slices_give_what_eager_gives(batch, three_at_once):
    model, x = Separable().eval(), images(batch)
    compiled = numbanet.compile(model, x)
    plan = compiled.plan()
    assert isinstance(plan, Slices) == (batch > 3)
    if batch > 3:
        assert sum(p.graph.inputs[0].shape[0] for p in plan.plans) == batch and "slices of" in compiled.describe()
    with numbanet.no_grad():
        expected = model(x)
    for given, wanted in zip(compiled(x), expected):
        assert given.shape == wanted.shape
        np.testing.assert_allclose(given.numpy(), wanted.numpy(), rtol=1e-5, atol=1e-5)


def test_results_go_where_out_says(three_at_once):
    model, x = Separable().eval(), images(7)
    compiled = numbanet.compile(model, x)
    out = numbanet.full((7, 5), float("nan")), numbanet.full((7, 3, 9, 7), float("nan"))
    version = out[0].storage.version
    compiled(x, out=out)
    for given, wanted in zip(out, compiled(x)):
        np.testing.assert_array_equal(given.numpy(), wanted.numpy())
    assert out[0].storage.version > version


def test_changed_weights_are_noticed_in_every_slice(three_at_once):
    model, x = Separable().eval(), images(7)
    compiled = numbanet.compile(model, x)
    before = compiled(x)[0].numpy().copy()
    with numbanet.no_grad():
        model.head.bias.add_(1.0)
    np.testing.assert_allclose(compiled(x)[0].numpy(), before + 1, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mixes", [
    lambda x: x - x.mean(0),
    lambda x: numbanet.cat([x, x], 0),
    lambda x: x.transpose(0, 1),
    lambda x: x.reshape(-1),
    lambda x: x.flip(0),
    lambda x: x + numbanet.ones(6, 3, 9, 7),
    lambda x: numbanet.ones(6, 3),
])
def test_whole_batches_where_samples_may_mix(mixes, three_at_once):
    class Mixing(nn.Module):
        def forward(self, x):
            return mixes(x)

    x = images(6)
    compiled = numbanet.compile(Mixing(), x)
    assert not isinstance(compiled.plan(), Slices)
    np.testing.assert_allclose(compiled(x).numpy(), mixes(x).numpy(), rtol=1e-6, atol=1e-6)


def test_zoo_models_keep_samples_apart():
    for name, size in (("mobilenet_v2", 32), ("resnet18", 32)):
        model, x = numbanet.create_model(name).eval(), numbanet.zeros(2, 3, size, size)
        with numbanet.no_grad():
            graph = trace_step(lambda x, model=model: (model(x),), x, model=model)
        for optimise in FOR_INFERENCE:
            optimise(graph)
        assert keeps_samples_apart(graph, 2), name


def test_units_that_shuffle_channels_are_walked_in_slices(three_at_once):
    class Unit(nn.Module):
        def __init__(self):
            super().__init__()
            self.widen, self.layer = nn.Conv2d(3, 8, 1), nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x):
            left, right = self.widen(x).chunk(2, 1)
            y = numbanet.cat([left, F.relu(self.layer(right))], 1)
            return F.relu(F.channel_shuffle(y, 2))
    model, x = Unit().eval(), images(7)
    compiled = numbanet.compile(model, x)
    assert isinstance(compiled.plan(), Slices) and "interleave_channels" in compiled.plan().graph.primitives()
    with numbanet.no_grad():
        np.testing.assert_allclose(compiled(x).numpy(), model(x).numpy(), rtol=0, atol=1e-6)
