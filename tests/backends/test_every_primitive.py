"""Every primitive of the CPU backend against the reference, on every case of `tests/cases`.

The CUDA backend is compared on the same cases, in a process of its own (`cuda/test_simulator.py`).
"""

from __future__ import annotations

import inspect

import pytest

from numbanet.backends import PRIMITIVES, get_backend
from tests.backends.agreement import CASES, agree, agree_overwriting, arguments_of, converted, name_of, overwritable

IN_PLACE = [case for case in CASES if overwritable(case, arguments_of(case))]


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_cpu_agrees_with_reference(case):
    agree("cpu", case, arguments_of(case), case.tolerance)


@pytest.mark.parametrize("case", [c for c in CASES if c.float64], ids=name_of)
def test_cpu_agrees_with_reference_in_float64(case):
    agree("cpu", case, tuple(converted(a) for a in arguments_of(case)), 1e-12)


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value", "ignore:Degrees of freedom")
@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("case", IN_PLACE, ids=name_of)
def test_a_result_may_lie_in_an_operand(backend, case):
    agree_overwriting(backend, case, arguments_of(case))
    if case.float64:
        agree_overwriting(backend, case, tuple(converted(a) for a in arguments_of(case)))


def test_every_primitive_that_may_overwrite_is_tried():
    declared = {p.name for p in PRIMITIVES.values() if p.may_overwrite and p.specification.__module__.startswith("numbanet.")}
    assert declared - {case.primitive for case in IN_PLACE} == set()


def test_every_primitive_of_the_cpu_has_a_case():
    cpu = get_backend("cpu")
    covered = {c.primitive for c in CASES}
    own = {name for name in cpu.implementations if PRIMITIVES[name].specification.__module__.startswith("numbanet.")}
    assert own - covered == set()


@pytest.mark.parametrize("name", ["reference", "cpu"])
def test_backends_implement_the_contract(name):
    backend = get_backend(name)
    own = [p for p in PRIMITIVES.values() if p.specification.__module__.startswith("numbanet.")]
    assert [p.name for p in own if not backend.implements(p.name)] == []
    for p in own:
        if p.name in backend.implementations:
            parameters = tuple(inspect.signature(backend.implementations[p.name]).parameters)
            assert parameters[:len(p.parameters)] == p.parameter_names
