"""Passes for training: the graph of a step before and after, and the same loss, gradients and statistics on every backend."""

import copy

import numpy as np
import pytest

import numbanet
from numbanet import nn
from numbanet.graph.passes import (
    FOR_TRAINING,
    add_gradients,
    drop_unused,
    fuse_batch_norm,
    fuse_epilogues,
    fuse_linear_gradients,
    interleave_channels,
    join_small_calls,
    limit_before_pooling,
    pool_convolutions,
    preactivate_convolutions,
    take_statistics,
)
from numbanet.graph.trace import trace_step
from numbanet.nn import functional as F


class Residual(nn.Module):
    """Two convolutions with batch norm, a map that three layers read, and what comes between."""

    def __init__(self, activation=F.relu, affine=True):
        super().__init__()
        self.first, self.second = (nn.Conv2d(5, 5, 3, padding=1, bias=False) for _ in range(2))
        self.norms = nn.ModuleList([nn.BatchNorm2d(5, affine=affine) for _ in range(2)])
        self.activation = activation

    def forward(self, x):
        y = self.activation(self.norms[0](self.first(x)))
        return self.activation(x + self.norms[1](self.second(y)))


class Pooled(nn.Module):
    """Activation, then overlapping windows of maxima; no batch norm."""

    def __init__(self, activation=F.relu):
        super().__init__()
        self.convolution, self.activation = nn.Conv2d(5, 6, 3), activation

    def forward(self, x):
        return F.max_pool2d(self.activation(self.convolution(x)), 3, 2, 1)


def _step(model):
    stem = nn.Conv2d(3, 5, 1)
    keeps_size = isinstance(model, (Residual, Units, Preactivated))
    whole = nn.Sequential(stem, model, nn.Flatten(), nn.Linear(5 * 7 * 6 if keeps_size else 6 * 3 * 2, 4))
    numbanet.manual_seed(3)
    for p in whole.parameters():
        with numbanet.no_grad():
            p.copy_(numbanet.randn(p.shape) * 0.5)
    x, y = numbanet.randn(3, 3, 7, 6), numbanet.tensor([0, 3, 1])

    def step(x, y):
        whole.zero_grad()
        loss = F.cross_entropy(whole(x), y)
        loss.backward()
        return loss, *[p.grad for p in whole.parameters()]
    return whole, step, (x, y)


def _rewrite(model, passes):
    """(primitives before, primitives after); the rewritten graph gives what the step gives, on every backend."""
    whole, step, inputs = _step(model)
    start = {name: t.detach().clone() for name, t in whole.state_dict().items()}
    graph = trace_step(step, *inputs, model=whole)
    before = graph.primitives()
    expected = [t.detach().numpy().copy() for t in step(*inputs)]
    buffers = {name: t.numpy().copy() for name, t in whole.named_buffers()}
    for rewrite in passes:
        rewrite(graph)
    for device in ("reference", "cpu"):
        state = {name: t.to(device) for name, t in copy.deepcopy(start).items() if name in graph.state}
        received = graph.run(*[t.to(device) for t in inputs], device=device, state=state)
        for r, e in zip(received, expected, strict=True):
            np.testing.assert_allclose(r.detach().numpy(), e, rtol=0, atol=2e-5 * max(np.abs(e).max(), 1e-2))
        for name in buffers.keys() & state.keys():
            np.testing.assert_allclose(state[name].numpy(), buffers[name], rtol=1e-5, atol=1e-6)
    return before, graph.primitives()


@pytest.mark.parametrize("activation", [F.relu, F.relu6, lambda x: F.hardtanh(x, -0.5, 0.75)])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_takes_in_residual_and_activation(activation, affine):
    before, after = _rewrite(Residual(activation, affine), [fuse_batch_norm])
    limiting = "relu_backward_input" if activation is F.relu else "hardtanh_backward_input"
    assert before.count("batch_norm_forward") == before.count("batch_norm_backward") == before.count(limiting) == 2
    assert after.count("batch_norm_fused_forward") == after.count("batch_norm_fused_backward") == 2
    assert not {"batch_norm_forward", "batch_norm_backward", limiting, limiting.replace("backward_input", "forward")} & set(after)
    assert before.count("running_average_update") == after.count("running_average_update") == 4


