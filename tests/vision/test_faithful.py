"""Maps say something about the network: they point at the object, and vanish when its parameters are shuffled."""

import numpy as np
import pytest

import numbanet
from numbanet.vision import ClassifierOutputTarget, GradCAM, GradCAMPlusPlus, IntegratedGradients, Occlusion, Saliency, SmoothGrad
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


@pytest.mark.parametrize("kind", [GradCAM, Saliency, SmoothGrad, IntegratedGradients])
def test_randomised_parameters_destroy_the_map(kind, trained):
    """With every layer's weights in another order the maps no longer look alike, and no longer point (Adebayo and others, 2018)."""
    model, x, targets, boxes = trained
    x, targets = x[:30], targets[:30]

    def make(network):
        return (kind(network, [network[7]]) if kind is GradCAM else kind(network))(x, targets)

    shuffled, rng = train_network(), np.random.default_rng(5)
    again = make(shuffled)
    for parameter in shuffled.parameters():
        with numbanet.no_grad():
            parameter.copy_(numbanet.tensor(rng.permutation(parameter.detach().numpy().reshape(-1)).reshape(parameter.shape)))
    before, after = make(model), make(shuffled)
    np.testing.assert_array_equal(before, again, "the same network gives the same maps")
    likeness = [np.corrcoef(a.reshape(-1), b.reshape(-1))[0, 1] if a.std() and b.std() else 0 for a, b in zip(before, after)]
    assert np.mean(likeness) < 0.5 and hits(after, boxes) < hits(before, boxes) - 0.25
