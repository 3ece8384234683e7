"""Datasets: what a `DataLoader` draws samples from, and how several become one or one becomes several."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from numbanet.data.randomness import BATCHES, enter_sample
from numbanet.data.samplers import as_generator
from numbanet.errors import DataError, ShapeError, UsageError


class Dataset:
    """A collection with `__getitem__(index)` and, for most samplers, `__len__`.

    A subclass may add `__getitems__(indices)`, which loads a whole batch at once and returns a list of samples or a
    `CollatedBatch`, and `sample_path(index)`, which names the file of a sample in error messages.
    """

    def __getitem__(self, index: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no __getitem__: define it to return the sample of an "
                                  "index")

    def __add__(self, other: Dataset) -> ConcatDataset:
        return ConcatDataset([self, other])


class IterableDataset(Dataset):
    """A stream of samples: a subclass defines `__iter__`. A loader reads it in order, with one worker at most."""

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError(f"{type(self).__name__} has no __iter__: define it to yield samples")


class CollatedBatch(tuple):
    """What `__getitems__` returns when it has built the batch: the default collate only makes tensors of its parts."""


class TensorDataset(Dataset):
    """Samples are rows of equally long tensors (or arrays): item i is ``tuple(t[i] for t in tensors)``."""

    def __init__(self, *tensors: Any):
        lengths = [len(t) for t in tensors]
        if len(set(lengths)) != 1:
            raise ShapeError(f"TensorDataset: expected tensors of one length, received lengths {lengths}")
        self.tensors = tensors

    def __getitem__(self, index: int) -> tuple:
        return tuple(t[index] for t in self.tensors)

    def __getitems__(self, indices: Sequence[int]) -> TensorRows | list[tuple]:
        if all(hasattr(t, "shape") for t in self.tensors):
            return TensorRows(self.tensors, list(indices))
        return load_each(self, indices)

    def __len__(self) -> int:
        return len(self.tensors[0])


class TensorRows(Sequence):
    """Samples of a `TensorDataset`: a sequence of them for any collate_fn, whole columns for the default one."""

    def __init__(self, tensors: Sequence[Any], indices: list[int]):
        self.tensors, self.indices = tensors, indices

    def __getitem__(self, position: int) -> tuple:
        return tuple(t[self.indices[position]] for t in self.tensors)

    def __len__(self) -> int:
        return len(self.indices)

    def columns(self) -> list[Any]:
        """Each tensor's rows at once, which is many times faster than row by row."""
        return [t[self.indices] for t in self.tensors]


class ArrayDataset(Dataset):
    """Images and labels held in memory as NumPy arrays.

    Parameters
    ----------
    images : array (N, H, W) or (N, H, W, C)
        Usually uint8.
    labels : integer array (N,)
    transform, target_transform
        Applied to one image and to one label.
    batch_transform
        ``batch_transform(images, indices)`` makes a whole batch's float32 (N, C, H, W) of its uint8 images, as
        `transforms.BatchAffineNormalize` does; it takes the place of `transform` and is much faster.
    """

    def __init__(self, images: np.ndarray, labels: Sequence[int] | np.ndarray, transform: Callable | None = None,
                 target_transform: Callable | None = None, batch_transform: Callable | None = None):
        labels = np.asarray(labels)
        if len(images) != len(labels):
            raise ShapeError(f"ArrayDataset: expected as many labels as images, received {len(images)} images and "
                             f"{len(labels)} labels")
        if transform is not None and batch_transform is not None:
            raise UsageError("ArrayDataset: expected transform or batch_transform, received both")
        self.data, self.targets = images, labels
        self.transform, self.target_transform, self.batch_transform = transform, target_transform, batch_transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{type(self).__name__}: index {index} is out of range for {len(self)} samples")
        index = int(index) % len(self)
        label = self._label(index)
        if self.batch_transform is not None:
            return self.batch_transform(self.data[index:index + 1], [index])[0], label
        image = self.data[index]
        return (image if self.transform is None else self.transform(image)), label

    def __getitems__(self, indices: Sequence[int]) -> CollatedBatch | list[tuple[Any, Any]]:
        if self.batch_transform is None:
            return load_each(self, indices)
        positions = np.asarray(indices, np.int64)
        if getattr(self.batch_transform, "reads_rows", False):      # no copy of the batch, nor of mapped pages that are not needed
            images = self.batch_transform(self.data, positions, positions)
        else:
            images = self.batch_transform(self.data[positions], positions)
        return CollatedBatch((images, np.asarray([self._label(i) for i in positions])
                              if self.target_transform else self.targets[positions].astype(np.int64)))

    def _label(self, index: int) -> Any:
        label = self.targets[index].item()
        return label if self.target_transform is None else self.target_transform(label)


