"""Weights files: values, metadata, and files that are not what they should be."""

import os

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import numbanet
from numbanet import nn
from numbanet.errors import CheckpointError
from numbanet.weights import load_weights, save_weights
from tests.faults import Disk


def test_round_trip_of_every_kind_of_array(tmp_path, rng):
    state = {"a": rng.standard_normal((3, 4)).astype(np.float32), "double": rng.standard_normal(5), "scalar": np.array(7, np.int64),
             "empty": np.zeros((0, 3), np.float32), "half": np.array([1.5, -2], np.float16), "flag": np.array([True, False]),
             "bfloat16": np.array([1.5, 3e38], ml_dtypes.bfloat16), "transposed": rng.standard_normal((3, 4)).T,
             "extreme": np.array([np.nan, np.inf, -0.0], np.float32)}
    metadata = {"model": "lenet5", "classes": ["zéro", "一"], "nested": {"mean": [0.5]}}
    save_weights(tmp_path / "w.safetensors", state, metadata)
    arrays, read = load_weights(tmp_path / "w.safetensors")
    assert read == metadata and arrays.keys() == state.keys()
    for name, value in state.items():
        assert arrays[name].dtype == value.dtype and arrays[name].shape == value.shape, name
        assert arrays[name].tobytes() == np.ascontiguousarray(value).tobytes(), name
    assert list(tmp_path.iterdir()) == [tmp_path / "w.safetensors"]


def test_other_programs_read_the_file(tmp_path, rng):
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))
    save_weights(tmp_path / "w.safetensors", model.state_dict())
    arrays = load_file(tmp_path / "w.safetensors")
    assert arrays.keys() == model.state_dict().keys() and arrays["1.num_batches_tracked"].shape == ()
    for name, t in model.state_dict().items():
        np.testing.assert_array_equal(arrays[name], t.numpy())
    twin = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))
    twin.load_state_dict(load_weights(tmp_path / "w.safetensors")[0])
    np.testing.assert_array_equal(twin[0].weight.detach().numpy(), model[0].weight.detach().numpy())


def test_channels_last_memory_is_written_in_logical_order(tmp_path):
    x = numbanet.tensor(np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)) * 1.0
    maps = nn.functional.relu(nn.functional.conv2d(x, numbanet.ones(1, 2, 1, 1)))
    save_weights(tmp_path / "w.safetensors", {"x": maps})
    np.testing.assert_array_equal(load_file(tmp_path / "w.safetensors")["x"], x.numpy().sum(1, keepdims=True))


def test_files_of_other_programs_have_no_metadata_of_ours(tmp_path):
    for name, metadata in (("none", None), ("torch", {"format": "pt"}), ("odd", {"version": "not a number", "numbanet": "["})):
        save_file({"w": np.ones(2, np.float32)}, tmp_path / name, metadata)
        arrays, read = load_weights(tmp_path / name)
        assert read == {} and arrays["w"].tolist() == [1, 1]


@pytest.mark.parametrize(("metadata", "message"), [
    ({"format": "numbanet", "version": "2", "numbanet": "{}"}, "written by a newer numbanet.*update"),
    ({"format": "numbanet", "version": "x", "numbanet": "{}"}, "damaged metadata"),
    ({"format": "numbanet", "version": "1", "numbanet": "{"}, "damaged metadata"),
    ({"format": "numbanet", "version": "1"}, "damaged metadata")])
def test_metadata_that_cannot_be_read(metadata, message, tmp_path):
    save_file({"w": np.ones(2, np.float32)}, tmp_path / "w.safetensors", metadata)
    with pytest.raises(CheckpointError, match=message):
        load_weights(tmp_path / "w.safetensors")


