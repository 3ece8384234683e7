"""Tracing and replay: the same program as eager execution, and no trace of the tracing."""

import numpy as np
import pytest

import numbanet
from numbanet import nn, optim
from numbanet.errors import AutogradError, BackendError, ShapeError, UnsupportedOperationError, UsageError
from numbanet.graph import trace_step
from numbanet.nn import functional as F
from numbanet.random import get_rng_state
from numbanet.zoo import create_model


def images(rng, *shape):
    return numbanet.tensor(rng.standard_normal(shape).astype(np.float32))


def copies(model, optimizer=None):
    """Every array of a model and its optimiser by the name that a graph gives it."""
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    found = {name: t.detach().numpy().copy() for name, t in named.items()}
    for name, p in named.items() if optimizer is not None else ():
        for key, value in optimizer.state.get(p, {}).items():
            found[f"{name}:{key}"] = value.numpy().copy() if hasattr(value, "numpy") else value
    return found


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def training(model, optimizer):
    def step(x, labels):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        return loss
    return step


@pytest.fixture
def lenet5():
    numbanet.manual_seed(1)
    return create_model("lenet5")


def test_replay_of_a_network(lenet5, rng):
    x, other = images(rng, 3, 1, 32, 32), images(rng, 3, 1, 32, 32)
    graph = numbanet.trace(lenet5.eval(), x)
    assert graph.primitives() == [
        "conv2d_forward", "relu_forward", "max_pool2d_forward", "conv2d_forward", "relu_forward", "max_pool2d_forward",
        "reshape", "linear_forward", "relu_forward", "linear_forward", "relu_forward", "linear_forward"]
    expected = lenet5(other).detach().numpy()
    np.testing.assert_array_equal(graph.run(other).numpy(), expected)
    on_reference = graph.run(other, device="reference")
    assert on_reference.device == "reference"
    np.testing.assert_allclose(on_reference.numpy(), expected, atol=1e-5)


def test_a_graph_names_no_backend_and_prints(lenet5, rng):
    text = str(numbanet.trace(lenet5, images(rng, 1, 1, 32, 32)))
    assert "cpu" not in text
    assert "%features.c1.weight" in text and "# features.c1" in text
    assert text.splitlines()[0] == "graph(%input0: float32[1, 1, 32, 32])"


@pytest.mark.parametrize("make", [
    lambda p: optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-3), lambda p: optim.AdamW(p, lr=1e-3)], ids=["sgd", "adamw"])
def test_replay_of_a_training_step_bit_for_bit(lenet5, rng, make):
    x, labels = images(rng, 5, 1, 32, 32), numbanet.tensor([3, 1, 4, 1, 5])
    optimizer = make(lenet5.parameters())
    step = training(lenet5, optimizer)
    step(x, labels)                                 # makes the optimiser's state
    graph = trace_step(step, x, labels, model=lenet5, optimizer=optimizer)
    assert [n.phase for n in graph.nodes] == sorted((n.phase for n in graph.nodes), key=["forward", "backward", "update"].index)
    state = {name: numbanet.tensor(graph.initial[v].copy()) for name, v in graph.state.items()}

    eager_loss = step(x, labels)
    replayed_loss = graph.run(x, labels, state=state)

    assert replayed_loss.item() == eager_loss.item()
    expected = {k: v for k, v in copies(lenet5, optimizer).items() if isinstance(v, np.ndarray)}
    assert_equal({k: t.numpy() for k, t in state.items()}, expected)


def test_replays_train(lenet5, rng):
    """Without state of its own a replay changes the model, exactly as further eager steps do."""
    x, labels = images(rng, 4, 1, 32, 32), numbanet.tensor([0, 1, 2, 3])
    twin = create_model("lenet5")
    twin.load_state_dict(lenet5.state_dict())
    optimizer, other = (optim.SGD(m.parameters(), lr=0.1, momentum=0.9) for m in (lenet5, twin))
    step, eager = training(lenet5, optimizer), training(twin, other)
    step(x, labels)
    graph = trace_step(step, x, labels, model=lenet5, optimizer=optimizer)
    losses = [graph.run(x, labels).item() for _ in range(3)]
    eager(x, labels)
    assert losses == [eager(x, labels).item() for _ in range(3)]
    assert losses[2] < losses[0]
    assert_equal(copies(lenet5, optimizer), copies(twin, other))


