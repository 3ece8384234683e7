"""Nothing is kept of steps whose results were dropped."""

import gc
import os

import numpy as np
import pytest

import numbanet
from numbanet.backends.cpu import memory
from numbanet.nn import functional as F
from tests.determinism.network import SmallNetwork


def resident_bytes() -> int:
    """Memory of this process that lies in RAM."""
    with open("/proc/self/statm") as fields:
        return int(fields.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux's /proc")
def test_fifty_steps_leave_nothing_behind():
    threads = numbanet.get_num_threads()
    model, x = SmallNetwork(), numbanet.randn(2, 3, 32, 32)
    optimizer = numbanet.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    target = numbanet.randint(0, 10, (2,))

    def step():
        optimizer.zero_grad()
        F.cross_entropy(model(x), target).backward()
        optimizer.step()
        model(x).relu().sum()                       # an output whose backward pass never runs

    try:
        numbanet.set_num_threads(1)                 # for speed: what is kept does not depend on it
        for _ in range(3):                          # gradients, momentum and packed weights come into being
            step()
        gc.collect()
        gc.disable()                                # what only the cycle collector frees is a leak of its own kind
        in_use, held, resident = memory.statistics().in_use, memory.statistics().held, resident_bytes()
        for _ in range(50):
            step()
        assert memory.statistics().in_use == in_use
        assert memory.statistics().held == held
        assert resident_bytes() - resident < 4 << 20
    finally:
        gc.enable()
        numbanet.set_num_threads(threads)


def test_a_view_in_numpy_keeps_its_memory_and_gives_it_back():
    before = memory.statistics().in_use
    y = numbanet.ones(1000) * 3
    view = y.numpy()[10:20]
    del y
    others = [numbanet.zeros(1000) for _ in range(4)]
    np.testing.assert_array_equal(view, 3)
    del view, others
    assert memory.statistics().in_use == before
