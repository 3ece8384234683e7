"""Each pass: the graph before and after, and the same results on every backend."""

import numpy as np
import pytest

import numbanet
from numbanet import nn
from numbanet.backends import get_backend
from numbanet.graph import trace
from numbanet.graph.passes import (
    activate_before_views,
    chain_convolutions,
    drop_unused,
    fold_batch_norm,
    fold_scales,
    fuse_epilogues,
    interleave_channels,
    nest_concatenations,
    pool_convolutions,
    preactivate_convolutions,
)


@pytest.fixture(autouse=True)
def strict():
    before = numbanet.get_float32_precision()
    numbanet.set_float32_precision("strict")
    yield
    numbanet.set_float32_precision(before)


def _batch_norm(channels, rng, affine=True):
    layer = nn.BatchNorm2d(channels, affine=affine)
    for tensor, low, high in ((layer.running_mean, -1, 1), (layer.running_var, 0.5, 2), (layer.weight, -2, 2), (layer.bias, -1, 1)):
        if tensor is not None:
            with numbanet.no_grad():
                tensor.copy_(numbanet.tensor(rng.uniform(low, high, tensor.shape).astype(np.float32)))
    return layer


def _rewrite(model, passes, *shape):
    """(primitives before, primitives after); the rewritten graph gives the eager results on every backend."""
    rng = np.random.default_rng(3)
    model.eval()
    x = numbanet.tensor(rng.standard_normal(shape).astype(np.float32))
    with numbanet.no_grad():
        expected = model(x).numpy()
    graph = trace(model, x)
    before = graph.primitives()
    for rewrite in passes:
        rewrite(graph)
    for device in ("reference", "cpu"):
        received = graph.run(x.to(device), device=device).numpy()
        np.testing.assert_allclose(received, expected, rtol=0, atol=2e-6 * np.abs(expected).max())
    return before, graph.primitives()


class Own(nn.Module):
    def __init__(self, function, **layers):
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.function(self, x)


def test_batch_norm_is_folded_into_convolution_and_linear(rng):
    model = nn.Sequential(nn.Conv2d(3, 5, 3, groups=1, bias=False), _batch_norm(5, rng), nn.Flatten(), nn.Linear(5 * 4 * 3, 6))
    before, after = _rewrite(model, [fold_batch_norm], 2, 3, 6, 5)
    assert before == ["conv2d_forward", "batch_norm_inference_forward", "reshape", "linear_forward"]
    assert after == ["conv2d_forward", "reshape", "linear_forward"]


def test_batch_norm_of_a_shared_or_foreign_map_is_one_multiplication(rng):
    shared = Own(lambda m, x: (lambda y: m.norm(y) + y)(m.conv(x)), conv=nn.Conv2d(3, 4, 1), norm=_batch_norm(4, rng))
    before, after = _rewrite(shared, [fold_batch_norm], 2, 3, 5, 5)
    assert after == ["conv2d_forward", "channel_affine", "add"]
    first = nn.Sequential(_batch_norm(3, rng, affine=False), nn.ReLU(), nn.Conv2d(3, 4, 3, padding=1))
    before, after = _rewrite(first, [fold_batch_norm, fuse_epilogues], 2, 3, 5, 5)
    assert before == ["batch_norm_inference_forward", "relu_forward", "conv2d_forward"]
    assert after == ["channel_affine", "conv2d_fused"]


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU6(), nn.Hardtanh(-0.5, 0.25)])
def test_activations_are_fused(activation, rng):
    model = nn.Sequential(nn.Conv2d(3, 5, 3, stride=2), activation, nn.Flatten(), nn.Linear(5 * 4 * 3, 6), activation)
    _, after = _rewrite(model, [fuse_epilogues], 2, 3, 9, 7)
    assert after == ["conv2d_fused", "reshape", "linear_fused"]


@pytest.mark.parametrize("activation", [nn.SiLU(), nn.Hardswish(), nn.Hardsigmoid(), nn.Sigmoid(), nn.Tanh(), nn.GELU(), nn.GELU("tanh"),
                                        nn.Mish()])
