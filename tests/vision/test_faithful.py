"""Maps say something about the network: they point at the object, and vanish when its parameters are shuffled."""

import copy

import numpy as np
import pytest

import numbanet
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
from numbanet.vision.layers import last_maps
from tests.vision.scene_network import EARLIER_MAPS, LAST_MAPS, inputs, train_network, trained_network
from tests.vision.scenes import draw_scenes, hits
from tests.vision.scenes import train_network as train_on_textures


@pytest.fixture(scope="module")
def trained():
    """The network, and 100 scenes that it has not seen, with targets and boxes."""
    model = train_on_textures()
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


def play(model, count: int, squares: int) -> dict[str, float]:
    """The pointing game on `SyntheticScenes` as they come: eight classes, up to three small shapes beside the salient one, clutter, noise.

    Every picture counts, however it was answered, and a point beyond the salient shape's box by one pixel is a miss.
    """
    test = SyntheticScenes(count, train=False)
    scenes = [test.scene(i) for i in range(count)]
    x, labels = numbanet.tensor(inputs(np.stack([s.image for s in scenes]))), np.array([s.label for s in scenes])
    with numbanet.no_grad():
        assert (model(x).argmax(1).numpy() == labels).mean() > 0.95
    boxes, targets = np.array([s.boxes[-1][[1, 0, 3, 2]] for s in scenes]), [ClassifierOutputTarget(int(k)) for k in labels]
    maps = {"gradcam": GradCAM(model, [model[LAST_MAPS]])(x, targets), "gradcam++": GradCAMPlusPlus(model, [model[LAST_MAPS]])(x, targets),
            "gradcam of an earlier layer": GradCAM(model, [model[EARLIER_MAPS]])(x, targets),
            "occlusion": Occlusion(model)(x[:squares], targets[:squares]),
            "a random point": np.random.default_rng(0).random((count, 64, 64)),
            "the middle": np.pad(np.ones((count, 1, 1)), ((0, 0), (32, 31), (32, 31)))}
    aside = [i for i in range(count) if not hits(maps["the middle"][i:i + 1], boxes[i:i + 1])]
    found = {name: hits(m, boxes) for name, m in maps.items()}
    found["gradcam where the middle misses"] = hits(maps["gradcam"][aside], boxes[aside])
    print("; ".join(f"{name} {100 * share:.1f}%" for name, share in found.items()), f"({len(aside)} of {count})")
    return found


def check(found: dict[str, float]) -> None:
    assert min(found["gradcam"], found["gradcam++"], found["occlusion"], found["gradcam where the middle misses"]) >= 0.9
    assert found["a random point"] < 0.35 and found["the middle"] < 0.85, "and that is not easy"


def test_pointing_game_on_made_up_scenes():
    model = trained_network()
    assert last_maps(model, numbanet.zeros(1, 3, 64, 64)) == str(LAST_MAPS), "the layer that a user gets without asking"
    check(play(model, 200, 40))


@pytest.mark.full
def test_the_recipe_of_the_scene_network():
    """Its stored weights are no lucky find: the recipe's new ones point as well."""
    check(play(train_network(), 200, 40))
