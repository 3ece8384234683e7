"""Receptive fields: closed form, what the effective gradient shows, and what is refused."""

import numpy as np
import pytest

import numbanet
from numbanet import nn
from numbanet.errors import UsageError
from numbanet.vision import effective_field, receptive_field
from numbanet.zoo import create_model


def positive(model):
    """Weights of one, so that no path cancels another and every pixel in the field has a gradient."""
    with numbanet.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.01)
    return model


class Branches(nn.Module):
    """Two ways of different reach that meet, one of them shifted by uneven padding."""

    def __init__(self):
        super().__init__()
        self.near = nn.Conv2d(2, 3, 1, stride=2)
        self.far = nn.Sequential(nn.ZeroPad2d((4, 1, 3, 0)), nn.Conv2d(2, 3, (4, 6), stride=2))
        self.end = nn.AvgPool2d(2, 1)

    def forward(self, x):
        return self.end(self.near(x) + self.far(x))


CHAINS = {
    "lenet": lambda: nn.Sequential(nn.Conv2d(2, 3, 5), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(3, 4, 5), nn.ReLU(), nn.AvgPool2d(2)),
    "padded, dilated": lambda: nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 3, 3, dilation=3, padding=2), nn.ReLU(),
                                             nn.Conv2d(3, 2, (1, 4), stride=(3, 2))),
    "depthwise": lambda: nn.Sequential(nn.Conv2d(2, 2, 3, stride=2, groups=2), nn.Conv2d(2, 5, 1), nn.Conv2d(5, 5, 3, groups=5)),
    "transposed": lambda: nn.Sequential(nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.ConvTranspose2d(3, 2, 4, stride=2, padding=1)),
}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("unit", [None, (0, 0), (1, 2)])
def test_closed_form_equals_the_gradient(name, unit, backend, rng):
    """The box holds every pixel with a gradient, and touches one on each side that lies in the picture."""
    model = positive(CHAINS[name]()).to(backend)
    x = numbanet.tensor(rng.random((1, 2, 29, 34)).astype(np.float32), device=backend)
    last = list(model._modules)[-1]
    field = receptive_field(model, x, last, unit)
    effect, core = effective_field(model, x, last, unit)
    rows, columns = np.flatnonzero(effect.any(1)), np.flatnonzero(effect.any(0))
    assert (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1) == field.inside(29, 34)
    assert core.any() and (effect[core] > 0).all() and effect[core].sum() >= 0.949 * effect.sum()


def test_a_transposed_convolution_brings_units_closer():
    found = receptive_field(CHAINS["transposed"](), numbanet.zeros(1, 2, 29, 34), "1", (5, 6))
    assert found.jump in ((0, 2), (2, 0)), "two rows from one, then the next"


@pytest.mark.parametrize("name", ["lenet", "padded, dilated", "depthwise"])
def test_size_by_the_recursion(name):
    """field += (F - 1) * D * jump; jump *= S, written out here for the rows."""
    model, field, jump = CHAINS[name](), 1, 1
    for layer in model:
        if hasattr(layer, "kernel_size"):
            first = (lambda v: v[0] if isinstance(v, tuple) else v)
            field += (first(layer.kernel_size) - 1) * first(getattr(layer, "dilation", 1)) * jump
            jump *= first(layer.stride)
    found = receptive_field(model, numbanet.zeros(1, 2, 29, 34), list(model._modules)[-1])
    assert (found.size[0], found.jump[0]) == (field, jump)
    assert found.steps[-1][5:] == (field, jump)


def test_branches(rng):
    """The field of a sum is what both ways see, where they see it."""
    model = positive(Branches())
    x = numbanet.tensor(rng.random((1, 2, 17, 17)).astype(np.float32))
    assert model(x).shape[2:] == (8, 8)
    for unit in ((0, 0), (5, 4), (7, 7)):
        effect, _ = effective_field(model, x, "end", unit)
        rows, columns = np.flatnonzero(effect.any(1)), np.flatnonzero(effect.any(0))
        assert (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1) == receptive_field(model, x, "end", unit).inside(17, 17)


@pytest.mark.parametrize(("name", "layer", "size", "jump"), [
    ("lenet5", "features.s4", 16, 4), ("resnet18", "layer1", 43, 4), ("resnet18", "layer4", 435, 32), ("vgg16", "features.29", 196, 16),
    ("alexnet", "features.11", 163, 16)])
def test_known_fields(name, layer, size, jump):
    """Of networks whose fields are published (Araujo and others, Distill, 2019)."""
    with nn.init.skip():
        model = create_model(name)
    found = receptive_field(model, numbanet.zeros(1, *((1, 32, 32) if name == "lenet5" else (3, 224, 224))), layer)
    assert found.size == (size, size) and found.jump == (jump, jump)


def test_the_whole_picture():
    model = create_model("lenet5")
    found = receptive_field(nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(2), nn.Conv2d(2, 2, 1)), numbanet.zeros(1, 1, 9, 9), "2")
    assert found.size is None and found.box == (0, 0, 9, 9)
    x = numbanet.zeros(1, 1, 32, 32)
    for call in (receptive_field, effective_field):
        with pytest.raises(UsageError, match="has no positions; choose a convolution"):
            call(model, x, "classifier.c5")
        with pytest.raises(UsageError, match="'features.c2' does not exist in LeNet5; did you mean features"):
            call(model, x, "features.c2")
        with pytest.raises(UsageError, match="28 rows and 28 columns, expected Y,X from 0,0 to 27,27, received 28,0"):
            call(model, x, "features.c1", (28, 0))


def test_a_unit_that_is_off():
    """No gradient at all is an answer."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    with numbanet.no_grad():
        model[0].bias.fill_(-100.0)
    effect, core = effective_field(model, numbanet.zeros(1, 1, 9, 9), "1")
    assert not effect.any() and not core.any()
