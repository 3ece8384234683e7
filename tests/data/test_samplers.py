"""Which indices come, how often, and in which order."""

import numpy as np
import pytest

import numbanet
from numbanet.data import (
    BatchSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from numbanet.errors import ShapeError, UsageError


def test_sequential():
    sampler = SequentialSampler("abcd")
    assert list(sampler) == [0, 1, 2, 3] and len(sampler) == 4


@pytest.mark.parametrize("size, wanted", [(10, None), (10, 4), (10, 25), (0, None), (1, 3)])
def test_random_without_replacement_takes_whole_permutations(size, wanted):
    sampler = RandomSampler(range(size), num_samples=wanted, generator=1)
    drawn = list(sampler)
    assert len(drawn) == len(sampler) == (size if wanted is None else wanted)
    for start in range(0, len(drawn), max(size, 1)):
        part = drawn[start:start + size]
        assert len(set(part)) == len(part) and set(part) <= set(range(size))


def test_random_with_replacement_repeats_and_covers():
    drawn = list(RandomSampler(range(5), replacement=True, num_samples=500, generator=2))
    counts = np.bincount(drawn, minlength=5)
    assert len(drawn) == 500 and counts.min() > 60 and counts.max() < 140


@pytest.mark.parametrize("make", [lambda g: RandomSampler(range(50), generator=g),
                                  lambda g: SubsetRandomSampler(range(50), generator=g),
                                  lambda g: WeightedRandomSampler([1.0] * 50, 50, generator=g)])
def test_generator_decides_the_order(make):
    assert list(make(3)) == list(make(3)) != list(make(4))
    assert list(make(np.random.default_rng(3))) == list(make(np.random.default_rng(3)))
    generator = np.random.default_rng(3)
    assert list(make(generator)) != list(make(generator))
    own = [list(make(numbanet.random.Generator(7))) for _ in range(2)]
    assert own[0] == own[1] != list(make(numbanet.random.Generator(8)))


def test_subset_random_gives_each_index_once():
    sampler = SubsetRandomSampler([9, 4, 7], generator=0)
    assert sorted(sampler) == [4, 7, 9] and len(sampler) == 3


def test_weights_are_proportions():
    drawn = list(WeightedRandomSampler([1, 0, 3], 4000, generator=0))
    counts = np.bincount(drawn, minlength=3)
    assert counts[1] == 0 and 0.22 < counts[0] / 4000 < 0.28


def test_weights_without_replacement_give_each_index_once():
    assert sorted(WeightedRandomSampler([1, 0, 3, 2], 3, replacement=False, generator=0)) == [0, 2, 3]


@pytest.mark.parametrize("weights", [[-1.0, 2.0], [0.0, 0.0], [float("nan"), 1.0], [float("inf"), 1.0], []])
def test_impossible_weights(weights):
    with pytest.raises(UsageError, match="weights"):
        WeightedRandomSampler(weights, 1)


def test_more_draws_than_weights():
    with pytest.raises(UsageError, match="replacement"):
        WeightedRandomSampler([1, 0, 1], 3, replacement=False)
    with pytest.raises(ShapeError, match="weights"):
        WeightedRandomSampler([[1.0]], 1)


@pytest.mark.parametrize("size, batch, drop, expected", [(7, 3, False, [3, 3, 1]), (7, 3, True, [3, 3]),
                                                         (6, 3, False, [3, 3]), (2, 3, True, []), (0, 3, False, [])])
def test_batches(size, batch, drop, expected):
    sampler = BatchSampler(SequentialSampler(range(size)), batch, drop)
    batches = list(sampler)
    assert [len(b) for b in batches] == expected and len(sampler) == len(expected)
    assert sum(batches, []) == list(range(sum(expected)))


@pytest.mark.parametrize("size", [0, -1, 2.5, True, None])
def test_batch_size_must_be_a_positive_integer(size):
    with pytest.raises(UsageError, match="batch_size"):
        BatchSampler(range(3), size)


@pytest.mark.parametrize("count", [0, -3])
def test_number_of_samples_must_be_positive(count):
    with pytest.raises(UsageError, match="num_samples"):
        RandomSampler(range(3), num_samples=count)
    with pytest.raises(UsageError, match="num_samples"):
        WeightedRandomSampler([1.0], count)


def test_foreign_generator():
    with pytest.raises(UsageError, match="generator"):
        list(RandomSampler(range(3), generator="seed"))
