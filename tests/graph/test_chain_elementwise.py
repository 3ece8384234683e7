"""Elementwise chains: graphs before and after the pass, what is left alone, and plans that give the bits of the parts."""

import importlib

import numpy as np
import pytest

import numbanet
from numbanet import nn
from numbanet.backends.contract.elementwise_chain import VALUE, Place
from numbanet.graph import trace
from numbanet.graph.passes import chain_elementwise
from numbanet.graph.trace import trace_step
from numbanet.nn import functional as F


def _chained(function, *inputs, model=None):
    """(primitives before, the graph after); it gives what it gave before, on every backend."""
    graph = trace_step(function, *inputs, model=model) if model is not None else trace(function, *inputs)
    before = graph.primitives()
    copies = [graph.run(*[x.to(device) for x in inputs], device=device) for device in ("reference", "cpu")]
    chain_elementwise(graph)
    for device, expected in zip(("reference", "cpu"), copies):
        received = graph.run(*[x.to(device) for x in inputs], device=device)
        for r, e in zip(*[(t if isinstance(t, tuple) else (t,)) for t in (received, expected)], strict=True):
            np.testing.assert_array_equal(r.detach().numpy(), e.detach().numpy())
    return before, graph


def _maps(*shape, count=1):
    numbanet.manual_seed(7)
    return [numbanet.randn(*shape) for _ in range(count)]


def test_a_chain_before_and_after():
    """The end of a ConvNeXt block in training: a mask a sample, a scale a channel, and the residual."""
    x, residual = _maps(3, 5, 4, 6, count=2)
    mask, scale = numbanet.randn(3, 1, 1, 1), numbanet.randn(5, 1, 1)
    before, graph = _chained(lambda x, residual: x.exp() * mask * scale + residual.exp(), x, residual)
    assert before == ["exp", "multiply", "multiply", "exp", "add"]
    assert graph.primitives() == ["exp", "elementwise_chain"]
    x_given, operands, steps = graph.nodes[-1].arguments
    assert x_given is graph.inputs[0] and [v.shape for v in operands] == [(3, 1, 1, 1), (5, 1, 1), (3, 5, 4, 6)]
    assert steps == (("exp", VALUE), ("multiply", VALUE, Place(1)), ("multiply", VALUE, Place(2)), ("add", VALUE, Place(3)))


def test_x_again_and_the_order_of_operands():
    x, = _maps(2, 3, 5, 4)
    before, graph = _chained(lambda x: 2.0 / (1.0 - x * x.sigmoid()), x)
    assert before == ["sigmoid_forward", "multiply", "subtract", "divide"]
    (node,) = graph.nodes
    assert node.arguments[1:] == ([], (("sigmoid_forward", VALUE), ("multiply", Place(0), VALUE), ("subtract", 1.0, VALUE),
                                       ("divide", 2.0, VALUE)))


def test_a_value_twice_in_one_step():
    a, b = _maps(4, 7, count=2)
    _, graph = _chained(lambda a, b: (a - b.exp()) * (a - b.exp()), a, b)
    difference = next(n for n in graph.nodes if n.primitive == "elementwise_chain")
    assert difference.arguments[2][0][0] in ("exp", "subtract")
    x, = _maps(4, 7)

    def square(x):
        d = x.exp() - 1.0
        return d * d
    before, graph = _chained(square, x)
    assert len(before) == 3 and graph.nodes[0].arguments[2][-1] == ("multiply", VALUE, VALUE)


@pytest.mark.parametrize("function, shape", [
    (lambda x: (y := x * 2.0) + y.sum(), (3, 4)),                       # read twice, by two nodes
    (lambda x: ((y := x * 2.0), y + 1.0), (3, 4)),                      # returned
    (lambda x: (x * 2.0).sum(0) + 1.0, (3, 4)),                         # no two in a row
    (lambda x: (x * 2.0) + numbanet.ones(2, 3, 4), (3, 4)),             # the next one is larger
    (lambda x: (x > 0).float() * 2.0, (3, 4)),                          # not of floats
    (lambda x: (x.long() * 3 + 1).float(), (3, 4)),
])
def test_what_is_no_chain(function, shape):
    x, = _maps(*shape)
    before, graph = _chained(function, x)
    assert graph.primitives() == before


def test_operands_that_change_are_read_where_they_were():
    """The buffer is changed between the two nodes; the first must not move behind that."""
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("total", numbanet.ones(4))

        def forward(self, x):
            y = x * self.total
            with numbanet.no_grad():
                self.total.mul_(3.0)
            return y + x
    model = Counting()
    x, = _maps(3, 4)
    graph = trace_step(lambda x: model(x), x, model=model)
    before = graph.primitives()
    chain_elementwise(graph)
    assert graph.primitives() == before