def test_replay_of_batch_statistics(rng):
    def make():
        numbanet.manual_seed(2)
        return nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    x, model, twin = images(rng, 3, 2, 7, 6), make(), make()
    before = copies(model)
    graph = numbanet.trace(model, x)
    assert_equal(copies(model), before)
    expected = twin(x).detach().numpy()
    np.testing.assert_array_equal(graph.run(x).numpy(), expected)
    assert_equal({k: v for k, v in copies(model).items() if "running" in k}, {k: v for k, v in copies(twin).items() if "running" in k})
    assert not np.array_equal(copies(model)["1.running_mean"], before["1.running_mean"])


def test_tracing_changes_nothing(lenet5, rng):
    x, labels = images(rng, 2, 1, 32, 32), numbanet.tensor([0, 9])
    optimizer = optim.Adam(lenet5.parameters())
    step = training(lenet5, optimizer)
    step(x, labels)
    gradients = {n: (p.grad, p.grad.numpy().copy()) for n, p in lenet5.named_parameters()}
    versions = {n: p.storage.version for n, p in lenet5.named_parameters()}
    before, random, options = copies(lenet5, optimizer), get_rng_state(), dict(optimizer.param_groups[0])
    trace_step(step, x, labels, model=lenet5, optimizer=optimizer)
    numbanet.trace(nn.Sequential(lenet5, nn.Dropout()), x)
    assert_equal(copies(lenet5, optimizer), before)
    assert get_rng_state() == random
    assert optimizer.param_groups[0] == options
    for name, p in lenet5.named_parameters():
        gradient, values = gradients[name]
        assert p.grad is gradient and p.storage.version == versions[name] and p.backend.name == "cpu"
        np.testing.assert_array_equal(gradient.numpy(), values)
    for layer in lenet5.modules():
        assert not any((layer._hooks or {}).values())


def test_a_failed_trace_changes_nothing_either(lenet5, rng):
    before = copies(lenet5)
    with pytest.raises(ShapeError, match="expects"):
        numbanet.trace(lenet5, images(rng, 1, 1, 20, 20))
    assert_equal(copies(lenet5), before)
    assert lenet5(images(rng, 1, 1, 32, 32)).shape == (1, 10)


def test_an_optimiser_without_state_is_refused_and_left_alone(lenet5, rng):
    optimizer = optim.SGD(lenet5.parameters(), lr=0.1, momentum=0.9)
    step, x, labels = training(lenet5, optimizer), images(rng, 2, 1, 32, 32), numbanet.tensor([0, 9])
    with pytest.raises(UsageError, match="SGD has no state yet"):
        trace_step(step, x, labels, model=lenet5, optimizer=optimizer)
    assert not optimizer.state
    step(x, labels)
    assert np.isfinite(lenet5(x).detach().numpy()).all()


def test_plain_sgd_needs_no_state(lenet5, rng):
    optimizer = optim.SGD(lenet5.parameters(), lr=0.1)
    graph = trace_step(training(lenet5, optimizer), images(rng, 2, 1, 32, 32), numbanet.tensor([0, 9]), model=lenet5, optimizer=optimizer)
    assert graph.primitives().count("sgd_update") == 1


@pytest.mark.parametrize("read", [lambda x: x.sum().item(), lambda x: bool(x.sum() > 0), lambda x: x.numpy(), lambda x: x.tolist(),
                                  lambda x: float(x.sum()), lambda x: np.asarray(x)],
                         ids=["item", "bool", "numpy", "tolist", "float", "array"])
def test_reading_values_while_tracing_is_an_error(read):
    with pytest.raises(UnsupportedOperationError, match="reads the values of a tensor.*numbanet.where"):
        numbanet.trace(lambda x: x * 2.0 if read(x) is not None else x, numbanet.zeros(2))


