"""Fixtures of the graph's tests."""

import pytest

from numbanet.backends import get_backend


@pytest.fixture
def same_kernels(monkeypatch):
    """Plans run the kernels that eager steps run, so that all bits agree: convolutions take no statistics."""
    monkeypatch.setattr(type(get_backend("cpu")), "takes_statistics", lambda self, geometry, batch: False)
