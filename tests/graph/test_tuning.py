"""`autotune`: every algorithm that is offered computes the same thing; what is chosen is kept, used, and goes on with a run."""

import copy
import json

import numpy as np
import pytest

import numbanet
from numbanet import nn
from numbanet.backends import get_backend
from numbanet.errors import CheckpointError, UsageError
from numbanet.geometry import conv_geometry
from numbanet.graph import tuning
from numbanet.graph.plan import Plan
from numbanet.graph.timing import TimedStep
from numbanet.nn import functional as F
from numbanet.train import Trainer
from tests.cases.case import channels_last, floats

CPU, REFERENCE = get_backend("cpu"), get_backend("reference")
GEOMETRIES = {"three": (6, conv_geometry(40, 36, (15, 14), (3, 3), padding=1)), "strided": (2, conv_geometry(20, 33, (9, 8), (3, 3), 2, 1)),
              "pointwise": (3, conv_geometry(130, 128, (5, 4), (1, 1))), "five": (4, conv_geometry(33, 48, (11, 12), (5, 5), padding=2)),
              "grouped": (2, conv_geometry(24, 36, (7, 9), (3, 3), padding=1, groups=3)),
              "first": (2, conv_geometry(3, 20, (13, 12), (3, 3), padding=1)),
              "one-channel": (3, conv_geometry(1, 6, (28, 27), (5, 5))), "few": (2, conv_geometry(6, 16, (14, 14), (5, 5))),
              "whole": (3, conv_geometry(12, 20, (5, 4), (5, 4))),
              "depthwise": (2, conv_geometry(20, 20, (9, 9), (3, 3), padding=1, groups=20))}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "cache_root", lambda: tmp_path)
    return tmp_path / "choices"


def _calls(rng, batch, g):
    x, weight, bias = channels_last(floats(rng, batch, g.channels, *g.input_size)), floats(rng, *g.weight_shape), floats(rng, g.filters)
    y = channels_last(floats(rng, batch, g.filters, *g.output_size))
    yield "conv2d_forward", (x, weight, bias, g)
    yield "conv2d_forward", (x, weight, None, g)
    yield "conv2d_fused", (x, weight, bias, y, g, -1.0, 3.0)
    yield "conv2d_backward_input", (y, weight, g)
    yield "conv2d_backward_input_added", (y, weight, x, g)
    yield "conv2d_backward_weight", (y, x, g)


@pytest.mark.parametrize("label", GEOMETRIES)
def test_every_candidate_computes_the_same(label, rng):
    batch, g = GEOMETRIES[label]
    count = 0
    for primitive, arguments in _calls(rng, batch, g):
        for constant in (frozenset(), frozenset({1, 2})) if primitive in ("conv2d_forward", "conv2d_fused") else (frozenset(),):
            exact = getattr(REFERENCE, primitive)(*(a.astype(np.float64) if isinstance(a, np.ndarray) else a for a in arguments))
            for name in CPU.candidates(primitive, arguments, constant):
                call = CPU.prepare(primitive, arguments, constant, name)
                out = np.full(exact.shape, np.nan, np.float32)
                out = channels_last(out) if out.shape[-1] != g.kernel_size[1] or primitive != "conv2d_backward_weight" else out
                given = [None if i in getattr(call, "unread", ()) else a for i, a in enumerate(arguments)]
                call(*given, out)
                assert np.linalg.norm(out - exact) < 2e-5 * np.linalg.norm(exact), (primitive, name)
                assert call.kernel == f"conv2d {name}"
                if primitive in ("conv2d_forward", "conv2d_fused") and constant:
                    again = channels_last(np.full(exact.shape, np.nan, np.float32))
                    ((program, _),) = CPU.joined([(call, [*given, again])] * 2, [])
                    program()
                    np.testing.assert_array_equal(again, out)
                count += 1
    assert count > 0 or label in ("depthwise", "strided")


def test_panels_are_offered_where_a_window_covers_the_map(rng):
    batch, g = GEOMETRIES["whole"]
    for primitive, arguments in _calls(rng, batch, g):
        if len(arguments) in (3, 4) and primitive != "conv2d_backward_input_added":
            assert "gather" in CPU.candidates(primitive, arguments, frozenset()), primitive


def test_precision_forbids_candidates(rng):
    batch, g = GEOMETRIES["three"]
    (name, arguments), *_ = _calls(rng, batch, g)
    assert "gather" in CPU.candidates(name, arguments, frozenset())         # Winograd's is the own choice
    numbanet.set_float32_precision("strict")
    try:
        assert CPU.candidates(name, arguments, frozenset()) == ()
        assert CPU.prepare(name, arguments, frozenset({1, 2}), "winograd").kernel == "conv2d gather"
    finally:
        numbanet.set_float32_precision("fast")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 36, 3, padding=1), nn.BatchNorm2d(36), nn.ReLU(), nn.Conv2d(36, 36, 3, padding=1), nn.ReLU(),
                                  nn.Conv2d(36, 36, 3, padding=1))
        self.head = nn.Linear(36, 5)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


@pytest.fixture
def favour(monkeypatch):
    """Time is what the test says: each node takes 1 s, "gather" half of it."""
    def timed(steps, nodes, backend):
        found = []
        for (function, arguments), node in zip(steps, nodes, strict=True):
            function(*arguments)
            seconds = 0.5 if getattr(function, "kernel", "") == "conv2d gather" else 1.0
            found.append(TimedStep(node, getattr(function, "kernel", ""), 0.0, seconds))
        return found
    monkeypatch.setattr(tuning, "timed", timed)