def test_other_activations_are_fused_where_the_backend_wants_it(activation, monkeypatch, rng):
    model = nn.Sequential(nn.Conv2d(3, 5, 3, stride=2), activation, nn.Flatten(), nn.Linear(5 * 4 * 3, 6), activation)
    _, after = _rewrite(model, [fuse_epilogues], 2, 3, 9, 7)
    assert after == ["conv2d_activated", "reshape", "linear_activated"]
    monkeypatch.setattr(type(get_backend("cpu")), "activates", lambda self: False)
    before, after = _rewrite(model, [fuse_epilogues], 2, 3, 9, 7)
    assert after == ["conv2d_fused", *before[1:]] and before[1].endswith("_forward")


def test_an_activation_takes_the_residual_before_it(rng):
    model = Own(lambda m, x: numbanet.nn.functional.silu(m.conv(x) + x), conv=nn.Conv2d(4, 4, 3, padding=1))
    before, after = _rewrite(model, [fuse_epilogues], 2, 4, 6, 5)
    assert before == ["conv2d_forward", "add", "silu_forward"] and after == ["conv2d_activated"]


def test_activations_move_before_views(rng):
    def forward(m, x):
        return m.second(numbanet.relu(m.first(x).permute(0, 2, 1, 3))).reshape(2, -1)
    model = Own(forward, first=nn.Linear(5, 7), second=nn.Linear(7, 3))
    before, after = _rewrite(model, [activate_before_views, fuse_epilogues], 2, 3, 4, 5)
    assert before[:5] == ["reshape", "linear_forward", "reshape", "transpose", "relu_forward"]
    assert after[:4] == ["reshape", "linear_fused", "reshape", "transpose"] and "relu_forward" not in after


def test_activations_of_views_that_others_read_stay(rng):
    twice = Own(lambda m, x: (lambda y: numbanet.relu(y) + y)(m.layer(x)), layer=nn.Linear(5, 7))
    before, after = _rewrite(twice, [activate_before_views], 2, 3, 5)
    assert after == before
    through = Own(lambda m, x: (lambda y: numbanet.relu(y.permute(1, 0)) + y.permute(1, 0))(m.layer(x)), layer=nn.Linear(5, 7))
    before, after = _rewrite(through, [activate_before_views], 6, 5)
    assert after == before
    of_input = Own(lambda m, x: numbanet.relu(x.permute(1, 0)))
    before, after = _rewrite(of_input, [activate_before_views], 6, 5)
    assert after == before


def test_activations_stand_beside_what_is_written_in_place(rng):
    def forward(m, x):
        y = m.layer(x)
        y[:, 0] = 1.0
        return numbanet.relu(y.permute(1, 0))
    before, after = _rewrite(Own(forward, layer=nn.Linear(5, 7)), [fold_scales, activate_before_views, fuse_epilogues], 6, 5)
    assert "slice_put" in before and after == before            # the view shows a value that changes


def _scale(*shape, rng):
    return nn.Parameter(numbanet.tensor(rng.uniform(0.5, 2, shape).astype(np.float32)))


@pytest.mark.parametrize("bias", [True, False])
def test_fixed_scales_become_part_of_the_layer_before(bias, rng):
    linear = Own(lambda m, x: m.scale * m.layer(x).permute(0, 3, 1, 2), layer=nn.Linear(5, 7, bias=bias), scale=_scale(7, 1, 1, rng=rng))
    before, after = _rewrite(linear, [fold_scales], 2, 3, 4, 5)
    assert before.count("multiply") == 1 and after == [name for name in before if name != "multiply"]
    convolution = Own(lambda m, x: m.layer(x) * m.scale, layer=nn.Conv2d(3, 6, 3, bias=bias, groups=3), scale=_scale(1, 6, 1, 1, rng=rng))
    assert _rewrite(convolution, [fold_scales], 2, 3, 5, 4)[1] == ["conv2d_forward"]
    rows = Own(lambda m, x: m.layer(x) * m.scale, layer=nn.Linear(5, 7, bias=bias), scale=_scale(1, rng=rng))
    assert "multiply" not in _rewrite(rows, [fold_scales], 2, 5)[1]


