"""Naming what is on a picture: whole pictures, boxes, faces."""

import pytest
from PIL import Image

from numbanet.detection.faces import FaceDetector
from numbanet.errors import DataError, UsageError
from numbanet.search import ImageIndex, entry_name, face_reader, identify, update_index
from tests.search.conftest import picture, small_embedder
from tests.zoo.packages import package_file


@pytest.fixture(scope="module")
def weights():
    return package_file("facenet_pytorch", "data")


@pytest.fixture(scope="module")
def astronaut():
    return Image.open(package_file("skimage", "data", "astronaut.png")).convert("RGB")


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
