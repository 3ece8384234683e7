"""Whole networks on the CUDA backend, where the PTX of every kernel is executed: run by `test_networks.py` in a process of its own.

By hand: python -m tests.backends.cuda.executed -q tests/backends/cuda/networks.py
"""

from __future__ import annotations

import copy

import numpy as np
import pytest

import numbanet
from numbanet import nn
from numbanet.backends.cuda import constants
from numbanet.backends.cuda.recording import Program
from numbanet.errors import IndexRangeError
from numbanet.nn import functional as F
from tests.graph.test_compile import Branches

STEPS = 3


def _close(received, expected, tolerance=1e-5):
    for name in expected:
        scale = np.abs(expected[name]).max() or 1.0
        np.testing.assert_allclose(received[name], expected[name], rtol=0, atol=tolerance * scale, err_msg=name)


def _trained(model, device, x, labels) -> dict[str, np.ndarray]:
    """One step of training on a device: the loss, all gradients, and what the step made of the state."""
    model = copy.deepcopy(model).to(device)
    optimizer = numbanet.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loss = F.cross_entropy(model(x.to(device)), labels.to(device))
    loss.backward()
    result = {"loss": loss.detach().numpy(), **{f"gradient of {name}": p.grad.numpy() for name, p in model.named_parameters()}}
    optimizer.step()
    return {**result, **{name: value.numpy() for name, value in model.state_dict().items()}}


def _step_agrees(model, x, rng):
    """Outputs, gradients and one step of training against the reference."""
    labels = numbanet.tensor(rng.integers(0, 10, x.shape[0]))
    with numbanet.no_grad():
        outputs = [copy.deepcopy(model).to(device)(x.to(device)).numpy() for device in ("cuda", "reference")]
    _close(*({"outputs": o} for o in outputs))
    _close(_trained(model, "cuda", x, labels), _trained(model, "reference", x, labels))


def test_a_small_lenet(rng):
    """The layers of LeNet-5 in its order, on digits of 12 x 12."""
    numbanet.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 5, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                          nn.Linear(20, 12), nn.ReLU(), nn.Linear(12, 11), nn.ReLU(), nn.Linear(11, 10))
    _step_agrees(model, numbanet.tensor(rng.standard_normal((2, 1, 12, 12)).astype(np.float32)), rng)


@pytest.mark.full
def test_lenet5(rng):
    numbanet.manual_seed(3)
    _step_agrees(numbanet.create_model("lenet5"), numbanet.tensor(rng.standard_normal((2, 1, 32, 32)).astype(np.float32)), rng)


@pytest.fixture
def branches(rng):
    """A network with concatenations, a residual, batch norm and dropout, and a batch for it."""
    numbanet.manual_seed(4)
    model = Branches()
    x = numbanet.tensor(rng.standard_normal((3, 3, 8, 6)).astype(np.float32) + 2)
    model(x)                                            # statistics that are not the initial ones
    return model, x, numbanet.tensor(rng.integers(0, 10, 3))


def test_a_training_step_of_a_network_with_batch_norm(branches):
    results = []
    for device in ("cuda", "reference"):
        numbanet.manual_seed(5)                         # of dropout, which draws the same everywhere
        results.append(_trained(branches[0], device, *branches[1:]))
    _close(*results, tolerance=5e-5)


def test_a_compiled_model(branches):
    model, x, _ = branches
    compiled = numbanet.compile(copy.deepcopy(model).to("cuda"), x.to("cuda"))
    assert {"conv2d_fused", "max_pool2d_values"} & set(compiled.plan().graph.primitives())
    for part in (x, x[:1]):
        with numbanet.no_grad():
            expected = copy.deepcopy(model).to("reference").eval()(part.to("reference")).numpy()
        _close({"outputs": compiled(part.to("cuda")).numpy()}, {"outputs": expected})


@pytest.mark.parametrize("make", [lambda p: numbanet.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
                                  pytest.param(lambda p: numbanet.optim.AdamW(p, lr=1e-2), marks=pytest.mark.full)], ids=["sgd", "adamw"])
