"""Weights that a compiled model takes over: the numbers stay, the memory goes, and whoever asks the model is told."""

import copy
import gc
import weakref

import numpy as np
import pytest

import numbanet
from numbanet import nn
from numbanet.errors import UsageError
from numbanet.nn import functional as F


def _tensor(rng, *shape, device="cpu"):
    return numbanet.tensor(rng.standard_normal(shape).astype(np.float32), device=device)


def _model(device="cpu"):
    model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 40, 3, padding=1),
                          nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(40 * 4 * 3, 10))
    return model.to(device)


def _eager(model, x):
    with numbanet.no_grad():
        return copy.deepcopy(model).eval()(x).numpy()


def _close(received, expected):
    np.testing.assert_allclose(received, expected, rtol=0, atol=3e-6 * np.abs(expected).max())


def test_every_batch_size_gives_what_the_model_gave(rng, backend):
    model = _model(backend)
    model(_tensor(rng, 8, 3, 8, 6, device=backend))
    inputs = [_tensor(rng, batch, 3, 8, 6, device=backend) for batch in (4, 1, 5, 8, 0, 4)]
    expected = [_eager(model, x) if x.shape[0] else np.empty((0, 10), np.float32) for x in inputs]
    compiled = numbanet.compile(model, inputs[0], release_weights=True)
    for x, y in zip(inputs, expected):
        received = compiled(x)
        assert received.shape == y.shape
        if y.size:
            _close(received.numpy(), y)
            target = numbanet.full(y.shape, float("nan"), device=backend)
            assert compiled(x, out=target) is target
            np.testing.assert_array_equal(target.numpy(), received.numpy())
    assert "slices of 4 samples, the last filled up" in compiled.describe(inputs[2])


def test_memory_of_packed_weights_goes(rng):
    model = _model()
    arrays, count = [weakref.ref(model[i].weight.array.base) for i in (0, 3, 7)], sum(p.numel() for p in model.parameters())
    numbanet.compile(model, _tensor(rng, 16, 3, 8, 6))
    gc.collect()
    assert all(reference() is not None for reference in arrays)
    compiled = numbanet.compile(model, _tensor(rng, 16, 3, 8, 6), release_weights=True)
    gc.collect()
    assert not any(reference() is not None for reference in arrays)
    assert compiled.plan().graph.state and model[0].weight.shape == (6, 3, 3, 3) and sum(p.numel() for p in model.parameters()) == count


def test_what_somebody_else_holds_keeps_its_numbers(rng):
    model, x = _model(), _tensor(rng, 2, 3, 8, 6)
    state, expected = model.state_dict(), _eager(model, x)
    before = {name: t.numpy().copy() for name, t in state.items()}
    compiled = numbanet.compile(model, x, release_weights=True)
    for name, t in state.items():
        np.testing.assert_array_equal(t.numpy(), before[name])
    _close(compiled(x).numpy(), expected)


def test_whoever_needs_the_numbers_is_told(rng, tmp_path):
    model, x = _model(), _tensor(rng, 2, 3, 8, 6)
    numbanet.compile(model, x, release_weights=True)
    weight, others = model[0].weight, _model().state_dict()
    for use in (lambda: model(x), lambda: weight.detach().numpy(), lambda: weight * 2, lambda: weight.detach()[0],
                lambda: copy.deepcopy(model), lambda: model.load_state_dict(others), lambda: numbanet.compile(model, x)(x),
                lambda: numbanet.save_weights(tmp_path / "w.safetensors", model.state_dict())):
        with pytest.raises(UsageError, match=r"released by compile.*load_state_dict\(..., assign=True\)"):
            use()
    assert not list(tmp_path.iterdir())
    assert "released, shape=(6, 3, 3, 3)" in repr(weight)


def test_new_weights_are_taken_and_released_again(rng):
    model, other, x = _model(), _model(), _tensor(rng, 3, 3, 8, 6)
    compiled = numbanet.compile(model, x, release_weights=True)
    model.load_state_dict(other.state_dict(), assign=True)
    model[3].weight.detach()
    _close(compiled(x).numpy(), _eager(other, x))
    _close(compiled(x[:2]).numpy(), _eager(other, x[:2]))
    assert model[3].weight.backend.is_released and not other[3].weight.backend.is_released
    model[3].weight = nn.Parameter(other[3].weight.detach())
    with pytest.raises(UsageError, match=r"0.weight was released by compile.*other weights have changed since"):
        compiled(x)


def test_weights_that_two_layers_share(rng):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(F.relu(self.first(x))) + self.first.bias.sum()
    model, x = Twice(), _tensor(rng, 2, 4, 5, 7)
    expected = _eager(model, x)
    compiled = numbanet.compile(model, x, release_weights=True)
    for _ in range(2):
        _close(compiled(x).numpy(), expected)
    assert not model.first.bias.backend.is_released             # each replay sums it


