"""`pytest benchmarks` compares engines, grouped by case; a peer that is not installed is left out."""

from importlib.util import find_spec

import pytest

ENGINES = ["numbanet", "reference", *(peer for peer in ("torch",) if find_spec(peer))]


@pytest.fixture(params=ENGINES)
def engine(request):
    return request.param
