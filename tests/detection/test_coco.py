"""COCO's files: what is read, what is refused, and what is written."""

import json

import numpy as np
import pytest
from PIL import Image

from numbanet.data.datasets import DigitScenes
from numbanet.detection.coco import CocoPictures, annotations_of, find_splits, write_coco
from numbanet.errors import DataError
from tests.cli.test_train import header_of_a_huge_png


def store(folder, **changes):
    """A file of one picture of 40 x 30 and one box, changed; returns its path."""
    Image.new("RGB", (40, 30)).save(folder / "a.png")
    stored = {"images": [{"id": 7, "file_name": "a.png", "width": 40, "height": 30}],
              "categories": [{"id": 5, "name": "cat"}, {"id": 2, "name": "dog"}],
              "annotations": [{"id": 1, "image_id": 7, "category_id": 5, "bbox": [1, 2, 10, 20]}], **changes}
    path = folder / "train.json"
    path.write_text(json.dumps(stored))
    return path


def annotation(**changes):
    return {"annotations": [{"id": 1, "image_id": 7, "category_id": 5, "bbox": [1, 2, 10, 20], **changes}]}


def test_what_is_read(tmp_path):
    pictures = CocoPictures(store(tmp_path, annotations=[
        {"id": 1, "image_id": 7, "category_id": 5, "bbox": [1, 2, 10, 20], "area": 90.5},
        {"id": 2, "image_id": 7, "category_id": 2, "bbox": [-0.5, 0, 40.9, 30], "iscrowd": 1}]))
    picture, target = pictures[0]
    assert pictures.classes == ("dog", "cat") and picture.size == (40, 30) and len(pictures) == 1 and pictures.count_boxes() == 2
    np.testing.assert_array_equal(target["boxes"], np.float32([[1, 2, 11, 22], [0, 0, 40, 30]]))
    assert target["labels"].tolist() == [1, 0] and target["crowd"].tolist() == [False, True] and target["area"].tolist() == [90.5, 1200]


def test_pictures_without_objects(tmp_path):
    _, target = CocoPictures(store(tmp_path, annotations=[]))[0]
    assert target["boxes"].shape == (0, 4) and target["labels"].shape == (0,)


