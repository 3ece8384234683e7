"""Compiled models and steps: the same numbers as eager ones, and everything that may change between two replays."""

import copy
import gc
import threading

import numpy as np
import pytest

import numbanet
from numbanet import nn
from numbanet.errors import ShapeError, UnsupportedOperationError, UsageError
from numbanet.graph.plan import layout_of
from numbanet.nn import functional as F


def _tensor(rng, *shape, device="cpu"):
    return numbanet.tensor(rng.standard_normal(shape).astype(np.float32), device=device)


class Branches(nn.Module):
    """Concatenations, a residual, batch norm, views and dropout."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2))
        self.left, self.right = nn.Conv2d(6, 5, 1), nn.Conv2d(6, 7, 3, padding=1)
        self.mix = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12))
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(12 * 4 * 3, 10))

    def forward(self, x):
        x = self.stem(x)
        x = numbanet.cat([self.left(x), F.relu(self.right(x))], 1)
        return self.head(F.relu(self.mix(x) + x))


def _eager(model, x):
    with numbanet.no_grad():
        return copy.deepcopy(model).eval()(x).numpy()


def _close(received, expected, tolerance=3e-6):
    np.testing.assert_allclose(received, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.fixture
def branches(rng, backend):
    model = Branches().to(backend)
    for _ in range(3):                      # statistics that are not the initial ones
        model(_tensor(rng, 8, 3, 8, 6, device=backend))
    return model


def test_inference_agrees_at_every_batch_size(branches, rng, backend):
    compiled = numbanet.compile(branches, _tensor(rng, 4, 3, 8, 6, device=backend))
    assert branches.training
    for batch in (4, 1, 5, 4):
        x = _tensor(rng, batch, 3, 8, 6, device=backend)
        _close(compiled(x).numpy(), _eager(branches, x))
    assert "concatenate" in compiled.plan().graph.primitives() and "from channel 5" in compiled.describe()


def test_results_are_the_callers(branches, rng):
    x, other = _tensor(rng, 2, 3, 8, 6), _tensor(rng, 2, 3, 8, 6)
    branches = branches.to("cpu")
    compiled = numbanet.compile(branches, x)
    first = compiled(x)
    kept = first.numpy().copy()
    compiled(other)
    np.testing.assert_array_equal(first.numpy(), kept)
    target = numbanet.full((2, 10), float("nan"))
    assert compiled(x, out=target) is target
    np.testing.assert_array_equal(target.numpy(), kept)


def test_inputs_in_any_memory_order(branches, rng):
    branches = branches.to("cpu")
    compiled = numbanet.compile(branches, _tensor(rng, 2, 3, 8, 6))
    x = _tensor(rng, 2, 8, 6, 3).permute(0, 3, 1, 2)
    wide = _tensor(rng, 2, 3, 8, 12)[..., ::2]
    for given in (x, wide):
        _close(compiled(given).numpy(), _eager(branches, given))


def test_changed_weights_are_noticed(branches, rng):
    x = _tensor(rng, 2, 3, 8, 6)
    branches = branches.to("cpu")
    compiled = numbanet.compile(branches, x)
    compiled(x)
    with numbanet.no_grad():
        branches.stem[0].weight.mul_(1.5)
        branches.mix[1].running_var.add_(0.5)
    _close(compiled(x).numpy(), _eager(branches, x))
    state = {name: t.numpy() * np.float32(0.9) if t.is_floating_point() else t.numpy() for name, t in branches.state_dict().items()}
    branches.load_state_dict(state, assign=True)
    _close(compiled(x).numpy(), _eager(branches, x))


def test_folded_weights_are_packed_once_and_not_kept_beside(branches, rng):
    """Plans of other batch sizes fold anew, and find the packed ones by their numbers."""
    from numbanet.backends.cpu.prepared import _shared
    gc.collect()                                # what plans of other tests hold goes before it is counted
    branches = branches.to("cpu")
    compiled = numbanet.compile(branches, _tensor(rng, 2, 3, 8, 6))
    compiled(_tensor(rng, 2, 3, 8, 6))
    plan, count = compiled.plan(), len(_shared)
    folded = [node for node in plan.graph.preparation if node.primitive == "fold_batch_norm"]
    assert folded and not any(v in plan._arrays for node in folded for v in node.outputs)
    compiled(_tensor(rng, 3, 3, 8, 6))
    assert len(_shared) == count


def test_several_results_keep_their_structure(rng):
    class Named(nn.Module):
        def forward(self, x):
            return {"twice": x * 2, "input": x, "row": x[0]}
    x = _tensor(rng, 3, 4)
    for _ in range(2):
        out = numbanet.compile(Named(), x)(x)
    np.testing.assert_array_equal(out["twice"].numpy(), 2 * x.numpy())
    np.testing.assert_array_equal(out["input"].numpy(), x.numpy())
    np.testing.assert_array_equal(out["row"].numpy(), x.numpy()[0])


def test_wrong_inputs_are_explained(branches, rng):
    compiled = numbanet.compile(branches.to("cpu"), _tensor(rng, 2, 3, 8, 6))
    with pytest.raises(ShapeError, match=r"input 0 expects float32\['N', 3, 8, 6\] as in the example, received float32\[2, 3, 9, 6\]"):
        compiled(_tensor(rng, 2, 3, 9, 6))
    with pytest.raises(ShapeError, match="on 'cpu', received one on 'reference'"):
        compiled(_tensor(rng, 3, 3, 8, 6, device="reference"))
    with pytest.raises(ShapeError, match="expected 1 inputs"):
        compiled(_tensor(rng, 2, 3, 8, 6), _tensor(rng, 2))
    with pytest.raises(UsageError, match="both loss= and optimizer="):
        numbanet.compile(branches, _tensor(rng, 2, 3, 8, 6), loss=F.cross_entropy)

    class Decides(nn.Module):
        def forward(self, x):
            return x if x.sum().item() > 0 else -x
    with pytest.raises(UnsupportedOperationError, match="reads the values of a tensor"):
        numbanet.compile(Decides(), _tensor(rng, 2, 2))


def test_threads_take_turns(branches, rng):
    branches = branches.to("cpu")
    inputs = [_tensor(rng, 2, 3, 8, 6) for _ in range(4)]
    compiled = numbanet.compile(branches, inputs[0])
    expected, wrong = [compiled(x).numpy() for x in inputs], []

    def work(i):
        for _ in range(20):
            if not np.array_equal(compiled(inputs[i]).numpy(), expected[i]):
                wrong.append(i)
    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_memory_is_shared_only_by_values_that_never_meet(branches, rng):
    """No two roots overlap in bytes while both are alive."""
    plan = numbanet.compile(branches.to("cpu"), _tensor(rng, 2, 3, 8, 6)).plan()
    layout, lives = plan.layout, {}
    for position, node in enumerate(plan.graph.nodes):
        for v in (*node.operands(), *node.outputs):
            root = layout.root_of(v)
            if root in layout.offsets:
                lives.setdefault(root, [position, position])[1] = position
    roots = list(lives)
    for i, a in enumerate(roots):
        for b in roots[:i]:
            together = lives[a][0] <= lives[b][1] and lives[b][0] <= lives[a][1]
            apart = layout.offsets[a] + a.nbytes <= layout.offsets[b] or layout.offsets[b] + b.nbytes <= layout.offsets[a]
            assert apart or not together
    assert layout.size < sum(v.nbytes for node in plan.graph.nodes for v in node.outputs)
    assert layout_of(plan.graph).offsets == layout.offsets


def test_a_residual_gives_its_memory_to_the_sum_unless_another_operand_lies_there(rng):
    class Block(nn.Module):
        def __init__(self, reads_what_it_adds):
            super().__init__()
            self.first, self.last, self.reads_what_it_adds = nn.Conv2d(5, 8, 3, padding=1), nn.Conv2d(8, 8, 1), reads_what_it_adds

        def forward(self, x):
            x = self.first(x)
            return self.last(x if self.reads_what_it_adds else F.relu(x)) + x

    for reads_what_it_adds in (False, True):
        model, x = Block(reads_what_it_adds).eval(), _tensor(rng, 2, 5, 7, 6)
        plan = numbanet.compile(model, x).plan()
        layout, last = layout_of(plan.graph), plan.graph.nodes[-1]
        assert last.primitive == "conv2d_fused" and (last.outputs[0] in layout.overwrites) is not reads_what_it_adds
        np.testing.assert_allclose(numbanet.compile(model, x)(x).numpy(), _eager(model, x), rtol=1e-5, atol=1e-6)



def test_maps_whose_pixels_would_meet_in_a_set_of_a_cache_get_room(monkeypatch, rng):
    """Of the maps that layers make and read pixel by pixel: no output, no part of a concatenation, nothing that is reshaped or added up."""
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 16, 3, 2), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 3, padding=1)
            self.d, self.e, self.f = nn.Conv2d(16, 16, 1), nn.Conv2d(32, 16, 1), nn.Linear(16, 5)

        def forward(self, x):
            y = F.relu(self.a(x))
            y = F.relu(self.c(self.b(y)) + y)                                   # takes the memory of y
            y = numbanet.cat([self.d(y), F.max_pool2d(y, 3, 1, 1)], 1)
            return self.f(F.adaptive_avg_pool2d(self.e(y), 1).flatten(1))
    cpu = type(numbanet.backends.get_backend("cpu"))
    monkeypatch.setattr(cpu, "room_for_channels", lambda self, shape, dtype: shape[1] + shape[1] % 32)
    model, x = Wide().eval(), _tensor(rng, 2, 3, 15, 12)
    plan = numbanet.compile(model, x).plan()
    layout, made = plan.layout, {node.path: node.outputs[0] for node in plan.graph.nodes}
    assert {path for path, value in made.items() if layout.root_of(value) in layout.room} == {"a", "b", "c", "e"}
    assert layout.root_of(made["c"]) is made["a"] and set(layout.room.values()) == {32}
    np.testing.assert_allclose(numbanet.compile(model, x)(x).numpy(), _eager(model, x), rtol=1e-5, atol=1e-6)
    assert layout.size >= 2 * 2 * 32 * 7 * 5 * 4                                # a and b live together


def test_the_cpu_gives_room_to_pixels_that_lie_pages_apart():
    cpu, single = numbanet.backends.get_backend("cpu"), np.dtype(np.float32)
    for shape, expected in (((2, 1024, 7, 7), 1040), ((1, 2048, 1, 3), 2064), ((2, 1000, 7, 7), 1000), ((2, 1024, 1, 1), 1024)):
        assert cpu.room_for_channels(shape, single) == expected


def _steps(rng, backend, count=4):
    return [(_tensor(rng, 6, 3, 8, 6, device=backend), numbanet.tensor(rng.integers(0, 10, 6), device=backend)) for _ in range(count)]


@pytest.mark.usefixtures("same_kernels")
@pytest.mark.parametrize("make", [lambda p: numbanet.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
                                  lambda p: numbanet.optim.AdamW(p, lr=1e-2)], ids=["sgd", "adamw"])
def test_training_agrees_with_eager(make, rng, backend):
    """Losses, parameters, running statistics and dropout masks, bit for bit, with a learning rate that changes."""
    eager = Branches().to(backend)
    compiled = copy.deepcopy(eager)
    theirs, mine = make(eager.parameters()), make(compiled.parameters())
    data = _steps(rng, backend)
    step = numbanet.compile(compiled, data[0], loss=F.cross_entropy, optimizer=mine)
    losses = []
    for run in range(2):
        numbanet.manual_seed(5)
        for i, (x, y) in enumerate(data):
            for optimizer in (theirs, mine):
                optimizer.param_groups[0]["lr"] = 0.05 / (i + 1)
            if run:
                losses[i] = losses[i], step(x, y).item()
            else:
                theirs.zero_grad()
                loss = F.cross_entropy(eager(x), y)
                loss.backward()
                theirs.step()
                losses.append(loss.item())
    assert all(a == b for a, b in losses)
    for (name, a), b in zip(eager.state_dict().items(), compiled.state_dict().values(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=name)


def test_training_agrees_with_eager_to_rounding(rng):
    """Convolutions that take the statistics of batch norm sum them in other blocks: as far from float64 as eager steps."""
    models = [Branches() for _ in range(3)]
    for m in models[1:]:
        m.load_state_dict(models[0].state_dict())
    models[2].double()
    mine, theirs, exact = (numbanet.optim.SGD(m.parameters(), lr=0.05, momentum=0.9) for m in models)
    data = _steps(rng, "cpu")
    step = numbanet.compile(models[0], data[0], loss=F.cross_entropy, optimizer=mine)
    assert step.plan().graph.primitives().count("conv2d_with_statistics") == 1       # the stem has few channels
    losses = []
    for run, optimizer in ((0, mine), (1, theirs), (2, exact)):
        numbanet.manual_seed(5)
        for x, y in data:
            if run == 0:
                losses.append(step(x, y).item())
                continue
            optimizer.zero_grad()
            loss = F.cross_entropy(models[run](x if run == 1 else x.double()), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    mine, theirs, exact = np.reshape(losses, (3, -1))
    np.testing.assert_allclose(mine, exact, rtol=2e-6)
    for name in models[0].state_dict():
        a, b, e = (m.state_dict()[name].numpy() for m in models)
        assert np.abs(a - e).max() <= 4 * np.abs(b - e).max() + 1e-6, name


@pytest.mark.usefixtures("same_kernels")
def test_gradients_accumulate_and_frozen_layers_have_none(rng):
    model = Branches()
    model.stem.requires_grad_(False)
    twin = copy.deepcopy(model)
    optimizer = numbanet.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    data = _steps(rng, "cpu", 3)
    step = numbanet.compile(model, data[0][0], loss=F.cross_entropy, optimizer=optimizer)
    numbanet.manual_seed(1)
    for x, y in data:
        step.forward_backward(x, y)
    numbanet.manual_seed(1)
    for x, y in data:
        F.cross_entropy(twin(x), y).backward()
    for (name, p), q in zip(model.named_parameters(), twin.parameters()):
        assert (p.grad is None) == (q.grad is None) == name.startswith("stem"), name
        if p.grad is not None:
            np.testing.assert_array_equal(p.grad.numpy(), q.grad.numpy(), err_msg=name)
    step.update()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_callbacks_see_each_gradient_once_from_the_last_layer_on(rng):
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    optimizer = numbanet.optim.SGD(model.parameters(), lr=0.1)
    x, y = _tensor(rng, 2, 4), numbanet.tensor([0, 2])
    step, seen = numbanet.compile(model, x, loss=F.cross_entropy, optimizer=optimizer), []
    names = {id(p): name for name, p in model.named_parameters()}
    end = step.on_gradient(lambda p: seen.append((names[id(p)], p.grad.numpy().copy())))
    step(x, y)
    assert [name for name, _ in seen] in (["2.weight", "2.bias", "0.weight", "0.bias"], ["2.bias", "2.weight", "0.bias", "0.weight"])
    for name, gradient in seen:
        np.testing.assert_array_equal(gradient, model.get_parameter(name).grad.numpy())
    step.forward_backward(x, y)                 # accumulates: whole when all is added
    assert len(seen) == 8 and np.array_equal(seen[4][1], model.get_parameter(seen[4][0]).grad.numpy())
    end()
    step(x, y)
    assert len(seen) == 8


def test_a_loss_function_may_hand_out_more(rng):
    model = nn.Linear(4, 3)
    x, y = _tensor(rng, 2, 4), numbanet.tensor([0, 2])
    step = numbanet.compile(model, x, loss=lambda out, y: (F.cross_entropy(out, y), out), optimizer=numbanet.optim.SGD(model.parameters()))
    expected = model(x)
    loss, out = step(x, y)
    np.testing.assert_array_equal(out.numpy(), expected.detach().numpy())
    assert loss.item() == F.cross_entropy(expected, y).item()


def test_generators_of_the_users_advance(rng):
    generator = numbanet.Generator(3)

    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(20, 2)

        def forward(self, x):
            return self.fc(F.dropout(x, 0.5, self.training, generator=generator))
    model = Noisy()
    x, y = _tensor(rng, 4, 20), numbanet.tensor([0, 1, 0, 1])
    step = numbanet.compile(model, x, loss=F.cross_entropy, optimizer=numbanet.optim.SGD(model.parameters(), lr=0.0))
    assert generator.get_state() == (3, 0)
    losses = {step(x, y).item() for _ in range(4)}
    assert len(losses) == 4 and generator.get_state() == (3, 4)
    generator.manual_seed(3)
    assert F.cross_entropy(model(x), y).item() in losses
