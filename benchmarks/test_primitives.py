"""Convolution passes of ResNet's shapes; primitives across backends."""

import numpy as np
import pytest

from benchmarks.cases import CONVOLUTIONS, PASSES, convolution
from numbanet.backends import get_backend
from numbanet.geometry import pool_geometry


@pytest.mark.parametrize("direction", PASSES)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution(benchmark, engine, name, direction):
    benchmark.group = f"conv {name}, {direction}"
    run = convolution(engine, CONVOLUTIONS[name], direction)
    run()
    benchmark(run)


X = np.random.default_rng(0).standard_normal((8, 56, 56, 64), dtype=np.float32).transpose(0, 3, 1, 2)
PRIMITIVES = {
    "relu_forward": (X,),
    "add": (X, X),
    "max_pool2d_forward": (X, pool_geometry((56, 56), 3, 2, 1)),
    "batch_norm_forward": (X, np.ones(64, np.float32), np.zeros(64, np.float32), 1e-5),
    "softmax_forward": (X.reshape(-1, 64), 1),
    "sum": (X, (0, 2, 3), False),
}


@pytest.mark.parametrize("device", ["cpu", "reference"])
@pytest.mark.parametrize("name", PRIMITIVES)
def test_primitive(benchmark, device, name):
    benchmark.group = f"{name}, 8 x 64 x 56 x 56"
    call, arguments = getattr(get_backend(device), name), PRIMITIVES[name]
    call(*arguments)
    benchmark(call, *arguments)