def test_a_compiled_training_step_is_the_eager_one(branches, make):
    """Losses, parameters and running statistics, bit for bit: at first, as recorded calls, and as a graph."""
    model, *batch = branches
    eager, x, labels = model.to("cuda"), *[t.to("cuda") for t in batch]
    compiled = copy.deepcopy(eager)
    theirs, mine = make(eager.parameters()), make(compiled.parameters())
    step = numbanet.compile(compiled, (x, labels), loss=F.cross_entropy, optimizer=mine)
    losses = []
    numbanet.manual_seed(6)
    for _ in range(STEPS):
        theirs.zero_grad()
        loss = F.cross_entropy(eager(x), labels)
        loss.backward()
        theirs.step()
        losses.append(loss.item())
    numbanet.manual_seed(6)
    seen, found = [], []
    step.on_gradient(seen.append)
    for _ in range(STEPS):
        found.append(step(x, labels).item())
        junk = [numbanet.full((n,), float("nan"), device="cuda") for n in (1, 100, 1000, 10000)]       # what replays use is not free
        del junk
    assert found == losses and len(seen) == STEPS * len(list(compiled.parameters()))
    programs = [function for function, _ in step.plan()._joined if isinstance(function, Program)]
    assert programs and all(program._graph is not None for program in programs)
    assert len(programs) == 1 and len(step.plan()._joined) - len(seen) // STEPS == 1, "dropout is no call of its own"
    for (name, a), b in zip(eager.state_dict().items(), compiled.state_dict().values(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=name)


def test_replays_draw_what_eager_runs_draw(rng):
    """Keys are in the GPU's memory: each replay, as calls and as a graph, has new masks, and those of an eager run."""
    model = nn.Sequential(nn.Dropout(0.3), nn.Linear(5, 8), nn.Dropout(0.5), nn.Linear(8, 4)).to("cuda").train()
    x, y = (numbanet.tensor(rng.standard_normal(shape).astype(np.float32), device="cuda") for shape in ((3, 5), (3, 4)))

    def loss(output, wanted):
        return (output * wanted).square().sum()
    step = numbanet.compile(model, (x, y), loss=loss, optimizer=numbanet.optim.SGD(model.parameters(), lr=0.0))
    results = {}
    for name, run in (("eager", lambda: loss(model(x), y)), ("compiled", lambda: step(x, y))):
        numbanet.manual_seed(12)
        results[name] = [run().item() for _ in range(4)]
    assert results["compiled"] == results["eager"] and len(set(results["eager"])) == 4
    program, = [function for function, _ in step.plan()._joined if isinstance(function, Program)]
    assert program._graph is not None and len(program._keys) == 3, "one dropout forward, one forward and backward"


def test_replays_see_new_inputs_and_new_weights(rng):
    numbanet.manual_seed(5)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 5)).to("cuda").eval()
    inputs = [numbanet.tensor(rng.standard_normal((2, 2, 6, 6)).astype(np.float32), device="cuda") for _ in range(4)]
    compiled = numbanet.compile(model, inputs[0])
    results = []
    for x in inputs:
        kept = x.numpy().copy()
        results.append(compiled(x))
        np.testing.assert_array_equal(x.numpy(), kept)
    with numbanet.no_grad():
        for x, result in zip(inputs, results):          # they have memory of their own
            np.testing.assert_allclose(result.numpy(), model(x).numpy(), rtol=0, atol=1e-5)
        model[0].weight.mul_(2.0)
        model[3].weight.mul_(-1.0)
        np.testing.assert_allclose(compiled(inputs[1]).numpy(), model(inputs[1]).numpy(), rtol=0, atol=1e-5)


def test_a_wrong_label_is_an_error_in_every_replay(rng):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).to("cuda")
    x, labels = (numbanet.tensor(a, device="cuda") for a in (np.ones((2, 4), np.float32), np.array([0, 2])))
    step = numbanet.compile(model, (x, labels), loss=F.cross_entropy, optimizer=numbanet.optim.SGD(model.parameters(), lr=0.1))
    for _ in range(3):
        with pytest.raises(IndexRangeError, match=r"cross_entropy: target.1. is 3, expected"):
            step(x, labels + 1)
        before = model[1].weight.detach().numpy().copy()
        assert np.isfinite(step(x, labels).item()) and not np.array_equal(before, model[1].weight.detach().numpy())


