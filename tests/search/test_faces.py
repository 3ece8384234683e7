"""Faces: the pieces by hand, the whole beside the package that holds the weights; and naming what was found."""

import numpy as np
import pytest
from PIL import Image

from numbanet.errors import CheckpointError, DataError, UsageError
from numbanet.search import FaceDetector, ImageIndex, entry_name, face_reader, identify, update_index
from numbanet.search.faces import cut_face, moved, square, suppress
from tests.search.conftest import picture, small_embedder
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
    np.testing.assert_allclose(moved(box, np.array([[0.1, -0.1, 0.5, 0]])), [[12, 16, 40, 60]])
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


def test_beside_the_package(weights, astronaut):
    pytest.importorskip("torch")
    torchvision()
    pytest.importorskip("facenet_pytorch", exc_type=ImportError)
    from facenet_pytorch import MTCNN
    pair = Image.new("RGB", (700, 400), "grey")
    pair.paste(astronaut.resize((330, 330)), (10, 30))
    pair.paste(astronaut.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((400, 400)), (300, 0))
    boxes, probabilities, landmarks = MTCNN(keep_all=True, min_face_size=20).detect(pair, landmarks=True)
    found = FaceDetector(weights).detect(pair, 20)
    assert len(found) == len(boxes) == 2
    for face in found:
        distance = np.abs(boxes - np.array(face.box)).max(1)
        near = distance.argmin()
        size = boxes[near, 3] - boxes[near, 1]
        assert distance[near] < 0.06 * size and np.abs(landmarks[near] - face.landmarks).max() < 0.06 * size
        assert probabilities[near] == pytest.approx(face.probability, abs=0.02)


def test_weights_that_are_missing(tmp_path):
    with pytest.raises(CheckpointError, match="pnet.pt is missing"):
        FaceDetector(tmp_path)


@pytest.mark.parametrize(("path", "name"), [
    ("/g/Ada/1.jpg", "Ada"), ("/g/Ada-2.jpg", "Ada"), ("/g/Grace Hopper (3).png", "Grace Hopper"), ("/g/007.png", "007"),
    ("/g/R2D2.png", "R2D"), ("/g/a/b/c.png", "b")])
def test_names_of_entries(path, name):
    assert entry_name(path, ["/g"]) == name


def test_naming_whole_pictures_and_boxes(tmp_path):
    folder = tmp_path / "gallery"
    for i, name in enumerate(("Ada", "Grace")):
        (folder / name).mkdir(parents=True)
        picture(i, (40, 30)).save(folder / name / "1.png")
    embedder = small_embedder()
    update_index(tmp_path / "index", embedder, [folder], source="the small network", num_workers=0)
    both = Image.new("RGB", (90, 30))
    both.paste(picture(1, (40, 30)), (0, 0))
    both.paste(picture(0, (40, 30)), (50, 0))
    both.save(tmp_path / "both.png")
    with ImageIndex(tmp_path / "index") as index:
        found = identify(index, embedder, tmp_path / "both.png", 0.9999, boxes=[(50, 0, 90, 30), (0, 0, 40, 30)])
        assert [one.name for one in found] == ["Ada", "Grace"] and found[0].box == (50, 0, 90, 30)
        assert found[0].path == str(folder / "Ada" / "1.png") and found[0].score == pytest.approx(1, abs=1e-6)
        whole, = identify(index, embedder, folder / "Grace" / "1.png")
        assert whole.name == "Grace" and whole.box is None
        Image.new("RGB", (9, 9), "red").save(tmp_path / "red.png")
        strange, = identify(index, embedder, tmp_path / "red.png", 0.9999)
        assert strange.name == "unknown" and strange.path
        with pytest.raises(UsageError, match="threshold expects a cosine"):
            identify(index, embedder, tmp_path / "red.png", 1.5)
        with pytest.raises(UsageError, match="lies outside"):
            identify(index, embedder, tmp_path / "red.png", boxes=[(20, 0, 30, 9)])
        with pytest.raises(DataError, match="missing"):
            identify(index, embedder, tmp_path / "none.png")


def test_a_gallery_of_faces(tmp_path, weights, astronaut):
    folder = tmp_path / "gallery"
    (folder / "Eileen").mkdir(parents=True)
    astronaut.resize((400, 400)).save(folder / "Eileen" / "1.png")
    picture(3, (60, 60)).save(folder / "noise.png")
    embedder, detector = small_embedder(), FaceDetector(weights)
    done = update_index(tmp_path / "index", embedder, [folder], source="the small network", detector=str(weights),
                        reader=face_reader(embedder, detector), num_workers=1)
    assert done.files == 1 and done.skipped == [(str(folder / "noise.png"), "no face was found")]
    astronaut.save(tmp_path / "query.png")
    with ImageIndex(tmp_path / "index") as index:
        assert index.description.detector == str(weights)
        found, = identify(index, embedder, tmp_path / "query.png", 0.99, detector)
        assert found.name == "Eileen" and 160 < found.box[0] < 190
        assert identify(index, embedder, folder / "noise.png", 0.9, detector) == []
