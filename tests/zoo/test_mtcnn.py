"""MTCNN's three networks: sizes, what they refuse, and the published weights beside the package that holds them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import numbanet
from numbanet.errors import ShapeError
from numbanet.zoo import ONet, PNet, RNet
from tests.zoo.packages import package_file
from tests.zoo.torchvision_peer import torchvision

PARAMETERS = {PNet: 6_632, RNet: 100_178, ONet: 389_040}


@pytest.fixture(autouse=True)
def strict():
    before = numbanet.get_float32_precision()
    numbanet.set_float32_precision("strict")
    yield
    numbanet.set_float32_precision(before)


@pytest.mark.parametrize("network", PARAMETERS)
def test_counts(network):
    assert sum(p.numel() for p in network().parameters()) == PARAMETERS[network]


@pytest.mark.parametrize(("size", "maps"), [((12, 12), (1, 1)), ((13, 12), (2, 1)), ((37, 50), (14, 20)), ((24, 47), (7, 19))])
def test_proposals_of_any_size(size, maps):
    found = PNet()(numbanet.randn(2, 3, *size))
    assert found.boxes.shape == (2, 4, *maps) and found.probabilities.shape == (2, 2, *maps)
    np.testing.assert_allclose(found.probabilities.detach().numpy().sum(1), 1, rtol=1e-6)


def test_outputs_are_named():
    assert [y.shape for y in RNet()(numbanet.randn(5, 3, 24, 24))] == [(5, 4), (5, 2)]
    faces = ONet()(numbanet.randn(5, 3, 48, 48))
    assert faces.boxes.shape == (5, 4) and faces.landmarks.shape == (5, 10) and faces.probabilities.shape == (5, 2)


@pytest.mark.parametrize(("network", "shape", "message"), [
    (PNet, (1, 3, 11, 20), r"PNet: x expects \(N, 3, H, W\) of at least 12 x 12, received \(1, 3, 11, 20\); scale the picture up"),
    (PNet, (1, 1, 12, 12), "PNet: x expects"), (PNet, (3, 12, 12), "PNet: x expects"),
    (RNet, (1, 3, 24, 25), r"RNet: x expects \(N, 3, 24, 24\), received \(1, 3, 24, 25\); scale each window"),
    (ONet, (1, 3, 24, 24), r"ONet: x expects \(N, 3, 48, 48\)")])
def test_refused_inputs(network, shape, message):
    with pytest.raises(ShapeError, match=message):
        network()(numbanet.zeros(*shape))


def _pixels(picture) -> np.ndarray:
    return np.ascontiguousarray((np.asarray(picture, np.float32).transpose(2, 0, 1)[None] - 127.5) / 128)


@pytest.mark.parametrize(("network", "size"), [(PNet, (103, 140)), (RNet, (24, 24)), (ONet, (48, 48))])
def test_published_weights(network, size, rng):
    """The same outputs as the package's own networks, for windows of a photograph."""
    torch = pytest.importorskip("torch")
    torchvision()
    weights = package_file("facenet_pytorch", "data", f"{network.__name__.lower()}.pt")
    photo = Image.open(package_file("skimage", "data", "astronaut.png")).convert("RGB")
    pytest.importorskip("facenet_pytorch", exc_type=ImportError)        # it needs packages that its weights do not
    from facenet_pytorch.models import mtcnn
    ours, theirs = network().eval(), getattr(mtcnn, network.__name__)()
    ours.load_state_dict(numbanet.load_weights(weights)[0])
    boxes = [(left, top, left + side, top + side) for left, top, side in rng.integers(20, 250, (8, 3))]
    x = np.concatenate([_pixels(photo.resize(size[::-1], box=tuple(map(float, box)))) for box in boxes])
    with numbanet.no_grad(), torch.no_grad():
        received, expected = ours(numbanet.tensor(x)), theirs(torch.from_numpy(x))
    for mine, other in zip(received, expected, strict=True):
        assert np.abs(mine.numpy() - other.numpy()).max() <= 1e-5 * np.abs(other.numpy()).max()


def test_a_face_is_found():
    weights = package_file("facenet_pytorch", "data", "onet.pt")
    photo = Image.open(package_file("skimage", "data", "astronaut.png")).convert("RGB")
    network = ONet().eval()
    network.load_state_dict(numbanet.load_weights(weights)[0])
    face, rocket = ((165, 55, 285, 175), (380, 100, 500, 220))
    windows = np.concatenate([_pixels(photo.resize((48, 48), Image.Resampling.BILINEAR, box=box)) for box in (face, rocket)])
    with numbanet.no_grad():
        found = network(numbanet.tensor(windows))
    probabilities, x = found.probabilities.numpy()[:, 1], found.landmarks.numpy()[0, :5]
    assert probabilities[0] > 0.99 and probabilities[1] < 0.1
    assert x[0] < x[2] < x[1]               # the nose between the eyes
