"""state_dict and load_state_dict."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest

import numbanet
from numbanet import nn
from numbanet.errors import CheckpointError


def _net(nn=nn):
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def test_round_trip():
    first, second = _net(), _net()
    state = first.state_dict()
    assert type(state) is OrderedDict and not any(t.requires_grad for t in state.values())
    result = second.load_state_dict(state)
    assert result.missing_keys == result.unexpected_keys == []
    for key, value in second.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), state[key].numpy())
        assert value.storage is not state[key].storage


def test_values_share_memory_with_the_module():
    net = _net()
    state = net.state_dict()
    with numbanet.no_grad():
        net[3].bias.fill_(7)
    assert (state["3.bias"].numpy() == 7).all()
    assert net.state_dict(keep_vars=True)["3.bias"] is net[3].bias
    assert list(net[3].state_dict(prefix="head.")) == ["head.weight", "head.bias"]


CONVERSIONS = {"numpy": lambda a: a, "tensor": numbanet.tensor, "float64": lambda a: a.astype(np.float64),
               "list": lambda a: a.tolist()}


@pytest.mark.parametrize("convert", CONVERSIONS.values(), ids=CONVERSIONS)
def test_sources(convert, rng):
    net = _net()
    state = {key: np.asarray(rng.standard_normal(t.shape), np.float32) for key, t in net.state_dict().items()}
    net.load_state_dict({key: convert(value) for key, value in state.items()})
    assert net[3].weight.dtype == numbanet.float32
    np.testing.assert_array_equal(net[3].weight.detach().numpy(), state["3.weight"])
    np.testing.assert_array_equal(net[1].num_batches_tracked.numpy(), state["1.num_batches_tracked"].astype(np.int64))


def test_from_torch():
    torch = pytest.importorskip("torch")
    net, theirs = _net(), _net(torch.nn)
    shapes = [{key: tuple(t.shape) for key, t in n.state_dict().items()} for n in (net, theirs)]
    assert shapes[0] == shapes[1] and list(shapes[0]) == list(shapes[1])
    net.load_state_dict(theirs.state_dict())
    np.testing.assert_array_equal(net[0].weight.detach().numpy(), theirs[0].weight.detach().numpy())
    half = {key: t.bfloat16() if t.is_floating_point() else t for key, t in theirs.state_dict().items()}
    net.load_state_dict(half)
    np.testing.assert_array_equal(net[0].weight.detach().numpy(), theirs[0].weight.detach().bfloat16().float().numpy())


def test_loading_raises_the_version_and_converts_the_device():
    net = _net().to("reference")
    version = net[3].weight.storage.version
    net.load_state_dict(_net().state_dict())
    assert net[3].weight.storage.version > version and net[3].weight.device == "reference"


def test_every_mismatch_is_listed_and_nothing_is_changed():
    net = _net()
    before = {key: value.numpy().copy() for key, value in net.state_dict().items()}
    state = {key: value + 1 for key, value in before.items()}
    state["3.wieght"] = state.pop("3.weight")
    state["0.bias"] = np.zeros(5, np.float32)
    state["other"] = np.zeros(1)
    with pytest.raises(CheckpointError) as caught:
        net.load_state_dict(state)
    message = str(caught.value)
    for part in ("does not fit Sequential", "missing 3.weight", "unexpected 3.wieght (did you mean 3.weight?)",
                 "unexpected other", "0.bias expects shape (2,), received (5,)", "strict=False"):
        assert part in message
    with pytest.raises(CheckpointError, match="0.bias expects shape"):
        net.load_state_dict(state, strict=False)
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[key])
    del state["0.bias"]
    result = net.load_state_dict(state, strict=False)
    assert result.missing_keys == ["0.bias", "3.weight"] and sorted(result.unexpected_keys) == ["3.wieght", "other"]
    assert (net[3].bias.detach().numpy() == before["3.bias"] + 1).all()


def test_checkpoints_without_batch_counts_load():
    net = _net()
    state = dict(net.state_dict())
    del state["1.num_batches_tracked"]
    assert net.load_state_dict(state).missing_keys == []


def test_assign_takes_the_tensors_themselves():
    net = _net()
    state = {key: numbanet.tensor(np.asarray(t.numpy(), np.float64)) if t.is_floating_point() else t
             for key, t in net.state_dict().items()}
    net[0].weight.requires_grad_(False)
    net.load_state_dict(state, assign=True)
    weight = net[0].weight
    assert isinstance(weight, nn.Parameter) and weight.array is state["0.weight"].array
    assert weight.dtype == numbanet.float64 and not weight.requires_grad and net[3].weight.requires_grad


@pytest.mark.parametrize("state, message", [([1], "expected a mapping"),
                                            ({"3.bias": "text"}, "3.bias expects a tensor")])
def test_what_is_no_state(state, message):
    with pytest.raises(CheckpointError, match=message):
        _net().load_state_dict(state)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.model."])
def test_names_of_wrapped_networks(prefix, caplog):
    net, other = _net(), _net()
    with caplog.at_level("INFO", "numbanet"):
        net.load_state_dict({prefix + key: value for key, value in other.state_dict().items()})
    np.testing.assert_array_equal(net[3].weight.detach().numpy(), other[3].weight.detach().numpy())
    assert f"begin with '{prefix}', which was left out" in caplog.text


def test_a_prefix_that_belongs_to_the_names_stays():
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = _net()

    net, other = Wrapped(), Wrapped()
    net.load_state_dict(other.state_dict())
    net.load_state_dict({f"module.{key}": value for key, value in other.state_dict().items()})
    np.testing.assert_array_equal(net.model[3].bias.detach().numpy(), other.model[3].bias.detach().numpy())
    some = {"model.3.bias": np.zeros(3, np.float32), "3.weight": np.zeros((3, 8), np.float32)}
    assert _net().load_state_dict(some, strict=False).unexpected_keys == ["model.3.bias"]       # only what all names share


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("assign", [False, True])
def test_arrays_take_the_dtype_of_the_members(name, assign, rng):
    net = _net()
    dtype = numbanet.dtypes.as_dtype(name)
    values = {key: np.asarray(rng.standard_normal(t.shape)).astype(dtype) for key, t in net.state_dict().items()}
    net.load_state_dict(values, assign=assign)
    assert {t.dtype for t in net.parameters()} == {numbanet.float32} and net[1].num_batches_tracked.dtype == numbanet.int64
    np.testing.assert_array_equal(net[0].weight.detach().numpy(), values["0.weight"].astype(np.float32))


def test_another_number_of_classes_is_explained():
    small, large = (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, classes)) for classes in (3, 10))
    with pytest.raises(CheckpointError, match=r"(?s)2.weight expects shape \(3, 8\), received \(10, 8\).*2.bias.*of a model with "
                                              r"num_classes=10, this one has 3: .*reset_classifier\(3\)"):
        small.load_state_dict(large.state_dict())
    wide = nn.Sequential(nn.Conv2d(4, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    with pytest.raises(CheckpointError, match="of a model with in_chans=4, this one has 1"):
        small.load_state_dict(wide.state_dict())
    with pytest.raises(CheckpointError) as caught:      # both at once: the shapes alone
        small.load_state_dict(nn.Sequential(nn.Conv2d(4, 2, 3), nn.Flatten(), nn.Linear(8, 10)).state_dict())
    assert "num_classes" not in str(caught.value) and "in_chans" not in str(caught.value)


def test_long_lists_are_cut():
    state = {f"blocks.{i}.{name}": np.zeros(1) for i in range(2000) for name in ("weight", "bias")}
    net = nn.Sequential(*[nn.Linear(1, 1) for _ in range(2000)])
    with pytest.raises(CheckpointError) as caught:
        net.load_state_dict(state)
    assert "unexpected blocks.0.weight" in str(caught.value) and str(caught.value).count("and 3980 more") == 2
    assert len(str(caught.value)) < 5000


# Adopted arrays

def _flat(size: int, offset: int) -> np.ndarray:
    """Zeros whose address is `offset` bytes beyond a multiple of 64."""
    memory = np.zeros(size * 4 + 128, np.uint8)
    start = -memory.ctypes.data % 64 + offset
    return memory[start:start + size * 4].view(np.float32)


def test_assign_adopts_arrays(backend, rng):
    net = _net().to(backend)
    values = {key: rng.standard_normal(t.shape).astype(t.dtype) for key, t in net.state_dict().items()}
    net.load_state_dict(values, assign=True)
    for key, t in net.state_dict().items():
        assert np.shares_memory(t.numpy(), values[key]), key
        assert t.device == backend
    assert isinstance(net[0].weight, nn.Parameter) and net[0].weight.requires_grad
    version = net[0].weight.storage.version
    with numbanet.no_grad():
        net[0].weight.fill_(2)
    assert (values["0.weight"] == 2).all() and net[0].weight.storage.version > version


@pytest.mark.parametrize("spoil", [lambda a: np.asfortranarray(a), lambda a: np.repeat(a, 2, -1)[..., ::2],
                                   lambda a: np.frombuffer(a.tobytes(), np.float32).reshape(a.shape),
                                   lambda a: np.frombuffer(bytearray(b"." + a.tobytes()), np.float32, a.size, 1).reshape(a.shape)],
                         ids=["fortran", "strided", "read-only", "misaligned"])
def test_assign_copies_what_kernels_cannot_use(spoil, rng):
    layer, values = nn.Conv2d(2, 3, (2, 4)), rng.standard_normal((3, 2, 2, 4)).astype(np.float32)
    spoilt = spoil(values)
    layer.load_state_dict({"weight": spoilt, "bias": np.zeros(3, np.float32)}, assign=True)
    flags = layer.weight.array.flags
    assert flags.c_contiguous and flags.aligned and flags.writeable and not np.shares_memory(layer.weight.array, spoilt)
    np.testing.assert_array_equal(layer.weight.detach().numpy(), values)


@pytest.mark.parametrize("offset", [0, 4, 28, 60])
def test_networks_compute_the_same_wherever_adopted_arrays_lie(offset, rng):
    net = nn.Sequential(nn.Conv2d(16, 40, 3), nn.BatchNorm2d(40), nn.Conv2d(40, 24, 1), nn.Conv2d(24, 24, 3, groups=24), nn.Flatten(),
                        nn.Linear(384, 7))
    x = numbanet.tensor(rng.standard_normal((2, 16, 8, 8)).astype(np.float32))
    expected = net(x)
    expected.sum().backward()
    gradients = {key: p.grad.numpy().copy() for key, p in net.named_parameters()}
    moved = {}
    for key, t in net.state_dict().items():
        values = t.numpy()
        moved[key] = _flat(values.size, offset).reshape(values.shape) if values.dtype == np.float32 else values.copy()
        moved[key][...] = values
    net.load_state_dict(moved, assign=True)
    assert net[0].weight.array.ctypes.data % 64 == offset
    y = net(x)
    np.testing.assert_array_equal(y.detach().numpy(), expected.detach().numpy())
    y.sum().backward()
    for key, p in net.named_parameters():
        np.testing.assert_array_equal(p.grad.numpy(), gradients[key])
