"""PyTorch's operator database: values, dtypes, gradients and errors. `python -m tests.oracles.opinfo_report` prints the table.

By default each entry runs its first samples; `-m full` runs all.
"""

import warnings

import pytest

from tests.oracles.opinfo_names import NAMES

SAMPLES = 4             # of each entry in the default run
REQUIRED = 0.95         # share of all samples that must agree


@pytest.fixture(scope="module")
def opinfo():
    for module in ("torch", "expecttest"):
        pytest.importorskip(module)
    from tests.oracles import opinfo
    return opinfo


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                 # PyTorch's, of its own deprecated calls
        yield


def test_no_entry_of_the_database_is_forgotten(opinfo):
    assert set(opinfo.concerned()) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_samples_agree(opinfo, opinfo_counts, name):
    if name not in opinfo.database():
        pytest.skip("this PyTorch's database has no such entry")
    found = opinfo.outcomes(name, SAMPLES)
    opinfo_counts["samples"].extend(found)
    assert [o.failure for o in found if o.failure and not o.reason] == []


@pytest.mark.parametrize("name", NAMES)
def test_errors_are_ours(opinfo, opinfo_counts, name):
    if name not in opinfo.database():
        pytest.skip("this PyTorch's database has no such entry")
    found = opinfo.refusals(name)
    opinfo_counts["errors"].extend(found)
    assert [o.failure for o in found if o.failure and not o.reason] == []


@pytest.mark.full
def test_all_samples_agree(opinfo):
    found = [(name, o) for name in NAMES if name in opinfo.database() for o in opinfo.outcomes(name)]
    assert [(name, o.failure) for name, o in found if o.failure and not o.reason] == []
    assert sum(o.failure is None for _, o in found) >= REQUIRED * len(found)