def test_a_learning_rate_that_changes_between_replays(rng):
    """It is the optimiser's, which is no part of the plan."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).to("cuda")
    twin = copy.deepcopy(model)
    x, labels = (numbanet.tensor(a, device="cuda") for a in (rng.standard_normal((2, 4)).astype(np.float32), np.array([0, 2])))
    optimizers = [numbanet.optim.SGD(m.parameters(), lr=0.5) for m in (model, twin)]
    step = numbanet.compile(model, (x, labels), loss=F.cross_entropy, optimizer=optimizers[0])
    for rate in (0.5, 0.25, 0.125, 2.0):
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = rate
        step(x, labels)
        optimizers[1].zero_grad()
        F.cross_entropy(twin(x), labels).backward()
        optimizers[1].step()
    np.testing.assert_array_equal(model[1].weight.detach().numpy(), twin[1].weight.detach().numpy())


def test_memory_of_a_dropped_plan_goes_back():
    import gc
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3)).to("cuda")
    x, labels = numbanet.ones(2, 3, 6, 6, device="cuda"), numbanet.zeros(2, dtype=numbanet.int64, device="cuda")
    optimizer = numbanet.optim.SGD(model.parameters(), lr=0.1)
    used = []
    for _ in range(3):
        step = numbanet.compile(model, (x, labels), loss=F.cross_entropy, optimizer=optimizer)
        for _ in range(3):
            step(x, labels)
        del step
        optimizer.zero_grad()
        gc.collect()
        constants.forget()                              # tables of addresses, of which so many are kept
        used.append(numbanet.cuda.memory_allocated())
    assert used[1] == used[2]


# Mixed precision

def _mixed(rng, activation=nn.ReLU):
    numbanet.manual_seed(8)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), activation(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(54, 7))
    x = numbanet.tensor(rng.standard_normal((4, 3, 8, 8)).astype(np.float32), device="cuda")
    return model.to("cuda"), x, numbanet.tensor(rng.integers(0, 7, 4), device="cuda")


# Where bfloat16 rounds a map across 0, a ReLU lets another gradient pass: a smooth activation shows the rounding alone.
@pytest.mark.parametrize("precision, activation, tolerance", [("bf16", nn.SiLU, 3e-2), ("fp16", nn.ReLU, 4e-3)])
def test_mixed_precision_is_near_float32_and_compiled_is_eager(rng, precision, activation, tolerance):
    model, x, labels = _mixed(rng, activation)
    dtype = numbanet.dtypes.as_dtype(numbanet.amp.PRECISIONS[precision])
    exact = copy.deepcopy(model)
    F.cross_entropy(exact(x), labels).backward()
    eager, scaler = copy.deepcopy(model), numbanet.amp.GradScaler(init_scale=1024.0, enabled=precision == "fp16")
    with numbanet.autocast("cuda", dtype):
        assert eager[:2](x).dtype == dtype and numbanet.amp.is_autocast_enabled()
        with numbanet.autocast("cuda", enabled=False):
            assert eager[0](x).dtype == np.float32
    eager = copy.deepcopy(model)
    mine = numbanet.optim.SGD(eager.parameters(), lr=0.1)
    with numbanet.autocast("cuda", dtype):
        loss = F.cross_entropy(eager(x), labels)
    assert loss.dtype == np.float32
    scaler.scale(loss).backward()
    scaler.unscale_(mine)
    for (name, p), q in zip(eager.named_parameters(), exact.parameters()):
        assert p.dtype == p.grad.dtype == np.float32
        wanted = q.grad.numpy()
        assert np.linalg.norm(p.grad.numpy() - wanted) <= tolerance * np.linalg.norm(wanted) + 1e-6, name
        assert name.endswith("bias") or not np.array_equal(p.grad.numpy(), wanted), name
    theirs = numbanet.optim.SGD(model.parameters(), lr=0.1)
    options = {"scaler": numbanet.amp.GradScaler(init_scale=1024.0)} if precision == "fp16" else {}
    step = numbanet.compile(model, (x, labels), loss=F.cross_entropy, optimizer=theirs, precision=precision, **options)
    found = step(x, labels).item()
    scaler.step(mine)
    scaler.update()
    assert found == pytest.approx(loss.item(), rel=1e-3)
    for (name, p), q in zip(model.named_parameters(), eager.named_parameters()):
        np.testing.assert_allclose(p.detach().numpy(), q[1].detach().numpy(), rtol=0, atol=2e-3, err_msg=name)
    inference = numbanet.compile(model, x, precision=precision)
    with numbanet.no_grad(), numbanet.autocast("cuda", dtype):
        np.testing.assert_allclose(inference(x).numpy().astype(np.float32), model.eval()(x).numpy().astype(np.float32), rtol=0, atol=0.05)


def test_an_update_whose_gradients_overflow_is_skipped(rng):
    """In float16, with a scale that is far too large: it falls until the gradients are finite, and the parameters stay until then."""
    model, x, labels = _mixed(rng)
    optimizer = numbanet.optim.SGD(model.parameters(), lr=0.1)
    scaler = numbanet.amp.GradScaler(init_scale=2.0**24, backoff_factor=2.0**-6, growth_interval=2)
    step = numbanet.compile(model, (x, labels), loss=F.cross_entropy, optimizer=optimizer, precision="fp16", scaler=scaler)
    scales, changed = [], []
    for _ in range(5):
        before = model[5].weight.detach().numpy().copy()
        assert np.isfinite(step(x, labels).item())
        scales.append(scaler.get_scale())
        changed.append(not np.array_equal(before, model[5].weight.detach().numpy()))
        assert np.isfinite(model[0].weight.detach().numpy()).all()
    assert not changed[0] and changed[-1] and scales[0] == 2.0**18
    first = changed.index(True)
    assert scales[first + 1] == 2 * scales[first], "two updates that were made: the scale grows"


def test_the_trainer_takes_a_precision(rng):
    model, x, labels = _mixed(rng)
    for compiled in (True, False):
        trained = copy.deepcopy(model)
        trainer = numbanet.train.Trainer(trained, optimizer=numbanet.optim.SGD(trained.parameters(), lr=0.05), compiled=compiled,
                                         precision="fp16")
        trainer.fit([(x, labels)] * 2, epochs=1)
        state = trainer.state_dict()
        assert state["scaler"]["scale"] == 65536.0 and state["scaler"]["_growth_tracker"] + 2 * (trainer.scaler.get_scale() < 65536) == 2
        assert not np.array_equal(trained[5].weight.detach().numpy(), model[5].weight.detach().numpy())


# Data

def test_batches_come_ahead_on_the_device(rng):
    """In order, on the GPU, each begun before the one before is handed out; leaving the loop early, and going on amid an epoch."""
    asked, values = [], rng.standard_normal((7, 3)).astype(np.float32)

    class Rows:
        def __len__(self):
            return 7

        def __getitem__(self, i):
            asked.append(i)
            return values[i], i
    loader = numbanet.data.DataLoader(Rows(), 2, pin_memory=True, pin_memory_device="cuda:1")
    seen = []
    for x, index in loader:
        assert x.device == index.device == "cuda:1"
        np.testing.assert_array_equal(x.numpy(), values[index.numpy()])
        assert len(asked) == min(7, 2 * len(seen) + 4), "one batch ahead"
        seen.append(index.tolist())
        assert loader.position == len(seen)
    assert seen == [[0, 1], [2, 3], [4, 5], [6]]
    for _ in loader:
        break
    loader.set_epoch(3, 2)
    assert [index.tolist() for _, index in loader] == seen[2:]
    workers = numbanet.data.DataLoader(Rows(), 2, num_workers=2, pin_memory=True, pin_memory_device="cuda")
    assert [index.tolist() for _, index in workers] == seen



def test_clipping_does_not_hide_gradients_that_overflow(rng):
    model, x, labels = _mixed(rng)
    before = [p.detach().numpy().copy() for p in model.parameters()]
    trainer = numbanet.train.Trainer(model, optimizer=numbanet.optim.SGD(model.parameters(), lr=0.05), compiled=False, precision="fp16",
                                     clip_value=0.1)
    trainer.scaler.update(2.0**40)
    trainer.fit([(x, labels)], epochs=1)
    assert trainer.scaler.get_scale() == 2.0**39
    for p, old in zip(model.parameters(), before):
        np.testing.assert_array_equal(p.detach().numpy(), old)
