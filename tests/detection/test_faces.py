"""Faces: the pieces by hand, the whole beside the package that holds the weights."""

import json

import numpy as np
import pytest
from PIL import Image

from numbanet.detection.faces import FaceDetector, cut_face, draw_faces, moved, square, suppress, visible
from numbanet.errors import CheckpointError, UsageError
from tests.cli.conftest import run
from tests.search.conftest import picture
from tests.zoo.packages import package_file
from tests.zoo.torchvision_peer import torchvision


@pytest.fixture(scope="module")
def weights():
    return package_file("facenet_pytorch", "data")


@pytest.fixture(scope="module")
def astronaut():
    return Image.open(package_file("skimage", "data", "astronaut.png")).convert("RGB")


def test_suppression():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30], [0, 0, 4, 4], [21, 20, 31, 30]], float)
    scores = np.array([0.8, 0.9, 0.5, 0.7, 0.6])
    # 1 and 0 share 90 of 110; 4 and 2 the same; 3 lies in 0, and shares 12 of 104 with 1
    assert suppress(boxes, scores, 0.5).tolist() == [1, 3, 4]
    assert suppress(boxes, scores, 0.85).tolist() == [1, 0, 3, 4, 2]
    assert suppress(boxes, scores, 0.7, smaller=True).tolist() == [1, 4]        # 12 of the 16 of box 3
    assert suppress(boxes[:0], scores[:0], 0.5).tolist() == []


def test_boxes():
    box = np.array([[10, 20, 30, 60]], float)
    np.testing.assert_allclose(moved(box, np.array([[0.1, -0.1, 0.5, 0]]), 0), [[12, 16, 40, 60]])
    np.testing.assert_allclose(moved(box, np.array([[0.1, -0.1, 0.5, 0]]), 1), [[12.1, 15.9, 40.5, 60]])
    assert visible((0.9, -3.5, 12.9, 40), (20, 10)) == (0, 0, 10, 20) and visible((3, 5, 7.2, 9), (20, 10)) == (2, 4, 7, 9)
    np.testing.assert_allclose(square(box), [[0, 20, 40, 60]])
    assert square(box[:0]).shape == (0, 4)


def test_cutting():
    photo = picture(0, (40, 30))
    assert cut_face(photo, (10, 5, 20, 25), 0.2).size == (14, 28)
    assert cut_face(photo, (-5, -5, 8, 8), 0.0).size == (8, 8)
    for outside in ((50, 5, 60, 9), (10, 5, 10, 9), (20, 5, 10, 9)):
        with pytest.raises(UsageError, match="lies outside of the picture of 40 x 30 pixels"):
            cut_face(photo, outside)


def test_a_photograph(weights, astronaut):
    detector = FaceDetector(weights)
    face, = detector.detect(astronaut)
    left, top, right, bottom = face.box
    assert 160 < left < 190 and 50 < top < 80 and 250 < right < 280 and 160 < bottom < 190 and face.probability > 0.99
    eyes, nose, mouth = face.landmarks[:2], face.landmarks[2], face.landmarks[3:]
    assert eyes[0, 0] < nose[0] < eyes[1, 0] and eyes[:, 1].max() < nose[1] < mouth[:, 1].min()
    assert detector.detect(astronaut, min_size=400) == [] and detector.detect(Image.new("RGB", (90, 70))) == []
    assert detector.detect(Image.new("RGB", (5, 3))) == []
    with pytest.raises(UsageError, match="min_size"):
        detector.detect(astronaut, 0)


def plain_nms(boxes, scores, _indices, limit):
    """In place of torchvision's, whose operators need the PyTorch that it was built for."""
    import torch
    boxes, order, kept = boxes.numpy(), np.argsort(-scores.numpy(), kind="stable"), []
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], 1)
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        sides = np.minimum(boxes[best, 2:], boxes[rest, 2:]) - np.maximum(boxes[best, :2], boxes[rest, :2])
        common = np.prod(np.maximum(sides, 0), 1)
        order = rest[common / (areas[best] + areas[rest] - common) <= limit]
    return torch.as_tensor(np.asarray(kept, np.int64))