def test_scales_of_other_axes_or_that_others_read_stay(rng):
    layer, conv = nn.Linear(5, 4), nn.Conv2d(3, 4, 1)
    for function, shape in ((lambda m, x: m.scale * m.layer(x), (2, 4, 5)),                         # linear's scale (4, 1): of rows
                            (lambda m, x: (lambda y: m.scale * y + y)(m.conv(x)), (2, 3, 4, 6)),    # the unscaled map is read, too
                            (lambda m, x: m.scale * m.conv(x), (2, 3, 4, 4)),                       # of rows of the map
                            (lambda m, x: m.scale * numbanet.relu(m.conv(x)), (2, 3, 4, 6)),        # not of the layer's result
                            (lambda m, x: m.layer(x)[:, :1, :1] * m.scale, (2, 4, 5))):             # the scale is the larger one
        before, after = _rewrite(Own(function, layer=layer, conv=conv, scale=_scale(4, 1, rng=rng)), [fold_scales], *shape)
        assert after == before and "multiply" in after


def test_folded_scales_follow_the_weights(rng):
    model = Own(lambda m, x: m.scale * m.layer(x), layer=nn.Linear(5, 7), scale=_scale(7, rng=rng)).eval()
    x = numbanet.tensor(rng.standard_normal((3, 5)).astype(np.float32))
    compiled = numbanet.compile(model, x)
    for factor in (1.0, 3.0):
        with numbanet.no_grad():
            model.scale.mul_(factor)
            np.testing.assert_allclose(compiled(x).numpy(), model(x).numpy(), rtol=1e-5, atol=1e-6)
    assert "multiply" not in compiled.plan().graph.primitives()


def test_residuals_are_fused_into_the_later_branch(rng):
    def block(m, x):
        return numbanet.relu(m.bn(m.second(numbanet.relu(m.first(x)))) + m.shortcut(x))
    model = Own(block, first=nn.Conv2d(4, 6, 3, padding=1), second=nn.Conv2d(6, 6, 3, padding=1), bn=_batch_norm(6, rng),
                shortcut=nn.Conv2d(4, 6, 1))
    before, after = _rewrite(model, [fold_batch_norm, fuse_epilogues], 2, 4, 6, 5)
    assert len(before) == 7 and after == ["conv2d_fused"] * 3


def test_what_others_read_is_not_fused_away(rng):
    model = Own(lambda m, x: (lambda y: numbanet.relu(y) * y)(m.conv(x)), conv=nn.Conv2d(3, 4, 3))
    _, after = _rewrite(model, [fuse_epilogues], 1, 3, 6, 6)
    assert after == ["conv2d_fused", "relu_forward", "multiply"]
    doubled = Own(lambda m, x: (lambda y: y + y)(m.conv(x)), conv=nn.Conv2d(3, 4, 3))
    _, after = _rewrite(doubled, [fuse_epilogues], 1, 3, 6, 6)
    assert after == ["conv2d_fused", "add"]
    broadcast = Own(lambda m, x: m.conv(x) + x[:, :1, :4, :4], conv=nn.Conv2d(3, 4, 3))
    _, after = _rewrite(broadcast, [fuse_epilogues], 1, 3, 6, 6)
    assert after == ["conv2d_fused", "slice_view", "add"]


def test_unused_results_and_positions_are_dropped(rng):
    def forward(m, x):
        m.conv(x).sum()
        return numbanet.nn.functional.max_pool2d(x, 2)
    model = Own(forward, conv=nn.Conv2d(3, 4, 3))
    before, after = _rewrite(model, [drop_unused], 2, 3, 6, 7)
    assert before == ["conv2d_forward", "sum", "max_pool2d_forward"] and after == ["max_pool2d_values"]


