"""Mixed precision where there is no GPU: the scaler, whose arithmetic is the host's, and clear errors."""

import numpy as np
import pytest

import numbanet
from numbanet import nn
from numbanet.amp import GradScaler, autocast
from numbanet.errors import CheckpointError, UnsupportedOperationError, UsageError
from numbanet.nn import functional as F


def _problem():
    model = nn.Linear(3, 2)
    return model, numbanet.optim.SGD(model.parameters(), lr=0.5)


def test_scaled_gradients_are_the_same_gradients():
    model, optimizer = _problem()
    scaler, x = GradScaler(), numbanet.ones(4, 3)
    loss = model(x).square().mean()
    loss.backward()
    wanted = model.weight.grad.numpy().copy()
    optimizer.zero_grad()
    scaler.scale(model(x).square().mean()).backward()
    np.testing.assert_array_equal(model.weight.grad.numpy(), 65536 * wanted)
    scaler.unscale_(optimizer)
    np.testing.assert_array_equal(model.weight.grad.numpy(), wanted)
    with pytest.raises(UsageError, match="called for this optimizer already"):
        scaler.unscale_(optimizer)
    before = model.weight.detach().numpy().copy()
    scaler.step(optimizer)
    scaler.update()
    np.testing.assert_array_equal(model.weight.detach().numpy(), before - 0.5 * wanted)
    assert scaler.get_scale() == 65536


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_updates_with_gradients_that_are_no_numbers_are_skipped(value):
    model, optimizer = _problem()
    scaler = GradScaler(growth_interval=2)
    for turn, wrong in enumerate([True, False, False, False]):
        model.weight.grad = numbanet.full((2, 3), value if wrong else 1.0)
        model.bias.grad = numbanet.zeros(2)
        before = model.weight.detach().numpy().copy()
        scaler.step(optimizer)
        assert np.array_equal(model.weight.detach().numpy(), before) == wrong
        scaler.update()
        assert scaler.get_scale() == [32768, 32768, 65536, 65536][turn]


def test_state_goes_on():
    scaler, other = GradScaler(init_scale=8.0, growth_interval=5), GradScaler()
    assert set(scaler.state_dict()) == {"scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker"}
    other.load_state_dict(scaler.state_dict())
    assert other.state_dict() == scaler.state_dict()
    with pytest.raises(CheckpointError, match="was not enabled"):
        other.load_state_dict(GradScaler(enabled=False).state_dict())


def test_a_scaler_that_is_not_enabled_does_nothing():
    model, optimizer = _problem()
    scaler = GradScaler(enabled=False)
    loss = model(numbanet.ones(1, 3)).sum()
    assert scaler.scale(loss) is loss and scaler.get_scale() == 1 and not scaler.is_enabled()
    loss.backward()
    before = model.weight.detach().numpy().copy()
    scaler.step(optimizer)
    scaler.update()
    assert not np.array_equal(model.weight.detach().numpy(), before) and scaler.state_dict() == {}


def test_update_without_a_step():
    with pytest.raises(UsageError, match="expects a step"):
        GradScaler().update()
    with pytest.raises(UsageError, match="growth_factor above 1"):
        GradScaler(growth_factor=0.5)


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_other_devices_say_that_they_compute_in_float32(device):
    with pytest.raises(UnsupportedOperationError, match=f"'{device}', whose kernels compute in float32"):
        autocast(device)
    model, x = nn.Linear(3, 2).to(device), numbanet.ones(2, 3, device=device)
    with pytest.raises(UsageError, match=rf"compile: precision='bf16' needs a GPU .*'{device}'"):
        numbanet.compile(model, x, precision="bf16")
    with pytest.raises(UsageError, match=rf"Trainer: precision='fp16' needs a GPU .*'{device}'"):
        numbanet.train.Trainer(model, precision="fp16")
    assert numbanet.compile(model, x, precision="float32")(x).shape == (2, 2)


def test_words_that_are_no_precision():
    model, x = nn.Linear(3, 2), numbanet.ones(2, 3)
    with pytest.raises(UsageError, match="precision expects 'float32', 'bf16' or 'fp16', received 'int8'"):
        numbanet.compile(model, x, precision="int8")
    with pytest.raises(UsageError, match="scaler is for training with precision='fp16'"):
        numbanet.compile(model, x, scaler=GradScaler())
    with pytest.raises(UsageError, match="dtype expects bfloat16 or float16, received float32"):
        autocast(dtype=numbanet.float32)


def test_tensors_of_the_cpu_compute_as_ever():
    x = numbanet.ones(2, 3)
    with numbanet.autocast("cuda"):
        assert F.linear(x, numbanet.ones(4, 3)).dtype == numbanet.float32

    @autocast("cuda", enabled=False)
    def inside():
        return numbanet.amp.is_autocast_enabled()
    assert not inside() and not numbanet.amp.is_autocast_enabled()
