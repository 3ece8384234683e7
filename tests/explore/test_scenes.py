"""The explorer of detectors and segmenters, by its answers: what the networks themselves say of the same picture."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

import numbanet
from numbanet.detection import Fitting, ObjectDetector, detector
from numbanet.explore import engine as engine_module
from numbanet.explore.engine import Explorer
from numbanet.segmentation import Segmenter
from numbanet.train.prediction import Classifier
from numbanet.train.preprocessing import Preprocessing
from numbanet.zoo import create_model
from tests.explore.test_server import BASE, TestClient, create_app, ok, png

pytestmark = pytest.mark.filterwarnings("ignore:Using `httpx`")
NAMES = ["cat", "dog", "owl"]


def client_of(explorer):
    return TestClient(create_app(explorer, 8765), base_url=BASE, raise_server_exceptions=False)


@pytest.fixture(scope="module")
def finder():
    with numbanet.random.fork_rng():
        numbanet.manual_seed(3)
        model = detector("resnet18", 3, strides=(8, 16), channels=16, convolutions=1, width=8)
        for p in (model.head.logits.weight, model.head.edges.weight):
            p.detach().normal_(0, 0.2)                          # of different opinions at different places
    return ObjectDetector(model, NAMES, Fitting((48, 64)))


@pytest.fixture(scope="module")
def segmenter():
    with numbanet.random.fork_rng():
        numbanet.manual_seed(4)
        model = create_model("unet", num_classes=4, in_chans=3, widths=[4, 8], batch_norm=True, dropout=0.0)
    preprocessing = Preprocessing((3, 32, 40), (32, 40), (0.5,) * 3, (0.25,) * 3)
    return Segmenter(Classifier(model, ["background", *NAMES], preprocessing, metadata={"task": "segmentation"}))


@pytest.mark.parametrize("size", [(40, 50), (200, 90), (1500, 1100), (1, 7)], ids=str)
def test_a_detector_says_what_detect_says(finder, size):
    client, data = client_of(Explorer(finder, "detector")), png(3, size)
    model = ok(client.get("/api/model"))
    assert (model["task"], model["classes"], model["input"]) == ("detection", NAMES, [3, 48, 64])
    found = ok(client.post("/api/look", content=data))
    scene = found["detection"]
    assert scene["shape"] == list(size) and "top" not in found and len(found["layers"]) > 20
    with Image.open(io.BytesIO(base64.b64decode(scene["shown"].partition(",")[2]))) as shown:
        assert max(shown.size) == min(1024, max(size))
        if max(size) <= 1024:
            assert np.array_equal(np.asarray(shown), np.asarray(Image.open(io.BytesIO(data))))
    scores = [o["score"] for o in scene["objects"]]
    assert scores == sorted(scores, reverse=True) and min(scores) > model["lowest"] == 0.05
    assert len({o["class"] for o in scene["objects"]}) > 1 or size == (1, 7)
    for threshold in (0.05, *np.quantile(scores, [0.3, 0.9])):          # what the slider hides, `detect` does not give
        expected = finder(io.BytesIO(data), threshold + 1e-4)
        shown = [o for o in scene["objects"] if o["score"] > threshold + 1e-4]
        assert [o["class"] for o in shown] == [o["class"] for o in expected]
        for one, other in zip(shown, expected):
            assert one["score"] == pytest.approx(other["score"], abs=1e-4)
            assert one["box"] == pytest.approx(other["box"], abs=0.02 * max(size))
            assert 0 <= one["box"][0] <= one["box"][2] <= size[1] and 0 <= one["box"][1] <= one["box"][3] <= size[0]
            assert one["colour"] == scene["objects"][[o["label"] for o in scene["objects"]].index(one["label"])]["colour"]


def test_units_of_a_detector(finder):
    client = client_of(Explorer(finder, "detector"))
    found = ok(client.post("/api/look", content=png()))
    assert len([layer for layer in found["layers"] if layer["path"] == "head.logits"]) == 2, "one of each level"
    number = next(layer["index"] for layer in found["layers"] if layer["path"] == "head.logits")
    unit = ok(client.get("/api/unit", params={"id": found["id"], "layer": number, "unit": "1,2,3"}))
    assert unit["layer"] == "head.logits" and unit["total"] == pytest.approx(unit["value"], abs=1e-4)
    answer = client.get(f"/api/cam?id={found['id']}&class=1")
    assert answer.status_code == 400 and "has no Grad-CAM" in answer.json()["error"]
    assert client.post("/api/look", content=b"lorem").status_code == 422


@pytest.mark.parametrize("size", [(40, 50), (1300, 900), (3, 1)], ids=str)
@pytest.mark.parametrize("told", [True, False], ids=["by its metadata", "by its output"])
def test_a_segmenter_says_what_segment_says(segmenter, size, told):
    opened = segmenter if told else Classifier(segmenter.model, segmenter.classes, segmenter.preprocessing)
    client, data = client_of(Explorer(opened, "segmenter")), png(5, size)
    model = ok(client.get("/api/model"))
    assert (model["task"], model["classes"]) == ("segmentation", ["background", *NAMES])
    scene = ok(client.post("/api/look", content=data))["segmentation"]
    height, width = scene["shape"]
    assert max(height, width) == min(1024, max(size))
    labels = np.frombuffer(base64.b64decode(scene["labels"]), np.uint8).reshape(height, width)
    sure = np.frombuffer(base64.b64decode(scene["confidence"]), np.uint8).reshape(height, width)
    found = segmenter(io.BytesIO(data))
    if max(size) <= 1024:
        assert np.array_equal(labels, found.labels) and np.abs(sure - 100 * found.confidence).max() <= 0.51
    else:
        own = np.asarray(Image.fromarray(found.labels).resize((width, height), Image.Resampling.NEAREST))
        assert (labels == own).mean() > 0.95
    counts = {row["class"]: row["share"] * labels.size for row in scene["classes"]}
    assert counts == {int(k): pytest.approx(n) for k, n in zip(*np.unique(labels, return_counts=True))}
    assert [row["drawn"] for row in scene["classes"]] == [row["name"] != "background" for row in scene["classes"]]
    assert len({tuple(row["colour"]) for row in scene["classes"]}) == len(scene["classes"])


def test_pictures_to_begin_with(finder, tmp_path):
    """As they are in their files; broken ones are left out, and one that has gone is an error that tells no path."""
    paths = [tmp_path / f"{name}.png" for name in ("first", "broken", "third")]
    for path in paths:
        path.write_bytes(png(7, (300, 200)) if path.stem != "broken" else b"lorem")
    client = client_of(Explorer(finder, "detector", samples=paths))
    listed = ok(client.get("/api/samples"))["samples"]
    assert [(one["number"], one["name"]) for one in listed] == [(0, "first"), (2, "third")]
    with Image.open(io.BytesIO(base64.b64decode(listed[0]["picture"].partition(",")[2]))) as small:
        assert max(small.size) == engine_module.SMALL
    assert base64.b64decode(ok(client.get("/api/sample?number=2"))["data"]) == paths[2].read_bytes()
    for number, status in (("3", 400), ("-1", 400), ("x", 400), ("", 400)):
        assert client.get(f"/api/sample?number={number}").status_code == status
    paths[2].unlink()
    answer = client.get("/api/sample?number=2")
    assert answer.status_code == 422 and str(tmp_path) not in answer.text
    assert ok(client_of(Explorer(finder, "detector")).get("/api/samples")) == {"samples": []}