def test_convolutions_normalize_what_they_read(monkeypatch, rng):
    """Once where two of them read it, and not where a third reader would need the map."""
    class Preactivated(nn.Module):
        def __init__(self, reads):
            super().__init__()
            self.norm, self.layers, self.reads = _batch_norm(6, rng), nn.ModuleList([nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 3, 1, 1)]), reads

        def forward(self, x):
            z = nn.functional.relu6(self.norm(x))
            return self.layers[0](z) + x * nn.functional.relu(self.layers[1](z)) + self.reads(z)
    passes = [fold_batch_norm, fuse_epilogues, preactivate_convolutions]
    assert "channel_affine" in _rewrite(Preactivated(lambda z: 0), passes, 2, 6, 5, 4)[1]         # the CPU gains nothing by so few pixels
    monkeypatch.setattr(type(get_backend("cpu")), "preactivates", lambda self, geometry, batch, in_training: batch == 2 and not in_training)
    after = _rewrite(Preactivated(lambda z: 0), passes, 2, 6, 5, 4)[1]
    assert after.count("conv2d_preactivated") == 2 and not {"channel_affine", "conv2d_fused"} & set(after)
    after = _rewrite(Preactivated(nn.functional.sigmoid), passes, 2, 6, 5, 4)[1]
    assert after.count("conv2d_fused") == 2 and after.count("channel_affine") == 1


def _shuffled(x, groups):
    N, C, *size = x.shape
    return x.reshape(N, groups, C // groups, *size).transpose(1, 2).reshape(N, C, *size)


SHUFFLE = ["reshape", "transpose", "reshape"]


@pytest.mark.parametrize("groups, becomes", [(2, ["interleave_channels"]), (6, ["separate_channels"]), (4, ["separate_channels"]),
                                             (3, ["slice_view"] * 3 + ["interleave_channels"])])
def test_shuffles_of_channels_are_no_transpositions(groups, becomes, rng):
    """Of two maps side by side, of their sum's channels in groups, and of many groups, which is what undoes a shuffle of few."""
    class Shuffled(nn.Module):
        def forward(self, x):
            return numbanet.relu(_shuffled(numbanet.cat([x, numbanet.exp(x)], 1), groups)) * 2
    before, after = _rewrite(Shuffled(), [interleave_channels], 2, 6, 5, 3)
    assert before == ["exp", "concatenate", *SHUFFLE, "relu_forward", "multiply"]
    assert after == ["exp", *["concatenate"] * (groups != 2), *becomes, "relu_forward", "multiply"]


def test_a_map_that_changes_after_it_was_concatenated(rng):
    class Changed(nn.Module):
        def forward(self, x):
            y = numbanet.exp(x)
            both = numbanet.cat([y, x], 1)
            y.mul_(3)
            return numbanet.relu(_shuffled(both, 2)) + numbanet.cat([y, y], 1)
    after = _rewrite(Changed(), [interleave_channels], 2, 6, 5, 3)[1]
    assert "interleave_channels" in after and after.count("concatenate") == 2


@pytest.mark.parametrize("function", [
    lambda x: _shuffled(x, 2),                                                              # the result itself: its order stays
    lambda x: (y := x.reshape(2, 2, 6, 5, 3)).transpose(1, 2).reshape(2, 12, 5, 3).exp() + y.reshape(2, 12, 5, 3),
    lambda x: x.reshape(2, 2, 6, 5, 3).transpose(1, 2).reshape(2, 12, 3, 5).exp(),          # the map's sides change too
    lambda x: x.reshape(2, 12, 5, 3, 1).transpose(1, 2).reshape(2, 12, 5, 3).exp(),
    lambda x: x.reshape(4, 1, 6, 5, 3).transpose(1, 2).reshape(2, 12, 5, 3).exp()])
def test_other_transpositions_stay(function, rng):
    class Other(nn.Module):
        def forward(self, x):
            return function(x)
    before, after = _rewrite(Other(), [interleave_channels], 2, 12, 5, 3)
    assert before == after and "transpose" in after


def test_concatenations_are_nested(rng):
    def dense(m, x):
        parts = [x]
        for layer in m.layers:
            parts.append(layer(numbanet.cat(parts, 1)))
        return numbanet.cat(parts, 1)
    model = Own(dense, layers=nn.ModuleList(nn.Conv2d(2 + 3 * i, 3, 3, padding=1) for i in range(3)))
    x = numbanet.tensor(rng.standard_normal((2, 2, 5, 4)).astype(np.float32))
    graph = trace(model.eval(), x)
    sizes = [len(n.arguments[0]) for n in graph.nodes if n.primitive == "concatenate"]
    assert sizes == [1, 2, 3, 4]
    _rewrite(model, [nest_concatenations], 2, 2, 5, 4)
    nest_concatenations(graph)
    assert [len(n.arguments[0]) for n in graph.nodes if n.primitive == "concatenate"] == [1, 2, 2, 2]


@pytest.fixture
def chains_of_three(monkeypatch):
    monkeypatch.setattr(type(get_backend("cpu")), "chains", lambda self, geometries, batch: len(geometries) == 3)


def test_convolutions_are_chained(chains_of_three, rng):
    def block(m, x):
        return x + m.project(numbanet.relu(m.middle(numbanet.relu(m.expand(x)))))
    model = Own(block, expand=nn.Conv2d(4, 12, 1), middle=nn.Conv2d(12, 12, 3, padding=1, groups=12), project=nn.Conv2d(12, 4, 1))
    before, after = _rewrite(model, [fuse_epilogues, chain_convolutions], 2, 4, 9, 7)
    assert len(before) == 6 and after == ["conv2d_chain"]
    _, after = _rewrite(nn.Sequential(model, *[nn.Conv2d(4, 4, 1) for _ in range(5)]), [fuse_epilogues, chain_convolutions], 2, 4, 9, 7)
    assert after == ["conv2d_chain", "conv2d_chain", "conv2d_fused", "conv2d_fused"]


def test_what_others_read_is_not_chained(chains_of_three, rng):
    layers = {"a": nn.Conv2d(4, 4, 1), "b": nn.Conv2d(4, 4, 1), "c": nn.Conv2d(4, 4, 1)}
    for function in (lambda m, x: (lambda y: m.c(m.b(y)) * y)(m.a(x)),              # the first map is read again
                     lambda m, x: (lambda y: m.c(y) + y)(m.b(m.a(x))),              # the last one adds an inner map
                     lambda m, x: m.c(m.b(m.a(x)) + x)):                            # the second one adds a residual
        _, after = _rewrite(Own(function, **layers), [fuse_epilogues, chain_convolutions], 2, 4, 6, 5)
        assert "conv2d_chain" not in after
    without_bias = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1, bias=False), nn.Conv2d(4, 4, 1))
    assert _rewrite(without_bias, [fuse_epilogues, chain_convolutions], 2, 4, 6, 5)[1] == ["conv2d_fused"] * 3


