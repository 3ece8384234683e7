"""A trained segmenter on the test pictures: numbers, confusions, and the worst pictures."""

from __future__ import annotations

import numpy as np

from numbanet.segmentation.drawing import draw_comparison
from numbanet.segmentation.losses import VOID
from numbanet.train.judging import Judgement
from numbanet.train.metrics import Accuracy, ConfusionMatrix, F1Score, JaccardIndex, MeanIoU, MetricCollection
from numbanet.train.trainer import Trainer
from numbanet.vision.training import draw_confusion

MOST_MISTAKES = 12


class SegmentationJudgement(Judgement):
    """What :func:`judge` found: values by name, the confusion matrix of pixels, and the worst pictures first: (index, mean IoU of the
    classes on it, labels predicted)."""


def made_metrics(classes: int) -> dict:
    """Of every epoch; all count the same pairs of pixels."""
    options = {"num_classes": classes, "ignore_index": VOID}
    return {"iou": JaccardIndex(**options), "accuracy": Accuracy(ignore_index=VOID), "confusion": ConfusionMatrix(**options)}


def judge(trainer: Trainer, loader, dataset, classes) -> SegmentationJudgement:
    """Run test pictures through a trainer's model once; those that cannot be loaded are left out as `loader` says.

    Parameters
    ----------
    loader : DataLoader of (x, y) in `dataset`'s order
    dataset : MaskedPictures
    classes : sequence of str
    """
    n = len(classes)
    metrics = MetricCollection({
        "mean IoU": JaccardIndex(num_classes=n, ignore_index=VOID),
        "mean IoU by picture": MeanIoU(n, ignore_index=VOID),
        "Dice": F1Score(num_classes=n, average="macro", ignore_index=VOID),
        "pixel accuracy": Accuracy(ignore_index=VOID),
        "each": JaccardIndex(num_classes=n, average="none", ignore_index=VOID),
        "confusion": ConfusionMatrix(n, ignore_index=VOID)})
    worst: list[tuple[int, float, np.ndarray]] = []
    skipped, seen = {error.index for error in loader.skipped}, 0
    order = iter(range(len(dataset)))
    for x, y in loader:
        skipped |= {error.index for error in loader.skipped}
        labels = trainer.predict(x.numpy(), len(x)).argmax(1)
        metrics.update(labels, y)
        for predicted, truth in zip(labels, y.numpy()):
            index = next(i for i in order if i not in skipped)
            one = MeanIoU(n, ignore_index=VOID)
            one.update(predicted[None], truth[None])
            value = one.compute()
            if np.isfinite(value):
                worst.append((index, value, predicted.astype(np.uint8)))
            seen += 1
        worst = sorted(worst, key=lambda item: item[1])[:MOST_MISTAKES]
    values = metrics.compute()
    each = values.pop("each")
    occurs = metrics["confusion"].counts
    values = {name: value for name, value in values.items() if isinstance(value, float)}
    values |= {f"IoU of {name}": float(each[i]) for i, name in enumerate(classes) if occurs[i].any() or occurs[:, i].any()}
    return SegmentationJudgement(values, metrics["confusion"], worst, seen)


def draw_judgement(folder, judgement: SegmentationJudgement, dataset, classes) -> None:
    """`confusion.png` and `mistakes.png`."""
    draw_confusion(folder / "confusion.png", judgement.confusion.counts, classes)
    rows = [(dataset.picture(index), dataset.mask(index), labels, f"picture {index}: IoU {value:.3f}")
            for index, value, labels in judgement.mistakes]
    draw_comparison(folder / "mistakes.png", rows, classes, f"The worst of {judgement.count:,} pictures",
                    [f"Mean IoU {judgement.values['mean IoU']:.4f} over all; each picture with its mask and what the network made of it."])
