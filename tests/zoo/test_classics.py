"""AlexNet, ZFNet, VGG, SqueezeNet, GoogLeNet and Inception v3: what is not common to all models."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import numbanet
from numbanet import nn, zoo
from numbanet.data import ArrayDataset
from numbanet.graph import summarize
from numbanet.nn import functional as F
from numbanet.nn import init
from numbanet.train.classifier import ClassifierTraining
from numbanet.train.recipe import Recipe
from numbanet.train.run_directory import RunDirectory
from numbanet.zoo.googlenet import INCEPTIONS, FromImagenetStatistics, loss_with_heads
from tests.zoo.torchvision_peer import torchvision


def _blank(name: str, **options) -> nn.Module:
    """The model without initial values."""
    with init.skip():
        return zoo.create_model(name, **options)


def _deviation(layer) -> float:
    return float(layer.weight.detach().numpy().std())


@pytest.mark.parametrize("name, file", [
    ("alexnet_2012", "light_bvlc_alexnet"), ("zfnet512", "light_zfnet512"), ("vgg19", "light_vgg19"), ("squeezenet1_1", "light_squeezenet"),
    ("googlenet_2014", "light_inception_v1")])
def test_weights_and_cost_are_those_of_the_onnx_project(name, file):
    """Their files give the shapes of the weights; the multiply-adds depend on strides and padding as well."""
    onnx = pytest.importorskip("onnx")
    path = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"{file}.onnx"
    shapes = [onnx.numpy_helper.to_array(i) for i in onnx.load(path).graph.initializer if i.name.endswith("__SHAPE")]
    model = _blank(name, **({"aux_logits": False} if name == "googlenet_2014" else {}))
    assert sorted(p.numel() for p in model.parameters() if p.ndim > 1) == sorted(int(s.prod()) for s in shapes if len(s) > 1)
    if name != "googlenet_2014":        # theirs drops borders of maps that the paper pools
        example = numbanet.empty((1, 3, 224, 224))
        assert summarize(model, example).multiply_adds == summarize(numbanet.onnx.load(path), example).multiply_adds


def test_alexnet_of_2012_starts_as_its_paper_says():
    model = _blank("alexnet_2012", num_classes=3)
    model.classifier.fc6, model.classifier.fc7 = nn.Linear(256, 64), nn.Linear(64, 256)     # small ones in their places
    model.reset_parameters()
    for name, bias in (("conv1", 0), ("conv2", 1), ("conv3", 0), ("conv4", 1), ("conv5", 1)):
        layer = model.features.get_submodule(name)
        assert _deviation(layer) == pytest.approx(0.01, rel=0.03) and (layer.bias.detach().numpy() == bias).all()
    for name, bias in (("fc6", 1), ("fc7", 1), ("fc8", 0)):
        layer = model.classifier.get_submodule(name)
        assert _deviation(layer) == pytest.approx(0.01, rel=0.03) and (layer.bias.detach().numpy() == bias).all()


def test_alexnet_of_2012_normalises_by_the_papers_formula(rng):
    """b = a / (k + alpha sum a^2)^beta over 5 neighbouring maps, with k = 2, alpha = 1e-4, beta = 0.75 (section 3.3)."""
    a = rng.standard_normal((2, 96, 3, 5)) * 30
    expected = np.empty_like(a)
    for i in range(96):
        neighbours = a[:, max(0, i - 2):min(95, i + 2) + 1]
        expected[:, i] = a[:, i] / (2 + 1e-4 * (neighbours ** 2).sum(1)) ** 0.75
    for model in (_blank("alexnet_2012"), _blank("zfnet512")):
        received = model.features.norm1(numbanet.tensor(a)).numpy()
        np.testing.assert_allclose(received, expected, rtol=1e-12)


def test_alexnet_of_2012_has_the_papers_maps():
    summary = summarize(_blank("alexnet_2012"), numbanet.empty((1, 3, 227, 227)))
    shapes = {row.path: row.output_shape[1:] for row in summary.rows}
    assert [shapes[f"features.relu{i}"] for i in range(1, 6)] == [(96, 55, 55), (256, 27, 27), (384, 13, 13), (384, 13, 13), (256, 13, 13)]
    assert shapes["features.pool5"] == (256, 6, 6)
    groups = [model.groups for model in _blank("alexnet_2012").features if isinstance(model, nn.Conv2d)]
    assert groups == [1, 2, 1, 2, 2]


def test_vgg_starts_as_torchvisions():
    model = _blank("vgg11", num_classes=2)
    model.classifier[0] = nn.Linear(256, 256)       # a small one in its place
    model.reset_parameters()
    first, deep, last = model.features[0], model.features[16], model.classifier[6]
    assert _deviation(first) == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.05)
    assert _deviation(deep) == pytest.approx(math.sqrt(2 / (512 * 9)), rel=0.01)
    assert _deviation(model.classifier[0]) == pytest.approx(0.01, rel=0.01) and _deviation(last) == pytest.approx(0.01, rel=0.05)
    assert all((p.detach().numpy() == 0).all() for name, p in model.named_parameters() if name.endswith("bias"))


def test_squeezenet_starts_as_torchvisions():
    model = zoo.squeezenet1_1()
    fire = model.features[12]
    assert _deviation(fire.expand3x3) == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.02)
    assert _deviation(model.classifier[1]) == pytest.approx(0.01, rel=0.02)


def test_googlenet_of_2014_counts():
    """Weights and biases of table 1, added up row by row."""
    def convolution(channels, filters, kernel):
        return (channels * kernel * kernel + 1) * filters
    stem = convolution(3, 64, 7) + convolution(64, 64, 1) + convolution(64, 192, 3)
    rows = 0
    for channels, narrow, (reduced3, wide3), (reduced5, wide5), projection in INCEPTIONS.values():
        rows += (convolution(channels, narrow, 1) + convolution(channels, reduced3, 1) + convolution(reduced3, wide3, 3)
                 + convolution(channels, reduced5, 1) + convolution(reduced5, wide5, 5) + convolution(channels, projection, 1))
    heads = sum(convolution(channels, 128, 1) + (2048 + 1) * 1024 + (1024 + 1) * 1000 for channels in (512, 528))
    assert stem + rows + (1024 + 1) * 1000 + heads == zoo.model_info("googlenet_2014").parameters
    channels = [row[0] for row in INCEPTIONS.values()]
    given = [narrow + wide3 + wide5 + projection for _, narrow, (_, wide3), (_, wide5), projection in INCEPTIONS.values()]
    assert given[:-1] == channels[1:] and given[-1] == 1024


@pytest.mark.parametrize("name, expected", [("googlenet", 6_624_904), ("googlenet_2014", 6_998_552), ("inception_v3", 23_834_568)])
def test_without_auxiliary_heads(name, expected):
    model = _blank(name, aux_logits=False)
    assert sum(p.numel() for p in model.parameters()) == expected
    assert not any("aux" in key.lower() for key in model.state_dict())
    model.train()
    assert model.minimum_size < 80


@pytest.mark.parametrize("name, weight", [("googlenet", 0.3), ("googlenet_2014", 0.3)])
def test_auxiliary_heads_in_training(name, weight, rng):
    model = zoo.create_model(name, num_classes=4)
    x, target = numbanet.tensor(rng.standard_normal((2, 3, 81, 81), dtype=np.float32)), numbanet.tensor([1, 3])
    outputs = model.train()(x)
    assert isinstance(outputs, zoo.GoogLeNetOutputs) and all(y.shape == (2, 4) for y in outputs)
    parts = [F.cross_entropy(y, target).item() for y in (outputs.logits, outputs.aux_logits2, outputs.aux_logits1)]
    assert model.loss_function(outputs, target).item() == pytest.approx(parts[0] + weight * (parts[1] + parts[2]), rel=1e-5)
    logits = model.eval()(x)
    assert logits.shape == (2, 4)
    assert model.loss_function(logits, target).item() == pytest.approx(F.cross_entropy(logits, target).item(), rel=1e-6)


def test_inception_v3_weighs_its_head(rng):
    model = _blank("inception_v3", num_classes=4)
    outputs = zoo.InceptionOutputs(*(numbanet.tensor(rng.standard_normal((2, 4))) for _ in range(2)))
    target = numbanet.tensor([1, 3])
    parts = [F.cross_entropy(y, target).item() for y in outputs]
    assert model.loss_function(outputs, target).item() == pytest.approx(parts[0] + 0.4 * parts[1])


def test_heads_of_the_paper_pool_windows_of_5(rng):
    """(N, 512, 14, 14) to (N, 512, 4, 4) by means of 5 x 5 at stride 3 (section 5)."""
    maps = rng.standard_normal((1, 3, 14, 14))
    expected = [[maps[0, :, 3 * i:3 * i + 5, 3 * j:3 * j + 5].mean((1, 2)) for j in range(4)] for i in range(4)]
    received = _blank("googlenet_2014").aux1.pool(numbanet.tensor(maps)).numpy()
    np.testing.assert_allclose(received[0].transpose(1, 2, 0), expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_transformed_input_is_torchvisions(name, rng):
    package, torch = torchvision(), pytest.importorskip("torch")
    with torch.device("meta"):
        peer = package.models.get_model(name, weights=None, init_weights=False, transform_input=True)
    x = rng.standard_normal((2, 3, 5, 4)).astype(np.float32)
    received = _blank(name, transform_input=True).transform(numbanet.tensor(x)).numpy()
    np.testing.assert_allclose(received, peer._transform_input(torch.from_numpy(x)).numpy(), rtol=1e-5, atol=1e-6)
    assert not FromImagenetStatistics().state_dict()


class _TwoHeads(nn.Module):
    """Logits in evaluation; in training also those of a second head, as in GoogLeNet."""

    def __init__(self):
        super().__init__()
        self.head, self.aux = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x):
        return (self.head(x), self.aux(x)) if self.training else self.head(x)

    def loss_function(self, outputs, target):
        return loss_with_heads(outputs, target, 0.3)


def test_training_follows_auxiliary_heads(tmp_path, rng):
    x = rng.standard_normal((32, 3), dtype=np.float32)
    data = ArrayDataset(x, (x[:, 0] > x[:, 1]).astype(int))
    model = _TwoHeads()
    aux = model.aux.weight.detach().numpy().copy()
    settings = Recipe("two_heads", epochs=10, batch_size=8)
    training = ClassifierTraining(model, data, data, settings, RunDirectory(tmp_path), {"classes": ["less", "more"]})
    training.fit()
    rows = training.progress.history
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]
    assert np.abs(model.aux.weight.detach().numpy() - aux).max() > 0.1
