"""create_model(weights=...): the file's arrays become the model's, and the file decides what the call leaves open."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

import numbanet
from numbanet import zoo
from numbanet.errors import CheckpointError
from numbanet.weights import load_weights, save_weights


@pytest.fixture
def small(tmp_path):
    """(path, model): weights of a ResNet-20 for 10 classes."""
    model = zoo.create_model("resnet20_cifar")
    save_weights(tmp_path / "w.safetensors", model.state_dict())
    return tmp_path / "w.safetensors", model


def assert_same(model, other) -> None:
    state = other.state_dict()
    assert model.state_dict().keys() == state.keys()
    for name, t in model.state_dict().items():
        np.testing.assert_array_equal(t.numpy(), state[name].numpy(), err_msg=name)


def test_the_model_of_the_file(small):
    path, model = small
    state = numbanet.random.get_rng_state()
    loaded = zoo.create_model("resnet20_cifar", weights=path)
    assert numbanet.random.get_rng_state() == state                 # nothing was drawn
    assert_same(loaded, model)
    assert loaded.class_names is None and loaded.preprocessing is None and loaded.training
    x = numbanet.tensor(np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32))
    np.testing.assert_array_equal(loaded.eval()(x).detach().numpy(), model.eval()(x).detach().numpy())


def test_arrays_of_the_file_are_adopted(small):
    arrays, _ = load_weights(small[0])
    model = zoo.create_model("resnet20_cifar", weights=(arrays, {}))
    for name, t in model.state_dict().items():
        assert np.shares_memory(t.numpy(), arrays[name]), name


def test_training_leaves_the_file_alone(small):
    path, _ = small
    before = path.read_bytes()
    model = zoo.create_model("resnet20_cifar", weights=path)
    optimizer = numbanet.optim.SGD(model.parameters(), lr=0.1)
    model(numbanet.ones(2, 3, 32, 32)).sum().backward()
    optimizer.step()
    assert path.read_bytes() == before
    assert not np.array_equal(model.fc.weight.detach().numpy(), load_weights(path)[0]["fc.weight"])


@pytest.mark.parametrize("suffix", ["npz", "pth"])
def test_other_formats_and_names(suffix, small, tmp_path):
    _, model = small
    save_weights(tmp_path / f"w.{suffix}", {f"module.{name}": t for name, t in model.state_dict().items()})
    assert_same(zoo.create_model("resnet20_cifar", weights=tmp_path / f"w.{suffix}"), model)


def test_half_precision_becomes_float32(small):
    path, model = small
    arrays = {name: a.astype(np.float16) if a.dtype == np.float32 else a for name, a in load_weights(path)[0].items()}
    loaded = zoo.create_model("resnet20_cifar", weights=(arrays, {}))
    assert {p.dtype for p in loaded.parameters()} == {numbanet.float32}
    np.testing.assert_array_equal(loaded.fc.weight.detach().numpy(), model.fc.weight.detach().numpy().astype(np.float16))


def test_the_file_decides_on_classes_and_channels(tmp_path):
    model = zoo.create_model("resnet20_cifar", num_classes=3)
    save_weights(tmp_path / "w.pth", model.state_dict())
    loaded = zoo.create_model("resnet20_cifar", weights=tmp_path / "w.pth")         # seen from the last layer
    assert_same(loaded, model)
    assert loaded.num_classes == 3
    model = zoo.create_model("lenet5", num_classes=2, in_chans=3)
    metadata = {"num_classes": 2, "in_chans": 3, "classes": ["cat", "dog"], "preprocessing": {"mean": [0.5]}}
    save_weights(tmp_path / "w.npz", model.state_dict(), metadata)
    loaded = zoo.create_model("lenet5", weights=tmp_path / "w.npz")                 # said by the file
    assert_same(loaded, model)
    assert (loaded.class_names, loaded.preprocessing) == (["cat", "dog"], {"mean": [0.5]})


def test_a_call_that_contradicts_the_file(small):
    path, _ = small
    with pytest.raises(CheckpointError, match=r"num_classes=10, this one has 4: .*reset_classifier\(4\)"):
        zoo.create_model("resnet20_cifar", num_classes=4, weights=path)
    with pytest.raises(CheckpointError, match="in_chans=3, this one has 1"):
        zoo.create_model("resnet20_cifar", in_chans=1, weights=path)
    with pytest.raises(CheckpointError, match="(?s)does not fit LeNet5.*missing features.c1.weight.*unexpected bn1"):
        zoo.create_model("lenet5", weights=path)


def test_features_only(small):
    path, model = small
    trunk = zoo.create_model("resnet20_cifar", features_only=True, weights=path)
    np.testing.assert_array_equal(trunk.network.fc.weight.detach().numpy(), model.fc.weight.detach().numpy())


PROGRAM = """
import json, os, sys, time
import numbanet
from numbanet.zoo import create_model

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

create_model("lenet5")
before, begin = resident(), time.process_time()
model = create_model("resnet152", weights=sys.argv[1])
made, seconds = resident(), time.process_time() - begin
total = sum(float(p.detach().numpy().sum()) for p in model.parameters())
print(json.dumps({"made": made - before, "read": resident() - before, "seconds": seconds}))
"""


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the memory of a process")
def test_large_weights_are_mapped(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, zoo.create_model("resnet152").state_dict())
    found = json.loads(subprocess.run([sys.executable, "-c", PROGRAM, path], check=True, capture_output=True, text=True).stdout)
    size = path.stat().st_size
    assert size > 240e6 and found["made"] < 0.2 * size and found["read"] < 1.3 * size and found["seconds"] < 1
