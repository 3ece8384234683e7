"""Mutated files end in an error or are read as the reference library reads them; nothing crashes, hangs or is taken for whole."""

import io
import struct
import warnings

import ml_dtypes
import numpy as np
import pytest
from safetensors import deserialize

from numbanet.weights import save_weights
from tests.weights.mutations import mutations, survivors

CASES = [pytest.param(2_000, id="2000"), pytest.param(20_000, id="20000", marks=pytest.mark.full)]


def content(arrays: dict) -> list:
    """Names, shapes and bytes."""
    return sorted((name, list(array.shape), array.tobytes()) for name, array in arrays.items())


def small_state() -> dict:
    return {"conv.weight": np.arange(12, dtype=np.float32).reshape(2, 1, 3, 2), "conv.bias": np.ones(2, np.float64),
            "count": np.array(3, np.int64), "half": np.array([0.5], np.float16), "flag": np.array([True, False, True]),
            "brain": np.array([1, 2], ml_dtypes.bfloat16), "empty": np.zeros((0, 4), np.float32)}


@pytest.mark.parametrize("cases", CASES)
def test_safetensors(cases, tmp_path):
    path = tmp_path / "w.safetensors"
    originals = []
    for state in (small_state(), {"w": np.ones((2, 3), np.float32)}, {}):
        save_weights(path, state, {"classes": ["a"]})
        originals.append(path.read_bytes())
    read = 0
    for data, arrays in survivors(path, mutations(originals, cases, 1, lambda d: [range(8 + struct.unpack("<Q", d[:8])[0])])):
        read += 1
        theirs = deserialize(data)                              # raises where the library refuses what was read
        assert content(arrays) == sorted((name, entry["shape"], bytes(entry["data"])) for name, entry in theirs), data
    assert cases / 100 < read < cases


@pytest.mark.parametrize("cases", CASES)
def test_torch(cases, tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "w.pth"
    state = {name: torch.from_numpy(array) for name, array in small_state().items() if name != "brain"}
    state |= {"brain": torch.ones(2).bfloat16(), "transposed": torch.arange(6.0).reshape(2, 3).T}
    state["trained"] = torch.nn.Parameter(torch.ones(2))
    state["view"] = state["trained"][1:]
    checkpoint = {"state_dict": {"w": torch.ones(2)}, "epoch": 3, "size": torch.Size([2]), "loss": 0.5, "on": None}
    originals = []
    for legacy, saved in ((True, state), (False, state), (True, checkpoint), (False, checkpoint)):
        file = io.BytesIO()
        torch.save(saved, file, _use_new_zipfile_serialization=not legacy)
        originals.append(file.getvalue())
    read = 0
    for data, arrays in survivors(path, mutations(originals, cases, 2, _structure)):
        read += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
        if not any(isinstance(value, torch.Tensor) for value in theirs.values()):
            theirs = next(value for value in theirs.values() if isinstance(value, dict))
        theirs = {name: value.detach() for name, value in theirs.items() if isinstance(value, torch.Tensor)}
        assert {name: f"torch.{array.dtype}" for name, array in arrays.items()} == {name: str(t.dtype) for name, t in theirs.items()}, data
        plain = {name: torch.empty(t.shape, dtype=t.dtype).copy_(t).reshape(-1).view(torch.uint8) for name, t in theirs.items()}
        assert content(arrays) == sorted((name, list(t.shape), plain[name].numpy().tobytes()) for name, t in theirs.items()), data
    assert cases / 100 < read < cases


def _structure(data: bytes) -> list[range]:
    """Pickles, and the directory of an archive: everything but runs of padding and values."""
    if data[:2] != b"PK":
        return [range(len(data) - 200)]
    begin = data.index(b"\x80\x02")
    return [range(begin, data.index(b"PK", begin)), range(data.index(b"PK\1\2"), len(data)), range(60)]


@pytest.mark.parametrize("cases", CASES)
def test_npz(cases, tmp_path):
    path = tmp_path / "w.npz"
    originals = []
    for save in (np.savez, np.savez_compressed):
        save(path, a=np.arange(6, dtype=np.float32).reshape(2, 3), b=np.asfortranarray(np.ones((2, 3))), n=np.array(3))
        originals.append(path.read_bytes())
    read = 0
    for data, arrays in survivors(path, mutations(originals, cases // 2, 3, lambda d: [range(len(d))])):
        read += 1
        with np.load(io.BytesIO(data), allow_pickle=False) as theirs:
            assert content(arrays) == content({name: theirs[name] for name in theirs.files}), data
    assert cases / 200 < read < cases
