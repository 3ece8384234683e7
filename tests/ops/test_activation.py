"""Activations beyond the gradient cases: infinities as in PyTorch, gradients at the kinks, errors."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet
from numbanet.errors import DTypeError, ShapeError, UsageError
from numbanet.ops import activation

torch = pytest.importorskip("torch")
VALUES = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 100, -100, 20, -20, 3, -3, 6, 0.5, -0.5, 1, -1, 1e-30], np.float32)
NAMES = ["relu", "relu6", "hardtanh", "leaky_relu", "elu", "selu", "celu", "sigmoid", "tanh", "silu", "gelu", "hardsigmoid", "hardswish",
         "softplus", "mish", "logsigmoid", "softsign", "hardshrink", "softshrink", "tanhshrink"]


@pytest.mark.parametrize("name", NAMES)
def test_special_values_are_those_of_torch(name, backend):
    values = VALUES[VALUES != np.inf] if name == "gelu" else VALUES        # there torch's vector code gives NaN, ours inf
    y = getattr(activation, name)(numbanet.tensor(values, device=backend))
    expected = getattr(torch.nn.functional, name)(torch.tensor(values)).numpy()
    np.testing.assert_allclose(y.numpy(), expected, rtol=2e-6, atol=1e-6 if name == "gelu" else 2e-7)


def test_gelu_of_infinity(backend):
    assert activation.gelu(numbanet.tensor([np.inf], device=backend)).tolist() == [np.inf]


@pytest.mark.parametrize("name", NAMES)
def test_gradients_at_the_kinks_are_those_of_torch(name, backend):
    values = VALUES[3:]
    x, tx = numbanet.tensor(values, device=backend, requires_grad=True), torch.tensor(values, requires_grad=True)
    getattr(activation, name)(x).sum().backward()
    getattr(torch.nn.functional, name)(tx).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), tx.grad.numpy(), rtol=3e-6, atol=3e-7)


def test_prelu_weight_per_channel(backend):
    x = numbanet.tensor(np.ones((2, 3, 4), np.float32), device=backend)
    with pytest.raises(ShapeError, match=r"prelu: weight expects shape \(1,\) or \(3,\)"):
        activation.prelu(x, numbanet.tensor(np.ones(4, np.float32), device=backend))


def test_errors(backend):
    x = numbanet.tensor([1, 2], device=backend)
    with pytest.raises(DTypeError, match="relu: x expects float32"):
        activation.relu(x)
    with pytest.raises(UsageError, match="gelu: approximate"):
        activation.gelu(x.float(), "sigmoid")
    with pytest.raises(UsageError, match="hardtanh"):
        activation.hardtanh(x.float(), 1, -1)
