"""Reductions beyond the gradient cases: dims as in PyTorch, dtypes, accuracy, ties, empty tensors, errors."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet
from numbanet.errors import DTypeError, IndexRangeError, ShapeError, UsageError
from numbanet.ops import reduction

torch = pytest.importorskip("torch")
VALUES = np.random.default_rng(1).integers(-5, 6, (4, 3, 5)).astype(np.float32)


def _same(received, expected):
    received, expected = (list(r) if isinstance(r, tuple) else [r] for r in (received, expected))
    for r, e in zip(received, expected, strict=True):
        assert r.shape == tuple(e.shape) and str(r.dtype) == str(e.dtype).removeprefix("torch.")
        np.testing.assert_allclose(r.numpy(), e.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("name", ["sum", "mean", "amax", "amin", "prod", "any", "all", "argmax", "argmin", "logsumexp", "var", "std",
                                  "norm"])
def test_dims_are_those_of_torch(name, keepdim, backend):
    x, tx = numbanet.tensor(VALUES, device=backend), torch.tensor(VALUES)
    single = name in ("prod", "argmax", "argmin")
    for dim in (0, -1) if single else (0, -1, (0, 2), (-1, -2), None):
        if dim is None and name == "logsumexp":
            continue
        arguments = {"p": 2} if name == "norm" else {}
        options = {"keepdim": keepdim} if dim is None else {"dim": dim, "keepdim": keepdim}
        _same(getattr(x, name)(**arguments, **options), getattr(tx, name)(**arguments, **options) if dim is not None
              else getattr(tx, name)(**arguments, dim=(0, 1, 2), keepdim=keepdim))


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "bool", "float16"])
@pytest.mark.parametrize("name", ["sum", "prod", "amax", "any", "argmax", "max", "cumsum", "sort"])
def test_other_dtypes(name, dtype, backend):
    values = (np.abs(VALUES) % 3).astype(dtype)
    x, tx = numbanet.tensor(values, device=backend), torch.tensor(values)
    if (name, dtype) in (("any", "uint8"), ("argmax", "bool")):
        pytest.skip("torch returns uint8, or does not take it")
    if name == "sort":
        return _same(x.sort(1).values, tx.sort(1).values)
    if name == "max":
        return _same(x.max(1).values, tx.max(1).values)
    _same(getattr(x, name)(1), getattr(tx, name)(1))


def test_tensors_without_dimensions(backend):
    x, tx = numbanet.tensor(2.5, device=backend), torch.tensor(2.5)
    for name in ("sum", "mean", "prod", "amax", "max", "argmax", "any", "norm"):
        _same(getattr(x, name)(), getattr(tx, name)())
    for name in ("sum", "argmax", "cumsum"):
        _same(getattr(x, name)(0), getattr(tx, name)(0))
    _same(tuple(x.max(-1)), tuple(tx.max(-1)))


def test_empty_tensors(backend):
    x, tx = numbanet.tensor(np.zeros((3, 0), np.float32), device=backend), torch.zeros(3, 0)
    for name in ("sum", "prod", "mean", "any", "all"):
        _same(getattr(x, name)(1), getattr(tx, name)(1))
        _same(getattr(x, name)(0), getattr(tx, name)(0))
    with pytest.raises(ShapeError, match="amax.*no elements"):
        x.amax()
    with pytest.raises(ShapeError, match="argmax.*no elements"):
        x.argmax(1)


def test_long_sums_are_accurate(backend):
    x = np.random.default_rng(0).uniform(0, 1, (3, 1 << 20)).astype(np.float32)
    exact = x.astype(np.float64).sum(1)
    tolerance = 3e-7 if backend == "cpu" else 2e-6
    np.testing.assert_allclose(numbanet.tensor(x, device=backend).sum(1).numpy(), exact, rtol=tolerance)
    np.testing.assert_allclose(numbanet.tensor(x.T.copy(), device=backend).mean(0).numpy(), exact / (1 << 20), rtol=1e-4
                               if backend == "reference" else tolerance)


def test_variance_survives_a_large_mean(backend):
    x = (np.random.default_rng(0).standard_normal((1000, 4)) + 1e4).astype(np.float32)
    received = numbanet.tensor(x, device=backend).var(0).numpy()
    np.testing.assert_allclose(received, x.astype(np.float64).var(0, ddof=1), rtol=1e-4)
    assert numbanet.tensor([1.0], device=backend).var().isnan().item()
    _same(numbanet.tensor(VALUES, device=backend).var(1, False), torch.tensor(VALUES).var(1, False))


def test_the_first_of_equal_elements_counts(backend):
    x = numbanet.tensor([[3.0, 1, 3, np.nan, np.nan], [2, 2, 1, 1, 0]], device=backend)
    assert x.argmax(1).tolist() == [3, 0] and x.argmin(1).tolist() == [3, 4] and x.max(1).indices.tolist() == [3, 0]
    assert x[1].sort().indices.tolist() == [4, 2, 3, 0, 1] and x[1].sort(descending=True).indices.tolist() == [0, 1, 2, 3, 4]
    y = numbanet.tensor([[2.0, 2.0, 1.0]], device=backend, requires_grad=True)
    y.max().backward()
    assert y.grad.tolist() == [[0.5, 0.5, 0]]
    y.grad = None
    y.max(1).values.sum().backward()
    assert y.grad.tolist() == [[1, 0, 0]]


def test_topk_and_median(backend):
    values = np.random.default_rng(0).permutation(60).reshape(4, 15).astype(np.float32)
    x, tx = numbanet.tensor(values, device=backend), torch.tensor(values)
    for arguments in ((3,), (2, 0), (15, 1, False)):
        _same(tuple(x.topk(*arguments)), tuple(tx.topk(*arguments)))
    _same(tuple(x.median(1)), tuple(tx.median(1)))
    _same(x.median(), tx.median())
    with pytest.raises(ShapeError, match="topk: k expects 0 to 15"):
        x.topk(16)


def test_named_results(backend):
    values, indices = result = numbanet.tensor([[1.0, 2.0]], device=backend).max(dim=1)
    assert result.values is values and result.indices is indices and indices.dtype == np.int64


def test_errors(backend):
    x = numbanet.tensor(VALUES, device=backend)
    with pytest.raises(IndexRangeError, match="sum: dim expects a value from -3 to 2, received 3"):
        x.sum(3)
    with pytest.raises(ShapeError, match="mean: dim names a dimension twice"):
        x.mean((0, -3))
    with pytest.raises(DTypeError, match="mean.*float"):
        x.long().mean()
    with pytest.raises(UsageError, match="norm: p"):
        reduction.norm(x, "nuclear")