def test_a_result_that_others_read_is_left_alone():
    class Read(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(5)

        def forward(self, x):
            y = self.norm(x)
            return F.relu(y) * y
    model = nn.Sequential(nn.Conv2d(3, 5, 1), Read())

    def step(x):
        model.zero_grad()
        loss = model(x).sum()
        loss.backward()
        return loss
    graph = trace_step(step, numbanet.randn(3, 3, 7, 6), model=model)
    before = graph.primitives()
    fuse_batch_norm(graph)
    assert graph.primitives() == before


def test_gradients_are_added_by_convolutions():
    before, after = _rewrite(Residual(), [fuse_batch_norm, add_gradients])
    assert before.count("conv2d_backward_input") == 2 and before.count("add") == 4
    assert after.count("conv2d_backward_input") == after.count("conv2d_backward_input_added") == 1
    assert after.count("add") == 2                          # which count batches


@pytest.mark.parametrize("passes", [[fuse_batch_norm, fuse_epilogues], [fuse_epilogues]])
@pytest.mark.parametrize("affine", [True, False])
def test_convolutions_take_the_statistics_of_batch_norm(passes, affine):
    without, before = _rewrite(Residual(affine=affine), passes)
    norm = "batch_norm_fused_forward" if fuse_batch_norm in passes else "batch_norm_forward"
    assert before.count(norm) == 2 and before.count("conv2d_fused") == 3
    after = _rewrite(Residual(affine=affine), [*passes, take_statistics])[1]
    renamed = {norm: "batch_norm_given_forward"}
    assert after.count("conv2d_with_statistics") == 2 and after.count("conv2d_fused") == 1      # of the stem, behind which is none
    assert [n for n in after if not n.startswith("conv2d")] == [renamed.get(n, n) for n in before if not n.startswith("conv2d")]


def test_statistics_of_what_two_layers_normalize():
    """The map of one convolution is read by two batch norms and an addition: one of them gets its statistics of it."""
    class Twice(Residual):
        def forward(self, x):
            y = self.second(self.first(x) + x)
            return F.relu(self.norms[0](y)) + self.norms[1](y) * y
    after = _rewrite(Twice(), [drop_unused, fuse_batch_norm, fuse_epilogues, take_statistics])[1]
    assert after.count("conv2d_with_statistics") == after.count("batch_norm_given_forward") == 1
    assert after.count("batch_norm_fused_forward") + after.count("batch_norm_forward") == 1


def test_backends_are_asked_before_convolutions_take_statistics(monkeypatch):
    monkeypatch.setattr(type(numbanet.backends.get_backend("cpu")), "takes_statistics", lambda self, geometry, batch: False)
    assert "conv2d_with_statistics" not in _rewrite(Residual(), FOR_TRAINING)[1]


@pytest.fixture
def small_calls_are_joined(monkeypatch):
    monkeypatch.setattr(type(numbanet.backends.get_backend("cpu")), "joins_small_calls", True)


class Repeated(nn.Module):
    """One batch norm twice, whose running averages move twice, and one for itself."""

    def __init__(self):
        super().__init__()
        self.shared, self.own, self.last = nn.BatchNorm2d(5), nn.BatchNorm2d(5), nn.BatchNorm2d(5)

    def forward(self, x):
        for norm in (self.shared, self.shared, self.own, self.last):
            x = x + F.relu(norm(x))
        return x[:, :, :3, :2].repeat(1, 2, 1, 1)[:, :6]


class Wide(nn.Module):
    """Weights in another dtype than the maps'; of one the step changes the numbers."""

    def __init__(self):
        super().__init__()
        self.scale, self.shift = nn.Parameter(numbanet.randn(5, 1, 1)), nn.Parameter(numbanet.randn(5, 1, 1))
        self.register_buffer("moving", numbanet.zeros(5, 1, 1))

    def forward(self, x):
        self.moving.add_(1.0)
        y = x.double() * self.scale.double() + self.shift.double() + self.moving.double()
        return y.float()[:, :, :3, :2].repeat(1, 2, 1, 1)[:, :6]


@pytest.mark.usefixtures("small_calls_are_joined")
def test_running_averages_and_counters_of_all_layers_are_one_call_each():
    before, after = _rewrite(Residual(), FOR_TRAINING)
    assert before.count("running_average_update") == 4 and before.count("add") == 4            # two of counters
    assert after.count("running_averages_update") == after.count("counters_update") == 1
    assert not {"running_average_update", "add"} & set(after)


@pytest.mark.usefixtures("small_calls_are_joined")
def test_averages_that_move_twice_move_one_by_one():
    before, after = _rewrite(Repeated(), [join_small_calls])
    assert before.count("running_average_update") == 8
    assert after.count("running_average_update") == 4 and after.count("running_averages_update") == after.count("counters_update") == 1


@pytest.mark.usefixtures("small_calls_are_joined")
def test_casts_of_weights_are_one_call():
    before, after = _rewrite(Wide(), [join_small_calls])
    assert after.count("cast_all") == 1 and after.count("cast") == before.count("cast") - 2


def test_backends_are_asked_before_small_calls_are_joined():
    assert not {"running_averages_update", "counters_update"} & set(_rewrite(Residual(), FOR_TRAINING)[1])


class Units(nn.Module):
    """Two of ShuffleNet's: half of the channels is left alone, the other convolved, and both are shuffled."""

    def __init__(self):
        super().__init__()
        self.widen = nn.Conv2d(5, 6, 1)
        self.layers = nn.ModuleList([nn.Conv2d(3, 3, 3, padding=1) for _ in range(2)])

    def forward(self, x):
        x = self.widen(x)
        for layer in self.layers:
            left, right = x.chunk(2, 1)
            x = numbanet.cat([left, F.relu(layer(right))], 1)
            x = x.view(3, 2, 3, 7, 6).transpose(1, 2).reshape(3, 6, 7, 6)
        return x[:, :5]


def test_shuffles_and_their_gradients_are_no_transpositions():
    before, after = _rewrite(Units(), [drop_unused, interleave_channels])
    forward = after[:after.index("softmax_cross_entropy_forward")]
    assert before.count("transpose") == 4 and not {"transpose", "concatenate"} & set(forward)
    assert after.count("interleave_channels") == after.count("separate_channels") == 2 and "transpose" not in after


def test_gradients_of_what_was_shuffled_lie_channels_last():
    """A concatenation lies as its first part does, which lay in rows when the step was traced."""
    whole, step, inputs = _step(Units())
    graph = trace_step(step, *inputs, model=whole)
    interleave_channels(graph)
    orders = [node.outputs[0].order for node in graph.nodes if node.primitive == "concatenate"]
    assert orders and set(orders) == {(0, 2, 3, 1)}


class Preactivated(nn.Module):
    """Batch norms of a map that others read too, of a convolution's result, and of one that nothing limits."""

    def __init__(self, activation=F.relu, affine=True, reads=lambda z: 0):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(5, 5, kernel, padding=kernel // 2, bias=False) for kernel in (1, 3, 1)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(5, affine=affine) for _ in range(3)])
        self.activation, self.reads = activation, reads

    def forward(self, x):
        z = self.activation(self.norms[0](x))
        y = self.layers[0](z)
        y = self.layers[1](self.activation(self.norms[1](y)))
        return x + self.layers[2](self.norms[2](y)) + self.reads(z)


@pytest.fixture
def everything_preactivates(monkeypatch):
    monkeypatch.setattr(type(numbanet.backends.get_backend("cpu")), "preactivates", lambda self, geometry, batch, in_training: True)


@pytest.mark.usefixtures("everything_preactivates")
@pytest.mark.parametrize("passes", [[fuse_batch_norm, fuse_epilogues], [fuse_batch_norm, fuse_epilogues, take_statistics]])
@pytest.mark.parametrize("activation", [F.relu, F.relu6])
@pytest.mark.parametrize("affine", [True, False])
def test_convolutions_normalize_what_they_read(passes, activation, affine):
    """Of three batch norms none writes a map; those whose statistics no convolution takes leave that behind."""
    before = _rewrite(Preactivated(activation, affine), passes)[1]
    after = _rewrite(Preactivated(activation, affine), [*passes, preactivate_convolutions])[1]
    names = "batch_norm_fused_forward", "batch_norm_forward", "batch_norm_given_forward"
    given = before.count("batch_norm_given_forward")
    assert sum(map(before.count, names)) == 3 and given == (2 if take_statistics in passes else 0)      # not of the stem
    assert not set(names) & set(after)
    assert after.count("batch_norm_scale") == 3 and after.count("batch_norm_statistics") == 3 - given
    plain, with_statistics = (before.count(name) for name in ("conv2d_fused", "conv2d_with_statistics"))
    assert after.count("conv2d_preactivated") + after.count("conv2d_preactivated_with_statistics") == 3
    assert after.count("conv2d_fused") + after.count("conv2d_with_statistics") == plain + with_statistics - 3 == 1
    assert after.count("conv2d_preactivated_backward_weight") == 3 and after.count("conv2d_backward_weight") == 1


@pytest.mark.usefixtures("everything_preactivates")
def test_what_others_read_is_normalized_before():
    passes = [fuse_batch_norm, fuse_epilogues, preactivate_convolutions]
    after = _rewrite(Preactivated(reads=lambda z: F.avg_pool2d(z, 3, 1, 1)), passes)[1]
    assert after.count("batch_norm_fused_forward") == 1 and after.count("batch_norm_scale") == 2


def test_backends_are_asked_before_convolutions_normalize(monkeypatch):
    asked = []
    monkeypatch.setattr(type(numbanet.backends.get_backend("cpu")), "preactivates",
                        lambda self, geometry, batch, in_training: asked.append((batch, in_training)))
    after = _rewrite(Preactivated(), FOR_TRAINING)[1]
    assert not [name for name in after if "preactivated" in name or name == "batch_norm_scale"] and set(asked) == {(3, True)}


def test_what_convolutions_normalize_takes_no_memory(monkeypatch):
    """Neither in forward, nor until backward: bit for bit the same steps in a smaller arena."""
    def compiled():
        numbanet.manual_seed(1)
        deep = nn.Sequential(*[nn.Sequential(nn.Conv2d(32, 32, 1), nn.BatchNorm2d(32), nn.ReLU()) for _ in range(6)], nn.Flatten(),
                             nn.Linear(32 * 256, 4))
        x, y = numbanet.randn(4, 32, 16, 16), numbanet.tensor([0, 3, 1, 2])
        step = numbanet.compile(deep, x, loss=F.cross_entropy, optimizer=numbanet.optim.SGD(deep.parameters(), lr=0.1))
        return step.plan(), [step(x, y).item() for _ in range(3)]
    plan, losses = compiled()
    assert plan.graph.primitives().count("conv2d_preactivated_with_statistics") == 5
    monkeypatch.setattr(type(numbanet.backends.get_backend("cpu")), "preactivates", lambda *given: False)
    whole, expected = compiled()
    assert losses == expected and plan.nbytes < 0.75 * whole.nbytes


@pytest.mark.parametrize("activation", [F.relu, F.relu6])
def test_the_gradient_of_an_activation_is_taken_of_the_pooled_map(activation):
    before, after = _rewrite(Pooled(activation), [limit_before_pooling])
    limiting = "relu_backward_input" if activation is F.relu else "hardtanh_backward_input"
    assert before.index("max_pool2d_backward_input") < before.index(limiting)
    assert after.index(limiting) < after.index("max_pool2d_backward_input") and sorted(before) == sorted(after)


def test_epilogues_in_training():
    before, after = _rewrite(Pooled(), [fuse_epilogues])
    assert "relu_forward" in before and "relu_forward" not in after and after.count("conv2d_fused") == 2


@pytest.mark.parametrize("model", [Residual(), Residual(F.relu6), Pooled()])
def test_all_together(model):
    assert fuse_batch_norm in FOR_TRAINING and drop_unused in FOR_TRAINING
    before, after = _rewrite(model, FOR_TRAINING)
    assert len(after) < len(before)


class Digits(nn.Module):
    """A convolution that is pooled, once or twice read, and two linear layers."""

    def __init__(self, activation=F.relu, also_read=None, bias=True, size=2):
        super().__init__()
        self.convolution, self.activation, self.also_read, self.size = nn.Conv2d(5, 6, 3, bias=bias), activation, also_read, size
        self.inner = nn.Linear(6 * 2 * 2, 6 * 3 * 2, bias=bias)

    def forward(self, x):
        m = self.activation(self.convolution(x))
        y = F.max_pool2d(m, self.size)
        if self.also_read:
            y = y + self.also_read(m)
        return self.activation(self.inner(y.flatten(1)))


POOLED = {"conv2d_max_pool_forward", "conv2d_max_pool_backward_weight", "conv2d_max_pool_backward_input"}


@pytest.mark.parametrize("activation", [F.relu, F.relu6, lambda x: F.hardtanh(x, -0.5, 0.75), lambda x: x])
@pytest.mark.parametrize("bias", [True, False])
def test_convolutions_are_pooled(activation, bias, monkeypatch):
    monkeypatch.setattr(type(numbanet.backends.get_backend("cpu")), "pools",
                        lambda self, geometry, pooling, for_values: geometry.channels == 5)
    passes = [drop_unused, fuse_epilogues, limit_before_pooling, pool_convolutions]
    before, after = _rewrite(Digits(activation, bias=bias), passes)
    assert not POOLED & set(before) and {name: after.count(name) for name in POOLED} == dict.fromkeys(POOLED, 1)
    assert not {"max_pool2d_forward", "max_pool2d_backward_input"} & set(after)
    assert after.count("conv2d_backward_weight") == after.count("conv2d_fused") == 1            # of the stem


def test_a_map_that_others_read_is_not_pooled_away(monkeypatch):
    monkeypatch.setattr(type(numbanet.backends.get_backend("cpu")), "pools", lambda self, geometry, pooling, for_values: True)
    also = Digits(also_read=lambda m: m[:, :, :2, :2])
    assert not POOLED & set(_rewrite(also, [drop_unused, fuse_epilogues, limit_before_pooling, pool_convolutions])[1])


def test_backends_are_asked_before_convolutions_are_pooled(monkeypatch):
    monkeypatch.setattr(type(numbanet.backends.get_backend("cpu")), "pools", lambda self, geometry, pooling, for_values: False)
    assert not POOLED & set(_rewrite(Digits(), FOR_TRAINING)[1])


@pytest.mark.parametrize("frozen, wanted", [("weight", False), ("bias", True)])
def test_frozen_layers_keep_the_gradients_that_are_wanted(frozen, wanted, monkeypatch):
    monkeypatch.setattr(type(numbanet.backends.get_backend("cpu")), "pools",
                        lambda self, geometry, pooling, for_values: geometry.channels == 5)
    model = Digits()
    getattr(model.convolution, frozen).requires_grad_(False)
    whole = nn.Sequential(nn.Conv2d(3, 5, 1), model)
    x = numbanet.randn(3, 3, 7, 6)

    def step(x):
        whole.zero_grad()
        loss = whole(x).sum()
        loss.backward()
        return loss, *[p.grad for p in whole.parameters() if p.requires_grad]
    graph = trace_step(step, x, model=whole)
    expected = [t.detach().numpy().copy() for t in step(x)]
    for rewrite in FOR_TRAINING:
        rewrite(graph)
    assert ("conv2d_max_pool_backward_weight" in graph.primitives()) is wanted
    for r, e in zip(graph.run(x), expected, strict=True):
        np.testing.assert_allclose(r.detach().numpy(), e, rtol=0, atol=2e-5 * max(np.abs(e).max(), 1e-2))


@pytest.mark.parametrize("activation", [F.relu, F.relu6, lambda x: x])
def test_gradients_of_linear_layers_are_fused(activation):
    before, after = _rewrite(Digits(activation), [fuse_linear_gradients])
    parts = {"linear_backward_input", "linear_backward_weight", "linear_backward_bias"}
    assert all(before.count(name) == 2 for name in parts) and not parts & set(after)
    assert after.count("linear_fused_backward") == 2
    limiting = [name for name in before if name.startswith(("relu_b", "hardtanh_b"))]
    assert len(after) == len(before) - 4 - len(limiting) // 2           # the mask of the linear layer; the other one stays


def test_the_first_linear_layer_has_no_gradient_for_its_input():
    layer = nn.Linear(7, 5)

    def step(x):
        layer.zero_grad()
        loss = F.relu(layer(x)).sum()
        loss.backward()
        return loss, layer.weight.grad, layer.bias.grad
    x = numbanet.randn(4, 7)
    graph = trace_step(step, x, model=layer)
    expected = [t.detach().numpy().copy() for t in step(x)]
    fuse_linear_gradients(graph)
    (node,) = [n for n in graph.nodes if n.primitive == "linear_fused_backward"]
    assert node.outputs[0] is None and node.arguments[3] is None
    for r, e in zip(graph.run(x), expected, strict=True):
        np.testing.assert_allclose(r.detach().numpy(), e, rtol=1e-5, atol=1e-5)