def test_a_file_cut_anywhere_is_told_from_a_whole_one(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, {"w": np.ones((3, 3), np.float32)})
    whole = path.read_bytes()
    for length in (1, 4, 8, 20, len(whole) - 1, len(whole) // 2):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="w.safetensors: not a whole safetensors file"):
            load_weights(path)
    path.write_bytes(whole)
    assert load_weights(path)[0]["w"].sum() == 9


@pytest.mark.parametrize("suffix", ["safetensors", "npz", "pt", "pth", "PTH", "bin"])
def test_every_format_keeps_names_values_and_metadata(suffix, tmp_path, rng):
    state = {"a.weight": rng.standard_normal((3, 1, 2)).astype(np.float32), "scalar": np.array(7, np.int64),
             "empty": np.zeros((0, 3), np.float32), "flag": np.array([True, False]),
             "half": np.array([1.5, np.nan], np.float16), "transposed": rng.standard_normal((3, 4)).T}
    save_weights(tmp_path / f"w.{suffix}", state, {"classes": ["zéro", "一"]})
    (tmp_path / f"w.{suffix}").rename(tmp_path / "weights")            # content decides, not the name
    arrays, metadata = load_weights(tmp_path / "weights")
    assert metadata == {"classes": ["zéro", "一"]} and arrays.keys() == state.keys()
    for name, value in state.items():
        assert (arrays[name].dtype, arrays[name].shape) == (value.dtype, value.shape), name
        assert np.ascontiguousarray(arrays[name]).tobytes() == np.ascontiguousarray(value).tobytes(), name


@pytest.mark.parametrize("suffix", ["safetensors", "npz", "pth"])
def test_arrays_can_be_changed_and_the_file_stays(suffix, tmp_path):
    path = tmp_path / f"w.{suffix}"
    save_weights(path, {"w": np.arange(5, dtype=np.float32)})
    before = path.read_bytes()
    arrays, _ = load_weights(path)
    arrays["w"] += 1
    assert arrays["w"].tolist() == [1, 2, 3, 4, 5] and path.read_bytes() == before
    assert load_weights(path)[0]["w"].tolist() == [0, 1, 2, 3, 4]


def test_a_file_can_be_replaced_while_its_arrays_are_in_use(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, {"w": np.zeros(5000, np.float32)})
    arrays, _ = load_weights(path)
    save_weights(path, {"w": arrays["w"] + 1})
    assert (arrays["w"] == 0).all() and (load_weights(path)[0]["w"] == 1).all()


OTHERS = {"nothing": (b"", "is empty"), "a short zip": (b"PK\x03\x04 a zip, as torch writes", "not a whole zip file"),
          "bytes": (b"\xff" * 64, "neither safetensors nor .npz nor a PyTorch file"),
          "tar": (b"\0" * 257 + b"ustar" + b"\0" * 250, "a tar file"),
          "text": (b"weights of a network", "neither safetensors nor .npz"), "braces": (b"{}", "not a whole safetensors file")}


@pytest.mark.parametrize(("contents", "message"), OTHERS.values(), ids=OTHERS)
def test_other_files(contents, message, tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(contents)
    with pytest.raises(CheckpointError, match=f"load_weights: .*w.pth.*{message}"):
        load_weights(path)


@pytest.mark.parametrize("suffix", ["safetensors", "npz", "pth"])
def test_dtypes_that_a_format_lacks(suffix, tmp_path):
    values = {"w": np.ones(2, np.complex64)}
    if suffix == "npz":
        save_weights(tmp_path / "w.npz", {"w": np.array([1.5, 3e38], ml_dtypes.bfloat16)})
        widened = load_weights(tmp_path / "w.npz")[0]["w"]
        assert widened.dtype == np.float32 and widened[0] == 1.5
    with pytest.raises(CheckpointError, match="w is of dtype complex64"):
        save_weights(tmp_path / f"c.{suffix}", values)
    assert not (tmp_path / f"c.{suffix}").exists()


@pytest.mark.parametrize("suffix", ["safetensors", "npz", "pth"])
def test_the_name_of_the_metadata_is_taken(suffix, tmp_path):
    with pytest.raises(CheckpointError, match="__metadata__ is where the metadata stand"):
        save_weights(tmp_path / f"w.{suffix}", {"__metadata__": np.ones(1)})


def test_no_file(tmp_path):
    with pytest.raises(CheckpointError, match="absent does not exist"):
        load_weights(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="is not a file"):
        load_weights(tmp_path)


def test_a_full_disk_keeps_the_old_weights(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    disk = Disk()
    with disk.mounted(monkeypatch):
        save_weights(path, {"w": np.zeros(100)})
    for position in range(1, disk.count + 1):
        save_weights(path, {"w": np.zeros(100)})
        try:
            with Disk(position).mounted(monkeypatch):
                save_weights(path, {"w": np.ones(100)})
        except CheckpointError as error:
            assert str(path) in str(error)
        assert load_weights(path)[0]["w"].sum() in (0, 100)
        assert os.listdir(tmp_path) == ["w.safetensors"]
