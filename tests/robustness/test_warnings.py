"""Infinities and NaN are results like others: nothing warns of them."""

import warnings

import numpy as np
import pytest

import numbanet
from numbanet.nn import functional as F

CALLS = {
    "sum": lambda x: x.sum(), "sum of rows": lambda x: x.sum(1), "mean": lambda x: x.mean(), "prod": lambda x: x.prod(),
    "std": lambda x: x.std(), "cumsum": lambda x: x.cumsum(1), "norm": lambda x: x.norm(), "square": lambda x: x * x,
    "division": lambda x: x / (x * 0), "power": lambda x: x ** 3, "exp": lambda x: x.exp(), "log": lambda x: x.log(),
    "matmul": lambda x: x @ x.T, "linear": lambda x: F.linear(x, x), "softmax": lambda x: F.softmax(x, 1),
    "softplus": lambda x: F.softplus(x), "gelu": lambda x: F.gelu(x), "float": lambda x: x.float(),
    "convolution": lambda x: F.conv2d(x.reshape(1, 1, 1, 7), x.reshape(1, 1, 1, 7)),
    "pooling": lambda x: F.avg_pool2d(x.reshape(1, 1, 1, 7), (1, 7)),
    "batch norm": lambda x: F.batch_norm(numbanet.cat([x, x]), None, None, training=True),
    "layer norm": lambda x: F.layer_norm(x, (7,)), "response norm": lambda x: F.local_response_norm(x.reshape(1, 7, 1, 1), 3),
    "cross entropy": lambda x: F.cross_entropy(x, numbanet.tensor([0], device=x.device)), "mse": lambda x: F.mse_loss(x, x * 0),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_beyond_the_largest(name, dtype, backend):
    largest = float(np.finfo(dtype).max)
    x = numbanet.tensor([[largest, -largest, 1e30, 0.0, np.inf, np.nan, 1000.0]], dtype=dtype, device=backend)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = CALLS[name](x)
    assert not np.isfinite(y.numpy()).all()


def test_a_sum_that_float32_cannot_hold(backend):
    x = numbanet.full((4, 50), 3e38, device=backend)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert x.sum().item() == np.inf and (-x).sum(1).tolist() == [-np.inf] * 4
