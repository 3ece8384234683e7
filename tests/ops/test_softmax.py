"""Softmax beyond the gradient cases: stability, special values, errors."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet
from numbanet.errors import DTypeError, IndexRangeError, UsageError
from numbanet.ops.softmax import log_softmax, softmax

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_special_values_are_those_of_torch(name, backend):
    x = np.random.default_rng(0).standard_normal((6, 21)).astype(np.float32)
    x[0, 3], x[1, 20], x[2, 0], x[3], x[4] = np.nan, np.inf, -np.inf, -np.inf, 1e30
    x[5] *= 1e4
    y = {"softmax": softmax, "log_softmax": log_softmax}[name](numbanet.tensor(x, device=backend), 1)
    np.testing.assert_allclose(y.numpy(), getattr(torch, name)(torch.tensor(x), 1).numpy(), rtol=2e-6, atol=1e-7)


def test_rows_sum_to_one_however_large_they_are(backend):
    x = numbanet.tensor(np.random.default_rng(0).uniform(-500, 500, (50, 7, 3)).astype(np.float32), device=backend)
    np.testing.assert_allclose(softmax(x, 1).numpy().sum(1), 1, rtol=1e-6)


def test_errors(backend):
    x = numbanet.tensor([[1.0, 2.0]], device=backend)
    with pytest.raises(UsageError, match="softmax: expected dim"):
        softmax(x)
    with pytest.raises(IndexRangeError, match="log_softmax: dim"):
        log_softmax(x, 2)
    with pytest.raises(DTypeError, match="softmax"):
        softmax(x.long(), 1)
    assert softmax(x.long(), 1, dtype="float32").dtype == np.float32
