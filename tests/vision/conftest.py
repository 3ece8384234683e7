"""Networks small enough to know what must come out."""

import numpy as np
import pytest

import numbanet
from numbanet import nn


@pytest.fixture
def images(rng):
    """float32 (2, 3, 20, 17)"""
    return rng.standard_normal((2, 3, 20, 17)).astype(np.float32)


@pytest.fixture
def network():
    """A function device -> a small classifier of (N, 3, H, W) with 5 classes, the same on every device."""
    def make(device="cpu"):
        with numbanet.random.fork_rng():
            numbanet.manual_seed(10)
            model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU(),
                                  nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5))
        return model.to(device).eval()
    return make


def on(device, values):
    return numbanet.tensor(values, device=device)
