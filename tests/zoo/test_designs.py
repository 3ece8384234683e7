"""DenseNet, RegNet and ConvNeXt: their designs, as the papers give them, and their options."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet
from numbanet import nn, zoo
from numbanet.nn import init
from numbanet.zoo.densenet import DENSENETS, DenseNet
from numbanet.zoo.layers import StochasticDepth
from numbanet.zoo.regnet import DESIGNS, regnet_stages


@pytest.mark.parametrize("layers", DENSENETS)
def test_densenets_have_as_many_layers_as_their_names_say(layers):
    with init.skip():
        model = zoo.create_model(f"densenet{layers}")
    assert sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in model.modules()) == layers


def test_dense_layers_read_all_maps_before_them(rng):
    model = DenseNet((3,), 4, 6, 5, in_chans=2).eval()
    block = model.features.denseblock1
    x = numbanet.tensor(rng.standard_normal((2, 6, 5, 3), dtype=np.float32))
    maps = [x.numpy()]
    for layer in block.children():
        maps.append(layer(numbanet.tensor(np.concatenate(maps, 1))).detach().numpy())
    np.testing.assert_allclose(block(x).detach().numpy(), np.concatenate(maps, 1), rtol=1e-5, atol=1e-6)


def test_densenet_drops_new_maps_in_training_only(rng):
    model = DenseNet((2,), 4, 6, 5, drop_rate=0.5)
    layer = model.features.denseblock1.denselayer1
    x = numbanet.tensor(rng.standard_normal((2, 6, 9, 9), dtype=np.float32))
    assert 0.3 < (layer(x).detach().numpy() == 0).mean() < 0.7
    layer.eval()
    assert (layer(x).detach().numpy() != 0).all()


@pytest.mark.parametrize("name, blocks, widths, group", [
    ("x_400mf", (1, 2, 7, 12), (32, 64, 160, 400), 16), ("x_1_6gf", (2, 4, 10, 2), (72, 168, 408, 912), 24),
    ("y_400mf", (1, 3, 6, 6), (48, 104, 208, 440), 8), ("y_1_6gf", (2, 6, 17, 2), (48, 120, 336, 888), 24)])
def test_regnet_stages_of_figures_16_and_17(name, blocks, widths, group):
    assert regnet_stages(*DESIGNS[name]) == [(d, w, group) for d, w in zip(blocks, widths)]


def test_convnext_starts_near_the_identity_and_drops_later_blocks_more(rng):
    model = zoo.convnext_tiny(stochastic_depth_prob=0.34)
    np.testing.assert_allclose([m.p for m in model.modules() if isinstance(m, StochasticDepth)], np.linspace(0, 0.34, 18))
    block, x = model.features[1][0], numbanet.tensor(rng.standard_normal((1, 96, 8, 8), dtype=np.float32))
    assert (block.layer_scale.detach().numpy() == np.float32(1e-6)).all()
    assert float(abs(block(x) - x).max()) < 1e-4
    for layer in (model.features[0][0], block.block[3], model.get_classifier()):
        assert layer.weight.detach().numpy().std() == pytest.approx(0.02, rel=0.05) and not layer.bias.detach().numpy().any()


def test_regnet_classifier_starts_small():
    model = zoo.regnet_y_400mf(num_classes=50)
    model.reset_classifier(100)
    assert model.fc.weight.detach().numpy().std() == pytest.approx(0.01, rel=0.05) and not model.fc.bias.detach().numpy().any()
