"""A trained classifier on the test pictures: numbers, confusions, and the worst mistakes with their pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from numbanet.data import DataLoader
from numbanet.train.metrics import Accuracy, CalibrationError, ConfusionMatrix, F1Score, MetricCollection, Precision, Recall
from numbanet.train.pictures import picture_of
from numbanet.train.trainer import Trainer
from numbanet.vision.training import draw_confusion, draw_mistakes

MOST_MISTAKES = 24


@dataclass
class Judgement:
    """What :func:`judge` found: values by name, the confusion matrix, and the mistakes, the surest first."""

    values: dict[str, float]
    confusion: ConfusionMatrix
    mistakes: list          # (index, true, predicted, probability of the prediction)
    count: int

    drawn = ("confusion.png", "mistakes.png")

    def facts(self) -> dict:
        """As plain values."""
        return {**self.values, "images": self.count, "confusion": self.confusion.counts.tolist()}

    def lines(self, classes) -> list[str]:
        """In words."""
        width = max(18, *map(len, self.values))
        return [*(f"  {name:<{width}} {value:.4f}" for name, value in self.values.items()),
                "confusion matrix, a row for each true class:", self.confusion.table(classes)]


def judge(trainer: Trainer, dataset, classes, batch_size: int = 250, workers: int = 0, on_error: str = "raise") -> Judgement:
    """Run a dataset of (input, label) through a trainer's model once; with `on_error` "skip", those that can be loaded."""
    n = len(classes)
    loader = DataLoader(dataset, batch_size, num_workers=workers, seed=0, on_error=on_error)
    logits = trainer.predict(loader).astype(np.float64)
    positions = np.setdiff1d(np.arange(len(dataset)), [error.index for error in loader.skipped])
    targets = np.asarray(dataset.targets, np.int64)[positions]
    metrics = MetricCollection({
        "accuracy": Accuracy(), **({"top-5 accuracy": Accuracy(top_k=5)} if n > 5 else {}),
        "precision": Precision(num_classes=n, average="macro"), "recall": Recall(num_classes=n, average="macro"),
        "F1": F1Score(num_classes=n, average="macro"), "calibration error": CalibrationError(), "confusion": ConfusionMatrix(n)})
    metrics.update(logits, targets)
    shifted = logits - logits.max(1, keepdims=True)
    logarithms = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    predicted = logits.argmax(1)
    rows = np.arange(len(targets))
    wrong = np.flatnonzero(predicted != targets)
    order = wrong[np.argsort(logarithms[wrong, targets[wrong]], kind="stable")][:MOST_MISTAKES]
    mistakes = [(int(positions[i]), int(targets[i]), int(predicted[i]), float(np.exp(logarithms[i, predicted[i]]))) for i in order]
    values = {name: value for name, value in metrics.compute().items() if isinstance(value, float)}
    return Judgement({"cross-entropy": float(-logarithms[rows, targets].mean()), **values}, metrics["confusion"], mistakes, len(targets))


def draw_judgement(folder, judgement: Judgement, dataset, classes) -> None:
    """`confusion.png` and `mistakes.png`."""
    draw_confusion(folder / "confusion.png", judgement.confusion.counts, classes)
    items = [(picture_of(dataset, i), classes[true], classes[predicted], sure) for i, true, predicted, sure in judgement.mistakes]
    wrong = judgement.count - int(np.trace(judgement.confusion.counts))
    draw_mistakes(folder / "mistakes.png", items, f"the worst of {wrong:,} mistakes among {judgement.count:,} pictures")
