"""Networks for small devices: the widths that papers report, MobileNet beside PyTorch, SAME padding, depth by depth."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet
from numbanet import zoo
from numbanet.graph import summarize
from numbanet.zoo.layers import Conv2dSame, StochasticDepth, make_divisible
from tests.zoo.keys import keys_of
from tests.zoo.torchvision_peer import torchvision


@pytest.mark.parametrize(("name", "width", "parameters", "multiply_adds"), [
    ("mobilenet_v1", 0.75, 2.6e6, 325e6), ("mobilenet_v1", 0.5, 1.3e6, 149e6), ("mobilenet_v1", 0.25, 0.5e6, 41e6),
    ("mobilenet_v2", 1.4, 6.1e6, 585e6)])
def test_widths_of_the_papers(name, width, parameters, multiply_adds):
    """Table 6 of v1, table 4 of v2 (which prints 6.9 million parameters; its authors' implementation has these)."""
    summary = summarize(zoo.create_model(name, width_mult=width), numbanet.empty((1, 3, 224, 224)))
    assert summary.parameters == pytest.approx(parameters, abs=0.05e6)
    assert summary.multiply_adds == pytest.approx(multiply_adds, rel=0.01)


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"])
def test_widths_of_torchvision(name):
    models = torchvision().models
    import torch
    with torch.device("meta"):
        theirs = models.get_model(name, width_mult=0.6)
    assert keys_of(zoo.create_model(name, width_mult=0.6).state_dict()) == keys_of(theirs.state_dict())


def test_mobilenet_agrees_with_torch(rng):
    """Table 1 once more, row by row, in another framework."""
    torch = pytest.importorskip("torch")
    tn, model = torch.nn, zoo.create_model("mobilenet_v1", width_mult=0.25, num_classes=10).eval()
    layers, channels = [], 8

    def add(filters, kernel, stride, groups=1):
        layers.extend([tn.Conv2d(channels if len(layers) else 3, filters, kernel, stride, kernel // 2, groups=groups, bias=False),
                       tn.BatchNorm2d(filters), tn.ReLU()])

    add(8, 3, 2)
    for filters, stride in ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2), (256, 1)):
        add(channels, 3, stride, groups=channels)
        add(filters, 1, 1)
        channels = filters
    theirs = tn.Sequential(*layers, tn.AdaptiveAvgPool2d(1), tn.Flatten(), tn.Linear(channels, 10)).eval()
    for value in model.state_dict().values():
        if value.dtype == np.float32 and value.ndim == 1:
            value.uniform_(0.5, 1.5)
    theirs.load_state_dict({k: torch.tensor(v.numpy()) for k, v in zip(theirs.state_dict(), model.state_dict().values(), strict=True)})
    x = rng.standard_normal((2, 3, 65, 71), dtype=np.float32)
    with numbanet.no_grad(), torch.no_grad():
        received, expected = model(numbanet.tensor(x)).numpy(), theirs(torch.from_numpy(x)).numpy()
    assert np.abs(received - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 2, 1), (5, 2, 1), (2, 3, 1), (3, 1, 2), (1, 2, 1)])
@pytest.mark.parametrize("size", [(7, 8), (9, 12)])
def test_same_padding(kernel, stride, dilation, size, rng):
    """ceil(size / stride), the missing rows and columns evenly around, an odd one at the far side."""
    torch = pytest.importorskip("torch")
    layer = Conv2dSame(2, 4, kernel, stride, dilation=dilation)
    x, padding = rng.standard_normal((3, 2, *size), dtype=np.float32), []
    for n in reversed(size):
        missing = max(((n + stride - 1) // stride - 1) * stride + (kernel - 1) * dilation + 1 - n, 0)
        padding += [missing // 2, missing - missing // 2]
    padded = torch.nn.functional.pad(torch.from_numpy(x), padding)
    expected = torch.nn.functional.conv2d(padded, *(torch.tensor(p.detach().numpy()) for p in layer.parameters()), stride, 0, dilation)
    received = layer(numbanet.tensor(x)).detach().numpy()
    assert received.shape[2:] == tuple(-(-n // stride) for n in size)
    np.testing.assert_allclose(received, expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_lite0"])
def test_later_blocks_are_dropped_more_often(name):
    layers = [m for m in zoo.create_model(name, stochastic_depth_prob=0.4).modules() if isinstance(m, StochasticDepth)]
    np.testing.assert_allclose([layer.p for layer in layers], 0.4 * np.arange(16) / 16)


@pytest.mark.parametrize(("value", "expected"), [(16, 16), (11, 16), (12, 16), (19, 24), (60, 64), (35, 32), (0.5, 8), (33.6, 32)])
def test_make_divisible(value, expected):
    """Multiples of 8, never below 90%."""
    assert make_divisible(value) == expected
