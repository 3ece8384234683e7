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