def test_forward_and_backward_are_not_joined():
    x, = _maps(3, 4)
    weight = nn.Parameter(numbanet.ones(4))
    model = nn.Sequential(nn.Tanh())
    model.register_parameter("weight", weight)

    def step(x):
        model.zero_grad()
        loss = (x * weight * 2.0).tanh().sum()
        loss.backward()
        return loss, weight.grad
    graph = trace_step(step, x, model=model)
    chain_elementwise(graph)
    assert {node.phase for node in graph.nodes} == {"forward", "backward"}
    for node in graph.nodes:
        if node.primitive == "elementwise_chain":
            assert len({name.endswith("backward_input") for name, *_ in node.arguments[2]}) == 1 or node.phase == "backward"


def test_no_more_operands_than_a_chain_has():
    first, *many = _maps(3, 4, count=9)

    def total(x):
        for other in many:
            x = x * 0.5 + other
        return x
    _, graph = _chained(total, first)
    assert [len(n.arguments[1]) for n in graph.nodes] == [5, 3]


def test_no_more_memory_is_held_for_a_chain():
    """Two maps would have to live until the end in place of one."""
    x, = _maps(64, 64)

    def function(x):
        a, b = numbanet.cos(x), numbanet.sin(x)
        product = a * b                                     # both are done with here
        other = numbanet.sin(numbanet.cos(numbanet.sin(x)))
        return product + other
    before, graph = _chained(function, x)
    assert graph.primitives() == before


class Gate(nn.Module):
    """Activations by hand, squeeze and excitation, and a residual."""

    def __init__(self):
        super().__init__()
        self.first, self.gate = nn.Conv2d(3, 21, 3, padding=1), nn.Conv2d(21, 21, 1)
        self.scale = nn.Parameter(numbanet.full((21, 1, 1), 0.7))

    def forward(self, x):
        y = self.first(x)
        y = 0.5 * y * (1.0 + numbanet.tanh(0.8 * y))
        return y * numbanet.sigmoid(self.gate(F.adaptive_avg_pool2d(y, 1))) * self.scale + F.silu(y)


@pytest.mark.parametrize("shape", [(3, 3, 9, 7), (1, 3, 1, 1), (2, 3, 33, 35)])
def test_plans_have_the_bits_of_the_parts(shape, monkeypatch):
    compiling = importlib.import_module("numbanet.graph.compile")
    numbanet.manual_seed(1)
    model, x = Gate(), _maps(*shape)[0]
    labels = numbanet.zeros(shape[0], dtype=numbanet.int64)
    head = nn.Sequential(model, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(21, 4))

    def results():
        plan = numbanet.compile(model.eval(), x)
        step = numbanet.compile(head.train(), x, loss=F.cross_entropy, optimizer=numbanet.optim.SGD(head.parameters(), lr=0.0))
        y, text = plan(x).numpy(), plan.plan().describe()
        head.zero_grad()
        loss = step.forward_backward(x, labels)
        return [y, loss.detach().numpy(), *[p.grad.numpy().copy() for p in head.parameters()]], text
    chained, text = results()
    assert "multiply + tanh + add" in text
    for name in ("FOR_INFERENCE", "FOR_TRAINING"):
        passes = tuple(p for p in getattr(compiling, name) if p is not chain_elementwise)
        monkeypatch.setattr(compiling, name, passes)
    parts, text = results()
    assert "elementwise_chain" not in text
    for c, p in zip(chained, parts, strict=True):
        np.testing.assert_array_equal(c, p)


def test_a_loss_by_hand_reads_its_target():
    """An input of a plan is x of a chain, so that the other calls are still joined."""
    model = nn.Linear(5, 3)
    x, y = _maps(4, 5)[0], _maps(4, 3)[0]

    def loss(output, target):
        return ((output - target) * (output - target) * 0.5).sum()
    step = numbanet.compile(model, (x, y), loss=loss, optimizer=numbanet.optim.SGD(model.parameters(), lr=0.0))
    for scale in (1.0, 2.0):
        model.zero_grad()
        received = step.forward_backward(x, y * scale)
        np.testing.assert_allclose(received.item(), loss(model(x), y * scale).item(), rtol=1e-6)


def test_within_a_limit_of_memory():
    model, x = Gate(), _maps(2, 3, 40, 40)[0]
    head = nn.Sequential(model, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(21, 4))
    labels, optimizer = numbanet.zeros(2, dtype=numbanet.int64), numbanet.optim.SGD(head.parameters(), lr=0.0)
    gradients = []
    for limit in (None, 2_300_000):
        head.zero_grad()
        numbanet.compile(head, x, loss=F.cross_entropy, optimizer=optimizer, memory_limit=limit).forward_backward(x, labels)
        gradients.append([p.grad.numpy().copy() for p in head.parameters()])
    for a, b in zip(*gradients, strict=True):
        np.testing.assert_array_equal(a, b)
