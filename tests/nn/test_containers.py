"""Sequential, ModuleList, ModuleDict, ParameterList, ParameterDict."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest

import numbanet
from numbanet import nn
from numbanet.errors import UsageError


def _layers(count):
    return [nn.Linear(n + 1, n + 2) for n in range(count)]


@pytest.mark.parametrize("kind", [nn.Sequential, nn.ModuleList])
def test_sequence(kind):
    def make(members):
        return kind(*members) if kind is nn.Sequential else kind(members)
    layers = _layers(4)
    made = make(layers)
    assert list(made) == layers and len(made) == 4
    assert made[-1] is layers[3] and list(made[1:3]) == layers[1:3] and type(made[1:3]) is type(made)
    extra = nn.ReLU()
    made.insert(1, extra)
    assert list(made) == [layers[0], extra, *layers[1:]] and list(made._modules) == ["0", "1", "2", "3", "4"]
    assert made.pop(1) is extra
    del made[0]
    assert list(made) == layers[1:] and list(made._modules) == ["0", "1", "2"]
    del made[1:]
    assert list(made) == layers[1:2]
    made[0] = extra
    made.append(layers[0]).extend(layers[2:])
    assert list(made) == [extra, layers[0], *layers[2:]]
    joined = made + make(layers[:1])
    assert list(joined) == [*made, layers[0]]
    made += layers[:1]
    assert list(made) == list(joined)
    for index in (99, -99):
        with pytest.raises(IndexError, match="out of range; it has 5 members"):
            made[index]
    with pytest.raises(IndexError, match="out of range"):
        made.insert(99, extra)
    with pytest.raises(TypeError, match="expects a Module or None, received int"):
        made.append(3)


def test_sequential_forward_and_names(rng):
    layers = _layers(3)
    net = nn.Sequential(OrderedDict(a=layers[0], b=layers[1], c=layers[2]))
    x = numbanet.tensor(rng.standard_normal((2, 1)).astype(np.float32))
    np.testing.assert_array_equal(net(x).detach().numpy(), layers[2](layers[1](layers[0](x))).detach().numpy())
    assert net.b is layers[1] and list(net[1:]._modules) == ["b", "c"]
    assert nn.Sequential()(x) is x


def test_module_dict():
    made = nn.ModuleDict({"conv": nn.Conv2d(1, 1, 1), "act": nn.ReLU()})
    made["pool"] = nn.MaxPool2d(2)
    made.update([("last", nn.Identity())])
    assert list(made) == list(made.keys()) == ["conv", "act", "pool", "last"]
    assert "act" in made and len(made) == 4 and made["act"] is made.act
    assert [n for n, _ in made.named_parameters()] == ["conv.weight", "conv.bias"]
    assert isinstance(made.pop("pool"), nn.MaxPool2d)
    del made["act"]
    assert [k for k, _ in made.items()] == ["conv", "last"] and len(list(made.values())) == 2
    with pytest.raises(KeyError, match="'keys' of the class would be hidden"):
        made["keys"] = nn.Identity()
    made.clear()
    assert not made


def test_parameter_list():
    made = nn.ParameterList([numbanet.ones(2), nn.Parameter(numbanet.zeros(3))])
    made.append(numbanet.ones(1))
    made += [numbanet.ones(4)]
    assert [tuple(p.shape) for p in made] == [(2,), (3,), (1,), (4,)] and len(list(made.parameters())) == 4
    assert made[-1] is made[3] and len(made[1:]) == 3
    made[0] = numbanet.ones(9)
    assert made[0].shape == (9,) and isinstance(made[0], nn.Parameter)
    assert "(0): Parameter of shape (9,), float32" in repr(made)
    with pytest.raises(UsageError, match="received float"):
        made.append(1.0)


def test_parameter_dict():
    made = nn.ParameterDict({"a": numbanet.ones(2)})
    made["b"] = nn.Parameter(numbanet.ones(1))
    made.update({"c": numbanet.ones(3)})
    assert list(made) == ["a", "b", "c"] and "b" in made and len(made) == 3
    assert [n for n, _ in made.named_parameters()] == ["a", "b", "c"]
    assert made.pop("b").shape == (1,)
    del made["a"]
    assert [k for k, _ in made.items()] == list(made.keys()) == ["c"] and list(made.values())[0].shape == (3,)
