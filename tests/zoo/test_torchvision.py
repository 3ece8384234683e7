"""Beside torchvision: the same weights and the same input give the same logits, loss, gradients and running statistics."""

from __future__ import annotations

import math

import numpy as np
import pytest

import numbanet
from numbanet import zoo
from numbanet.nn import functional as F
from numbanet.nn import init
from tests.zoo.keys import committed_keys, keys_of
from tests.zoo.torchvision_peer import make_peer, peer_names, torchvision

# Of each family a small one; all of them with -m full.
REPRESENTATIVE = ("convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "mnasnet0_5", "mobilenet_v2",
                  "mobilenet_v3_small", "regnet_y_400mf", "resnet18", "resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_1")
LONG_STEPS = ("densenet121", "inception_v3")      # many undecided maxima, which take double precision; 299 x 299 pixels in training
SHARED = [name for name in zoo.list_models() if committed_keys(name)]


def _models(representative):
    return [pytest.param(name, marks=() if name in representative else pytest.mark.full) for name in SHARED]


@pytest.fixture(autouse=True)
def strict():
    before = numbanet.get_float32_precision()
    numbanet.set_float32_precision("strict")
    yield
    numbanet.set_float32_precision(before)


def _random_state(peer, rng) -> dict[str, np.ndarray]:
    """Values that keep maps of a moderate size, and the inputs of ReLUs away from 0.

    A ReLU whose input has another sign after other roundings changes a gradient by far more than a rounding; deep networks
    of random weights have millions of inputs. So normalisations give small deviations from clearly positive or, in every
    fifth channel, clearly negative values, whose sums over residual blocks stay away from 0 as well.
    """
    entries = peer.state_dict()
    state, normalised = {}, {name.removesuffix(".weight") for name, value in entries.items() if value.ndim == 1}
    for name, value in entries.items():
        shape, (layer, _, own) = tuple(value.shape), name.rpartition(".")
        if own == "num_batches_tracked":
            state[name] = np.array(3)
        elif own == "weight" and len(shape) >= 2:
            state[name] = rng.standard_normal(shape, dtype=np.float32) * np.float32(math.sqrt(2 / math.prod(shape[1:])))
        elif own == "weight":
            state[name] = rng.uniform(0.22, 0.25, shape).astype(np.float32)
        elif own == "bias" and layer in normalised:
            state[name] = (rng.uniform(1.0, 1.3, shape) * np.where(np.arange(len(value)) % 5, 1, -1)).astype(np.float32)
        elif own == "running_var":
            state[name] = rng.uniform(0.5, 1.0, shape).astype(np.float32)
        else:
            state[name] = rng.standard_normal(shape, dtype=np.float32) * np.float32(0.1)
    return state


def _pair(name: str, rng):
    """(ours, torchvision's) with the same random state, and without random layers."""
    import torch
    peer = make_peer(name)
    state = _random_state(peer, rng)
    theirs = peer.state_dict()          # with the version that MNASNet asks for
    theirs.update((key, torch.from_numpy(value)) for key, value in state.items())
    peer.load_state_dict(theirs, assign=True)
    with init.skip():
        ours = zoo.create_model(name)
    ours.load_state_dict({key: value.copy() for key, value in state.items()}, assign=True)
    for model in (ours, peer):
        for module in model.modules():
            if type(module).__name__ in ("Dropout", "StochasticDepth"):
                module.p = 0.0
    for parameter in peer.parameters():
        parameter.requires_grad_()
    return ours, peer


def _error(received, expected, floor: float = 0.0) -> float:
    received, expected = received.detach().numpy(), expected.detach().numpy()
    assert received.shape == expected.shape and np.isfinite(expected).all()
    return float(np.abs(received - expected).max() / max(np.abs(expected).max(), floor, 1e-30))


def _size(model, least: int = 128) -> int:
    """Small, and large enough for batch normalisation over the last maps."""
    return max(least, model.minimum_size)


def _compare_logits(name: str, rng, size: int | None = None) -> float:
    import torch
    ours, peer = _pair(name, rng)
    size = size or _size(ours.eval())
    x = rng.standard_normal((2, 3, size, size), dtype=np.float32)
    with numbanet.no_grad(), torch.no_grad():
        return _error(ours.eval()(numbanet.tensor(x)), peer.eval()(torch.from_numpy(x)))


def _losses(functional, outputs, target):
    """The loss of each output."""
    return sum(functional.cross_entropy(y, target) for y in (outputs if isinstance(outputs, tuple) else (outputs,)))


def _compare_step(name: str, rng, dtype: str = "float32") -> dict[str, float]:
    """The worst errors of one step of training: loss, gradients, running statistics."""
    import torch
    ours, peer = _pair(name, rng)
    size = _size(ours.train(), 128 if dtype == "float32" else 64)
    x, target = rng.standard_normal((4, 3, size, size)).astype(dtype), rng.integers(0, 1000, 4)
    ours.to(dtype=dtype)
    peer.train().to(getattr(torch, dtype))
    loss = _losses(F, ours(numbanet.tensor(x)), numbanet.tensor(target))
    expected = _losses(torch.nn.functional, peer(torch.from_numpy(x)), torch.from_numpy(target))
    loss.backward()
    expected.backward()
    gradients, buffers = {key: p.grad for key, p in peer.named_parameters()}, dict(peer.named_buffers())
    # What a bias ahead of a batch normalisation receives is rounding alone; the median tensor gives the scale of that.
    floor = float(np.median([float(g.abs().max()) for g in gradients.values()]))
    return {"loss": _error(loss, expected),
            "gradients": max(_error(p.grad, gradients[key], floor) for key, p in ours.named_parameters()),
            "statistics": max((_error(b, buffers[key]) for key, b in ours.named_buffers() if key in buffers), default=0.0)}


@pytest.mark.parametrize("name", SHARED)
def test_the_committed_keys_are_torchvisions(name):
    assert name in peer_names()
    assert keys_of(make_peer(name).state_dict()) == committed_keys(name)


def test_every_shared_model_has_its_keys():
    torchvision()
    assert sorted(peer_names() & set(zoo.list_models())) == SHARED, "run python -m tests.zoo.write_keys"


@pytest.mark.parametrize("name", _models(REPRESENTATIVE))
def test_logits(name, rng):
    torchvision()
    assert _compare_logits(name, rng) <= 1e-5


@pytest.mark.full
@pytest.mark.parametrize("name", SHARED)
def test_logits_at_full_size(name, rng):
    torchvision()
    assert _compare_logits(name, rng, zoo.model_info(name).input_size[1]) <= 1e-5


@pytest.mark.parametrize("name", _models(set(REPRESENTATIVE) - set(LONG_STEPS)))
def test_training_step(name, rng):
    torchvision()
    errors = _compare_step(name, rng)
    assert errors["loss"] <= 1e-5 and errors["statistics"] <= 1e-5, errors
    if errors["gradients"] > 1e-4:
        # A maximum or a sign that other roundings decide otherwise sends a gradient elsewhere; not so in double precision.
        assert errors["gradients"] <= 0.2, errors
        precise = _compare_step(name, rng, "float64")
        assert max(precise.values()) <= 1e-9, (errors, precise)
