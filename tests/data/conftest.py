"""Where the full MNIST lies, if it does."""

import os

import pytest


@pytest.fixture
def full_mnist():
    folder = os.environ.get("NUMBANET_MNIST")
    if not folder:
        pytest.skip("NUMBANET_MNIST does not name a folder with the four IDX files")
    return folder
