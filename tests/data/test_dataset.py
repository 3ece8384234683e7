"""Datasets made of others, and arrays as datasets."""

import numpy as np
import pytest

from numbanet.data import ArrayDataset, CollatedBatch, ConcatDataset, Dataset, Subset, TensorDataset, random_split
from numbanet.data.dataset import load_samples
from numbanet.errors import DataError, ShapeError, UsageError


class Squares(Dataset):
    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        if not -self.size <= index < self.size:
            raise IndexError(index)
        return (index % self.size) ** 2


class Batched(Squares):
    asked = None

    def __getitems__(self, indices):
        self.asked = list(indices)
        return [self[i] for i in indices]


def test_rows_of_arrays():
    dataset = TensorDataset(np.arange(6).reshape(3, 2), np.array([5, 6, 7]))
    assert len(dataset) == 3 and dataset[1][0].tolist() == [2, 3] and dataset[1][1] == 6
    with pytest.raises(ShapeError, match="lengths"):
        TensorDataset(np.zeros(3), np.zeros(4))


def test_subset_of_a_subset():
    inner = Subset(Squares(10), [8, 6, 4, 2])
    assert [Subset(inner, [3, 0])[i] for i in range(2)] == [4, 64]
    assert Subset(inner, [3, 0]).__getitems__([1, 0]) == [64, 4]


def test_subset_passes_whole_batches_on():
    dataset = Batched(10)
    assert Subset(dataset, [9, 7, 5]).__getitems__([2, 0]) == [25, 81]
    assert dataset.asked == [5, 9]


def test_concatenation_finds_the_right_part():
    dataset = ConcatDataset([Squares(3), Squares(0), Squares(4)])
    assert [dataset[i] for i in range(7)] == [0, 1, 4, 0, 1, 4, 9] and len(dataset) == 7
    assert dataset[-1] == 9 and dataset[-7] == 0
    for index in (7, -8):
        with pytest.raises(IndexError):
            dataset[index]
    assert [(Squares(2) + Squares(2))[i] for i in range(4)] == [0, 1, 0, 1]
    with pytest.raises(UsageError):
        ConcatDataset([])


@pytest.mark.parametrize("lengths, sizes", [([7, 3], [7, 3]), ([0.5, 0.5], [5, 5]), ([0.33, 0.33, 0.34], [4, 3, 3]),
                                            ([10, 0], [10, 0]), ([0.1] * 10, [1] * 10)])
def test_random_split_is_a_partition(lengths, sizes):
    parts = random_split(Squares(10), lengths, generator=1)
    assert [len(p) for p in parts] == sizes
    assert sorted(i for p in parts for i in p.indices) == list(range(10))
    again = random_split(Squares(10), lengths, generator=1)
    assert [p.indices for p in parts] == [p.indices for p in again]
    assert [p.indices for p in parts] != [p.indices for p in random_split(Squares(10), lengths, generator=2)]


@pytest.mark.parametrize("lengths", [[5, 4], [0.5, 0.4], [11]])
def test_random_split_must_add_up(lengths):
    with pytest.raises(UsageError, match="add up"):
        random_split(Squares(10), lengths)


def test_random_split_of_one_sample_into_counts():
    assert [len(p) for p in random_split(Squares(1), [1], generator=0)] == [1]


def test_arrays_sample_by_sample():
    images = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
    dataset = ArrayDataset(images, [3, 1, 2, 0], lambda image: image / 2, lambda label: label + 10)
    image, label = dataset[-1]
    np.testing.assert_array_equal(image, images[3] / 2)
    assert label == 10 and type(label) is int and len(dataset) == 4
    for index in (4, -5):
        with pytest.raises(IndexError):
            dataset[index]
    with pytest.raises(ShapeError, match="3 images and 2 labels"):
        ArrayDataset(images[:3], [0, 1])
    with pytest.raises(UsageError, match="both"):
        ArrayDataset(images, [0] * 4, transform=abs, batch_transform=abs)


def test_arrays_as_whole_batches():
    images = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)

    def batch_transform(part, indices):
        return part[:, None].astype(np.float32) + 100 * np.asarray(indices)[:, None, None, None]

    dataset = ArrayDataset(images, np.array([3, 1, 2, 0], np.uint8), batch_transform=batch_transform)
    batch = dataset.__getitems__([2, 0])
    assert isinstance(batch, CollatedBatch)
    np.testing.assert_array_equal(batch[0], (images[[2, 0]] + np.array([200, 0])[:, None, None])[:, None])
    assert batch[1].tolist() == [2, 3] and batch[1].dtype == np.int64
    np.testing.assert_array_equal(dataset[2][0], batch[0][0])


def test_failed_sample_is_named():
    class Files(Squares):
        def sample_path(self, index):
            return f"/pictures/{index}.png"

        def __getitem__(self, index):
            raise OSError("broken")

    nested = Subset(ConcatDataset([Squares(2), Files(3)]), [0, 4])
    message = r"sample 4 \(/pictures/2.png\) of ConcatDataset failed: OSError: broken"
    with pytest.raises(DataError, match=message) as caught:
        load_samples(nested, [0, 1])
    assert isinstance(caught.value.__cause__, OSError)


def test_failed_batch_is_named():
    class Broken(Squares):
        def __getitems__(self, indices):
            raise KeyError("lost")

    with pytest.raises(DataError, match=r"samples 3 ... 5 of Broken failed: KeyError: 'lost'"):
        load_samples(Broken(9), [3, 8, 5])


def test_dataset_without_getitem():
    with pytest.raises(NotImplementedError, match="__getitem__"):
        Dataset()[0]