class Subset(Dataset):
    """The samples of `dataset` at `indices`."""

    def __init__(self, dataset: Dataset, indices: Sequence[int]):
        self.dataset, self.indices = dataset, indices

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self.indices[index]]

    def __getitems__(self, indices: Sequence[int]) -> Any:
        return load_samples(self.dataset, [self.indices[i] for i in indices])

    def __len__(self) -> int:
        return len(self.indices)

    def sample_path(self, index: int) -> str | None:
        return sample_path(self.dataset, self.indices[index])


class ConcatDataset(Dataset):
    """Several datasets, one after the other."""

    def __init__(self, datasets: Iterable[Dataset]):
        self.datasets = list(datasets)
        if not self.datasets:
            raise UsageError("ConcatDataset: expected at least one dataset, received none")
        for dataset in self.datasets:
            if isinstance(dataset, IterableDataset):
                raise UsageError("ConcatDataset: an IterableDataset has no positions; join streams in the __iter__ of "
                                 "an IterableDataset of your own")
        self.cumulative_sizes = list(itertools.accumulate(len(d) for d in self.datasets))

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: int) -> Any:
        dataset, position = self._locate(index)
        return dataset[position]

    def sample_path(self, index: int) -> str | None:
        return sample_path(*self._locate(index))

    def _locate(self, index: int) -> tuple[Dataset, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"ConcatDataset: index {index} is out of range for {len(self)} samples")
        index %= len(self)
        which = bisect.bisect_right(self.cumulative_sizes, index)
        return self.datasets[which], index - (self.cumulative_sizes[which - 1] if which else 0)


def random_split(dataset: Dataset, lengths: Sequence[int | float], generator: Any = None) -> list[Subset]:
    """Cut a dataset into random parts.

    Parameters
    ----------
    lengths
        Sample counts that add up to ``len(dataset)``, or fractions that add up to 1; what rounding leaves over goes to
        the first parts, one sample each.
    generator : numpy.random.Generator, numbanet generator or int seed, optional
    """
    total = len(dataset)
    if math.isclose(sum(lengths), 1) and sum(lengths) <= 1 + 1e-9 and all(0 <= part <= 1 for part in lengths):
        sizes = [math.floor(total * part) for part in lengths]
        for i in range(total - sum(sizes)):
            sizes[i % len(sizes)] += 1
    else:
        sizes = list(lengths)
    if sum(sizes) != total:
        raise UsageError(f"random_split: expected lengths that add up to the {total} samples of the dataset or to 1, "
                         f"received {list(lengths)}, which add up to {sum(lengths)}")
    order = as_generator(generator).permutation(total).tolist()
    ends = list(itertools.accumulate(sizes))
    return [Subset(dataset, order[end - size:end]) for size, end in zip(sizes, ends)]


def load_samples(dataset: Dataset, indices: Sequence[Any]) -> Any:
    """The samples at `indices`: through the dataset's `__getitems__` where it has one, else one by one.

    Raises
    ------
    DataError
        As `load_each`, or with the first and last index of the batch where `__getitems__` fails.
    """
    batched = getattr(dataset, "__getitems__", None)
    if batched is None:
        return load_each(dataset, indices)
    enter_sample(indices[0], BATCHES)
    try:
        return batched(indices)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"samples {indices[0]} ... {indices[-1]} of {type(dataset).__name__} failed: "
                        f"{type(error).__name__}: {error}") from error


def load_each(dataset: Dataset, indices: Sequence[Any]) -> list[Any]:
    """The samples at `indices`, one by one, each with its own random numbers.

    Raises
    ------
    DataError
        A sample failed: with its index, its path where the dataset knows it, and the error, which is also its cause.
    """
    samples = []
    for index in indices:
        enter_sample(index)
        try:
            samples.append(dataset[index])
        except Exception as error:
            path = sample_path(dataset, index)
            where = "" if path is None else f" ({path})"
            raise DataError(f"sample {index}{where} of {type(dataset).__name__} failed: "
                            f"{type(error).__name__}: {error}") from error
    return samples


def sample_path(dataset: Dataset, index: Any) -> str | None:
    """The file of a sample, or None where the dataset does not say."""
    try:
        path = dataset.sample_path(index)
    except (AttributeError, IndexError, KeyError, TypeError):
        return None
    return None if path is None else str(path)
