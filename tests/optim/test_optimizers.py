"""Optimisers: trajectories against PyTorch, dictionaries, errors."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest

import numbanet
from numbanet.errors import CheckpointError, UsageError
from numbanet.optim import SGD, Adam, AdamW, RMSprop

OPTIONS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.4, "maximize": True}),
    ("SGD", {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.1}),
    ("RMSprop", {}),
    ("RMSprop", {"lr": 0.02, "alpha": 0.9, "centered": True, "momentum": 0.9, "weight_decay": 0.01}),
    ("RMSprop", {"momentum": 0.5, "maximize": True}),
    ("Adam", {}),
    ("Adam", {"lr": 0.02, "betas": (0.8, 0.95), "weight_decay": 0.1, "amsgrad": True}),
    ("Adam", {"maximize": True, "decoupled_weight_decay": True, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.01}),
    ("AdamW", {"lr": 0.01, "weight_decay": 0.3, "amsgrad": True, "eps": 1e-4}),
]
SHAPES = [(3, 4), (5,), ()]


def _parameters(device, dtype):
    rng = np.random.default_rng(3)
    return [numbanet.tensor(np.asarray(rng.standard_normal(s)), dtype=dtype, device=device,
                            requires_grad=True) for s in SHAPES]


def _gradients(step):
    rng = np.random.default_rng(100 + step)
    return [np.asarray(rng.standard_normal(s)) for s in SHAPES]


def _run(optimizer, parameters, steps):
    for step in steps:
        for p, g in zip(parameters, _gradients(step)):
            p.grad = numbanet.tensor(g, dtype=p.dtype, device=p.device)
        optimizer.step()
    return [p.detach().numpy().copy() for p in parameters]


@pytest.mark.parametrize("name, options", OPTIONS, ids=lambda v: v if isinstance(v, str) else "-".join(v) or "defaults")
@pytest.mark.parametrize("dtype, tolerance", [("float32", 2e-6), ("float64", 1e-14)])
def test_trajectory_agrees_with_torch(name, options, dtype, tolerance, backend):
    torch = pytest.importorskip("torch")
    mine = _parameters(backend, dtype)
    theirs = [torch.tensor(p.detach().numpy().copy(), requires_grad=True) for p in mine]
    optimizer = getattr(numbanet.optim, name)(mine, **options)
    reference = getattr(torch.optim, name)(theirs, foreach=False, **options)
    for step in range(20):
        for p, g in zip(theirs, _gradients(step)):
            p.grad = torch.tensor(g, dtype=p.dtype)
        reference.step()
        _run(optimizer, mine, [step])
        for p, q in zip(mine, theirs):
            np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=tolerance, atol=5 * tolerance)


def _make(name, options, device="cpu"):
    parameters = _parameters(device, "float32")
    return parameters, getattr(numbanet.optim, name)(parameters, **options)


@pytest.mark.parametrize("name, options", [OPTIONS[1], OPTIONS[5], OPTIONS[8]],
                         ids=lambda v: v if isinstance(v, str) else "")
@pytest.mark.parametrize("through", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))],
                         ids=["deepcopy", "pickle"])
def test_going_on_from_a_state_dict_changes_nothing(name, options, through):
    parameters, optimizer = _make(name, options)
    whole = _run(optimizer, parameters, range(6))
    parameters, optimizer = _make(name, options)
    half = _run(optimizer, parameters, range(3))
    state = through(optimizer.state_dict())
    again, fresh = _make(name, {"lr": 9.0})
    for p, values in zip(again, half):
        p.data = numbanet.tensor(values)
    fresh.load_state_dict(state)
    for received, expected in zip(_run(fresh, again, range(3, 6)), whole):
        np.testing.assert_array_equal(received, expected)


def test_state_dict_has_the_format_of_torch():
    torch = pytest.importorskip("torch")
    parameters, optimizer = _make("AdamW", {"amsgrad": True})
    _run(optimizer, parameters, range(2))
    theirs = [torch.tensor(p.detach().numpy().copy(), requires_grad=True) for p in parameters]
    reference = torch.optim.AdamW(theirs, amsgrad=True)
    for p in theirs:
        p.grad = torch.ones_like(p)
    reference.step()
    mine, expected = optimizer.state_dict(), reference.state_dict()
    assert mine.keys() == expected.keys() and mine["state"].keys() == expected["state"].keys()
    assert all(mine["state"][i].keys() == expected["state"][i].keys() for i in expected["state"])
    assert mine["param_groups"][0]["params"] == expected["param_groups"][0]["params"]
    json.dumps(mine["param_groups"])
    optimizer.load_state_dict(expected)                     # torch's tensors held in memory
    np.testing.assert_array_equal(optimizer.state[parameters[0]]["exp_avg"].numpy(),
                                  expected["state"][0]["exp_avg"].numpy())
    assert optimizer.state[parameters[0]]["step"] == 1


def test_loading_copies():
    parameters, optimizer = _make("SGD", {"momentum": 0.9})
    _run(optimizer, parameters, range(1))
    state = optimizer.state_dict()
    before = state["state"][0]["momentum_buffer"].numpy().copy()
    others, other = _make("SGD", {"momentum": 0.9})
    other.load_state_dict(state)
    _run(other, others, range(1, 3))
    np.testing.assert_array_equal(state["state"][0]["momentum_buffer"].numpy(), before)


def test_groups_have_options_of_their_own():
    a, b, c = _parameters("cpu", "float64")
    optimizer = SGD([{"params": [a], "lr": 0.5}, {"params": b}], lr=0.1)
    optimizer.add_param_group({"params": [c], "lr": 0.0})
    before = [p.detach().numpy().copy() for p in (a, b, c)]
    _run(optimizer, [a, b, c], [0])
    for p, start, g, lr in zip((a, b, c), before, _gradients(0), (0.5, 0.1, 0.0)):
        np.testing.assert_allclose(p.detach().numpy(), start - lr * g, rtol=1e-14)
    assert "lr: 0.5" in repr(optimizer)


def test_named_parameters_are_accepted():
    a, b, _ = _parameters("cpu", "float32")
    optimizer = Adam([("weight", a), ("bias", b)])
    assert optimizer.param_groups[0]["params"] == [a, b]
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == ["weight", "bias"]


def test_parameters_without_gradient_are_left_alone():
    parameters, optimizer = _make("AdamW", {})
    parameters[0].grad = numbanet.tensor(_gradients(0)[0], dtype="float32")
    before = parameters[1].detach().numpy().copy()
    optimizer.step()
    np.testing.assert_array_equal(parameters[1].detach().numpy(), before)
    assert parameters[1] not in optimizer.state


def test_a_step_raises_the_version_of_the_storage():
    parameters, optimizer = _make("SGD", {})
    versions = [p._version for p in parameters]
    _run(optimizer, parameters, [0])
    assert [p._version for p in parameters] == [v + 1 for v in versions]


def test_zero_grad():
    parameters, optimizer = _make("SGD", {})
    _run(optimizer, parameters, [0])
    held = parameters[0].grad
    optimizer.zero_grad(set_to_none=False)
    assert parameters[0].grad is held and not held.numpy().any()
    optimizer.zero_grad()
    assert all(p.grad is None for p in parameters)


def test_closure_runs_with_gradients_and_its_loss_is_returned():
    p = numbanet.tensor([2.0, 3.0], requires_grad=True)
    optimizer = SGD([p], lr=0.5)

    def closure():
        optimizer.zero_grad()
        loss = numbanet.ops.loss.mse_loss(p, numbanet.tensor([0.0, 0.0]), reduction="sum")
        loss.backward()
        return loss
    with numbanet.no_grad():
        assert optimizer.step(closure).item() == 13.0
    np.testing.assert_array_equal(p.detach().numpy(), [0.0, 0.0])


@pytest.mark.parametrize("make, message", [
    (lambda p: SGD([]), "empty"),
    (lambda p: SGD(p), "single one"),
    (lambda p: SGD([p, p]), "twice"),
    (lambda p: SGD([{"params": [p]}, {"params": [p]}]), "twice"),
    (lambda p: SGD([p], lr=-1), "lr expects"),
    (lambda p: SGD([p], lr=float("nan")), "lr expects"),
    (lambda p: SGD([p], momentum=-0.1), "momentum expects"),
    (lambda p: SGD([p], nesterov=True), "nesterov"),
    (lambda p: SGD([p], momentum=0.9, dampening=0.1, nesterov=True), "nesterov"),
    (lambda p: Adam([p], betas=(0.9, 1.0)), "betas"),
    (lambda p: AdamW([p], eps=-1e-8), "eps expects"),
    (lambda p: RMSprop([p], alpha=-1), "alpha expects"),
    (lambda p: SGD([p.reshape(3, 1)]), "leaves"),
    (lambda p: SGD([3.0]), "received float"),
    (lambda p: SGD([{"params": [p], "learning_rate": 1}]), "learning_rate"),
])
def test_bad_arguments(make, message):
    with pytest.raises(UsageError, match=message):
        make(numbanet.tensor([1.0, 2.0, 3.0], requires_grad=True))


def test_loading_another_models_state_raises():
    _, optimizer = _make("SGD", {})
    with pytest.raises(CheckpointError, match=r"\[3\].*\[1\]"):
        optimizer.load_state_dict(SGD([numbanet.tensor([1.0])]).state_dict())
    parameters, other = _make("SGD", {"momentum": 0.9})
    _run(other, parameters, [0])
    state = other.state_dict()
    state["state"][0]["momentum_buffer"] = numbanet.tensor([1.0])
    with pytest.raises(CheckpointError, match="momentum_buffer"):
        optimizer.load_state_dict(state)
