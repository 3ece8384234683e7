"""Residual networks: what their papers say of them, and their options."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet
from numbanet import nn, zoo
from numbanet.errors import UsageError
from numbanet.graph import summarize
from numbanet.nn import init
from numbanet.zoo.resnet import BLOCKS, BasicBlock, Bottleneck, ResNet
from numbanet.zoo.resnet_cifar import CifarResNet, PaddedShortcut
from tests.zoo.torchvision_peer import torchvision


@pytest.mark.parametrize("depth, block, flops", [
    (18, BasicBlock, 1.8), (34, BasicBlock, 3.6), (50, Bottleneck, 3.8), (101, Bottleneck, 7.6), (152, Bottleneck, 11.3)])
def test_multiply_adds_of_table_1(depth, block, flops):
    """In units of 10^9, to two digits; the paper's bottlenecks have the stride in their 1x1 layers."""
    with init.skip():
        model = ResNet(block, BLOCKS[depth], **({"stride_in_1x1": True} if block is Bottleneck else {}))
    assert summarize(model, numbanet.empty(1, 3, 224, 224)).multiply_adds == pytest.approx(flops * 1e9, abs=0.07e9)
    weights = sum(isinstance(m, (nn.Conv2d, nn.Linear)) for name, m in model.named_modules() if "downsample" not in name)
    assert weights == depth


def test_version_1_has_the_stride_in_the_first_layer():
    with init.skip():
        old, new = zoo.resnet50_v1(), zoo.resnet50()
    assert {name: t.shape for name, t in old.state_dict().items()} == {name: t.shape for name, t in new.state_dict().items()}
    for model, strides in ((old, [(2, 2), (1, 1)]), (new, [(1, 1), (2, 2)])):
        assert [model.layer3[0].conv1.stride, model.layer3[0].conv2.stride] == strides
        assert [model.layer3[1].conv1.stride, model.layer3[1].conv2.stride] == [(1, 1), (1, 1)]


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_blocks_can_start_as_the_identity(block, rng):
    model = ResNet(block, (1, 2, 1, 1), 3, zero_init_residual=True)
    width = 128 * block.expansion
    x = numbanet.tensor(rng.random((1, width, 3, 3)).astype(np.float32))
    np.testing.assert_array_equal(model.layer2[1](x).detach().numpy(), x.numpy())
    other = ResNet(block, (1, 2, 1, 1), 3)
    assert float(abs(other.layer2[1](x) - x).max()) > 0.1


@pytest.mark.parametrize("dilate", [(False, True, True), (False, False, True)])
def test_dilation_instead_of_strides_beside_torchvision(dilate, rng):
    package = torchvision()
    import torch
    blocks, x = (1, 2, 2, 2), rng.standard_normal((2, 3, 48, 32), dtype=np.float32)
    peer = package.models.ResNet(package.models.resnet.Bottleneck, list(blocks), 6, replace_stride_with_dilation=list(dilate)).eval()
    model = ResNet(Bottleneck, blocks, 6, replace_stride_with_dilation=dilate).eval()
    model.load_state_dict({name: t.numpy() for name, t in peer.state_dict().items()})
    with numbanet.no_grad(), torch.no_grad():
        expected = peer(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(model(numbanet.tensor(x)).numpy(), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
        shapes = [tuple(y.shape) for y in zoo.FeatureExtractor(model)(numbanet.tensor(x))]
    assert [(c, 48 // h) for _, c, h, _ in shapes] == [(stage.channels, stage.reduction) for stage in model.stages]


def test_dilation_expects_three_bools():
    with pytest.raises(UsageError, match=r"replace_stride_with_dilation expects three bools, received \(True,\)"):
        ResNet(Bottleneck, (1, 1, 1, 1), replace_stride_with_dilation=(True,))


def test_initial_weights():
    """Deviation sqrt(2 / fan_out)."""
    model = zoo.resnet18()
    for layer, fan_out in ((model.conv1, 49 * 64), (model.layer4[1].conv2, 9 * 512), (model.layer2[0].downsample[0], 128)):
        values = layer.weight.detach().numpy()
        assert values.std() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05) and abs(values.mean()) < 0.1 * values.std()


@pytest.mark.parametrize("layers, millions", [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_cifar_parameters_of_table_6(layers, millions):
    with init.skip():
        model = CifarResNet((layers - 2) // 6)
    count = sum(p.numel() for p in model.parameters())
    assert count == pytest.approx(millions * 1e6, abs=0.006e6 if millions < 1 else 0.06e6)
    assert sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in model.modules()) == layers


@pytest.mark.parametrize("size", [(8, 8), (7, 5)])
def test_padded_shortcut(size, rng):
    x = rng.standard_normal((2, 3, *size), dtype=np.float32)
    y = PaddedShortcut(4, 2)(numbanet.tensor(x)).numpy()
    assert y.shape == (2, 7, -(-size[0] // 2), -(-size[1] // 2))
    np.testing.assert_array_equal(y[:, :3], x[:, :, ::2, ::2])
    assert not y[:, 3:].any()
