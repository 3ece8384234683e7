"""What holds for every registered model; registering one is what tests it.

Shapes and counts come from traces, which cost no arithmetic; one small pass forward and backward is computed.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest

import numbanet
from numbanet import nn, zoo
from numbanet.errors import ShapeError
from numbanet.graph import summarize, trace
from numbanet.nn import init
from numbanet.zoo.network import FeatureExtractor, Network
from tests.zoo.inputs import LARGE, filled_model, small_size
from tests.zoo.keys import committed_keys, keys_of


class Made(NamedTuple):
    info: zoo.ModelInfo
    model: nn.Module


@pytest.fixture(scope="module", params=zoo.list_models())
def made(request):
    """The model once, for all tests of it; they leave it as it was."""
    numbanet.random.manual_seed(1)
    return Made(zoo.model_info(request.param), filled_model(request.param))


@pytest.mark.full
@pytest.mark.parametrize("name", [name for name in zoo.list_models() if zoo.model_info(name).parameters >= LARGE])
def test_initial_values_of_large_models(name):
    values = [p.detach().numpy() for p in zoo.create_model(name).parameters()]
    assert all(np.isfinite(v.min()) and np.isfinite(v.max()) for v in values)
    assert all(v.std() > 0 for v in values if v.ndim > 1)


def _network(made) -> Network:
    if not isinstance(made.model, Network):
        pytest.skip("tested by itself: it takes no other sizes")
    return made.model


def _outputs(y) -> list:
    return list(y) if isinstance(y, tuple) else [y]


def _traced_shapes(model, shape) -> list[tuple[int, ...]]:
    return [v.shape for v in trace(model.eval(), numbanet.empty(shape)).outputs]


def test_counts(made):
    summary = summarize(made.model, numbanet.empty((1, *made.info.input_size)))
    assert (summary.trainable_parameters, summary.multiply_adds) == (made.info.parameters, made.info.multiply_adds)
    text = str(summary)
    assert f"multiply-adds  {made.info.multiply_adds:,}" in text and all(row.path in text for row in summary.rows)


def test_keys_and_shapes(made):
    expected = committed_keys(made.info.name)
    if expected is None:
        pytest.skip("torchvision has no such model")
    assert keys_of(made.model.state_dict()) == expected


def test_stages(made):
    model = _network(made)
    size = made.info.input_size[1:]
    shapes = _traced_shapes(FeatureExtractor(model), (1, *made.info.input_size))
    assert [s[1] for s in shapes] == [stage.channels for stage in model.stages]
    for shape, stage in zip(shapes, model.stages, strict=True):
        whole = [n / stage.reduction for n in size]         # less some of the border, where windows have no padding
        assert all(0.8 * n - 1 <= received <= n + 1 for received, n in zip(shape[2:], whole)), (stage, shape)
    assert [s.reduction for s in model.stages] == sorted({s.reduction for s in model.stages})
    assert _traced_shapes(FeatureExtractor(model, [-1]), (1, *made.info.input_size)) == shapes[-1:]


def test_maps_are_not_changed_in_place(made):
    """A tapped map has to stay what it was."""
    graph = trace(made.model.eval(), numbanet.empty((1, *made.info.input_size)))
    assert [node.primitive for node in graph.nodes if node.writes_into] == []


def test_other_classes_and_channels(made):
    _network(made)
    height, width = small_size(made.model, made.info)
    with init.skip():
        model = zoo.create_model(made.info.name, num_classes=7, in_chans=1).eval()
    assert (model.num_classes, model.in_chans) == (7, 1)
    shape = 2, 1, height, width
    assert _traced_shapes(model, shape)[0][:2] == (2, 7)
    whole = trace(model, numbanet.empty(shape)).primitives()
    assert trace(lambda x: model.forward_head(model.forward_features(x)), numbanet.empty(shape)).primitives() == whole
    for num_classes in (5, 0, 3):
        model.reset_classifier(num_classes)
        assert model.num_classes == num_classes
        assert _traced_shapes(model, shape)[0][:2] == (2, num_classes or model.num_features)
    training_outputs = trace(model.train(), numbanet.empty((2, 1, *small_size(model, made.info, training=True)))).outputs
    assert all(v.shape[:2] == (2, 3) for v in training_outputs)     # auxiliary heads follow
    with init.skip():
        without = zoo.create_model(made.info.name, num_classes=0, in_chans=1)
    assert _traced_shapes(without, shape)[0][:2] == (2, model.num_features)


def test_refused_inputs(made):
    model = _network(made).eval()
    name, channels, least = type(model).__name__, model.in_chans, model.minimum_size
    with pytest.raises(ShapeError, match=rf"{name}: x expects \(N, {channels}, H, W\).*in_chans={channels + 1}"):
        model(numbanet.zeros(1, channels + 1, least, least))
    with pytest.raises(ShapeError, match=f"{name}: x expects"):
        model(numbanet.zeros(channels, least, least))
    if least > 1:
        with pytest.raises(ShapeError, match=rf"{name}: x expects at least {least} rows.*enlarge"):
            model(numbanet.zeros(1, channels, least, least - 1))
    assert _traced_shapes(model, (1, channels, least, least))[0][:2] == (1, made.info.num_classes)


def _train(made, size) -> None:
    """One pass forward and backward in training mode."""
    model = made.model.train()
    loss = sum((y * y).mean() for y in _outputs(model(numbanet.randn(2, made.info.input_size[0], *size))))
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    extremes = {name: (float(p.grad.numpy().min()), float(p.grad.numpy().max())) for name, p in model.named_parameters()}
    assert [name for name, pair in extremes.items() if not all(map(math.isfinite, pair))] == []
    assert sum(pair != (0, 0) for pair in extremes.values()) > len(extremes) / 2
    model.zero_grad()


def _evaluate(made, model, x) -> np.ndarray:
    with numbanet.no_grad():
        y = model.eval()(x).numpy()
    assert y.shape[:2] == (len(x), made.info.num_classes) and np.isfinite(y).all()
    return y


def test_trains(made):
    _train(made, small_size(made.model, made.info, training=True))


@pytest.mark.full
def test_trains_and_evaluates_at_full_size(made):
    _train(made, made.info.input_size[1:])
    _evaluate(made, made.model, numbanet.randn(1, *made.info.input_size))


def test_evaluates_and_hands_over_its_state(made):
    """Another model takes over all of the state: equal output in evaluation."""
    with init.skip():
        other = zoo.create_model(made.info.name)
    assert not other.load_state_dict(made.model.state_dict(), assign=True).missing_keys
    x = numbanet.randn(1, made.info.input_size[0], *small_size(made.model, made.info))
    np.testing.assert_array_equal(_evaluate(made, other, x), _evaluate(made, made.model, x))
