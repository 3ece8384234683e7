"""Module: registration, traversal, modes, hooks, copies, errors."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import numbanet
from numbanet import nn
from numbanet.errors import ShapeError, UsageError


class Block(nn.Module):
    """Two layers, a shared parameter, a buffer and a buffer that is not saved."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.second = nn.Linear(4, 2, bias=False)
        self.scale = nn.Parameter(numbanet.ones(2))
        self.register_buffer("offset", numbanet.zeros(2))
        self.register_buffer("scratch", numbanet.zeros(1), persistent=False)
        self.also_scale = self.scale

    def forward(self, x, shift=0.0):
        return self.second(nn.functional.relu(self.first(x))) * self.scale + self.offset + shift


def _x(rng, *shape):
    return numbanet.tensor(rng.standard_normal(shape).astype(np.float32))


# Registration
def test_names_of_members():
    block = Block()
    assert [n for n, _ in block.named_parameters()] == ["scale", "first.weight", "first.bias", "second.weight"]
    assert [n for n, _ in block.named_parameters(remove_duplicate=False)][:2] == ["scale", "also_scale"]
    assert [n for n, _ in block.named_parameters(recurse=False)] == ["scale"]
    assert [n for n, _ in block.named_buffers()] == ["offset", "scratch"]
    assert [n for n, _ in block.named_modules()] == ["", "first", "second"]
    assert list(block.children()) == [block.first, block.second]
    assert "first" in dir(block) and "offset" in dir(block)


def test_a_shared_module_is_listed_once():
    layer = nn.Linear(2, 2)
    both = nn.Sequential(layer, nn.ReLU(), layer)
    assert len(list(both.parameters())) == 2 and len(list(both.modules())) == 3 and len(list(both.children())) == 2
    assert len(both.state_dict()) == 4


def test_assignment_moves_a_name_between_kinds():
    module = nn.Module()
    module.member = 3
    module.member = nn.Linear(1, 1)
    assert list(module._modules) == ["member"] and "member" not in module.__dict__
    module.member = None
    assert module.member is None
    module.member = nn.Parameter(numbanet.ones(1))
    assert list(module._parameters) == ["member"] and not module._modules
    del module.member
    assert not hasattr(module, "member")
    module.count = nn.Buffer(numbanet.ones(1))
    module.count = numbanet.zeros(1)
    assert isinstance(module.count, numbanet.Tensor) and list(module._buffers) == ["count"]


def test_wrong_registration():
    block = Block()
    with pytest.raises(TypeError, match="Block.scale: expected a Parameter or None, received Tensor"):
        block.scale = numbanet.ones(2)
    with pytest.raises(TypeError, match="Block.first: expected a Module or None"):
        block.first = 3
    with pytest.raises(TypeError, match="Block.offset: expected a Tensor or None"):
        block.offset = 3
    with pytest.raises(KeyError, match="without a dot"):
        block.register_module("a.b", nn.Identity())
    with pytest.raises(KeyError, match="'forward' of the class would be hidden"):
        block.register_parameter("forward", nn.Parameter(numbanet.ones(1)))
    with pytest.raises(UsageError, match="must be a leaf"):
        product = nn.Parameter(numbanet.ones(1))
        product._record = (block.first(numbanet.ones(1, 3)))._record
        block.register_parameter("product", product)

    class Early(nn.Module):
        def __init__(self):
            self.layer = nn.Identity()
    with pytest.raises(AttributeError, match=r"before super\(\).__init__\(\)"):
        Early()
    with pytest.raises(AttributeError, match="'Block' object has no attribute 'frist'"):
        block.frist  # noqa: B018


def test_get_members():
    block = nn.Sequential(Block())
    assert block.get_submodule("") is block and block.get_submodule("0.first") is block[0].first
    assert block.get_parameter("0.first.bias") is block[0].first.bias
    assert block.get_buffer("0.offset") is block[0].offset
    with pytest.raises(AttributeError, match="Block has no module 'third'.*it has .*first"):
        block.get_submodule("0.third")
    with pytest.raises(AttributeError, match="there is no parameter '0.shift'"):
        block.get_parameter("0.shift")


def test_absent_names():
    with pytest.raises(AttributeError, match="nn.LSTM: recurrent layers are not part"):
        nn.LSTM  # noqa: B018
    assert not hasattr(nn, "GRU")
    with pytest.raises(AttributeError, match="module 'numbanet.nn' has no attribute 'Conv2dd'; did you mean nn.Conv2d"):
        nn.Conv2dd  # noqa: B018
    assert all(hasattr(nn, name) for name in nn.__all__)


