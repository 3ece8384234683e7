"""The Jaccard index, or intersection over union: of what two sets have together, the share that is common.

    IoU = tp / (tp + fp + fn)

of each class, a pixel being a sample. Over all pictures of a data set at once it is what segmentation is judged by (Everingham et al., IJCV
2010); averaged picture by picture, small and large pictures and objects count alike.
"""

from __future__ import annotations

import numpy as np

from numbanet.errors import ShapeError, UsageError
from numbanet.train.metrics.classification import _OfPositives
from numbanet.train.metrics.metric import Batch, Metric, State, check_labels


class JaccardIndex(_OfPositives):
    """tp / (tp + fp + fn): intersection over union, of all samples together.

    Parameters
    ----------
    task : "multiclass" or "binary"
        Of a binary one, that of class 1.
    num_classes : int
    average : "macro", "micro", "weighted" or "none"
        "macro" is the mean IoU, over the classes that occur as a target or a prediction.
    threshold : float
        Of binary scores.
    ignore_index : int, optional
        A target that does not count.
    """

    def __init__(self, task: str = "multiclass", num_classes: int | None = None, *, average: str | None = "macro", threshold: float = 0.5,
                 ignore_index: int | None = None):
        super().__init__(task, num_classes, average=average, threshold=threshold, ignore_index=ignore_index)

    def ratio(self, tp, fp, fn):
        return tp, tp + fp + fn


class PictureOverlaps(State):
    """Sums over pictures of each class's IoU, and in how many of them it occurs."""

    names = ("sums", "pictures")

    def __init__(self, num_classes: int, include_background: bool, ignore_index: int | None):
        self.key = "overlaps", num_classes, include_background, ignore_index
        self.num_classes, self.first, self.ignore_index = num_classes, int(not include_background), ignore_index
        self.sums = np.zeros(num_classes + 1)               # the last: of each picture's mean over its classes
        self.pictures = np.zeros(num_classes + 1, np.int64)

    def update(self, batch: Batch) -> None:
        if len(batch.shape) < 2:
            raise ShapeError(f"MeanIoU: target expects pictures (N, ...), received {batch.shape}")
        pixels = batch.shape[0], int(np.prod(batch.shape[1:]))
        for labels, target in zip(batch.labels.reshape(pixels), batch.target.reshape(pixels)):
            self.add(labels, target)

    def add(self, labels: np.ndarray, target: np.ndarray) -> None:
        """One picture's labels and targets, (pixels,) each."""
        kept = slice(None) if self.ignore_index is None else target != self.ignore_index
        labels, target = labels[kept].astype(np.int64), target[kept].astype(np.int64)
        check_labels(target, self.num_classes, "target")
        check_labels(labels, self.num_classes, "preds")
        count = lambda values: np.bincount(values, minlength=self.num_classes)
        common = count(target[labels == target])
        union = count(labels) + count(target) - common
        occurs = union > 0
        occurs[:self.first] = False
        if not occurs.any():
            return
        values = common[occurs] / union[occurs]
        self.sums[:-1][occurs] += values
        self.pictures[:-1][occurs] += 1
        self.sums[-1] += values.mean()
        self.pictures[-1] += 1


class MeanIoU(Metric):
    """The IoU of each picture, the mean over the classes on it, averaged over pictures.

    Parameters
    ----------
    num_classes : int
    include_background : bool
        Whether class 0 counts.
    per_class : bool
        The mean over the pictures on which a class occurs, for each class.
    ignore_index : int, optional
        A target that does not count.
    """

    higher_is_better = True

    def __init__(self, num_classes: int, include_background: bool = True, per_class: bool = False, *, ignore_index: int | None = None):
        if not isinstance(num_classes, int) or num_classes < 2:
            raise UsageError(f"MeanIoU: num_classes expects an integer of at least 2, received {num_classes!r}")
        self.per_class = per_class
        self.state = PictureOverlaps(num_classes, include_background, ignore_index)

    def compute(self):
        """A float, NaN of nothing; with `per_class` float64 (C,), NaN of classes that never occur."""
        sums, pictures = self.state.sums, self.state.pictures
        with np.errstate(invalid="ignore"):
            values = np.where(pictures > 0, sums / np.maximum(pictures, 1), np.nan)
        return values[:-1] if self.per_class else float(values[-1])
