"""`weights="bfloat16"`: large linear layers by rounded weights, all else as it is."""

import numpy as np
import pytest

import numbanet
from numbanet import nn
from numbanet.errors import UsageError
from numbanet.graph.passes import FOR_INFERENCE, round_linear_weights
from numbanet.graph.trace import trace
from numbanet.nn import functional as F


@pytest.fixture(autouse=True)
def seeded():
    """Where weights happen to make small logits, their relative errors are large."""
    numbanet.manual_seed(3)


class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution, self.large, self.small = nn.Conv2d(3, 8, 3), nn.Linear(8 * 36, 4096), nn.Linear(4096, 10)

    def forward(self, x):
        return self.small(F.relu(self.large(F.relu(self.convolution(x)).flatten(1))))


def test_the_pass_before_and_after(backend):
    model, x = Wide().to(backend).eval(), numbanet.randn(2, 3, 8, 8, device=backend)
    graph = trace(model, x)
    for rewrite in FOR_INFERENCE:
        rewrite(graph)
    before = graph.primitives()
    round_linear_weights(graph)
    assert [n for n in before if n.startswith("linear")] == ["linear_fused", "linear_forward"]
    assert [n for n in graph.primitives() if n.startswith("linear")] == ["linear_fused_bfloat16", "linear_forward"]    # 4096 x 10 are few
    exact = model(x).detach().numpy()
    error = np.linalg.norm(graph.run(x).numpy() - exact) / np.linalg.norm(exact)
    assert 1e-5 < error < 4e-3                                  # 8 significant bits


def test_an_activation_that_was_fused_stands_apart_again(rng):
    model = nn.Sequential(nn.Linear(256, 4096), nn.GELU(), nn.Linear(4096, 3), nn.GELU()).eval()
    x = numbanet.tensor(rng.standard_normal((2, 256)).astype(np.float32))
    compiled = numbanet.compile(model, x, weights="bfloat16")
    assert compiled.plan().graph.primitives() == ["linear_fused_bfloat16", "gelu_forward", "linear_activated"]
    with numbanet.no_grad():
        exact = model(x).numpy()
    assert 1e-5 < np.linalg.norm(compiled(x).numpy() - exact) / np.linalg.norm(exact) < 8e-3


@pytest.mark.parametrize("batch", [1, 2, 5, 17])
def test_logits(batch, rng):
    model = Wide().eval()
    x = numbanet.tensor(rng.standard_normal((batch, 3, 8, 8)).astype(np.float32))
    compiled = numbanet.compile(model, x[:1], weights="bfloat16")
    with numbanet.no_grad():
        exact = model(x).numpy()
    received = compiled(x).numpy()
    assert 1e-5 < np.linalg.norm(received - exact) / np.linalg.norm(exact) < 4e-3
    with numbanet.no_grad():
        model.large.weight.mul_(2.0)                            # noticed, and rounded again
        np.testing.assert_allclose(compiled(x).numpy(), model(x).numpy(), rtol=0, atol=0.02 * np.abs(model(x).numpy()).max())


def test_it_is_asked_for_by_name_and_for_inference():
    model, x = Wide(), numbanet.zeros(1, 3, 8, 8)
    for weights in ("bf16", "float16", True):
        with pytest.raises(UsageError, match="weights expects None or, for inference, 'bfloat16'"):
            numbanet.compile(model, x, weights=weights)
    with pytest.raises(UsageError, match="for inference"):
        numbanet.compile(model, x, weights="bfloat16", loss=F.cross_entropy, optimizer=numbanet.optim.SGD(model.parameters()))
    assert "linear_fused_bfloat16" not in numbanet.compile(model, x).plan().graph.primitives()
