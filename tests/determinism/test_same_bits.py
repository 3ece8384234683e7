"""Equal bits: at every number of threads, after every seeding, on every backend for random numbers."""


import numpy as np
import pytest

import numbanet
from numbanet.nn import functional as F
from tests.backends.cpu.thread_counts import run_with_four_threads
from tests.determinism.network import training_step

AT_EVERY_THREAD_COUNT = """
import numbanet
from tests.determinism.network import training_step
for precision in ("strict", "fast"):
    numbanet.set_float32_precision(precision)
    steps = {}
    for count in (1, 2, 4):
        numbanet.set_num_threads(count)
        steps[count] = training_step(seed=3)
    for name, value in steps[1].items():
        for count in (2, 4):
            assert value.tobytes() == steps[count][name].tobytes(), (precision, count, name)
print(len(steps[1]))
"""


def test_a_training_step_has_the_same_bits_at_every_thread_count():
    assert int(run_with_four_threads(AT_EVERY_THREAD_COUNT)) > 30


def test_a_seed_reproduces_a_training_step_and_another_one_does_not():
    first, second, other = (training_step(seed, batch=4) for seed in (5, 5, 6))
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert value.tobytes() == second[name].tobytes(), name
    assert first["x.grad"].tobytes() != other["x.grad"].tobytes()


@pytest.mark.parametrize("draw", [
    lambda ones: F.dropout(ones, 0.3), lambda ones: F.dropout2d(ones, 0.3), lambda ones: F.alpha_dropout(ones, 0.3),
    lambda ones: numbanet.rand(3, 77, device=ones.device), lambda ones: numbanet.bernoulli(ones * 0.5),
    lambda ones: numbanet.randperm(91, device=ones.device), lambda ones: numbanet.randint(-5, 9, (77,), device=ones.device),
], ids=["dropout", "dropout2d", "alpha_dropout", "rand", "bernoulli", "randperm", "randint"])
def test_a_seed_draws_the_same_on_every_backend(draw):
    drawn = []
    for device in ("reference", "cpu"):
        numbanet.manual_seed(11)
        drawn.append(draw(numbanet.ones(4, 19, 6, 5, device=device)).numpy())
    np.testing.assert_array_equal(drawn[0], drawn[1])


def test_backends_agree_about_a_training_step():
    """From one seed both draw the same weights, images, labels and masks, so they differ by rounding only."""
    precision = numbanet.get_float32_precision()
    numbanet.set_float32_precision("strict")
    try:
        expected, received = (training_step(seed=2, batch=2, device=device) for device in ("reference", "cpu"))
    finally:
        numbanet.set_float32_precision(precision)
    for name, e in expected.items():
        if name.endswith(("grad", "loss")):
            np.testing.assert_allclose(received[name], e, rtol=0, atol=2e-5 * np.abs(e).max() + 1e-7, err_msg=name)