def _data(batch=8):
    return numbanet.randn(batch, 3, 16, 16), numbanet.tensor(np.arange(batch) % 5)


def test_what_is_faster_is_kept_and_used(favour, folder):
    numbanet.manual_seed(0)
    model, (x, _) = Net().eval(), _data()
    own = numbanet.compile(model, x)
    found = numbanet.autotune(model, x)
    assert own.choices == {} and {c.choice for c in found.calls} == {"gather"}
    assert "gather (default 1000.000 ms, gather 500.000 ms, winograd 2x2 1000.000 ms)" in str(found)
    again = numbanet.compile(model, x)
    assert again.choices == found.choices != {} and "[gather]" in again.describe() and "[gather]" not in own.describe()
    assert numbanet.compile(model, x, choices={}).choices == {}
    np.testing.assert_allclose(again(x).numpy(), own(x).numpy(), rtol=1e-4, atol=1e-5)
    assert not np.array_equal(again(x).numpy(), own(x).numpy())             # another algorithm, other roundings
    numbanet.set_float32_precision("strict")
    try:
        assert np.array_equal(numbanet.compile(model, x)(x).numpy(), numbanet.compile(model, x, choices={})(x).numpy())
    finally:
        numbanet.set_float32_precision("fast")
    file, = folder.glob("cpu-*.json")
    assert json.loads(file.read_text()) == found.choices
    for damage in ("", "[1]", '{"a": 1}', "{" * 5000):
        file.write_text(damage)
        assert numbanet.compile(model, x).choices == {}
    assert numbanet.autotune(model, x).choices == found.choices             # writes it anew


def test_tuning_changes_nothing_of_the_model(favour):
    model, (x, y) = Net(), _data()
    optimizer = numbanet.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    numbanet.compile(model, (x, y), loss=F.cross_entropy, optimizer=optimizer, choices={})(x, y)
    before, gradients = {k: t.numpy().copy() for k, t in model.state_dict().items()}, [p.grad for p in model.parameters()]
    random = numbanet.get_rng_state()
    found = numbanet.autotune(model, (x, y), loss=F.cross_entropy, optimizer=optimizer)
    assert {c.signature.partition("(")[0] for c in found.calls if c.choice} >= {"conv2d_backward_weight"}
    assert all(p.grad is g for p, g in zip(model.parameters(), gradients)) and numbanet.get_rng_state() == random
    for name, t in model.state_dict().items():
        np.testing.assert_array_equal(t.numpy(), before[name], err_msg=name)


def test_noise_chooses_nothing():
    assert tuning._best({None: 1.0, "gather": 0.98}) is None and tuning._best({None: 1.0, "gather": 0.9, "scatter": 0.8}) == "scatter"
    assert tuning._best({None: 1.0, "gather": 1.5}) is None


def test_real_measurements_end_in_a_plan(rng):
    model, (x, y) = Net(), _data(3)
    found = numbanet.autotune(model, (x, y), loss=F.cross_entropy, optimizer=numbanet.optim.SGD(model.parameters()))
    assert found.calls and all(min(c.ms.values()) > 0 and None in c.ms and len(c.ms) > 1 for c in found.calls)


def test_a_backend_without_alternatives():
    model = nn.Conv2d(2, 3, 3).to("reference")
    found = numbanet.autotune(model, numbanet.zeros(1, 2, 5, 5, device="reference"))
    assert found.calls == [] and found.choices == {} and str(found).startswith("0 calls")


def test_choices_are_a_table_of_names(folder, monkeypatch):
    with pytest.raises(UsageError, match="choices expects a dict"):
        numbanet.compile(nn.Linear(2, 2), numbanet.zeros(1, 2), choices=["gather"])
    folder.write_text("a file where the folder should be")
    with pytest.raises(CheckpointError, match="NUMBANET_CACHE_DIR|cannot be written"):
        numbanet.autotune(nn.Linear(2, 2), numbanet.zeros(1, 2))


def _trainer(model):
    return Trainer(model, nn.CrossEntropyLoss(), numbanet.optim.SGD(model.parameters(), lr=0.05))


def test_checkpoints_hold_the_choices(favour, folder):
    numbanet.manual_seed(0)
    model, batches = Net(), [_data() for _ in range(2)]
    first = _trainer(model)
    tuned = copy.deepcopy(model)
    numbanet.autotune(tuned, batches[0], loss=F.cross_entropy, optimizer=numbanet.optim.SGD(tuned.parameters()))
    first.fit(batches, epochs=1)
    state = copy.deepcopy(first.state_dict())
    assert state["choices"] and set(state["choices"].values()) == {"gather"}
    first.fit(batches, epochs=2)
    for file in folder.glob("*.json"):
        file.unlink()                                                       # another machine
    other = _trainer(Net())
    other.load_state_dict(state)
    other.fit(batches, epochs=2)
    for (name, a), b in zip(first.model.state_dict().items(), other.model.state_dict().values(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=name)
    state.pop("choices")                                                    # a checkpoint of before: the backend's own choices
    other.load_state_dict(state)
    assert other.steps.choices() == {}
    with pytest.raises(CheckpointError, match="choices"):
        other.load_state_dict({**state, "choices": [1]})


def test_signatures_are_of_shapes_and_strides():
    plan = numbanet.compile(Net().eval(), numbanet.zeros(8, 3, 16, 16), choices={}).plan()
    assert isinstance(plan, Plan)
    signature = max(plan.offers(), key=len)
    assert signature.startswith("conv2d_fused(float32[8x36x16x16]/9216x1x576x36, float32[36x36x3x3]/324x9x3x1!, float32[36]/1!")
