"""Weights of a compiled model that are held about once: they go, and are there again, to the bit, for whoever asks."""

import copy
import gc
import os
import pickle
import threading
import weakref

import numpy as np
import pytest

import numbanet
from numbanet import nn, zoo
from numbanet.backends.cpu import recovery
from numbanet.graph.recoverable import Recoverable, held
from numbanet.nn import functional as F
from tests.graph.test_compile_zoo import REPRESENTATIVE
from tests.zoo.inputs import filled_model, small_size


@pytest.fixture(autouse=True)
def small_ones_too(monkeypatch):
    monkeypatch.setattr(recovery, "LEAST", 1)


def _tensor(rng, *shape):
    return numbanet.tensor(rng.standard_normal(shape).astype(np.float32))


def _statistics(model, rng):
    """Batch norm that changes something."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            shape = module.running_var.shape
            for t, values in ((module.running_mean, rng.standard_normal(shape)), (module.running_var, rng.uniform(0.1, 2, shape)),
                              (module.weight, rng.uniform(0.3, 1.5, shape))):
                if t is not None:
                    t.data = numbanet.tensor(values.astype(np.float32))
    return model


def _model(rng):
    return _statistics(nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 40, 3, padding=1, bias=False),
        nn.BatchNorm2d(40), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(40 * 4 * 3, 10)), rng).eval()


def _kept(model):
    return {name: t.numpy().copy() for name, t in model.state_dict().items()}


def _away(model):
    return {name for name, p in model.named_parameters() if isinstance(held(p), Recoverable)}


def _same(model, kept):
    for name, t in model.state_dict().items():
        assert t.numpy().tobytes() == kept[name].tobytes(), name


def _eager(model, x):
    with numbanet.no_grad():
        return model(x).numpy()


def _close(received, expected):
    np.testing.assert_allclose(received, expected, rtol=0, atol=3e-6 * np.abs(expected).max())


@pytest.fixture
def compiled(rng):
    """(model, x, what it has, compiled model), some weights being away."""
    model, x = _model(rng), _tensor(rng, 20, 3, 8, 6)
    kept = _kept(model)
    made = numbanet.compile(model, x)
    made(x)
    assert _away(model) == {"0.weight", "3.weight", "8.weight"}
    return model, x, kept, made


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_models_of_the_zoo(name, rng):
    numbanet.manual_seed(3)
    model = _statistics(filled_model(name), rng).eval()
    x = numbanet.randn(2, zoo.model_info(name).input_size[0], *small_size(model, zoo.model_info(name)))
    kept, expected = _kept(model), _eager(model, x)
    compiled = numbanet.compile(model, x)
    first = compiled(x).numpy()
    away = _away(model)
    assert away or name.startswith("lenet5")
    _same(model, kept)
    assert not _away(model)
    np.testing.assert_array_equal(_eager(model, x), expected)
    np.testing.assert_array_equal(compiled(x).numpy(), first)


def test_memory_goes_and_shapes_stay(rng):
    model, x = _model(rng), _tensor(rng, 4, 3, 8, 6)
    arrays, count = [weakref.ref(model[i].weight.array.base) for i in (0, 3)], sum(p.numel() for p in model.parameters())
    compiled = numbanet.compile(model, x)
    compiled(x)
    gc.collect()
    weight = model[3].weight
    assert arrays[0]() is arrays[1]() is None
    assert (weight.shape, weight.dtype, weight.ndim, weight.stride()) == ((40, 24, 3, 3), np.float32, 4, (216, 9, 3, 1))
    assert len(weight) == 40 and weight.size(1) == 24 and weight.nbytes == 4 * weight.numel() and weight.is_floating_point()
    assert sum(p.numel() for p in model.parameters()) == count and isinstance(weight, nn.Parameter) and weight.requires_grad
    assert "3.weight" in _away(model)
    assert weight.array is weight.array and type(weight) is nn.Parameter


def test_nothing_is_bound_again_for_weights_that_came_back(compiled):
    model, x, kept, made = compiled
    steps, y = made.plan()._steps, made(x).numpy()
    _same(model, kept)
    np.testing.assert_array_equal(made(x).numpy(), y)
    assert made.plan()._steps is steps


def test_the_compiled_model_may_die_first(rng):
    model, x = _model(rng), _tensor(rng, 20, 3, 8, 6)
    kept, compiled = _kept(model), numbanet.compile(model, x)
    compiled(x)
    there = weakref.ref(compiled)
    del compiled
    gc.collect()
    assert there() is None and _away(model)
    _same(model, kept)


def test_eager_calls_save_copies_and_pickles(compiled, tmp_path):
    model, x, kept, made = compiled
    twin, other = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    assert not _away(twin) and not _away(other) and type(twin[3].weight) is type(other[3].weight) is nn.Parameter
    for m in (model, twin, other):
        _same(m, kept)
        _close(made(x).numpy(), _eager(m, x))


@pytest.mark.parametrize("use", [copy.copy, copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_copies_of_one_weight(use, compiled):
    model, _, kept, _ = compiled
    weight = model[3].weight
    made = use(weight)
    assert type(made) is type(weight) is nn.Parameter
    assert made.detach().numpy().tobytes() == kept["3.weight"].tobytes() == weight.detach().numpy().tobytes()


def test_saving(compiled, tmp_path):
    model, _, kept, _ = compiled
    numbanet.save_weights(tmp_path / "w.safetensors", model.state_dict())
    for name, t in numbanet.load_weights(tmp_path / "w.safetensors")[0].items():
        assert np.asarray(t).tobytes() == kept[name].tobytes()


def test_changes_are_noticed(compiled, rng):
    model, x, _, made = compiled
    with numbanet.no_grad():
        model[3].weight.mul_(-2)
    _close(made(x).numpy(), _eager(model, x))
    other = _model(rng)
    model.load_state_dict(other.state_dict())
    _close(made(x).numpy(), _eager(other, x))
    model.load_state_dict(_model(rng).state_dict(), assign=True)
    _close(made(x).numpy(), _eager(model, x))
    model[3].weight = nn.Parameter(model[3].weight.detach() * 3)
    _close(made(x).numpy(), _eager(model, x))
    model[3].weight.data = model[3].weight.detach() * 3
    _close(made(x).numpy(), _eager(model, x))


def test_weights_that_were_exchanged_are_kept_by_nobody(compiled):
    model, x, _, made = compiled
    old, packed = weakref.ref(model[3].weight), weakref.ref(held(model[3].weight).compute.held.packed)
    model[3].weight = nn.Parameter(model[3].weight.detach() * 3)
    _close(made(x).numpy(), _eager(model, x))
    gc.collect()
    assert old() is packed() is None


def test_what_was_asked_for_stays_when_the_plan_is_bound_again(compiled):
    model, x, _, made = compiled
    with numbanet.no_grad():
        model[3].weight.mul_(2)
    made(x)
    assert _away(model) == {"0.weight", "8.weight"}
    with numbanet.no_grad():
        model[0].weight.mul_(2)
    made(x)
    assert _away(model) == {"8.weight"}
    _close(made(x).numpy(), _eager(model, x))


def test_other_batch_sizes_and_another_compiled_model(compiled):
    model, x, kept, made = compiled
    for n in (1, 7, 3):
        received = made(x[:n]).numpy()
        assert "3.weight" in _away(model)
        _close(received, _eager(copy.deepcopy(model), x[:n]))
        made(x[:n])
    again = numbanet.compile(model, x)
    np.testing.assert_array_equal(again(x).numpy(), made(x).numpy())
    made = None
    gc.collect()
    _same(model, kept)
    np.testing.assert_array_equal(again(x).numpy(), again(x).numpy())


def test_a_plan_that_finds_its_packing_packs_and_encodes_nothing(compiled):
    model, x, _, made = compiled
    before = held(model[3].weight)
    numbanet.compile(model, x)(x)
    assert held(model[3].weight) is before and not before.was_asked


def test_slices(rng, monkeypatch):
    model, x = _model(rng), _tensor(rng, 5, 3, 8, 6)
    kept, expected = _kept(model), _eager(model, x)
    monkeypatch.setattr(type(model[0].weight.backend), "samples_at_once", lambda *_: 2)
    compiled = numbanet.compile(model, x)
    for _ in range(2):
        _close(compiled(x).numpy(), expected)
    assert len({id(p) for p in compiled.plan().plans}) == 2 and "3.weight" in _away(model)
    _same(model, kept)


def test_training_after_inference(compiled):
    model, x, kept, made = compiled
    twin = copy.deepcopy(model)
    y = numbanet.tensor(np.arange(20) % 10)
    losses = []
    for m in (model, twin):
        step = numbanet.compile(m.train(), x, loss=F.cross_entropy, optimizer=numbanet.optim.SGD(m.parameters(), lr=0.1))
        losses.append([step(x, y).item() for _ in range(3)])
        m.eval()
        _close(made(x).numpy() if m is model else _eager(m, x), _eager(m, x))
    assert losses[0] == losses[1]


def test_eager_training_after_inference(compiled):
    model, x, _, made = compiled
    optimizer = numbanet.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(model.train()(x), numbanet.tensor(np.arange(20) % 10)).backward()
        optimizer.step()
        model.eval()
        _close(made(x).numpy(), _eager(model, x))


def test_threads_that_ask_at_once(compiled):
    model, x, kept, made = compiled
    weight, found, barrier = model[3].weight, [], threading.Barrier(8)

    def ask():
        barrier.wait()
        found.append((weight.array, weight.detach().numpy().tobytes()))
    threads = [threading.Thread(target=ask) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len({id(array) for array, _ in found}) == 1 and {values for _, values in found} == {kept["3.weight"].tobytes()}


def test_asking_while_plans_are_bound(rng):
    """A thread reads the weight all the time: it always sees the numbers."""
    model, x = _model(rng), _tensor(rng, 6, 3, 8, 6)
    weight, wanted, wrong, done = model[3].weight, model[3].weight.detach().numpy().tobytes(), [], threading.Event()

    def ask():
        while not done.is_set():
            if weight.detach().numpy().tobytes() != wanted or weight.shape != (40, 24, 3, 3):
                wrong.append(1)
    thread = threading.Thread(target=ask)
    thread.start()
    for n in (1, 2, 3, 4, 5, 6):
        _close(numbanet.compile(model, x[:n])(x[:n]).numpy(), _eager(model, x[:n]))
    done.set()
    thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_processes(compiled):
    model, _, kept, _ = compiled
    child = os.fork()
    if not child:
        try:
            _same(model, kept)
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0 and _away(model)


def test_views_that_somebody_holds(rng):
    model, x = _model(rng), _tensor(rng, 20, 3, 8, 6)
    view, numbers = model[3].weight.detach()[1:, 2], model[8].weight.detach().numpy()
    compiled = numbanet.compile(model, x)
    compiled(x)
    assert _away(model) == {"0.weight"}
    with numbanet.no_grad():
        view.mul_(3)
    assert np.shares_memory(numbers, model[8].weight.array)
    _close(compiled(x).numpy(), _eager(model, x))


def test_arrays_of_numpy(rng):
    """Weights in memory that NumPy owns go too, unless somebody holds it."""
    model, x = _model(rng), _tensor(rng, 20, 3, 8, 6)
    mine = rng.standard_normal((40, 24, 3, 3)).astype(np.float32)
    model[3].weight = nn.Parameter(numbanet.from_numpy(mine))
    model[8].weight = nn.Parameter(numbanet.from_numpy(rng.standard_normal((10, 480)).astype(np.float32)))
    numbanet.compile(model, x)(x)
    assert _away(model) == {"0.weight", "8.weight"}
    assert model[3].weight.array is mine


def test_shared_weights(rng):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(24, 24, 3, padding=1), nn.Conv2d(24, 24, 3, padding=1)
            self.second.weight = self.first.weight
            self.norm, self.read = nn.BatchNorm2d(24), nn.Conv2d(24, 24, 1)

        def forward(self, x):
            return self.norm(self.second(F.relu(self.first(x)))) + self.read(x) * self.read.weight.sum()
    model, x = _statistics(Twice(), rng).eval(), _tensor(rng, 2, 24, 5, 7)
    kept, expected = _kept(model), _eager(model, x)
    compiled = numbanet.compile(model, x)
    for _ in range(2):
        _close(compiled(x).numpy(), expected)
    assert "read.weight" not in _away(model)            # each replay sums it
    _same(model, kept)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_hostile_numbers(rng):
    model, x = _model(rng), _tensor(rng, 20, 3, 8, 6)
    with numbanet.no_grad():
        model[3].weight.array.reshape(-1)[:4] = np.array([0x7FA00001, 0xFFC54321, 1, 0x80000000], np.uint32).view(np.float32)
        model[4].weight.array[[1, 7]] = 0, 1e-42
        model[8].weight.array[2, 3:6] = np.inf, -np.inf, np.nan
    kept = _kept(model)
    compiled = numbanet.compile(model, x)
    compiled(x)
    assert _away(model) == {"0.weight", "3.weight", "8.weight"}
    _same(model, kept)


def test_releasing_after_all(compiled):
    model, x, _, made = compiled
    expected = made(x).numpy()
    released = numbanet.compile(model, x, release_weights=True)
    np.testing.assert_array_equal(released(x).numpy(), expected)
    assert not _away(model) and model[3].weight.backend.is_released and model[3].weight.shape == (40, 24, 3, 3)


def test_other_algorithms(rng):
    model, x = _model(rng), _tensor(rng, 4, 3, 8, 6)
    kept, expected = _kept(model), _eager(model, x)
    compiled = numbanet.compile(model, x)
    compiled(x)
    for signature, names in compiled.plan().offers().items():
        for name in names:
            compiled.plan().choose({signature: name})
            _close(compiled(x).numpy(), expected)
            assert "3.weight" in _away(model)
    _same(model, kept)


def test_graphs_of_models_whose_weights_are_away(compiled):
    model, x, _, made = compiled
    expected = made(x).numpy()
    graph = made.plan().graph
    _close(graph.run(x)[0].numpy() if isinstance(graph.run(x), tuple) else graph.run(x).numpy(), expected)
    numbanet.compile(model, x[:3])(x[:3])
    traced = numbanet.trace(model, x)
    assert "3.weight" in _away(model)                               # only running it asks
    _close(traced.run(x).numpy(), expected)


def test_moving_and_averaging(compiled):
    model, x, kept, made = compiled
    assert model[3].weight.to("reference").detach().numpy().tobytes() == kept["3.weight"].tobytes()
    numbanet.compile(model, x)(x)
    model.to("reference")
    with pytest.raises(numbanet.errors.UsageError, match="compile again"):
        made(x)
    _same(model, kept)


def test_rounded_weights_stay(rng):
    model, x = nn.Sequential(nn.Linear(1024, 1024)), _tensor(rng, 40, 1024)
    kept = _kept(model)
    compiled = numbanet.compile(model, x, weights="bfloat16")
    compiled(x)
    assert not _away(model)
    _same(model, kept)


def test_small_weights_stay(rng, monkeypatch):
    monkeypatch.undo()
    model, x = _model(rng), _tensor(rng, 20, 3, 8, 6)
    numbanet.compile(model, x)(x)
    assert not _away(model)


def test_a_backend_without_the_hook_keeps_weights(rng):
    model = _model(rng).to("reference")
    x = numbanet.tensor(rng.standard_normal((2, 3, 8, 6)).astype(np.float32), device="reference")
    compiled = numbanet.compile(model, x)
    compiled(x)
    assert not _away(model)
