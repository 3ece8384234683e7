"""IDX files, whole and damaged. The files are written here, byte by byte."""

import gzip
import struct

import numpy as np
import pytest

from numbanet.data.datasets import MNIST, FashionMNIST, MNISTSample, read_idx
from numbanet.errors import DataError, UnsupportedOperationError

CODES = {"u1": 0x08, "i1": 0x09, ">i2": 0x0B, ">i4": 0x0C, ">f4": 0x0D, ">f8": 0x0E}


def idx_bytes(array, dtype="u1"):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, CODES[dtype], array.ndim, *array.shape)
    return header + array.astype(dtype).tobytes()


def write(path, data):
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.fixture(params=["file", "file.gz"])
def path(request, tmp_path):
    return tmp_path / request.param


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (0, 28, 28)])
def test_round_trip(path, dtype, shape):
    array = (np.arange(np.prod(shape)) % 100 - (50 if dtype != "u1" else 0)).reshape(shape)
    values = read_idx(write(path, idx_bytes(array, dtype)))
    np.testing.assert_array_equal(values, array)
    assert values.dtype == np.dtype(dtype).newbyteorder("=") and values.shape == shape


def test_truncated_values_name_both_sizes(path):
    write(path, idx_bytes(np.zeros((10, 4, 4)))[:-7])
    with pytest.raises(DataError, match=rf"{path.name}: .*10 x 4 x 4 values of uint8.*176.*(169|holds)"):
        read_idx(path)


def test_truncated_gzip(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (10, 20, 20))
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(idx_bytes(noise))[:-500])
    with pytest.raises(DataError, match="cut.gz: the gzip data is damaged or truncated"):
        read_idx(path)
    path.write_bytes(gzip.compress(idx_bytes(noise))[:-9] + b"\0" * 9)      # the checksum
    with pytest.raises(DataError, match="cut.gz: the gzip data is damaged"):
        read_idx(path)


def test_surplus(path):
    write(path, idx_bytes(np.zeros(10)) + b"x")
    with pytest.raises(DataError, match="expected 18 bytes with the header, received more"):
        read_idx(path)


@pytest.mark.parametrize("data, message", [
    (b"", "magic number"), (b"\x89PNG....", "0x89504e47"), (b"\0\0\x07\x01\0\0\0\0", "0x00000701"),
    (b"\0\0\x08\x00", "0x00000800"),
    (b"\0\0\x08\x03\0\0\0\x01", "truncated in its header: expected 16 bytes, received 8"),
])
def test_no_idx_file(path, data, message):
    with pytest.raises(DataError, match=message):
        read_idx(write(path, data))


def test_huge_header_takes_no_memory(path):
    write(path, struct.pack(">BBBB3I", 0, 0, 0x0E, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1))
    with pytest.raises(DataError, match="announces"):
        read_idx(path)


def test_other_dimensions(path):
    with pytest.raises(DataError, match=r"3 dimensions \(magic number 0x00000803\), received 1 \(0x00000801\)"):
        read_idx(write(path, idx_bytes(np.zeros(3))), 3)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match="nothing.gz: the file is missing"):
        read_idx(tmp_path / "nothing.gz")
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path)


def write_mnist(folder, count=4, labels=None, suffix="", dotted=False):
    folder.mkdir(parents=True, exist_ok=True)
    images = np.arange(count * 6).reshape(count, 2, 3)
    labels = np.arange(count) % 10 if labels is None else np.asarray(labels)
    separator = "." if dotted else "-"
    for split in ("train", "t10k"):
        write(folder / f"{split}-images{separator}idx3-ubyte{suffix}", idx_bytes(images))
        write(folder / f"{split}-labels{separator}idx1-ubyte{suffix}", idx_bytes(labels))
    return images, labels


@pytest.mark.parametrize("where, suffix, dotted", [("", "", False), ("", ".gz", False), ("raw", ".gz", False),
                                                   ("MNIST/raw", "", False), ("", "", True)])
@pytest.mark.parametrize("train", [True, False])
def test_mnist(tmp_path, where, suffix, dotted, train):
    images, labels = write_mnist(tmp_path / where, suffix=suffix, dotted=dotted)
    dataset = MNIST(tmp_path, train, lambda image: image + 1, lambda label: -label, download=True)
    assert len(dataset) == 4 and dataset.classes[3] == "3" and dataset.class_to_idx["7"] == 7
    np.testing.assert_array_equal(dataset[2][0], images[2] + 1)
    assert dataset[2][1] == -2


def test_mnist_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="train-images-idx3-ubyte"):
        MNIST(tmp_path)
    with pytest.raises(UnsupportedOperationError, match="downloads nothing"):
        MNIST(tmp_path, download=True)
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte"):
        MNIST(tmp_path, train=False)


def test_mnist_with_other_counts_or_labels(tmp_path):
    write_mnist(tmp_path, labels=[1, 2, 3])
    with pytest.raises(DataError, match="each of the 4 images of .*received 3"):
        MNIST(tmp_path)
    write_mnist(tmp_path, labels=[1, 2, 3, 10])
    with pytest.raises(DataError, match="labels from 0 to 9, received 10"):
        MNIST(tmp_path)


def test_fashion_names(tmp_path):
    write_mnist(tmp_path / "FashionMNIST/raw")
    assert FashionMNIST(tmp_path).class_to_idx["Ankle boot"] == 9


@pytest.mark.parametrize("train, size", [(True, 1000), (False, 200)])
def test_sample_is_balanced(train, size):
    sample = MNISTSample(train)
    assert sample.data.shape == (10 * size, 28, 28) and sample.data.dtype == np.uint8
    np.testing.assert_array_equal(np.bincount(sample.targets), [size] * 10)
    assert (np.diff(sample.indices) > 0).all()
    assert len(np.unique(sample.data.reshape(len(sample), -1), axis=0)) == len(sample)
    image, label = sample[17]
    assert image.shape == (28, 28) and image.max() > 200 and label == sample.targets[17]


def test_sample_is_not_changed_by_its_users():
    with pytest.raises(ValueError, match="read-only"):
        MNISTSample().data[0] = 0


@pytest.mark.parametrize("train, size", [(True, 1000), (False, 200)])
def test_sample_is_drawn_as_its_licence_file_says(full_mnist, train, size):
    full, sample = MNIST(full_mnist, train), MNISTSample(train)
    generator = np.random.Generator(np.random.PCG64(1998))
    indices = np.sort(np.concatenate([generator.choice(np.flatnonzero(full.targets == digit), size, replace=False)
                                      for digit in range(10)]))
    np.testing.assert_array_equal(sample.indices, indices)
    np.testing.assert_array_equal(sample.data, full.data[indices])
    np.testing.assert_array_equal(sample.targets, full.targets[indices])