def test_paths_of_nested_layers(rng):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(2, 2, 1), nn.Sequential(nn.ReLU(), nn.Conv2d(2, 2, 1))

        def forward(self, x):
            return self.second(self.first(x)) + x
    model = nn.Sequential(Block(), nn.Flatten(), nn.Linear(8, 1))
    optimizer = optim.SGD(model.parameters(), lr=1.0)

    def step(x):
        model(x).sum().backward()
        optimizer.step()
    graph = trace_step(step, images(rng, 1, 2, 2, 2), model=model, optimizer=optimizer)
    forward = [(n.path, n.primitive) for n in graph.nodes if n.phase == "forward"]
    assert forward[:4] == [("0.first", "conv2d_forward"), ("0.second.0", "relu_forward"), ("0.second.1", "conv2d_forward"), ("0", "add")]
    assert forward[-1][0] == ""                                     # the sum belongs to no layer
    backward = [n.path for n in graph.nodes if n.phase == "backward" and n.primitive == "conv2d_backward_weight"]
    assert backward == ["0.second.1", "0.first"]
    assert {n.path for n in graph.nodes if n.phase == "update"} == {""}


def test_several_inputs_and_outputs_branches_and_constants(rng):
    scale = images(rng, 4)

    def function(a, b):
        joined = numbanet.cat([a, b], 1)
        return {"sum": joined.sum(0) * scale, "rows": (a - b).reshape(2, -1)[:, ::2], "same": a}
    a, b = images(rng, 6, 2), images(rng, 6, 2)
    graph = numbanet.trace(function, (a, b))
    results = graph.run(a, b)
    assert len(results) == 3
    for result, expected in zip(results, function(a, b).values()):
        np.testing.assert_array_equal(result.numpy(), expected.numpy())
    assert [v.kind for v in graph.initial] == ["constant"]


def test_in_place_changes_replay(rng):
    def function(x):
        y = x * 2.0
        y[:, 1] = 7.0
        y += 1.0
        return y
    x = images(rng, 3, 2)
    graph = numbanet.trace(function, x)
    for _ in range(2):                                              # the second replay finds nothing of the first
        np.testing.assert_array_equal(graph.run(x).numpy(), function(x).numpy())


def test_a_replay_that_changes_a_parameter_makes_older_records_stale(rng):
    layer = nn.Linear(3, 2)
    optimizer = optim.SGD(layer.parameters(), lr=1.0)

    def step(x):
        layer(x).sum().backward()
        optimizer.step()
    x = images(rng, 4, 3).requires_grad_()
    graph = trace_step(step, x.detach(), model=layer, optimizer=optimizer)
    y = layer(x).sum()
    graph.run(x.detach())
    with pytest.raises(AutogradError, match="changed in place"):
        y.backward()


def test_a_function_that_returns_nothing():
    total = numbanet.zeros(2)

    def function(x):
        x += 1.0
    graph = numbanet.trace(function, total)
    version = total.storage.version
    assert graph.run(total) is None
    np.testing.assert_array_equal(total.numpy(), [1, 1])
    assert total.storage.version == version + 1


def test_what_does_not_fit_a_graph():
    graph = numbanet.trace(nn.ReLU(), numbanet.zeros(2, 3))
    with pytest.raises(ShapeError, match="expected 1 inputs, received 2"):
        graph.run(numbanet.zeros(2, 3), numbanet.zeros(2, 3))
    with pytest.raises(ShapeError, match=r"input0 expects shape \(2, 3\).*received \(3, 2\).*trace again"):
        graph.run(numbanet.zeros(3, 2))
    with pytest.raises(ShapeError, match="input0 expects .*float32.*received .*float64"):
        graph.run(numbanet.zeros(2, 3, dtype=numbanet.float64))
    with pytest.raises(ShapeError, match="no state 'weight'"):
        graph.run(numbanet.zeros(2, 3), state={"weight": numbanet.zeros(1)})
    other = numbanet.zeros(3, device="reference")
    with pytest.raises(BackendError, match="received one on 'reference'"):
        numbanet.trace(lambda x: x + other, numbanet.zeros(3))
