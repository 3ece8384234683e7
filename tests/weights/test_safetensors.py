"""Our own reader and writer of safetensors, beside the format's library."""

import json
import mmap
import struct

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from numbanet.errors import CheckpointError
from numbanet.weights import load_weights, safetensors, save_weights
from numbanet.weights.mapping import map_file

DTYPES = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool")


def owner(array: np.ndarray):
    """What the memory of an array belongs to."""
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return array.obj if isinstance(array, memoryview) else array


@pytest.fixture
def state(rng) -> dict:
    made = {f"every.{name}": (rng.integers(0, 100, (3, 5)) % (2 if name == "bool" else 100)).astype(name) for name in DTYPES}
    made |= {"brain": rng.standard_normal(7).astype(ml_dtypes.bfloat16), "scalar": np.array(7.0), "empty": np.zeros((2, 0, 3), np.int32),
             "odd": np.ones(3, np.uint8), "ünïcode 一\n\"quoted\"": np.ones(1, np.float32), "": np.zeros(1)}
    return made


def assert_same(ours: dict, theirs: dict) -> None:
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert (ours[name].dtype, ours[name].shape) == (array.dtype, array.shape), name
        assert ours[name].tobytes() == array.tobytes(), name


def test_we_read_what_the_library_writes(state, tmp_path):
    save_file(state, tmp_path / "w", {"format": "pt"})
    assert_same(load_weights(tmp_path / "w")[0], state)


def test_the_library_reads_what_we_write(state, tmp_path):
    save_weights(tmp_path / "w", state, {"classes": ["é"]})
    assert_same(load_file(tmp_path / "w"), state)
    with safe_open(tmp_path / "w", "numpy") as file:
        assert json.loads(file.metadata()["numbanet"]) == {"classes": ["é"]}


def test_the_same_state_gives_the_same_bytes(state, tmp_path):
    save_weights(tmp_path / "a", state)
    save_weights(tmp_path / "b", dict(reversed(state.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_arrays_are_views_of_the_file(state, tmp_path):
    save_weights(tmp_path / "w", state)
    arrays, _ = load_weights(tmp_path / "w")
    for name, array in arrays.items():
        assert array.flags.aligned and array.flags.writeable and array.flags.c_contiguous
        assert isinstance(owner(array), mmap.mmap) or not array.size, name
    first = max(state, key=lambda name: (state[name].dtype.itemsize, -ord(name[0]) if name else 0))
    assert arrays[first].ctypes.data % 64 == 0


def test_what_stands_askew_is_copied(tmp_path):
    data = b"\7" + np.array([1.5, -2.0], np.float32).tobytes() + np.array([1 << 40]).tobytes()
    header = json.dumps({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
                         "b": {"dtype": "F32", "shape": [2], "data_offsets": [1, 9]},
                         "c": {"dtype": "I64", "shape": [], "data_offsets": [9, 17]}}).encode()
    (tmp_path / "w").write_bytes(struct.pack("<Q", len(header)) + header + data)
    arrays, metadata = load_weights(tmp_path / "w")
    assert metadata == {} and (arrays["a"].tolist(), arrays["b"].tolist(), arrays["c"].tolist()) == ([7], [1.5, -2.0], 1 << 40)
    assert all(array.flags.aligned and array.flags.writeable for array in arrays.values())


def test_foreign_metadata_is_handed_out_by_the_reader(tmp_path):
    save_file({"w": np.ones(2, np.float32)}, tmp_path / "w", {"format": "pt", "licence": "MIT"})
    assert safetensors.read(map_file(tmp_path / "w"))[1] == {"format": "pt", "licence": "MIT"}


@pytest.mark.parametrize("code", ["F8_E4M3", "F8_E5M2", "C64"])
def test_dtypes_of_the_format_that_no_tensor_has(code, tmp_path):
    size = 8 if code == "C64" else 1
    header = json.dumps({"w": {"dtype": code, "shape": [1], "data_offsets": [0, size]}}).encode()
    (tmp_path / "w").write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))
    with pytest.raises(CheckpointError, match=f"w has the dtype '{code}'; numbanet reads F64, F32"):
        load_weights(tmp_path / "w")