# Modes and placement
def test_train_eval_freeze_and_zero_grad(rng):
    block = nn.Sequential(Block(), nn.Dropout())
    assert not any(m.training for m in block.eval().modules())
    assert all(m.training for m in block.train().modules())
    with pytest.raises(UsageError, match="expected True or False"):
        block.train(1)
    block(_x(rng, 2, 3)).sum().backward()
    assert all(p.grad is not None for p in block.parameters())
    block.zero_grad(set_to_none=False)
    assert all((p.grad.numpy() == 0).all() for p in block.parameters())
    block.zero_grad()
    assert all(p.grad is None for p in block.parameters())
    assert not any(p.requires_grad for p in block.requires_grad_(False).parameters())


def test_conversion_keeps_identity(rng):
    block = Block()
    parameters = list(block.parameters())
    block(_x(rng, 2, 3)).sum().backward()
    block.register_buffer("steps", numbanet.tensor(3))
    assert block.double() is block
    assert all(a is b for a, b in zip(parameters, block.parameters(), strict=True))
    assert {p.dtype.name for p in block.parameters()} == {p.grad.dtype.name for p in parameters} == {"float64"}
    assert block.offset.dtype == numbanet.float64 and block.steps.dtype == numbanet.int64
    block.to("reference", numbanet.float32)
    assert {p.device for p in block.parameters()} == {block.steps.device} == {"reference"}
    block.to(numbanet.zeros(1, dtype=numbanet.float64))
    assert block.scale.device == "cpu" and block.scale.dtype == numbanet.float64
    block.float().cpu()
    assert block(_x(rng, 2, 3)).shape == (2, 2)
    with pytest.raises(UsageError, match="floating-point dtypes only"):
        block.to(numbanet.int64)


def test_apply_visits_children_first():
    seen = []
    block = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Tanh()))
    assert block.apply(lambda m: seen.append(type(m).__name__)) is block
    assert seen == ["ReLU", "Tanh", "Sequential", "Sequential"]


# Hooks
def test_forward_hooks(rng):
    layer = nn.Linear(3, 2)
    x, calls = _x(rng, 4, 3), []
    plain = layer(x).detach().numpy()
    pre = layer.register_forward_pre_hook(lambda m, args: calls.append("pre") or (args[0] * 2,))
    post = layer.register_forward_hook(lambda m, args, y: calls.append(args[0] is not x) or y + 1)
    first = layer.register_forward_hook(lambda m, args, y: calls.append("first"), prepend=True)
    expected = 2 * plain - layer.bias.detach().numpy() + 1
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-5, atol=1e-6)
    assert calls == ["pre", "first", True]
    for handle in (pre, post, first):
        handle.remove()
    np.testing.assert_array_equal(layer(x).detach().numpy(), plain)


def test_hooks_with_keyword_arguments(rng):
    block, x = Block(), _x(rng, 2, 3)
    plain = block(x, shift=1.0).detach().numpy()
    def raise_shift(module, args, kwargs):
        return args, {"shift": kwargs["shift"] + 2}
    with block.register_forward_pre_hook(raise_shift, with_kwargs=True):
        np.testing.assert_allclose(block(x, shift=1.0).detach().numpy(), plain + 2, rtol=1e-5)
    seen = []
    with block.register_forward_hook(lambda m, args, kwargs, y: seen.append(kwargs), with_kwargs=True):
        block(x, shift=1.0)
    assert seen == [{"shift": 1.0}]
    np.testing.assert_array_equal(block(x, shift=1.0).detach().numpy(), plain)


def _record_backward(module):
    seen = []
    module.register_full_backward_hook(
        lambda m, gi, go: seen.append([None if g is None else g.numpy().copy() for g in (*gi, *go)]))
    return seen


def test_full_backward_hook(rng):
    torch = pytest.importorskip("torch")
    layer, theirs = nn.Linear(3, 2), torch.nn.Linear(3, 2)
    layer.load_state_dict(theirs.state_dict())
    x = rng.standard_normal((4, 3)).astype(np.float32)
    mine, expected = _record_backward(layer), _record_backward(theirs)
    for requires_grad in (True, False):
        for nets, tensor in ((layer, numbanet.tensor), (theirs, torch.tensor)):
            (nets(tensor(x, requires_grad=requires_grad)) ** 2).sum().backward()
    assert len(mine) == len(expected) == 2
    for received, wanted in zip(mine, expected):
        for r, w in zip(received, wanted, strict=True):
            assert (r is None) == (w is None)
            if r is not None:
                np.testing.assert_allclose(r, w, rtol=1e-5, atol=1e-6)