def test_the_cpu_chains_inverted_residuals():
    x = numbanet.zeros(4, 3, 224, 224)
    graph = numbanet.compile(numbanet.create_model("mobilenet_v2"), x).plan().graph
    assert graph.primitives().count("conv2d_chain") > 10
    # where a second-level cache holds the smallest maps anyway, these stay apart
    assert {node.outputs[0].shape[2:] for node in graph.nodes if node.primitive == "conv2d_fused"} <= {(7, 7)}


def test_pooled_convolutions_in_inference(monkeypatch, rng):
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 4, 1), nn.MaxPool2d(2, 1))
    monkeypatch.setattr(type(get_backend("cpu")), "pools", lambda self, geometry, pooling, for_values: pooling.stride == (2, 2))
    before, after = _rewrite(model, [drop_unused, fuse_epilogues, pool_convolutions], 2, 3, 9, 8)
    assert before.count("max_pool2d_forward") == 2
    assert after == ["conv2d_max_pool_values", "conv2d_fused", "max_pool2d_values"]


def test_the_cpu_pools_lenet5_in_inference():
    graph = numbanet.compile(numbanet.create_model("lenet5"), numbanet.zeros(3, 1, 32, 32)).plan().graph
    assert graph.primitives().count("conv2d_max_pool_values") == 2 and "max_pool2d_values" not in graph.primitives()


def test_the_cpu_pools_the_first_layer_in_inference():
    graph = numbanet.compile(numbanet.create_model("resnet18"), numbanet.zeros(1, 3, 224, 224)).plan().graph
    assert graph.primitives()[0] == "conv2d_max_pool_values" and "max_pool2d_values" not in graph.primitives()
