"""Maps say something about the network: they point at the object, and vanish when its parameters are shuffled."""

import copy

import numpy as np
import pytest

import numbanet
from numbanet import nn
from numbanet.data.datasets import SyntheticScenes
from numbanet.vision import (
    ClassifierOutputTarget,
    GradCAM,
    GradCAMPlusPlus,
    GuidedBackprop,
    IntegratedGradients,
    Occlusion,
    Saliency,
    SmoothGrad,
)
from tests.vision.scenes import draw_scenes, hits, train_network


@pytest.fixture(scope="module")
def trained():
    """The network, and 100 scenes that it has not seen, with targets and boxes."""
    model = train_network()
    images, labels, boxes = draw_scenes(100, seed=3)
    x = numbanet.tensor(images)
    with numbanet.no_grad():
        assert (model(x).argmax(1).numpy() == labels).mean() > 0.95
    return model, x, [ClassifierOutputTarget(int(k)) for k in labels], boxes


METHODS = {"gradcam": (lambda model: GradCAM(model, [model[7]]), 100), "gradcam++": (lambda model: GradCAMPlusPlus(model, [model[7]]), 100),
           "occlusion": (lambda model: Occlusion(model, window=8, stride=4), 30)}


@pytest.mark.parametrize("name", METHODS)
def test_pointing_game(name, trained):
    """At least 90%; the boxes cover 12% of the pictures."""
    model, x, targets, boxes = trained
    make, count = METHODS[name]
    assert hits(make(model)(x[:count], targets[:count]), boxes) >= 0.9
    assert hits(np.random.default_rng(0).random((100, 32, 32)), boxes) < 0.3, "and that is not easy"


def shuffled(model):
    """The network with the weights of every layer in another order."""
    other, rng = copy.deepcopy(model), np.random.default_rng(5)
    with numbanet.no_grad():
        for parameter in other.parameters():
            parameter.copy_(numbanet.tensor(rng.permutation(parameter.detach().numpy().reshape(-1)).reshape(parameter.shape)))
    return other


def likeness(before, after) -> float:
    """Mean correlation of the maps of each picture."""
    pairs = [(a.reshape(-1), b.reshape(-1)) for a, b in zip(before, after)]
    return float(np.mean([np.corrcoef(a, b)[0, 1] if a.std() and b.std() else 0 for a, b in pairs]))


def test_shuffled_parameters_destroy_grad_cam(trained):
    """The maps no longer look alike, and no longer point (Adebayo and others, "Sanity checks for saliency maps", 2018)."""
    model, x, targets, boxes = trained
    other = shuffled(model)
    before, again, after = (GradCAM(m, [m[7]])(x, targets) for m in (model, copy.deepcopy(model), other))
    np.testing.assert_array_equal(before, again, "the same parameters give the same maps")
    assert likeness(before, after) < 0.5 and hits(after, boxes) < hits(before, boxes) - 0.4


# What guided backpropagation shows is in part the picture itself, whatever the network is: the same paper's finding.
@pytest.mark.parametrize(("kind", "most"), [(Saliency, 0.2), (SmoothGrad, 0.2), (IntegratedGradients, 0.2), (GuidedBackprop, 0.5)])
def test_shuffled_parameters_destroy_attributions(kind, most, trained):
    """With their signs, they have next to nothing in common."""
    model, x, targets, _ = trained
    before, after = (kind(m).attribute(x[:10], targets[:10]).numpy() for m in (model, shuffled(model)))
    assert abs(likeness(before, after)) < most and before.std() and after.std()


@pytest.mark.full
def test_pointing_game_on_made_up_scenes():
    """The same on `SyntheticScenes`: shapes in any colour on clutter, beside smaller ones; of the pictures that are answered rightly."""
    names = ("ring", "star", "triangle", "cross")
    train, test = (SyntheticScenes(n, 48, t, classes=names, objects=(1, 2), noise=8) for n, t in ((4000, True), (150, False)))
    arrays = train.to_arrays()
    images, labels = (arrays.data.transpose(0, 3, 1, 2) / 127.5 - 1).astype(np.float32), arrays.targets
    with numbanet.random.fork_rng():
        numbanet.manual_seed(0)

        def block(inputs, outputs, **options):
            return [nn.Conv2d(inputs, outputs, 3, bias=False, **options), nn.BatchNorm2d(outputs), nn.ReLU()]
        model = nn.Sequential(*block(3, 24, stride=2, padding=1), *block(24, 48, padding=1), nn.MaxPool2d(2), *block(48, 64, padding=1),
                              *block(64, 64, padding=2, dilation=2), *block(64, 64, padding=2, dilation=2), nn.AdaptiveAvgPool2d(1),
                              nn.Flatten(), nn.Linear(64, 4))
        optimizer, order = numbanet.optim.AdamW(model.parameters(), lr=1e-2), np.random.default_rng(0)
        schedule = numbanet.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=20 * 80)
        for _ in range(20):
            for batch in order.permutation(4000).reshape(-1, 50):
                x = numbanet.tensor(images[batch])
                x = x.flip(3) if order.random() < 0.5 else x
                loss = nn.functional.cross_entropy(model(x.flip(2) if order.random() < 0.5 else x), numbanet.tensor(labels[batch]))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    model.eval()
    scenes = [test.scene(i) for i in range(150)]
    x = numbanet.tensor((np.stack([s.image for s in scenes]).transpose(0, 3, 1, 2) / 127.5 - 1).astype(np.float32))
    with numbanet.no_grad():
        right = np.flatnonzero(model(x).argmax(1).numpy() == [s.label for s in scenes])
    boxes = np.array([scenes[i].boxes[-1][[1, 0, 3, 2]] for i in right])
    targets = [ClassifierOutputTarget(scenes[i].label) for i in right]
    x = x[numbanet.tensor(right)]
    assert len(right) > 105
    assert hits(GradCAMPlusPlus(model, [model[15]])(x, targets), boxes) >= 0.9
