"""Classifiers as fully convolutional networks: the same logits at their size, and maps of logits beyond it."""

import numpy as np
import pytest

import numbanet
from numbanet import nn, zoo
from numbanet.errors import ShapeError, UnsupportedOperationError, UsageError
from numbanet.graph import trace
from numbanet.zoo.network import Network
from tests.zoo.inputs import LARGE, filled_model, small_size

CLASSIFIERS = [name for name in zoo.list_models() if name != "unet"]
SMALL = [name for name in CLASSIFIERS if zoo.model_info(name).parameters < LARGE]


def compared(name, size, atol=2e-4):
    """The model's logits and those of its conversion, of one picture of its size."""
    numbanet.manual_seed(3)
    model = filled_model(name).eval()
    converted = model.to_fully_convolutional(size)
    x = np.random.default_rng(0).standard_normal((2, model.in_chans, *size)).astype(np.float32)
    with numbanet.no_grad():
        expected, received = (m(numbanet.tensor(x)).numpy() for m in (model, converted))
    assert received.shape == (*expected.shape, 1, 1)
    np.testing.assert_allclose(received[:, :, 0, 0], expected, rtol=0, atol=atol * np.abs(expected).max())
    return model, converted


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_same_logits_at_a_small_size(name):
    model = filled_model(name)
    size = small_size(model, zoo.model_info(name))
    model, converted = compared(name, size)
    larger = [n + 3 * converted.windows.stride for n in size]
    shape = trace(converted, numbanet.empty(1, model.in_chans, *larger)).outputs[0].shape
    assert shape[:2] == (1, model.num_classes) and min(shape[2:]) >= 3


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "resnet18", "squeezenet1_1", "lenet5", "lenet5_1998"])
def test_the_same_logits_at_the_original_size(name):
    compared(name, zoo.model_info(name).input_size[1:])
    assert filled_model(name).to_fully_convolutional().windows.size == zoo.model_info(name).input_size[1:]


@pytest.mark.parametrize("name", ["lenet5", "lenet5_1998"])
def test_each_position_is_a_window(name):
    """Without padding: the maps are the classifier on every window, cut out."""
    model = zoo.create_model(name).eval()
    converted = model.to_fully_convolutional()
    x = np.random.default_rng(1).standard_normal((1, 1, 45, 52)).astype(np.float32)
    with numbanet.no_grad():
        maps = converted(numbanet.tensor(x)).numpy()[0]
        assert maps.shape == (10, 4, 6)
        for i in range(4):
            for j in range(6):
                window = np.ascontiguousarray(x[:, :, 4 * i:4 * i + 32, 4 * j:4 * j + 32])
                np.testing.assert_allclose(maps[:, i, j], model(numbanet.tensor(window)).numpy()[0], rtol=1e-4, atol=1e-4)
        assert converted(numbanet.zeros(0, 1, 32, 32)).shape == (0, 10, 1, 1)


def test_averaging_goes_into_the_kernels():
    """VGG at another size than its own pools its maps to 7 x 7, from more and from fewer."""
    for size in ((32, 32), (96, 161), (260, 288)):
        compared("vgg11", size, 1e-3)


def test_the_trunk_is_shared_and_the_mode_stays():
    model = zoo.create_model("resnet20_cifar").train()
    converted = model.to_fully_convolutional()
    assert model.training and converted.training
    assert converted.trunk.network is model and converted.windows == ((32, 32), 4)
    before = model.fc.weight.detach().numpy().copy()
    with numbanet.no_grad():
        next(m for m in converted.head if isinstance(m, nn.Conv2d)).weight.mul_(0.0)
    np.testing.assert_array_equal(model.fc.weight.detach().numpy(), before)


class Odd(Network):
    """A head that does more than its layers say."""

    classifier_path = "fc"

    def __init__(self):
        super().__init__()
        self.num_classes, self.in_chans, self.num_features = 3, 2, 4
        self.conv, self.fc = nn.Conv2d(2, 4, 3), nn.Linear(4, 3)

    def forward_features(self, x):
        return self.conv(x)

    def forward_head(self, features):
        return self.fc(features.mean((2, 3))) * 2.0


def test_what_cannot_be_converted():
    with pytest.raises(UsageError, match="labels the pixels of pictures of any size already"):
        zoo.create_model("unet", widths=(4, 8)).to_fully_convolutional()
    with pytest.raises(UsageError, match=r"pass input_size=\(H, W\)"):
        Odd().to_fully_convolutional()
    with pytest.raises(UnsupportedOperationError, match="does something else than its layers say"):
        Odd().to_fully_convolutional((8, 8))
    converted = zoo.create_model("lenet5").to_fully_convolutional()
    with pytest.raises(ShapeError, match="of at least 32 x 32, received"):
        converted(numbanet.zeros(1, 1, 31, 40))
