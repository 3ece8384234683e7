"""Fixtures of the whole suite."""

import numpy as np
import pytest


@pytest.fixture(params=["reference", "cpu"])
def backend(request):
    """The name of a backend; a test that takes it runs on each."""
    return request.param


@pytest.fixture
def rng():
    return np.random.default_rng(20)