@pytest.mark.parametrize(("changes", "message"), [
    (annotation(bbox=[1, 2, -10, 20]), r"annotation 1: bbox \[1, 2, -10, 20\] is empty"),
    (annotation(bbox=[1, 2, 10, 0]), "is empty; width and height have to be above 0"),
    (annotation(bbox=[35, 2, 10, 20]), "reaches outside of its image of 40 x 30 pixels"),
    (annotation(bbox=[-9, 2, 10, 20]), "reaches outside"),
    (annotation(bbox=[1, 2, 10]), r"bbox expects \[left, top, width, height\]"),
    (annotation(bbox=None), "bbox expects"),
    (annotation(bbox=["a", 1, 2, 3]), "bbox expects"),
    (annotation(bbox=[1, 2, float("nan"), 4]), "is not finite"),
    (annotation(bbox=[1, 2, float("inf"), 4]), "is not finite"),
    (annotation(category_id=99), r"category_id 99 is none of the categories \[2, 5\]"),
    (annotation(category_id=[1]), "is none of the categories"),
    (annotation(image_id=8), "image_id 8 is none of the images"),
    ({"annotations": [3]}, "expected a mapping, received int"),
    ({"annotations": None}, "expected a list of annotations, received NoneType"),
    ({"images": []}, "expected images and categories, received 0 and 2"),
    ({"images": [{"id": 7}]}, "image 7: file_name expects text"),
    ({"images": [{"id": 7, "file_name": "../a.png"}]}, "leads out of"),
    ({"images": [{"id": 7, "file_name": "/etc/passwd"}]}, "leads out of"),
    ({"images": [{"id": 7, "file_name": "b.png"}]}, "b.png is missing"),
    ({"images": [{"id": 7, "file_name": "a.png", "width": -1, "height": 2}]}, "width and height expect integers"),
    ({"images": [{"id": 7, "file_name": "a.png"}, {"id": 7, "file_name": "a.png"}]}, "id 7 is there already"),
    ({"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}, "expected different names"),
    ({"categories": [{"name": "a"}]}, "expected a mapping with an id"),
])
def test_what_is_refused(tmp_path, changes, message):
    path = store(tmp_path, **changes)
    with pytest.raises(DataError, match=message) as found:
        CocoPictures(path)
    assert str(path) in str(found.value)


@pytest.mark.parametrize("text", ["", "[1]", "{", "\xff", "[" * 100_000])
def test_what_is_no_such_file(tmp_path, text):
    path = tmp_path / "train.json"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(DataError, match="train.json: "):
        CocoPictures(path)


def test_many_problems_are_counted(tmp_path):
    path = store(tmp_path, annotations=[{"id": i, "image_id": 7, "category_id": 5, "bbox": [0, 0, 0, 0]} for i in range(20)])
    with pytest.raises(DataError, match=r"20 entries cannot be used(.|\n)*and 15 more"):
        CocoPictures(path)


def test_pictures_that_cannot_be_used(tmp_path):
    path = store(tmp_path)
    Image.new("RGB", (20, 30)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="says 40 x 30 pixels, the image has 20 x 30"):
        CocoPictures(path)[0]
    (tmp_path / "a.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(DataError, match="a.png"):
        CocoPictures(path)[0]
    path = store(tmp_path, images=[{"id": 7, "file_name": "a.png"}], **annotation(bbox=[1, 2, 100, 20]))
    with pytest.raises(DataError, match="reaches outside of its image of 40 x 30 pixels"):
        CocoPictures(path)[0]


def test_headers_tell_what_is_wrong_before_anything_is_decoded(tmp_path):
    """Another size, no image, a bomb; a picture on its side is as large as it is seen; one that is cut off later shows."""
    names = ("good", "side", "small", "text", "huge", "cut")
    stored = [{"id": i, "file_name": f"{name}.png", "width": 40, "height": 30} for i, name in enumerate(names)]
    path = store(tmp_path, images=stored, annotations=[])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "good.png")
    Image.new("RGB", (30, 40)).save(tmp_path / "side.png", exif=exif)
    Image.new("RGB", (20, 30)).save(tmp_path / "small.png")
    (tmp_path / "text.png").write_text("lorem ipsum")
    (tmp_path / "huge.png").write_bytes(header_of_a_huge_png())
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)).save(tmp_path / "cut.png")
    whole = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:len(whole) // 2])
    found = list(CocoPictures(path).problems())
    assert [p is None for p in found] == [True, True, False, False, False, True]
    for problem, message in zip(found[2:5], ("small.png: train.json says 40 x 30 pixels, the image has 20 x 30", "text.png: not an image",
                                             "huge.png: more than the|huge.png: 60000 x 60000 is more than the")):
        assert any(words in str(problem) for words in message.split("|")), problem
    assert CocoPictures(path)[1][0].size == (40, 30)
    with pytest.raises(DataError, match="cut.png: the image is broken or truncated"):
        CocoPictures(path)[5]


def test_out_and_in_again(tmp_path):
    scenes = DigitScenes(5, 64, objects=(0, 3))
    for split in ("train", "val"):
        assert write_coco(tmp_path, split, (scenes[i] for i in range(5)), scenes.classes) == 5
    (annotations, images), _ = find_splits(tmp_path)
    pictures = CocoPictures(annotations, images)
    assert pictures.classes == scenes.classes
    for i in range(5):
        (pixels, truth), (picture, target) = scenes[i], pictures[i]
        np.testing.assert_array_equal(np.asarray(picture), pixels)
        np.testing.assert_array_equal(target["boxes"], truth["boxes"])
        np.testing.assert_array_equal(target["labels"], truth["labels"])


def test_pycocotools_reads_what_is_written(tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    scenes = DigitScenes(4, 64)
    write_coco(tmp_path, "val", (scenes[i] for i in range(4)), scenes.classes)
    theirs = coco.COCO(str(tmp_path / "val.json"))
    assert len(theirs.getImgIds()) == 4 and len(theirs.getAnnIds()) == sum(len(scenes[i][1]["boxes"]) for i in range(4))
    results = annotations_of(1, {"boxes": [[1, 2, 5, 7]], "labels": [3], "scores": [0.5]})
    assert results == [{"image_id": 1, "category_id": 4, "bbox": [1, 2, 4, 5], "score": 0.5}] and theirs.loadRes(results)


def test_splits_that_are_missing(tmp_path):
    with pytest.raises(DataError, match="expected COCO's annotations train.json"):
        find_splits(tmp_path)
    (tmp_path / "val.json").write_text("{}")
    assert find_splits(tmp_path, ("val",)) == [(tmp_path / "val.json", tmp_path)]
    with pytest.raises(DataError, match="expected COCO's annotations train.json"):
        find_splits(tmp_path)
