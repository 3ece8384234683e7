"""Fixtures of the whole suite."""

import os
import sys

import numpy as np
import pytest


def pytest_runtest_setup(item):
    """One thread for PyTorch where a test has imported it: two OpenMP pools in one process spin against each other."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture(params=os.environ.get("NUMBANET_TEST_BACKENDS", "reference cpu").split())
def backend(request):
    """The name of a backend; a test that takes it runs on each. NUMBANET_TEST_BACKENDS=cuda:0: on a GPU alone."""
    return request.param


@pytest.fixture
def rng():
    return np.random.default_rng(20)


@pytest.fixture(scope="module", autouse=True)
def give_memory_back():
    """What a module's largest networks took goes back to the system, so that the suite fits into a small machine."""
    yield
    memory = sys.modules.get("numbanet.backends.cpu.memory")
    if memory is not None:
        memory.trim()
