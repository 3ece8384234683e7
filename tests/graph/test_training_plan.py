"""What a training plan promises: each against the same steps recorded on the tape."""

import copy

import numpy as np
import pytest

import numbanet
from numbanet import nn
from numbanet.nn import functional as F


def _tensor(rng, *shape):
    return numbanet.tensor(rng.standard_normal(shape).astype(np.float32))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.drop, self.head = nn.Dropout(0.4), nn.Linear(8 * 3 * 2, 5)

    def forward(self, x):
        return self.head(self.drop(self.features(x).flatten(1)))


def _pair(make=lambda p: numbanet.optim.SGD(p, lr=0.1, momentum=0.9)):
    numbanet.manual_seed(0)
    one = Net()
    other = copy.deepcopy(one)
    return one, make(one.parameters()), other, make(other.parameters())


def _data(rng, count=3):
    return [(_tensor(rng, 4, 3, 7, 6), numbanet.tensor(rng.integers(0, 5, 4))) for _ in range(count)]


def _same(one, other):
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=name)


@pytest.mark.usefixtures("same_kernels")
def test_accumulated_and_clipped_gradients(rng):
    eager, theirs, model, mine = _pair()
    data = _data(rng)
    step = numbanet.compile(model, data[0][0], loss=F.cross_entropy, optimizer=mine)
    for _ in range(2):
        numbanet.manual_seed(1)
        theirs.zero_grad()
        for x, y in data:
            F.cross_entropy(eager(x), y).backward()
        norm = nn.utils.clip_grad_norm_(eager.parameters(), 0.01)
        theirs.step()
        numbanet.manual_seed(1)
        mine.zero_grad()
        for x, y in data:
            step.forward_backward(x, y)
        assert nn.utils.clip_grad_norm_(model.parameters(), 0.01).item() == norm.item() > 0.01
        step.update()
    _same(eager, model)


@pytest.mark.usefixtures("same_kernels")
def test_zeros_instead_of_no_gradients(rng):
    eager, theirs, model, mine = _pair()
    step = numbanet.compile(model, _data(rng)[0][0], loss=F.cross_entropy, optimizer=mine)
    numbanet.manual_seed(2)
    for x, y in (data := _data(rng)):
        mine.zero_grad(set_to_none=False)
        step.forward_backward(x, y)
        step.update()
    numbanet.manual_seed(2)
    for x, y in data:
        theirs.zero_grad(set_to_none=False)
        F.cross_entropy(eager(x), y).backward()
        theirs.step()
    _same(eager, model)


def test_gradients_that_are_held_keep_their_numbers(rng):
    """As in PyTorch: after zero_grad() they stay, and while they are a parameter's .grad they are added to in place."""
    _, _, model, optimizer = _pair()
    (x, y), (other, z) = _data(rng, 2)
    step = numbanet.compile(model, x, loss=F.cross_entropy, optimizer=optimizer)
    step(x, y)
    held = model.head.weight.grad
    kept = held.numpy().copy()
    step(other, z)
    np.testing.assert_array_equal(held.numpy(), kept)
    held = model.head.weight.grad
    kept = held.numpy().copy()
    step.forward_backward(x, y)
    assert model.head.weight.grad is held and not np.array_equal(held.numpy(), kept)


def test_results_are_never_memory_of_the_plan(rng):
    class All(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 5)

        def forward(self, x):
            y = F.relu(self.fc(x))
            return y, y.reshape(5, 4), y[1:3], x, self.fc.weight
    model, x, other = All(), _tensor(rng, 4, 6), _tensor(rng, 4, 6)
    compiled = numbanet.compile(model, x)
    first = compiled(x)
    kept = [t.numpy().copy() for t in first]
    compiled(other)
    for t, expected in zip(first, kept):
        np.testing.assert_array_equal(t.numpy(), expected)
    step = numbanet.compile(model, (x, _tensor(rng, 4, 5)), loss=lambda out, y: (F.mse_loss(out[0], y), *out[:3]),
                            optimizer=numbanet.optim.SGD(model.parameters()))
    loss, *maps = step(x, _tensor(rng, 4, 5))
    kept = [t.numpy().copy() for t in maps]
    step(other, _tensor(rng, 4, 5))
    for t, expected in zip(maps, kept):
        np.testing.assert_array_equal(t.numpy(), expected)