def test_samples_that_depend_on_each_other(rng):
    class Centred(nn.Module):
        def __init__(self):
            super().__init__()
            self.of = nn.Linear(5, 3)

        def forward(self, x):
            y = self.of(x)
            return y - y.mean(0)
    model, x = Centred(), _tensor(rng, 4, 5)
    expected = _eager(model, x)
    compiled = numbanet.compile(model, x, release_weights=True)
    _close(compiled(x).numpy(), expected)
    with pytest.raises(UsageError, match="samples depend on each other, so it takes the batch size of its example alone"):
        compiled(x[:3])


def test_it_is_for_inference(rng):
    model, x = _model(), _tensor(rng, 2, 3, 8, 6)
    with pytest.raises(UsageError, match="release_weights is for inference"):
        numbanet.compile(model, x, loss=F.cross_entropy, optimizer=numbanet.optim.SGD(model.parameters(), lr=0.1), release_weights=True)
    assert not model[0].weight.backend.is_released


def test_what_only_training_reads_goes_first(rng):
    class WithHead(nn.Module):
        def __init__(self):
            super().__init__()
            self.of, self.head = nn.Linear(6, 4), nn.Linear(6, 50)
            self.again, self.head.bias = self.of, nn.Parameter(self.of.bias.detach())
            self.alias = nn.Linear(6, 4)
            self.alias.weight = self.of.weight

        def forward(self, x):
            return (self.of(x), self.head(x)) if self.training else self.of(x)
    model, x = WithHead(), _tensor(rng, 3, 6)
    expected = _eager(model, x)
    head = weakref.ref(model.head.weight.array.base)
    compiled = numbanet.compile(model, x, release_weights=True)
    gc.collect()
    assert head() is None and model.head.weight.backend.is_released and model.alias.bias.backend.is_released
    for _ in range(2):
        _close(compiled(x).numpy(), expected)


def test_slices_of_different_sizes(rng, monkeypatch):
    """Only one plan can let go of weights: the last slice is filled up."""
    model = _model()
    model(_tensor(rng, 8, 3, 8, 6))
    x = _tensor(rng, 5, 3, 8, 6)
    expected = _eager(model, x)
    monkeypatch.setattr(type(model[0].weight.backend), "samples_at_once", lambda *_: 2)
    compiled = numbanet.compile(model, x, release_weights=True)
    for rows in (5, 4, 1):
        _close(compiled(x[:rows]).numpy(), expected[:rows])


def test_folding_needs_no_second_copy(rng):
    """Each weight goes as soon as it is folded, before what was folded is packed."""
    model, alive = _model(), []
    array = weakref.ref(model[0].weight.array.base)
    backend = model[0].weight.backend
    pack = backend.prepare

    def prepare(primitive, arguments, *rest):
        alive.append(array() is not None)
        return pack(primitive, arguments, *rest)
    backend.prepare = prepare
    try:
        numbanet.compile(model, _tensor(rng, 16, 3, 8, 6), release_weights=True)
    finally:
        del backend.prepare
    assert alive and not alive[0]


def _linear(rng, filters=64):
    model = nn.Sequential(nn.Linear(20, filters), nn.ReLU(), nn.Linear(filters, 7))
    return model, _tensor(rng, 40, 20)


def _block(array):
    return array.__array_interface__["data"][0]


def _packed_where(compiled):
    """The addresses of what prepared linear layers hold."""
    return {_block(cell.cell_contents.value) for function, _ in compiled.plan()._steps for cell in function.__closure__ or ()
            if hasattr(cell.cell_contents, "value")}


def test_a_linear_layer_is_packed_in_its_own_memory(rng):
    model, x = _linear(rng)
    expected, place = _eager(model, x), _block(model[0].weight.array)
    compiled = numbanet.compile(model, x, release_weights=True)
    assert place in _packed_where(compiled)
    for _ in range(2):
        _close(compiled(x).numpy(), expected)


def test_memory_that_somebody_else_reads_is_not_packed_in(rng):
    model, x = _linear(rng)
    other = nn.Linear(20, 64)
    view, other.weight = model[0].weight.detach(), model[0].weight
    before, expected, place = view.numpy().copy(), _eager(model, x), _block(view.array)
    compiled = numbanet.compile(model, x, release_weights=True)
    _close(compiled(x).numpy(), expected)
    np.testing.assert_array_equal(view.numpy(), before)
    assert place not in _packed_where(compiled)
    model, x = _linear(rng)
    expected, place = _eager(model, x), _block(model[0].weight.array)
    compiled = numbanet.compile(model, x)
    compiled(x)
    assert place not in _packed_where(compiled)             # the model keeps its weights
    _close(_eager(model, x), expected)
