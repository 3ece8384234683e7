"""Fully convolutional networks: upsampling, sums with finer maps, alignment; torchvision's form beside torchvision."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet
from numbanet import zoo
from numbanet.errors import UsageError
from numbanet.graph import trace
from numbanet.nn import init
from numbanet.zoo.fcn import BilinearUpsampling
from tests.zoo.torchvision_peer import torchvision


@pytest.mark.parametrize("factor", [1, 2, 3, 8])
def test_upsampling_starts_as_bilinear_interpolation(factor, rng):
    """Positions whose neighbours lie within the map; at the border half of the weight falls outside."""
    torch = pytest.importorskip("torch")
    x = rng.standard_normal((2, 3, 4, 5), dtype=np.float32)
    y = BilinearUpsampling(3, factor)(numbanet.tensor(x)).detach().numpy()
    expected = torch.nn.functional.interpolate(torch.from_numpy(x), scale_factor=factor, mode="bilinear").numpy()
    assert y.shape == expected.shape
    inner = slice(factor // 2, -(factor // 2) or None)
    np.testing.assert_allclose(y[:, :, inner, inner], expected[:, :, inner, inner], rtol=1e-5, atol=1e-6)


def _fitted(torch, y, size):
    """`y` with its middle where it was: cropped, or continued by its border."""
    for axis, wanted in ((2, size[0]), (3, size[1])):
        first = -((wanted - y.shape[axis]) // 2)
        index = (torch.arange(wanted) + first).clamp(0, y.shape[axis] - 1)
        y = y.index_select(axis, index)
    return y


@pytest.mark.parametrize("trunk, stride, size", [
    ("resnet20_cifar", 1, (13, 10)), ("resnet20_cifar", 4, (13, 10)), ("shufflenet_v2_x0_5", 8, (75, 97)), ("alexnet", 8, (97, 83))])
def test_sums_of_upsampled_scores(trunk, stride, size, rng):
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    model = zoo.fcn(trunk, 4, stride).eval()
    for name, p in model.named_parameters():
        if name.startswith(("scores", "upsampling")):
            init.normal_(p, std=0.2)
    x = numbanet.tensor(rng.standard_normal((2, 3, *size), dtype=np.float32))
    w = {name: torch.tensor(t.numpy()).double() for name, t in model.state_dict().items() if name.startswith(("scores", "upsampling"))}
    maps = [torch.tensor(m.detach().numpy()).double() for m in model.trunk(x)]
    reductions = [1, *(stage.reduction for stage in model.trunk.stages)]
    y = None
    for i in range(len(maps) - 1, -1, -1):
        scores = F.conv2d(maps[i], w[f"scores.{i}.weight"], w[f"scores.{i}.bias"])
        y = scores if y is None else _fitted(torch, y, scores.shape[2:]) + scores
        factor = reductions[i + 1] // reductions[i]
        y = F.conv_transpose2d(y, w[f"upsampling.{i}.weight"], stride=factor, padding=factor // 2, groups=4)
    expected = _fitted(torch, y, size).numpy()
    np.testing.assert_allclose(model(x).detach().numpy(), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("trunk", ["alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "mobilenet_v2", "regnet_x_400mf",
                                   "resnet18", "squeezenet1_1", "vgg11"])
def test_any_trunk_gives_maps_of_the_inputs_size(trunk):
    with init.skip():
        model = zoo.fcn(trunk, 3, zoo.create_model(trunk).stages[-3].reduction, in_chans=2).eval()
    assert trace(model, numbanet.empty((2, 2, 101, 135))).outputs[0].shape == (2, 3, 101, 135)


def test_first_scores_are_zero_and_only_the_last_upsampling_is_fixed(rng):
    model = zoo.fcn("resnet20_cifar", 5, 1)
    x = numbanet.tensor(rng.standard_normal((2, 3, 12, 8), dtype=np.float32))
    assert not model(x).detach().numpy().any()
    for layer in model.scores:
        init.normal_(layer.weight, std=0.1)
    (model(x) * numbanet.tensor(rng.standard_normal((2, 5, 12, 8), dtype=np.float32))).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == ["upsampling.0.weight"]
    trained = [*model.scores.parameters(), *(layer.weight for layer in model.upsampling[1:])]
    assert all(float(abs(p.grad).max()) > 0 for p in trained)


def test_the_head_of_the_trunk_is_left_out():
    with init.skip():
        model = zoo.fcn("alexnet", 3, 32)
    assert sum(p.numel() for p in model.trunk.parameters()) == 2_469_696            # AlexNet's convolutions


@pytest.mark.parametrize("arguments, message", [
    (("resnet18", 3, 64), r"stride expects the reduction of a stage of ResNet, one of \[2, 4, 8, 16, 32\], received 64"),
    (("lenet5", 3), "trunk expects the name of a network with stages, lenet5 has none"),
    (("resnet", 3), "there is no model 'resnet'")])
def test_refused_trunks(arguments, message):
    options = {"in_chans": 1} if arguments[0] == "lenet5" else {}
    with init.skip(), pytest.raises(UsageError, match=message):
        zoo.fcn(*arguments, **options)


def test_parameters_of_torchvisions_form():
    with init.skip():
        model = zoo.fcn_resnet50(aux_loss=True)
        assert sum(p.numel() for p in zoo.fcn_resnet101(aux_loss=True).parameters()) == 54_314_346
    assert sum(p.numel() for p in model.parameters()) == 35_322_218
    outputs = trace(model.eval(), numbanet.empty((1, 3, 33, 41))).outputs
    assert [v.shape for v in outputs] == [(1, 21, 33, 41)] * 2


def test_beside_torchvision(rng):
    package = torchvision()
    import torch
    peer = package.models.segmentation.fcn_resnet50(weights=None, weights_backbone=None, num_classes=4, aux_loss=True).eval()
    with init.skip():
        model = zoo.fcn_resnet50(4, aux_loss=True).eval()
    model.load_state_dict({name: t.numpy() for name, t in peer.state_dict().items()}, assign=True)
    assert list(model.state_dict()) == list(peer.state_dict())
    x = rng.standard_normal((1, 3, 49, 64), dtype=np.float32)
    with numbanet.no_grad(), torch.no_grad():
        received, expected = model(numbanet.tensor(x)), peer(torch.from_numpy(x))
    for name in ("out", "aux"):
        wanted = expected[name].numpy()
        np.testing.assert_allclose(getattr(received, name).numpy(), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