def test_gradients_that_are_views(rng):
    """Of a parameter that is reshaped before its use: a copy, not the plan's arena, and each callback sees it whole."""
    class Reshaped(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.bias = nn.Parameter(numbanet.randn(30)), nn.Parameter(numbanet.randn(1, 5))

        def forward(self, x):
            return F.relu(F.linear(x, self.weight.reshape(5, 6), self.bias[0]))
    model = Reshaped()
    eager = copy.deepcopy(model)
    x, y = _tensor(rng, 4, 6), _tensor(rng, 4, 5)
    step, seen = numbanet.compile(model, (x, y), loss=F.mse_loss, optimizer=numbanet.optim.SGD(model.parameters(), lr=0.1)), []
    step.on_gradient(lambda p: seen.append(p.grad.numpy().copy()))
    F.mse_loss(eager(x), y).backward()
    step.forward_backward(x, y)
    held = [p.grad for p in model.parameters()]
    for p, q in zip(model.parameters(), eager.parameters()):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-5, atol=1e-6)
    kept = [g.numpy().copy() for g in held]
    assert len(seen) == 2 and all(any(np.array_equal(s, k) for k in kept) for s in seen)
    step(_tensor(rng, 4, 6), y)
    for g, k in zip(held, kept):
        np.testing.assert_array_equal(g.numpy(), k)


@pytest.mark.usefixtures("same_kernels")
def test_layers_frozen_and_set_free_after_compiling(rng):
    eager, theirs, model, mine = _pair()
    data = _data(rng, 4)
    step = numbanet.compile(model, data[0][0], loss=F.cross_entropy, optimizer=mine)
    for i, (x, y) in enumerate(data):
        for net in (eager, model):
            net.features.requires_grad_(i % 2 == 0)
        numbanet.manual_seed(i)
        theirs.zero_grad()
        F.cross_entropy(eager(x), y).backward()
        theirs.step()
        numbanet.manual_seed(i)
        step(x, y)
        assert (model.features[0].weight.grad is None) == (i % 2 == 1)
    _same(eager, model)


def test_each_module_is_trained_in_its_own_mode(rng):
    eager, theirs, model, mine = _pair()
    data = _data(rng, 3)
    step = numbanet.compile(model, data[0][0], loss=F.cross_entropy, optimizer=mine)
    for i, (x, y) in enumerate(data):
        for net in (eager, model):
            net.train()
            if i:
                net.features[1].eval()              # frozen statistics, from the second step on
                net.drop.eval()
        numbanet.manual_seed(i)
        theirs.zero_grad()
        F.cross_entropy(eager(x), y).backward()
        theirs.step()
        numbanet.manual_seed(i)
        if i == 1:
            modes = [m.training for m in model.modules()]
        step(x, y)
    assert [m.training for m in model.modules()] == modes
    for (name, a), b in zip(eager.state_dict().items(), model.state_dict().values(), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(eager.features[1].running_mean.numpy(), model.features[1].running_mean.numpy())


def test_a_model_in_evaluation_mode_is_trained_as_a_whole(rng):
    _, _, model, optimizer = _pair()
    x, y = _data(rng)[0]
    step = numbanet.compile(model.eval(), x, loss=F.cross_entropy, optimizer=optimizer)
    before = model.features[1].running_mean.numpy().copy()
    step(x, y)
    assert not np.array_equal(model.features[1].running_mean.numpy(), before) and not model.training


def test_several_losses_of_several_heads(rng):
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.classes, self.boxes = nn.Linear(6, 7), nn.Linear(7, 3), nn.Linear(7, 2)

        def forward(self, x):
            x = F.relu(self.body(x))
            return {"classes": self.classes(x), "boxes": self.boxes(x)}

    def loss(out, y):
        label, box = y[:, 0].long(), y[:, 1:]
        one, other = F.cross_entropy(out["classes"], label), F.l1_loss(out["boxes"], box)
        return one + 0.5 * other, one, other
    model = Heads()
    eager = copy.deepcopy(model)
    x, y = _tensor(rng, 5, 6), numbanet.tensor(np.column_stack([rng.integers(0, 3, 5), rng.standard_normal((5, 2))]).astype(np.float32))
    step = numbanet.compile(model, (x, y), loss=loss, optimizer=numbanet.optim.SGD(model.parameters(), lr=0.1))
    total, one, other = loss(eager(x), y)
    total.backward()
    assert [t.item() for t in step.forward_backward(x, y)] == [total.item(), one.item(), other.item()]
    for p, q in zip(model.parameters(), eager.parameters()):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-6, atol=1e-7)


