"""Metrics, beside tables counted by hand and the definitions spelt out class by class."""

import math

import numpy as np
import pytest

import numbanet
from numbanet.errors import IndexRangeError, ShapeError, UsageError
from numbanet.train.metrics import Accuracy, CalibrationError, ConfusionMatrix, F1Score, MetricCollection, Precision, Recall


def test_counts_and_accuracy():
    matrix = ConfusionMatrix(3)
    assert math.isnan(matrix.accuracy)
    matrix.update(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2]))
    matrix.update(np.array([1]), np.array([2]))                     # 1 said, 2 true
    assert matrix.counts.tolist() == [[1, 0, 0], [0, 1, 0], [0, 2, 1]]
    assert matrix.accuracy == 3 / 5


def test_table():
    matrix = ConfusionMatrix(2)
    matrix.update(np.array([0, 0, 1]), np.array([0, 1, 1]))
    header, cats, dogs = matrix.table(["cat", "a long name"]).splitlines()
    assert header.split() == ["cat", "a", "long", "n"]
    assert cats.split() == ["cat", "1", "."] and dogs.split()[-2:] == ["1", "1"]
    assert len(header) == len(cats) == len(dogs)


def test_many_classes_show_what_is_confused_most():
    matrix, names = ConfusionMatrix(20), [f"c{i}" for i in range(20)]
    assert matrix.table(names) == "no confusions"
    matrix.update(np.array([4, 4, 4, 7, 3]), np.array([3, 3, 4, 6, 3]))
    assert matrix.table(names).splitlines() == ["most frequent confusions:", "  c3 taken for c4: 2", "  c6 taken for c7: 1"]


# Precision, recall, F1: the definitions, one class at a time, as scikit-learn's

def by_definition(predicted, true, classes, what, average):
    """`predicted` is a list of sets of classes."""
    values, weights, sums = [], [], np.zeros(2)
    for c in range(classes):
        tp = sum(c in p and t == c for p, t in zip(predicted, true))
        fp = sum(c in p and t != c for p, t in zip(predicted, true))
        fn = sum(c not in p and t == c for p, t in zip(predicted, true))
        a, b = {"precision": (tp, tp + fp), "recall": (tp, tp + fn), "f1": (2 * tp, 2 * tp + fp + fn)}[what]
        values.append(a / b if b else 0.0)
        weights.append((tp + fn) if average == "weighted" else float(tp + fp + fn > 0))
        sums += a, b
    if average == "none":
        return values
    if average == "micro":
        return sums[0] / sums[1]
    return np.dot(values, weights) / np.sum(weights)


@pytest.fixture
def scores(rng):
    """7 classes, of which 5 never is a target and 6 neither target nor prediction."""
    scores = rng.standard_normal((61, 7))
    scores[:, 6] = -9
    return scores, rng.integers(0, 5, 61)


@pytest.mark.parametrize("average", ["micro", "macro", "weighted", "none"])
@pytest.mark.parametrize("top_k", [1, 3])
@pytest.mark.parametrize(("kind", "what"), [(Precision, "precision"), (Recall, "recall"), (F1Score, "f1")])
def test_by_definition(kind, what, top_k, average, scores):
    values, true = scores
    metric = kind(num_classes=7, average=average, top_k=top_k)
    for part in (slice(0, 20), slice(20, 20), slice(20, 61)):
        metric.update(values[part], true[part])
    predicted = [set(np.argsort(-row)[:top_k]) for row in values]
    np.testing.assert_allclose(metric.compute(), by_definition(predicted, true, 7, what, average))


@pytest.mark.parametrize("top_k", [1, 2, 5])
def test_accuracy(top_k, scores):
    values, true = scores
    metric = Accuracy(top_k=top_k)
    metric.update(numbanet.tensor(values.astype(np.float32)), numbanet.tensor(true))
    assert metric.compute() == np.mean([t in np.argsort(-row)[:top_k] for row, t in zip(values, true)])
    predicted = [set(np.argsort(-row)[:top_k]) for row in values]
    macro = Accuracy(num_classes=7, average="macro", top_k=top_k)
    macro.update(values, true)
    assert macro.compute() == pytest.approx(by_definition(predicted, true, 7, "recall", "macro"))
    assert math.isnan(Accuracy().compute())


def test_a_table_by_hand():
    """                predicted 0  1  2
              true 0            2  1  0
              true 1            0  3  1
              true 2            1  0  2"""
    predicted, true = [0, 0, 1, 1, 1, 1, 2, 0, 2, 2], [0, 0, 0, 1, 1, 1, 1, 2, 2, 2]
    metrics = MetricCollection({"accuracy": Accuracy(num_classes=3, average="weighted"),
                                "precision": Precision(num_classes=3, average="none"),
                                "recall": Recall(num_classes=3, average="none"), "f1": F1Score(num_classes=3, average="macro"),
                                "confusion": ConfusionMatrix(3), "shares": ConfusionMatrix(3, normalize="true")})
    metrics.update(predicted, true)
    found = metrics.compute()
    assert found["confusion"].tolist() == [[2, 1, 0], [0, 3, 1], [1, 0, 2]]
    np.testing.assert_allclose(found["precision"], [2 / 3, 3 / 4, 2 / 3])
    np.testing.assert_allclose(found["recall"], [2 / 3, 3 / 4, 2 / 3])
    assert found["f1"] == pytest.approx((2 / 3 + 3 / 4 + 2 / 3) / 3) and found["accuracy"] == pytest.approx(0.7)
    np.testing.assert_allclose(found["shares"][1], [0, 0.75, 0.25])
    assert len(metrics.states) == 1                         # one pass
    metrics.reset()
    assert metrics.compute()["confusion"].sum() == 0 and metrics.compute()["f1"] == 0
    np.testing.assert_allclose(ConfusionMatrix(3, normalize="pred")(predicted, true)[:, 0], [2 / 3, 0, 1 / 3])
    assert ConfusionMatrix(3, normalize="all")(predicted, true).sum() == pytest.approx(1)


