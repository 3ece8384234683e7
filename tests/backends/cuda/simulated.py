"""Every primitive of the CUDA backend against the reference, in Numba's simulator: run by `test_simulator.py` in a process of its own.

By hand: NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/backends/cuda/simulated.py
"""

from __future__ import annotations

import pytest

from numbanet.backends import PRIMITIVES, get_backend
from tests.backends.agreement import CASES, agree, arguments_of, converted, name_of

OWN = get_backend("cuda").implementations
MINE = [case for case in CASES if case.primitive in OWN and not case.large]


@pytest.mark.parametrize("case", MINE, ids=name_of)
def test_cuda_agrees_with_reference(case):
    agree("cuda", case, arguments_of(case), case.tolerance)


@pytest.mark.parametrize("case", [c for c in MINE if c.float64], ids=name_of)
def test_cuda_agrees_with_reference_in_float64(case):
    agree("cuda", case, tuple(converted(a) for a in arguments_of(case)), 1e-12)


def test_every_primitive_of_cuda_has_a_case():
    own = {name for name in OWN if PRIMITIVES[name].specification.__module__.startswith("numbanet.")}
    assert own - {c.primitive for c in MINE} == set()
