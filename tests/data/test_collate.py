"""Batches of samples."""

from collections import namedtuple

import numpy as np
import pytest
from PIL import Image

import numbanet
from numbanet.data import CollatedBatch, default_collate
from numbanet.errors import DataError


def test_images_and_labels():
    images, labels = default_collate([(np.full((1, 2, 3), i, np.float32), i) for i in range(4)])
    assert tuple(images.shape) == (4, 1, 2, 3) and images.dtype == numbanet.float32
    assert tuple(labels.shape) == (4,) and labels.dtype == numbanet.int64
    np.testing.assert_array_equal(images.numpy()[:, 0, 1, 2], [0, 1, 2, 3])
    assert labels.tolist() == [0, 1, 2, 3]


def test_dtypes_agree_with_torch():
    torch = pytest.importorskip("torch")
    from torch.utils.data import default_collate as oracle

    samples = [{"f": 1.5, "i": 3, "b": True, "a": np.arange(3, dtype=np.uint8), "n": np.float32(2), "s": "x",
                "l": [1, 2.0]}] * 2
    ours, theirs = default_collate(samples), oracle(samples)
    for key in ("f", "i", "b", "a", "n"):
        assert str(theirs[key].dtype).removeprefix("torch.") == str(ours[key].dtype), key
        assert ours[key].tolist() == theirs[key].tolist()
    assert ours["s"] == theirs["s"] and [t.tolist() for t in ours["l"]] == [t.tolist() for t in theirs["l"]]
    assert torch.is_tensor(theirs["f"]) and isinstance(ours["f"], numbanet.Tensor)


def test_tensors_are_stacked():
    batch = default_collate([numbanet.tensor([1.0, 2.0]), numbanet.tensor([3.0, 4.0])])
    assert batch.tolist() == [[1, 2], [3, 4]]


def test_named_tuples_stay():
    Pair = namedtuple("Pair", "image label")
    batch = default_collate([Pair(np.zeros(2), 1), Pair(np.ones(2), 2)])
    assert isinstance(batch, Pair) and batch.label.tolist() == [1, 2]


def test_batch_that_is_ready():
    images, labels = default_collate(CollatedBatch((np.zeros((2, 1, 3, 3), np.float32), np.array([1, 2]))))
    assert tuple(images.shape) == (2, 1, 3, 3) and labels.tolist() == [1, 2]


@pytest.mark.parametrize("samples, message", [
    ([(np.zeros((1, 2)), 0), (np.zeros((1, 3)), 0)],
     r"shapes of sample\[0\].*\(1, 2\) first and \(1, 3\) at position 1"),
    ([(1, 2), (1, 2, 3)], "lengths"),
    ([{"a": 1}, {"b": 1}], "keys"),
    ([np.zeros(2), 3], "int at position 1"),
    ([object()], "object"),
    ([(Image.new("L", (2, 2)), 1)], r"sample\[0\].*ToTensor"),
])
def test_samples_that_do_not_fit(samples, message):
    with pytest.raises(DataError, match=message):
        default_collate(samples)
