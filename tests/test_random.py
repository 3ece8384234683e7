"""Generators, and the numbers that a key means."""

import threading

import numpy as np
import pytest

import numbanet
import numbanet.random as random
from numbanet.backends import get_backend, philox
from numbanet.errors import UsageError

# Known answers of Philox-4x32-10, from the Random123 library of its authors: counter, key, words.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
     (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]
F32 = np.dtype(np.float32)


@pytest.mark.parametrize("counter, key, words", KNOWN)
def test_philox_gives_its_authors_answers(counter, key, words):
    received = philox.philox(*[np.array([c], np.uint64) for c in counter], *key)
    assert tuple(int(w[0]) for w in received) == words


def test_a_stream_counts_blocks_and_holds_seed_and_stream_in_its_words():
    seed, stream = 0x0123456789ABCDEF, 0xFEDCBA9876543210
    received = philox.words(7, (seed, stream))
    second = philox.philox(*[np.array([c], np.uint64) for c in (1, 0, stream & 0xFFFFFFFF, stream >> 32)],
                           seed & 0xFFFFFFFF, seed >> 32)
    assert received[4:].tolist() == [int(w[0]) for w in second[:3]]


def test_uniform_numbers_fill_the_range(backend):
    drawn = get_backend(backend).random_uniform((100_000,), F32, -2.0, 3.0, (1, 2))
    counts, _ = np.histogram(drawn, 20, (-2, 3))
    assert drawn.min() >= -2 and drawn.max() < 3 and counts.sum() == drawn.size
    assert abs(counts - 5000).max() < 350                      # five standard deviations


def test_uniform_numbers_never_reach_the_upper_end(backend):
    width = 2.0 ** -20                                         # rounding in float32 would reach 1 + width often
    drawn = get_backend(backend).random_uniform((10_000,), F32, 1.0, 1 + width, (1, 2))
    assert drawn.min() == 1 and drawn.max() == np.nextafter(np.float32(1 + width), np.float32(0))
    assert (get_backend(backend).random_uniform((3,), F32, 2.0, 2.0, (1, 2)) == 2).all()


def test_normal_numbers_have_the_moments_and_tails_of_a_normal_distribution(backend):
    drawn = get_backend(backend).random_normal((200_000,), F32, 0.0, 1.0, (7, 0)).astype(np.float64)
    assert abs(drawn.mean()) < 0.01 and abs(drawn.std() - 1) < 0.01
    assert abs((drawn ** 3).mean()) < 0.03 and abs((drawn ** 4).mean() - 3) < 0.1
    assert abs((np.abs(drawn) > 2).mean() - 0.0455) < 0.003
    assert abs(np.corrcoef(drawn[::2], drawn[1::2])[0, 1]) < 0.02


def test_fills_of_a_strided_tensor_are_those_of_a_dense_one(backend):
    run = get_backend(backend)
    big = np.full((6, 10), np.nan, np.float32)
    run.random_normal((3, 5), F32, 0.0, 1.0, (3, 4), out=big[::2, ::2])
    np.testing.assert_array_equal(big[::2, ::2], run.random_normal((3, 5), F32, 0.0, 1.0, (3, 4)))
    assert np.isnan(big[1::2]).all()


def test_integers_and_permutations(backend):
    run = get_backend(backend)
    drawn = run.random_integers((6000,), -2, 4, (5, 6))
    assert set(drawn.tolist()) == set(range(-2, 4)) and abs(np.bincount(drawn + 2) - 1000).max() < 150
    assert sorted(run.random_permutation(50, (5, 6))) == list(range(50)) != run.random_permutation(50, (5, 6)).tolist()
    wide = run.random_integers((1000,), -2**63, 2**63 - 1, (5, 6))
    assert wide.min() < -2**62 and wide.max() > 2**62


def test_seeds_make_everything_repeatable():
    def draw():
        return numbanet.ops.factories.rand(3).tolist(), numbanet.ops.factories.randperm(9).tolist()

    random.manual_seed(3)
    first = draw()
    assert draw() != first
    random.manual_seed(3)
    assert random.initial_seed() == 3 and draw() == first
    state = random.get_rng_state()
    after = draw()
    random.set_rng_state(state)
    assert draw() == after
    random.manual_seed(-1)
    assert random.initial_seed() == 2**64 - 1


def test_fork_rng_leaves_the_generator_alone():
    state = random.get_rng_state()
    with random.fork_rng():
        numbanet.ops.factories.rand(3)
        assert random.get_rng_state() != state
    assert random.get_rng_state() == state
    with random.fork_rng(enabled=False):
        numbanet.ops.factories.rand(3)
    assert random.get_rng_state() != state


def test_explicit_generators_are_independent_of_the_default_one():
    state = random.get_rng_state()
    generator = random.Generator().manual_seed(5)
    drawn = numbanet.ops.factories.randn(4, generator=generator)
    assert random.get_rng_state() == state
    assert drawn.tolist() == numbanet.ops.factories.randn(4, generator=random.Generator(5)).tolist()
    assert drawn.tolist() != numbanet.ops.factories.randn(4, generator=generator).tolist()
    assert random.Generator().initial_seed() != random.Generator().initial_seed()
    assert generator.seed() == generator.initial_seed() != 5


def test_seed_everything_reaches_python_and_numpy():
    import random as python_random

    def draw():
        return python_random.random(), np.random.random(), numbanet.ops.factories.rand(1).item()

    assert random.seed_everything(2**40 + 1) == 2**40 + 1
    first = draw()
    random.seed_everything(2**40 + 1)
    assert draw() == first


def test_threads_share_the_seed_and_no_streams():
    random.manual_seed(11)
    keys, barrier = [], threading.Barrier(2)

    def run():
        barrier.wait()
        keys.append(random.next_key())

    threads = [threading.Thread(target=run) for _ in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    keys.append(random.next_key())
    assert {seed for seed, _ in keys} == {11} and len(set(keys)) == 3


@pytest.mark.parametrize("call, words", [
    (lambda b: b.random_uniform((1,), F32, 1.0, 0.0, (0, 0)), "low <= high"),
    (lambda b: b.random_normal((1,), F32, 0.0, -1.0, (0, 0)), "std"),
    (lambda b: b.random_integers((1,), 3, 3, (0, 0)), "low < high"),
])
def test_errors(call, words, backend):
    with pytest.raises(UsageError, match=words):
        call(get_backend(backend))
