"""Numbers of samples: keyed by (seed, epoch, index), one by one as in a batch."""

import threading

import numpy as np
import pytest

import numbanet
from numbanet.data import sample_generator, sample_uniforms
from numbanet.data.randomness import (
    BATCHES,
    ORDER,
    SAMPLES,
    enter_sample,
    epoch_scope,
    generator_scope,
    keyed_generator,
)

BIG = 2**64 - 1


@pytest.mark.parametrize("seed, epoch", [(0, 0), (1, 0), (BIG, 3), (-5, 2**40)])
@pytest.mark.parametrize("count", [1, 4, 6, 9])
def test_batch_draws_the_bits_of_its_samples(seed, epoch, count):
    indices = [0, 7, 2**40, 3, 7]
    with epoch_scope(seed, epoch):
        at_once = sample_uniforms(indices, count)
        one_by_one = np.stack([sample_generator(i).random(count) for i in indices])
    assert at_once.shape == (5, count)
    np.testing.assert_array_equal(at_once, one_by_one)


def test_uniforms_are_numpys_philox():
    expected = np.random.Generator(np.random.Philox(key=[11, 4], counter=[0, 0, SAMPLES, 42])).random(5)
    with epoch_scope(11, 4):
        np.testing.assert_array_equal(sample_uniforms([42], 5)[0], expected)


def test_uniforms_of_no_samples():
    with epoch_scope(1, 1):
        assert sample_uniforms([], 6).shape == (0, 6)


def test_seed_epoch_stream_and_index_all_matter():
    keys = [(0, 0, SAMPLES, 0), (1, 0, SAMPLES, 0), (0, 1, SAMPLES, 0), (0, 0, ORDER, 0), (0, 0, BATCHES, 0),
            (0, 0, SAMPLES, 1), (0, 0, SAMPLES, "a"), (0, 0, SAMPLES, ("a", 1))]
    drawn = {keyed_generator(*key).integers(2**63) for key in keys}
    assert len(drawn) == len(keys)
    assert keyed_generator(0, 0, SAMPLES, "a").integers(2**63) in drawn


def test_generator_stays_until_the_next_sample():
    with epoch_scope(1, 2):
        enter_sample(5)
        first = sample_generator()
        assert sample_generator() is first
        enter_sample(6)
        assert sample_generator() is not first
        assert sample_generator().random() == keyed_generator(1, 2, SAMPLES, 6).random()


def test_scopes_nest_and_end():
    order = np.random.default_rng(0)
    with epoch_scope(1, 0):
        enter_sample(3)
        outer = sample_generator()
        with generator_scope(order):
            assert sample_generator() is order
        with epoch_scope(2, 0):
            assert sample_generator().random() == keyed_generator(2, 0, SAMPLES, 0).random()
        assert sample_generator() is outer


def test_scope_belongs_to_its_thread():
    seen = []
    with epoch_scope(1, 0):
        enter_sample(3)
        thread = threading.Thread(target=lambda: seen.append(sample_generator()))
        thread.start()
        thread.join()
        assert seen[0] is not sample_generator()


def test_manual_seed_restarts_what_is_drawn_outside_of_a_loader():
    def draw():
        return [sample_generator().random(), sample_generator().random(), *sample_uniforms([0, 1], 2).ravel()]

    numbanet.random.manual_seed(5)
    first = draw()
    numbanet.random.manual_seed(5)
    assert draw() == first
    assert len(set(first)) == len(first)
    numbanet.random.manual_seed(6)
    assert draw() != first
