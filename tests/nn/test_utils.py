"""Clipping of gradients and vectors of parameters, against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet
from numbanet.errors import ShapeError, UsageError
from numbanet.nn import utils

SHAPES = [(3, 4), (5,), ()]


def _parameters(package, make):
    rng = np.random.default_rng(4)
    parameters = [make(np.asarray(rng.standard_normal(s))) for s in SHAPES] + [make(np.ones(2))]
    for p in parameters:
        p.requires_grad_()
    for p in parameters[:3]:                                    # the last has no gradient
        p.grad = make(np.asarray(3 * rng.standard_normal(tuple(p.shape))))
    return parameters


@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.0, float("inf")])
@pytest.mark.parametrize("max_norm", [0.5, 1e3])
def test_clip_grad_norm_agrees_with_torch(norm_type, max_norm, backend):
    torch = pytest.importorskip("torch")
    mine = _parameters(numbanet, lambda a: numbanet.tensor(a, device=backend))
    theirs = _parameters(torch, torch.tensor)
    version = mine[0].grad._version
    norm = utils.clip_grad_norm_(mine, max_norm, norm_type)
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
    assert norm.item() == pytest.approx(expected.item(), rel=1e-12)
    for p, q in zip(mine[:3], theirs):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-12)
    assert mine[3].grad is None and mine[0].grad._version > version


def test_clip_grad_value_agrees_with_torch(backend):
    torch = pytest.importorskip("torch")
    mine, theirs = _parameters(numbanet, lambda a: numbanet.tensor(a, device=backend)), _parameters(torch, torch.tensor)
    utils.clip_grad_value_(mine, 0.7)
    torch.nn.utils.clip_grad_value_(theirs, 0.7)
    for p, q in zip(mine[:3], theirs):
        np.testing.assert_array_equal(p.grad.numpy(), q.grad.numpy())


def test_one_parameter_and_none():
    p = numbanet.tensor([3.0, 4.0], requires_grad=True)
    assert utils.clip_grad_norm_(p, 1.0).item() == 0
    p.grad = numbanet.tensor([3.0, 4.0])
    assert utils.clip_grad_norm_(p, 1.0).item() == 5
    np.testing.assert_allclose(p.grad.numpy(), [0.6, 0.8], rtol=1e-6)


def test_a_norm_that_is_not_finite():
    p = numbanet.tensor([1.0, 2.0], requires_grad=True)
    p.grad = numbanet.tensor([float("nan"), 1.0])
    with pytest.raises(UsageError, match="nan"):
        utils.clip_grad_norm_([p], 1.0, error_if_nonfinite=True)
    assert np.isnan(utils.clip_grad_norm_([p], 1.0).item())
    with pytest.raises(UsageError, match="norm_type"):
        utils.clip_grad_norm_([p], 1.0, norm_type=0)


def test_parameters_to_vector_and_back(backend):
    parameters = _parameters(numbanet, lambda a: numbanet.tensor(a, device=backend))
    vector = utils.parameters_to_vector(parameters)
    np.testing.assert_array_equal(vector.detach().numpy(),
                                  np.concatenate([p.detach().numpy().ravel() for p in parameters]))
    numbers = np.arange(20.0)
    utils.vector_to_parameters(numbanet.tensor(numbers, device=backend), parameters)
    np.testing.assert_array_equal(np.concatenate([p.detach().numpy().ravel() for p in parameters]), numbers)
    assert parameters[0]._version == 1
    with pytest.raises(ShapeError, match=r"\(20,\)"):
        utils.vector_to_parameters(numbanet.tensor(numbers[1:], device=backend), parameters)
