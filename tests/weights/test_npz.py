"""NumPy's archives, beside NumPy."""

import io
import zipfile

import numpy as np
import pytest

from numbanet.errors import CheckpointError
from numbanet.weights import load_weights, save_weights
from numbanet.weights.zip_archive import Archive


@pytest.fixture
def state(rng) -> dict:
    made = {f"every.{kind}{size}": rng.integers(0, 100, (3, 5)).astype(f"{kind}{size}")
            for kind, sizes in (("f", (2, 4, 8)), ("i", (1, 2, 4, 8)), ("u", (1, 2, 4, 8))) for size in sizes}
    made |= {"flags": np.array([True, False]), "scalar": np.array(7.0), "empty": np.zeros((2, 0)), "file": np.ones(2),
             "fortran": np.asfortranarray(made["every.f4"]), "one/two": np.arange(3)}
    return made


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_we_read_what_numpy_writes(save, state, tmp_path):
    state.pop("file")                       # NumPy's own argument
    save(tmp_path / "w.npz", **state, big_endian=np.array([1.5, 2.0], ">f4"))
    arrays, metadata = load_weights(tmp_path / "w.npz")
    assert metadata == {} and arrays.pop("big_endian").dtype == np.float32 and arrays.keys() == state.keys()
    for name, array in arrays.items():
        assert (array.dtype, array.shape) == (state[name].dtype, state[name].shape) and array.flags.writeable and array.flags.aligned, name
        np.testing.assert_array_equal(array, state[name])


def test_numpy_reads_what_we_write(state, tmp_path):
    save_weights(tmp_path / "w.npz", state, {"classes": ["é"]})
    with np.load(tmp_path / "w.npz", allow_pickle=False) as archive:
        assert set(archive.files) == {*state, "__metadata__"}
        for name, array in state.items():
            assert archive[name].dtype == array.dtype
            np.testing.assert_array_equal(archive[name], array)
    assert load_weights(tmp_path / "w.npz")[1] == {"classes": ["é"]}


def test_headers_of_version_2_and_of_version_3(tmp_path):
    for version in ((2, 0), (3, 0)):
        file = io.BytesIO()
        np.lib.format.write_array(file, np.arange(3.0), version)
        with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
            archive.writestr("w.npy", file.getvalue())
        if version == (2, 0):
            assert load_weights(tmp_path / "w.npz")[0]["w"].tolist() == [0, 1, 2]
        else:                               # has names in Unicode, which only structured arrays need
            with pytest.raises(CheckpointError, match="w.npy is not a whole .npy file"):
                load_weights(tmp_path / "w.npz")


def test_archives_with_64_bit_fields(tmp_path, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    np.savez(tmp_path / "w.npz", a=np.arange(100), b=np.arange(50))
    data = (tmp_path / "w.npz").read_bytes()
    assert b"PK\6\6" in data and b"PK\6\7" in data
    arrays, _ = load_weights(tmp_path / "w.npz")
    assert arrays["a"].tolist() == list(range(100)) and arrays["b"].sum() == 1225


def test_archives_of_other_tools(tmp_path):
    """Comments, folders, and sizes that stand behind the data."""
    class Pipe(io.BytesIO):
        def seekable(self):
            return False

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as made:
        made.mkdir("folder")
        made.writestr("folder/a", b"text" * 100)
        made.comment = b"a comment"
    archive = Archive(pipe.getvalue())
    assert bytes(archive.read("folder/a")) == b"text" * 100 and archive.members["folder/"].size == 0
