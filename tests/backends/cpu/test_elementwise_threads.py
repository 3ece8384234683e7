"""Elementwise, reduction and softmax kernels give the same bits at every thread count."""

from __future__ import annotations

import numpy as np
import pytest

from numbanet.backends import get_backend
from numbanet.backends.cpu import threads

CALLS = {
    "add": lambda cpu, x: cpu.add(x, x[:1]), "gelu": lambda cpu, x: cpu.gelu_forward(x, "none"),
    "sum": lambda cpu, x: cpu.sum(x, (0, 1, 2, 3), False), "sum of pixels": lambda cpu, x: cpu.sum(x, (0, 2, 3), False),
    "sum of channels": lambda cpu, x: cpu.sum(x, (1,), False), "softmax": lambda cpu, x: cpu.softmax_forward(x, 1),
}


@pytest.mark.parametrize("name", CALLS)
def test_same_bits(name):
    cpu = get_backend("cpu")
    x = np.random.default_rng(0).standard_normal((5, 37, 41, 33)).astype(np.float32).transpose(0, 3, 1, 2)
    before = threads.get_num_threads()
    try:
        results = set()
        for count in range(1, threads.maximum() + 1):
            threads.set_num_threads(count)
            results.add(CALLS[name](cpu, x).tobytes())
        with threads.serial_region():
            results.add(CALLS[name](cpu, x).tobytes())
    finally:
        threads.set_num_threads(before)
    assert len(results) == 1
