"""`memory_limit=`: less memory for maps, the same bits, and an error that says the least possible."""

import copy

import numpy as np
import pytest

import numbanet
from numbanet import nn
from numbanet.errors import MemoryLimitError, UsageError
from numbanet.graph.passes import recompute
from numbanet.graph.plan import layout_of
from numbanet.nn import functional as F


class Dense(nn.Module):
    """Concatenations whose parts are read alone as well, residuals, batch norm, dropout, views, a map that two losses read."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.left, self.right = nn.Conv2d(8, 5, 1), nn.Conv2d(8, 7, 3, padding=1)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(12, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)) for _ in range(5)])
        self.norm, self.last = nn.BatchNorm2d(24), nn.Conv2d(24, 6, 3, stride=2)
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(6 * 5 * 4, 10))

    def forward(self, x):
        x = self.stem(x)
        left, right = self.left(x), F.relu(self.right(x))
        x = first = numbanet.cat([left, right], 1)
        for block in self.blocks:
            x = F.relu(block(x) + x)
        x = F.relu(self.norm(numbanet.cat([x, first], 1)))
        return self.head(F.max_pool2d(F.relu(self.last(x)), 2, 1)) + left.mean() + F.silu(right).mean()


def _step(model, limit=None):
    optimizer = numbanet.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    x, y = numbanet.randn(6, 3, 13, 11, device=_device(model)), numbanet.tensor([0, 1, 2, 3, 4, 9], device=_device(model))
    return numbanet.compile(model, (x, y), loss=F.cross_entropy, optimizer=optimizer, memory_limit=limit), x, y


def _device(model):
    return next(model.parameters()).device


def _results(model, limit=None):
    numbanet.manual_seed(3)
    step, x, y = _step(model, limit)
    losses = [step(x, y).item() for _ in range(3)]
    return step.plan(), losses, {name: t.numpy() for name, t in model.state_dict().items()}


def test_the_same_bits_within_every_limit(backend):
    numbanet.manual_seed(0)
    model = Dense().to(backend)
    plan, losses, state = _results(copy.deepcopy(model))
    gradients = sum(v.nbytes for v in plan.kept)
    least = _least(Dense().to(backend))
    assert least - gradients < 0.9 * plan.layout.size
    for share in (0.9, 0.5, 0.2, 0.0):
        limit = least + int(share * (plan.nbytes - least))
        limited, received, after = _results(copy.deepcopy(model), limit)
        assert limited.nbytes <= limit and received == losses
        for name, expected in state.items():
            np.testing.assert_array_equal(after[name], expected, err_msg=name)
        assert len(limited.graph.nodes) > len(plan.graph.nodes)
        assert limited.graph.primitives().count("running_average_update") == plan.graph.primitives().count("running_average_update")


def _least(model) -> int:
    with pytest.raises(MemoryLimitError, match=r"memory_limit is 1,000 bytes, but a step on inputs of shape \[6, 3, 13, 11\], \[6\] takes "
                       r"([\d,]+) at least, [\d,]+ of them for gradients") as caught:
        _step(model, 1000)
    assert isinstance(caught.value, MemoryError)
    return int(str(caught.value).split(" takes ")[1].split(" ")[0].replace(",", ""))


def test_cheap_maps_go_before_convolutions():
    plan = _step(Dense())[0].plan()
    gradients = sum(v.nbytes for v in plan.kept)
    little = _step(Dense(), gradients + int(0.95 * plan.layout.size))[0].plan().graph
    again = [node.primitive for node in little.nodes if node.phase == "recompute"]
    assert again and not any(name.startswith(("conv2d", "linear")) for name in again)
    assert all(node.again_of in little.nodes for node in little.nodes if node.phase == "recompute")


def test_the_pass_before_and_after():
    """A map that only backward's weight gradient reads again is computed again just before it."""
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.SiLU(), nn.Conv2d(8, 8, 1), nn.SiLU(), nn.Conv2d(8, 2, 1), nn.Flatten())
    x, y = numbanet.randn(4, 3, 16, 16), numbanet.randn(4, 512)
    step = numbanet.compile(model, (x, y), loss=F.mse_loss, optimizer=numbanet.optim.SGD(model.parameters()))
    graph, kept = step.plan().graph.copy(), step.plan().kept
    before = graph.primitives()
    size = layout_of(graph, kept).size
    assert recompute(graph, size, lambda g: layout_of(g, kept)) == size and graph.primitives() == before
    assert recompute(graph, size - 1, lambda g: layout_of(g, kept)) < size
    after = graph.primitives()
    assert after.count("silu_forward") > before.count("silu_forward") == 2 and after.count("conv2d_fused") == before.count("conv2d_fused")
    again = next(i for i, node in enumerate(graph.nodes) if node.phase == "recompute")
    copied = graph.nodes[again].outputs[0]
    assert any(copied in node.operands() for node in graph.nodes[again + 1:again + 3])


def test_what_is_computed_again_takes_no_statistics_again():
    """Nor does batch norm: it has them."""
    model = nn.Sequential(*(layer for _ in range(4) for layer in (nn.Conv2d(5, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU())))
    x, y = numbanet.randn(4, 5, 16, 16), numbanet.randn(4, 5, 16, 16)

    def steps(limit):
        numbanet.manual_seed(2)
        mine = copy.deepcopy(model)
        step = numbanet.compile(mine, (x, y), loss=F.mse_loss, optimizer=numbanet.optim.SGD(mine.parameters(), lr=0.1), memory_limit=limit)
        return step.plan(), [step(x, y).item() for _ in range(3)], mine.state_dict()
    plan, losses, state = steps(None)
    names = plan.graph.primitives()
    assert names.count("conv2d_with_statistics") == names.count("batch_norm_given_forward") == 4 and "conv2d_fused" not in names
    with pytest.raises(MemoryLimitError) as caught:
        steps(1000)
    limited, received, after = steps(int(str(caught.value).split(" takes ")[1].split(" ")[0].replace(",", "")))
    again = [node.primitive for node in limited.graph.nodes if node.phase == "recompute"]
    assert {"conv2d_fused", "batch_norm_given_forward"} == set(again)
    assert received == losses
    for name, expected in state.items():
        np.testing.assert_array_equal(after[name].numpy(), expected.numpy(), err_msg=name)


def test_what_cannot_be_met_is_said_with_the_least_possible():
    least = _least(Dense())
    assert _step(Dense(), least)[0].plan().nbytes == least


@pytest.mark.parametrize("limit", [0, -5, True, "1GB", 2.5])
def test_limits_are_bytes(limit):
    with pytest.raises(UsageError, match="memory_limit expects bytes"):
        _step(Dense(), limit)
    with pytest.raises(UsageError, match="is for training"):
        numbanet.compile(nn.Linear(2, 2), numbanet.zeros(1, 2), memory_limit=10)


def test_a_plan_that_no_machine_holds(monkeypatch):
    backend = numbanet.zeros(1).backend
    monkeypatch.setattr(backend, "memory_size", lambda: 10_000_000, raising=False)
    model = nn.Conv2d(3, 64, 3)
    with pytest.raises(MemoryLimitError, match=r"inputs of shape \[64, 3, 64, 64\] needs [\d,.]+ MB on 'cpu', .* do not fit "
                       r"\(there are 10.0 MB\); take a smaller batch"):
        numbanet.compile(model, numbanet.zeros(64, 3, 64, 64))
    assert numbanet.compile(model, numbanet.zeros(2, 3, 16, 16))(numbanet.zeros(2, 3, 16, 16)).shape == (2, 64, 14, 14)
