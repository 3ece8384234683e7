"""Every operation: gradients against finite differences on both backends, against the reference, and against PyTorch."""

from __future__ import annotations

import importlib
import pkgutil
import zlib

import numpy as np
import pytest

import numbanet
import numbanet.ops
import tests.cases
from numbanet.autograd import Operation, gradient_check

CASES = [case for module in pkgutil.iter_modules(tests.cases.__path__)
         for case in getattr(importlib.import_module(f"tests.cases.{module.name}"), "OPERATION_CASES", ())]
over_cases = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)


def _inputs(case):
    return case.inputs(np.random.default_rng(zlib.crc32(case.name.encode())))


def _tensors(arrays, device, dtype):
    return [numbanet.tensor(a.astype(dtype), device=device, requires_grad=True) if a.dtype.kind == "f"
            else numbanet.tensor(a, device=device) for a in arrays]


def _values_and_gradients(case, device, dtype):
    """Outputs, and gradients of their sum weighted by fixed random numbers."""
    tensors = _tensors(_inputs(case), device, dtype)
    outputs = case.call(*tensors)
    outputs = [o for o in (outputs if isinstance(outputs, tuple) else (outputs,)) if o.requires_grad]
    rng = np.random.default_rng(1)
    weights = [numbanet.tensor(rng.standard_normal(o.shape).astype(dtype), device=device) for o in outputs]
    numbanet.autograd.backward(outputs, weights)
    return ([o.detach().numpy() for o in outputs],
            [t.grad.numpy() if t.grad is not None else np.zeros(t.shape) for t in tensors if t.requires_grad])


def _close(received, expected, tolerance):
    assert received.shape == expected.shape
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=0) or 1.0
    np.testing.assert_allclose(received, expected, rtol=0, atol=tolerance * scale, equal_nan=True)


@over_cases
def test_gradient(case, backend):
    gradient_check(case.call, *_tensors(_inputs(case), backend, np.float64), tolerance=case.tolerance)


@over_cases
def test_float32_on_cpu_agrees_with_float64_reference(case):
    for received, expected in zip(_values_and_gradients(case, "cpu", np.float32), _values_and_gradients(case, "reference", np.float64)):
        assert len(received) == len(expected)
        for r, e in zip(received, expected):
            _close(r, e, case.float32_tolerance)


@pytest.mark.parametrize("case", [c for c in CASES if c.torch], ids=lambda c: c.name)
def test_agrees_with_torch(case):
    torch = pytest.importorskip("torch")
    tensors = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in _inputs(case)]
    outputs = case.torch(*tensors)
    outputs = [o for o in (outputs if isinstance(outputs, tuple) else (outputs,)) if o.requires_grad]
    rng = np.random.default_rng(1)
    torch.autograd.backward(outputs, [torch.tensor(rng.standard_normal(tuple(o.shape))) for o in outputs])
    gradients = [t.grad.numpy() if t.grad is not None else np.zeros(t.shape) for t in tensors if t.requires_grad]
    values, mine = _values_and_gradients(case, "reference", np.float64)
    for r, e in zip(values + mine, [o.detach().numpy() for o in outputs] + gradients, strict=True):
        _close(r, e, 1e-9)


def _subclasses(cls):
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


def test_every_differentiable_operation_has_a_gradient_check():
    own = {c for c in _subclasses(Operation) if c.differentiable and c.__module__.startswith("numbanet.ops")
           and "backward" in vars(c)}
    checked = {operation for case in CASES for operation in case.operations}
    assert {c.__name__ for c in own - checked} == set()