def photographs():
    """Some with faces, of known people and of several sizes, and some without."""
    astronaut = Image.open(package_file("skimage", "data", "astronaut.png")).convert("RGB")
    pair = Image.new("RGB", (700, 400), "grey")
    pair.paste(astronaut.resize((330, 330)), (10, 30))
    pair.paste(astronaut.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((400, 400)), (300, 0))
    edge = astronaut.crop((150, 80, 300, 300))          # a face at the picture's border
    yield from {"astronaut": astronaut, "pair": pair, "edge": edge}.items()
    for name in ("camera.png", "coffee.png", "rocket.jpg"):
        yield name, Image.open(package_file("skimage", "data", name)).convert("RGB")


def test_beside_the_package(weights, monkeypatch):
    """The same faces; boxes and landmarks within a pixel."""
    pytest.importorskip("torch")
    torchvision()
    pytest.importorskip("facenet_pytorch", exc_type=ImportError)
    from facenet_pytorch import MTCNN
    from facenet_pytorch.models.utils import detect_face
    monkeypatch.setattr(detect_face, "batched_nms", plain_nms)
    detector, peer, seen = FaceDetector(weights), MTCNN(keep_all=True, min_face_size=40), 0
    for name, photograph in photographs():
        boxes, probabilities, landmarks = peer.detect(photograph, landmarks=True)
        found = detector.detect(photograph, 40)
        assert len(found) == (0 if boxes is None else len(boxes)), name
        for face, box, probability, points in zip(found, *(() if boxes is None else (boxes, probabilities, landmarks))):
            assert np.abs(np.array(face.box) - box).max() < 1, name
            assert np.abs(face.landmarks - points).max() < 1, name
            assert face.probability == pytest.approx(probability, abs=1e-3), name
            seen += 1
    assert seen >= 3


def test_the_command(weights, tmp_path, astronaut):
    astronaut.save(tmp_path / "a.png")
    Image.new("RGB", (90, 70)).save(tmp_path / "none.png")
    result = run("faces", tmp_path / "a.png", tmp_path / "none.png", "--detector", weights, "--crops", tmp_path / "crops", "--out",
                 tmp_path / "o.png", "--json")
    assert result.code == 0, result.err
    first, second = json.loads(result.out)
    assert len(first["faces"]) == 1 and second["faces"] == []
    face, = first["faces"]
    assert Image.open(face["crop"]).size == cut_face(astronaut, face["box"]).size and len(face["landmarks"]) == 5
    assert Image.open(tmp_path / "o.png").size[0] == 1200
    again = run("faces", tmp_path / "a.png", "--detector", weights, "--crops", tmp_path / "crops", "--out", tmp_path / "o.png")
    assert "a-2.png" in again.out and max(map(len, again.out.splitlines()[1:-1])) <= 80
    (tmp_path / "broken.png").write_bytes(b"no picture")
    assert run("faces", tmp_path / "broken.png", "--detector", weights, "--out", tmp_path / "p.png").code == 1
    missing = run("faces", tmp_path / "a.png", "--detector", tmp_path)
    assert missing.code == 1 and "pnet.pt is missing" in missing.err
    assert run("faces", tmp_path / "a.png", "--detector", weights, "--min-size", "0").code == 2


def test_faces_are_drawn(astronaut, weights):
    small = astronaut.resize((200, 200))
    cell = draw_faces(small, FaceDetector(weights).detect(small), "a face")
    assert cell.pixels.shape == (600, 600, 3)
    plain = draw_faces(small, [], "no face")
    assert (cell.pixels != plain.pixels).any(2).mean() > 0.002


def test_weights_that_are_missing(tmp_path):
    with pytest.raises(CheckpointError, match="pnet.pt is missing"):
        FaceDetector(tmp_path)
