"""Every primitive of the CPU backend against the reference, on every case of `tests/cases`."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import zlib

import numpy as np
import pytest

import numbanet.backends as backends
import tests.cases
from numbanet.backends import PRIMITIVES, get_backend

CASES = [case for module in pkgutil.iter_modules(tests.cases.__path__)
         for case in getattr(importlib.import_module(f"tests.cases.{module.name}"), "PRIMITIVE_CASES", ())]


def _name(case):
    return f"{case.primitive}-{case.label}" if case.label else case.primitive


def _outputs(backend, primitive, arguments):
    """Run with outputs that start as NaN; operands that the primitive changes count as outputs."""
    arguments = tuple(a.copy(order="K") if isinstance(a, np.ndarray) else [x.copy(order="K") for x in a]
                      if isinstance(a, list) and a and isinstance(a[0], np.ndarray) else a for a in arguments)
    spec = primitive.specification(*primitive.bind(arguments, {}))
    if primitive.view or spec is None:
        result = getattr(backend, primitive.name)(*arguments)
        outputs = [] if spec is None else [result]
    else:
        single = isinstance(spec, backends.ArraySpec)
        out = [None if s is None else backend.empty(*s) for s in ((spec,) if single else spec)]
        for o in out:
            if o is not None:
                o.fill(np.nan if o.dtype.kind == "f" else 77 if o.dtype.kind in "iu" else True)
        getattr(backend, primitive.name)(*arguments, out=out[0] if single else tuple(out))
        outputs = out
    changed = [arguments[primitive.parameter_names.index(name)] for name in primitive.mutates]
    return [o for o in outputs if o is not None] + [x for c in changed if c is not None for x in (c if isinstance(c, list) else [c])]


def _converted(value):
    if isinstance(value, np.ndarray) and value.dtype == np.float32:
        wide = np.empty_like(value, dtype=np.float64)
        wide[...] = value
        return wide
    if isinstance(value, np.dtype) and value == np.float32:
        return np.dtype(np.float64)
    return [_converted(v) for v in value] if isinstance(value, list) else value


def _agree(case, arguments, tolerance):
    primitive = PRIMITIVES[case.primitive]
    expected = _outputs(get_backend("reference"), primitive, arguments)
    received = _outputs(get_backend("cpu"), primitive, arguments)
    assert len(expected) == len(received)
    for e, r in zip(expected, received):
        assert e.shape == r.shape and e.dtype == r.dtype
        if case.exact or e.dtype.kind != "f":
            np.testing.assert_array_equal(r, e)
        else:
            assert (np.isnan(e) == np.isnan(r)).all(), "NaN in other places"
            finite = np.isfinite(e)
            np.testing.assert_array_equal(r[~finite], e[~finite])
            scale = np.abs(e[finite]).max(initial=0) or 1.0
            assert np.abs(r[finite].astype(np.float64) - e[finite]).max(initial=0) <= tolerance * scale


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_cpu_agrees_with_reference(case):
    rng = np.random.default_rng(zlib.crc32(_name(case).encode()))
    _agree(case, case.arguments(rng), case.tolerance)


@pytest.mark.parametrize("case", [c for c in CASES if c.float64], ids=_name)
def test_cpu_agrees_with_reference_in_float64(case):
    rng = np.random.default_rng(zlib.crc32(_name(case).encode()))
    _agree(case, tuple(_converted(a) for a in case.arguments(rng)), 1e-12)


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