@pytest.mark.usefixtures("same_kernels")
@pytest.mark.parametrize("make", [lambda p: numbanet.optim.SGD(p, lr=0.1, momentum=0.5), lambda p: numbanet.optim.Adam(p, lr=0.01),
                                  lambda p: numbanet.optim.RMSprop(p, lr=0.01)], ids=["sgd", "adam", "rmsprop"])
def test_numbers_of_the_optimiser_and_random_masks_advance_without_compiling(make, rng, monkeypatch):
    eager, theirs, model, mine = _pair(make)
    data = _data(rng, 4)
    step = numbanet.compile(model, data[0][0], loss=F.cross_entropy, optimizer=mine)
    monkeypatch.setattr(step._plans, "make", None)                      # a second plan would fail
    schedules = [numbanet.optim.lr_scheduler.StepLR(o, 1, 0.5) for o in (theirs, mine)]
    numbanet.manual_seed(7)
    expected = []
    for i, (x, y) in enumerate(data):
        theirs.param_groups[0]["weight_decay"] = 0.01 * i
        theirs.zero_grad()
        loss = F.cross_entropy(eager(x), y)
        loss.backward()
        theirs.step()
        schedules[0].step()
        expected.append(loss.item())
    numbanet.manual_seed(7)
    for i, (x, y) in enumerate(data):
        mine.param_groups[0]["weight_decay"] = 0.01 * i
        assert step(x, y).item() == expected[i]
        schedules[1].step()
    _same(eager, model)


def test_a_callback_may_exchange_a_gradient(rng):
    """As an all-reduce does that gives another tensor."""
    _, _, model, optimizer = _pair()
    x, y = _data(rng)[0]
    step = numbanet.compile(model, x, loss=F.cross_entropy, optimizer=optimizer)

    def halve(p):
        p.grad = p.grad * 0.5
    numbanet.manual_seed(1)
    step.forward_backward(x, y)
    whole = [p.grad.numpy().copy() for p in model.parameters()]
    optimizer.zero_grad()
    step.on_gradient(halve)
    numbanet.manual_seed(1)
    step.forward_backward(x, y)
    for p, expected in zip(model.parameters(), whole):
        np.testing.assert_array_equal(p.grad.numpy(), expected * np.float32(0.5))


class Shared(nn.Module):
    """Two layers that are each used twice, as a detector's head is."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.Conv2d(16, 5, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(16) for _ in range(2))

    def forward(self, x):
        maps = [norm(self.inner(part)).relu() for norm, part in zip(self.norms, (x, x[:, :, ::2, ::2]))]
        return sum(self.outer(m).mean((2, 3)) for m in maps)


def test_a_gradient_that_layers_share_is_announced_once_and_whole(rng):
    model = Shared()
    x, y = _tensor(rng, 4, 16, 12, 12), numbanet.tensor(np.arange(4))
    step = numbanet.compile(model, x, loss=F.cross_entropy, optimizer=numbanet.optim.SGD(model.parameters(), lr=0.0))
    names, seen = {id(p): name for name, p in model.named_parameters()}, []
    step.on_gradient(lambda p: seen.append((names[id(p)], p.grad.numpy().copy())))
    step.forward_backward(x, y)
    assert sorted(name for name, _ in seen) == sorted(names.values())
    for name, early in seen:
        np.testing.assert_array_equal(early, model.get_parameter(name).grad.numpy())