def test_binary():
    probabilities, true = np.array([0.2, 0.7, 0.6, 0.4, 0.5]), np.array([0, 1, 0, 1, 0])
    for values in (probabilities, np.log(probabilities / (1 - probabilities)) * 1.0, (probabilities > 0.5).astype(int),
                   np.stack([1 - probabilities, probabilities], 1)):
        assert Precision("binary")(values, true) == 0.5 and Recall("binary")(values, true) == 0.5
        assert Accuracy("binary")(values, true) == 0.6 and F1Score("binary")(values, true) == 0.5
    assert Recall("binary", threshold=0.3)(probabilities, true) == 1.0


def test_pixels_probabilities_and_ignored_targets(rng):
    maps, true = rng.standard_normal((2, 3, 4, 5)), rng.integers(0, 3, (2, 4, 5))
    metric = Accuracy()
    metric.update(maps, true)
    assert metric.compute() == (maps.argmax(1) == true).mean()
    true[0] = 255
    metric = Accuracy(ignore_index=255)
    metric.update(maps, true)
    assert metric.compute() == (maps.argmax(1) == true)[1].mean()
    precision = Precision(num_classes=3, average="macro", ignore_index=255)
    assert precision(maps, true) == Precision(num_classes=3, average="macro")(maps[1:], true[1:])
    mixed = rng.random((6, 4))
    assert Accuracy()(mixed + 1, mixed) == 1.0


def test_a_call_gives_the_batch_and_counts_it():
    metric = Accuracy()
    assert metric([1, 2], [1, 2]) == 1.0 and metric([1, 2], [0, 0]) == 0.0 and metric.compute() == 0.5


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_calibration_by_definition(norm, rng):
    logits, true = rng.standard_normal((200, 4)) * 2, rng.integers(0, 4, 200)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == true
    gaps, shares = [], []
    for i in range(10):
        inside = (confidence > i / 10) & (confidence <= (i + 1) / 10)
        if inside.any():
            gaps.append(abs(right[inside].mean() - confidence[inside].mean()))
            shares.append(inside.mean())
    expected = {"l1": np.dot(shares, gaps), "l2": np.sqrt(np.dot(shares, np.square(gaps))), "max": max(gaps)}[norm]
    for values in (logits, probabilities):
        metric = CalibrationError(10, norm)
        for part in (slice(0, 150), slice(150, 200)):
            metric.update(values[part], true[part])
        assert metric.compute() == pytest.approx(expected)
    assert math.isnan(CalibrationError().compute())
    sure = CalibrationError()
    sure.update(np.eye(3), [0, 1, 2])
    assert sure.compute() == 0.0


@pytest.mark.parametrize(("make", "update", "error", "message"), [
    (lambda: Precision(), None, UsageError, "expected num_classes"), (lambda: Accuracy("multilabel"), None, UsageError, "task expects"),
    (lambda: Accuracy(average="mean"), None, UsageError, "average"), (lambda: Accuracy(top_k=0), None, UsageError, "top_k"),
    (lambda: Recall("binary", top_k=2), None, UsageError, "binary"),
    (lambda: ConfusionMatrix(3, normalize="x"), None, UsageError, "normalize"),
    (lambda: CalibrationError(0), None, UsageError, "n_bins"), (lambda: CalibrationError(norm="l3"), None, UsageError, "norm"),
    (lambda: ConfusionMatrix(3), ([0, 3], [0, 1]), IndexRangeError, "preds expects classes from 0 to 2, received 3"),
    (lambda: Recall(num_classes=3), ([0, 1], [0, -1]), IndexRangeError, "target expects classes from 0 to 2, received -1"),
    (lambda: Accuracy(top_k=4), (np.zeros((2, 3)), [0, 1]), ShapeError, "at least 4 classes"),
    (lambda: Accuracy(), ([0, 1, 2], [0, 1]), ShapeError, "preds expects"),
    (lambda: Accuracy(), ([0.5, 1.5], [0, 1]), ShapeError, "integers"),
    (lambda: Accuracy(), ([1, 1], [0.5, 1.5]), ShapeError, "target expects class indices"),
    (lambda: CalibrationError(), ([0, 1], [0, 1]), ShapeError, "scores"),
    (lambda: CalibrationError(), ([[np.nan, 1.0]], [0]), UsageError, "not finite"),
    (lambda: MetricCollection([Accuracy(), Accuracy()]), None, UsageError, "several metrics are called Accuracy")])
def test_what_is_refused(make, update, error, message):
    with pytest.raises(error, match=message):
        metric = make()
        metric.update(*update)