def test_backward_hooks_replace_gradients(rng):
    layer = nn.ReLU()
    x = numbanet.tensor([1.0, 2.0], requires_grad=True)
    layer.register_full_backward_hook(lambda m, gi, go: (gi[0] * 10,))
    pre = layer.register_full_backward_pre_hook(lambda m, go: go[0] * 3)
    layer(x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [30, 30])
    pre.remove()
    x.grad = None
    layer(x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [10, 10])


def test_backward_hook_with_several_outputs(rng):
    class Split(nn.Module):
        def forward(self, a, b):
            return a + b, a * b

    split, seen = Split(), []
    split.register_full_backward_hook(lambda m, gi, go: seen.append((len(gi), len(go))))
    a, b = (numbanet.tensor([2.0], requires_grad=True) for _ in range(2))
    total, product = split(a, b)
    (total + 3 * product).sum().backward()
    assert seen == [(2, 2)]
    np.testing.assert_array_equal(a.grad.numpy(), [7])


# Copies and text
def test_deepcopy_is_independent(rng):
    block = Block()
    x = _x(rng, 2, 3)
    twin = copy.deepcopy(block)
    assert twin.also_scale is twin.scale and twin.scale is not block.scale
    np.testing.assert_array_equal(twin(x).detach().numpy(), block(x).detach().numpy())
    with numbanet.no_grad():
        block.scale.mul_(3)
    assert (twin.scale.detach().numpy() == 1).all()
    assert isinstance(twin.first.weight, nn.Parameter) and twin.first.weight.requires_grad


def test_pickle(rng):
    block = Block().eval()
    block.first.weight.requires_grad_(False)
    twin = pickle.loads(pickle.dumps(block))
    x = _x(rng, 2, 3)
    np.testing.assert_array_equal(twin(x).detach().numpy(), block(x).detach().numpy())
    assert not twin.training and not twin.first.weight.requires_grad and twin.second.weight.requires_grad
    assert "scratch" not in twin.state_dict() and twin.also_scale is twin.scale


def test_repr_is_that_of_torch():
    torch = pytest.importorskip("torch")

    def make(nn):
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, (3, 1), stride=2, dilation=2, groups=4, bias=False),
            nn.Conv2d(8, 8, 3, padding="same", padding_mode="reflect"), nn.BatchNorm2d(8), nn.Softmax(dim=1),
            nn.ConvTranspose2d(8, 4, 2, 2, output_padding=1), nn.ReLU(inplace=True), nn.ReLU(), nn.ELU(), nn.GELU(),
            nn.LeakyReLU(0.2),
            nn.Sequential(nn.MaxPool2d(2), nn.AvgPool2d(3, 2), nn.AdaptiveAvgPool2d((1, 1)), nn.Dropout(0.3)),
            nn.Flatten(), nn.Linear(8, 2), nn.GroupNorm(2, 8), nn.LayerNorm((4, 4)), nn.LocalResponseNorm(5),
            nn.InstanceNorm2d(4), nn.ZeroPad2d(1), nn.ReflectionPad2d((1, 2, 3, 4)), nn.ConstantPad2d(1, 2.5),
            nn.PReLU(4), nn.Hardtanh(), nn.Softplus(), nn.PixelShuffle(2), nn.Unflatten(1, (2, 2)), nn.Identity(),
            nn.CrossEntropyLoss(), nn.BatchNorm1d(3, affine=False), nn.AlphaDropout(), nn.Sigmoid())

    # Older versions of PyTorch do not tell the bias of norms.
    assert repr(make(nn)) == repr(make(torch.nn)) or "affine=True, bias" not in repr(torch.nn.BatchNorm2d(1))


# Errors
def test_errors_name_the_layer(rng):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Sequential(nn.ReLU(), nn.Sequential(nn.ReLU(), nn.Conv2d(64, 8, 3)))
            self.blocks = nn.ModuleList([nn.Linear(3, 3)])

        def forward(self, x):
            return self.features(x) if x.ndim == 4 else self.blocks[0](x)

    net = Net()
    with pytest.raises(ShapeError, match=r"^features\.1\.1 conv2d: weight expects 64 input channels, x has 32 "):
        net(_x(rng, 1, 32, 5, 5))
    with pytest.raises(ShapeError, match=r"^blocks\.0 linear: "):
        net(_x(rng, 2, 4))
    with pytest.raises(ShapeError, match=r"^conv2d: "):
        net.features[1][1](_x(rng, 1, 32, 5, 5))


def test_forward_must_be_defined():
    with pytest.raises(NotImplementedError, match="Module.forward is not defined"):
        nn.Module()(1)
