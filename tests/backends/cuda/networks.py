"""Whole networks on the CUDA backend in Numba's simulator: run by `test_networks.py` in a process of its own.

By hand: NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/backends/cuda/networks.py
"""

from __future__ import annotations

import copy
import sys

import numpy as np
import pytest

import numbanet
from numbanet import nn
from numbanet.nn import functional as F
from tests.graph.test_compile import Branches


@pytest.fixture(autouse=True, scope="module")
def short_turns():
    """Simulated threads of a block wait for one another: they take turns sooner."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


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
                                  lambda p: numbanet.optim.AdamW(p, lr=1e-2)], ids=["sgd", "adamw"])
def test_a_compiled_training_step_is_the_eager_one(branches, make):
    """Losses, parameters and running statistics, bit for bit, after two steps."""
    model, *batch = branches
    eager, x, labels = model.to("cuda"), *[t.to("cuda") for t in batch]
    compiled = copy.deepcopy(eager)
    theirs, mine = make(eager.parameters()), make(compiled.parameters())
    step = numbanet.compile(compiled, (x, labels), loss=F.cross_entropy, optimizer=mine)
    losses = []
    numbanet.manual_seed(6)
    for _ in range(2):
        theirs.zero_grad()
        loss = F.cross_entropy(eager(x), labels)
        loss.backward()
        theirs.step()
        losses.append(loss.item())
    numbanet.manual_seed(6)
    assert losses == [step(x, labels).item() for _ in range(2)]
    for (name, a), b in zip(eager.state_dict().items(), compiled.state_dict().values(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=name)
