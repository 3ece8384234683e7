"""Samplers: in which order, and how often, the indices of a dataset come."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any

import numpy as np

from numbanet.data.randomness import generator_of, sample_generator
from numbanet.errors import ShapeError, UsageError


def as_generator(generator: Any) -> np.random.Generator:
    """A NumPy generator of: a NumPy generator, a numbanet generator, an int seed, or None for the current one."""
    if generator is None:
        return sample_generator()
    if isinstance(generator, np.random.Generator):
        return generator
    if hasattr(generator, "next_key"):
        return generator_of(generator)
    try:
        return np.random.Generator(np.random.Philox(key=operator.index(generator) & 0xFFFFFFFFFFFFFFFF))
    except TypeError:
        raise UsageError("generator: expected a numpy.random.Generator, a numbanet generator or an int, "
                         f"received {type(generator).__name__}") from None


class Sampler:
    """Base of samplers: iterates over indices. `__iter__` is called once an epoch."""

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError(f"{type(self).__name__} has no __iter__: define it to yield indices")


class SequentialSampler(Sampler):
    """0, 1, 2, ..."""

    def __init__(self, data_source: Sized):
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(Sampler):
    """A random order, or `num_samples` draws with replacement.

    Without a `generator` the order inside of a loader depends on (seed, epoch) of that loader.
    """

    def __init__(self, data_source: Sized, replacement: bool = False, num_samples: int | None = None,
                 generator: Any = None):
        if num_samples is not None and num_samples <= 0:
            raise UsageError(f"RandomSampler: expected num_samples of 1 or more, received {num_samples}")
        self.data_source, self.replacement, self.generator = data_source, replacement, generator
        self._num_samples = num_samples

    @property
    def num_samples(self) -> int:
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __iter__(self) -> Iterator[int]:
        generator, size = as_generator(self.generator), len(self.data_source)
        if self.replacement:
            yield from generator.integers(size, size=self.num_samples).tolist()
            return
        left = self.num_samples if size else 0
        while left > 0:     # more samples than there are: whole permutations, one after the other
            yield from generator.permutation(size)[:left].tolist()
            left -= size

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(Sampler):
    """The given indices in random order."""

    def __init__(self, indices: Sequence[int], generator: Any = None):
        self.indices, self.generator = indices, generator

    def __iter__(self) -> Iterator[int]:
        for position in as_generator(self.generator).permutation(len(self.indices)).tolist():
            yield self.indices[position]

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(Sampler):
    """`num_samples` draws, index i with a probability proportional to ``weights[i]``.

    Without replacement an index comes once at most, as if drawn one after the other from what is left.
    """

    def __init__(self, weights: Sequence[float], num_samples: int, replacement: bool = True, generator: Any = None):
        self.weights = np.asarray(weights, np.float64)
        if self.weights.ndim != 1:
            raise ShapeError(f"WeightedRandomSampler: expected weights of shape (N,), received {self.weights.shape}")
        if not (np.isfinite(self.weights).all() and (self.weights >= 0).all() and self.weights.sum() > 0):
            raise UsageError("WeightedRandomSampler: expected finite weights of 0 or more with a positive sum")
        if num_samples <= 0:
            raise UsageError(f"WeightedRandomSampler: expected num_samples of 1 or more, received {num_samples}")
        positive = np.count_nonzero(self.weights)
        if not replacement and num_samples > positive:
            raise UsageError(f"WeightedRandomSampler: {num_samples} draws without replacement need as many positive "
                             f"weights, received {positive}; use replacement=True or fewer draws")
        self.num_samples, self.replacement, self.generator = num_samples, replacement, generator

    def __iter__(self) -> Iterator[int]:
        probabilities = self.weights / self.weights.sum()
        generator = as_generator(self.generator)
        return iter(generator.choice(len(probabilities), self.num_samples, self.replacement, probabilities).tolist())

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler):
    """Lists of `batch_size` indices of another sampler; the last may be shorter unless `drop_last`."""

    def __init__(self, sampler: Iterable[Any], batch_size: int, drop_last: bool = False):
        if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size <= 0:
            raise UsageError(f"BatchSampler: expected batch_size of 1 or more, received {batch_size!r}")
        self.sampler, self.batch_size, self.drop_last = sampler, int(batch_size), drop_last

    def __iter__(self) -> Iterator[list[Any]]:
        batch = []
        for index in self.sampler:
            batch.append(index)
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch and not self.drop_last:
            yield batch

    def __len__(self) -> int:
        size = len(self.sampler)
        return size // self.batch_size if self.drop_last else -(-size // self.batch_size)
