"""Mean average precision beside pycocotools, and by hand."""

import contextlib
import io

import numpy as np
import pytest

from numbanet.detection.average_precision import AREAS, MOST, MeanAveragePrecision
from numbanet.errors import ShapeError, UsageError

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def made_up(rng, pictures=30, classes=4, most=12, found=40, crowds=0.1, own_area=True):
    """Pictures with boxes of all sizes, detections near some of them and anywhere, equal scores, crowds."""
    for _ in range(pictures):
        n, d = int(rng.integers(0, most)), int(rng.integers(0, found))
        corner, size = rng.uniform(0, 300, (n, 2)), rng.uniform(4, 200, (n, 2)) ** rng.uniform(0.6, 1.0, (n, 1))
        boxes, labels = np.concatenate([corner, corner + size], 1), rng.integers(0, classes, n)
        truth = {"boxes": boxes, "labels": labels, "crowd": rng.random(n) < crowds}
        if own_area:
            truth["area"] = size.prod(1) * rng.uniform(0.4, 1, n)
        near = rng.integers(0, max(n, 1), d)
        own = np.concatenate([corner, corner + size], 1)[near] + rng.normal(0, 4, (d, 4)) if n else np.zeros((d, 4))
        corner = rng.uniform(0, 300, (d, 2))
        anywhere = np.concatenate([corner, corner + rng.uniform(1, 150, (d, 2))], 1)
        guess = np.where(rng.random((d, 1)) < 0.7, own, anywhere) if n else anywhere
        guess = np.concatenate([np.minimum(guess[:, :2], guess[:, 2:] - 1), guess[:, 2:]], 1)
        names = np.where(rng.random(d) < 0.7, labels[near] if n else 0, rng.integers(0, classes, d))
        yield {"boxes": guess, "scores": rng.integers(0, 30, d) / 30, "labels": names}, truth


def by_pycocotools(pictures, classes):
    coco, evaluation = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    annotations, results = [], []
    for i, (found, truth) in enumerate(pictures):
        for j, box in enumerate(truth["boxes"]):
            width, height = box[2] - box[0], box[3] - box[1]
            annotations.append({"id": len(annotations) + 1, "image_id": i + 1, "category_id": int(truth["labels"][j]) + 1,
                                "bbox": [box[0], box[1], width, height], "iscrowd": int(truth["crowd"][j]),
                                "area": float(truth["area"][j]) if "area" in truth else width * height})
        results += [{"image_id": i + 1, "category_id": int(k) + 1, "score": float(s), "bbox": [b[0], b[1], b[2] - b[0], b[3] - b[1]]}
                    for b, s, k in zip(found["boxes"], found["scores"], found["labels"])]
    truth = coco.COCO()
    truth.dataset = {"images": [{"id": i + 1} for i in range(len(pictures))], "annotations": annotations,
                     "categories": [{"id": k + 1, "name": str(k)} for k in range(classes)]}
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        judged = evaluation.COCOeval(truth, truth.loadRes(results), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return judged


@pytest.mark.parametrize(("seed", "options"), [
    (0, {}), (1, {"crowds": 0.5}), (2, {"own_area": False}), (3, {"found": 300, "pictures": 6, "classes": 1}),
    (4, {"most": 2, "found": 3, "classes": 6}), (5, {"crowds": 1.0})])
def test_beside_pycocotools(seed, options):
    classes = options.get("classes", 4)
    pictures = list(made_up(np.random.default_rng(seed), **options))
    metric = MeanAveragePrecision(classes)
    for found, truth in pictures:
        metric.update(found, truth)
    ours, theirs = metric.compute(), by_pycocotools(pictures, classes)
    assert tuple(ours.values) == NAMES
    np.testing.assert_allclose(ours.precision, theirs.eval["precision"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.recall, theirs.eval["recall"], rtol=0, atol=1e-12)
    np.testing.assert_allclose([ours.values[name] for name in NAMES], theirs.stats, rtol=0, atol=1e-12)


def test_by_hand():
    """Two boxes; of three detections the first and the last are right: precision 1 up to recall 0.5, then 2/3."""
    metric = MeanAveragePrecision(2)
    metric.update({"boxes": [[0, 0, 10, 10], [50, 50, 60, 60], [20, 0, 30, 10]], "scores": [0.9, 0.8, 0.7], "labels": [0, 0, 0]},
                  {"boxes": [[0, 0, 10, 10], [20, 0, 30, 10]], "labels": [0, 0]})
    found = metric.compute()
    assert found.values["AP"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert found.per_class == {0: found.values["AP"], 1: -1.0}
    assert found.values["APm"] == found.values["ARl"] == -1 and found.values["AR100"] == 1 and found.values["AR1"] == 0.5
    assert found.precision.shape[-2:] == (len(AREAS), len(MOST))


def test_nothing_and_nothing_found():
    assert MeanAveragePrecision(3).compute().values["AP"] == -1
    metric = MeanAveragePrecision(1)
    metric.update({"boxes": [], "scores": [], "labels": []}, {"boxes": [[0, 0, 5, 5]], "labels": [0]})
    assert metric.compute(("all",)).values == {"AP": 0, "AP50": 0, "AP75": 0, "AR1": 0, "AR10": 0, "AR100": 0}


def test_bad_input():
    metric, nothing = MeanAveragePrecision(2), {"boxes": [], "scores": [], "labels": []}
    with pytest.raises(ShapeError, match=r"scores of found expects shape \(1,\), received \(2,\)"):
        metric.update({"boxes": [[0, 0, 1, 1]], "scores": [1, 2], "labels": [0]}, {"boxes": [], "labels": []})
    with pytest.raises(UsageError, match="labels of truth expects 0 to 1, received 2 to 2"):
        metric.update(nothing, {"boxes": [[0, 0, 1, 1]], "labels": [2]})
    with pytest.raises(UsageError, match="num_classes expects an integer"):
        MeanAveragePrecision(0)
