"""Accuracy, precision, recall and F1, from true positives tp, false positives fp and false negatives fn of each class.

    precision = tp / (tp + fp)      recall = tp / (tp + fn)      F1 = 2 tp / (2 tp + fp + fn)      x / 0 is 0

Averages: "micro" over all samples, "macro" the plain mean of the classes that occur (as a target or a prediction), "weighted" the mean
by the number of targets, "none" one value a class. These are scikit-learn's and torchmetrics' definitions.
"""

from __future__ import annotations

import numpy as np

from numbanet.errors import UsageError
from numbanet.train.metrics.confusion import Counts
from numbanet.train.metrics.metric import Batch, Metric, State, check_labels, check_options


class Hits(State):
    """How many samples there were, and of how many the target is among the k highest scores."""

    names = ("hits", "total")

    def __init__(self, top_k: int, ignore_index: int | None):
        self.key = "hits", top_k, ignore_index
        self.top_k, self.ignore_index = top_k, ignore_index
        self.hits = self.total = np.zeros((), np.int64)

    def update(self, batch: Batch) -> None:
        if self.top_k == 1:
            right = batch.labels == batch.target
        else:
            right = (batch.top(self.top_k) == batch.target[:, None]).any(1)
        if self.ignore_index is not None:
            right = right[batch.kept(self.ignore_index)]
        self.hits = self.hits + np.count_nonzero(right)
        self.total = self.total + right.size


class TopCounts(State):
    """tp, fp and fn of each class, where each sample predicts its k highest classes at once."""

    names = ("positives",)

    def __init__(self, num_classes: int, top_k: int, ignore_index: int | None):
        self.key = "top", num_classes, top_k, ignore_index
        self.num_classes, self.top_k, self.ignore_index = num_classes, top_k, ignore_index
        self.positives = np.zeros((3, num_classes), np.int64)

    def update(self, batch: Batch) -> None:
        kept = batch.kept(self.ignore_index)
        top, target = batch.top(self.top_k)[kept], batch.target[kept]
        check_labels(target, self.num_classes, "target")
        count = lambda labels: np.bincount(labels, minlength=self.num_classes)
        tp = count(target[(top == target[:, None]).any(1)])
        self.positives += np.stack([tp, count(top.ravel()) - tp, count(target) - tp])


class _OfPositives(Metric):
    """A ratio of tp, fp and fn."""

    higher_is_better = True

    def __init__(self, task: str = "multiclass", num_classes: int | None = None, *, average: str | None = "micro", top_k: int = 1,
                 threshold: float = 0.5, ignore_index: int | None = None):
        name = type(self).__name__
        check_options(name, task, num_classes, average, top_k)
        self.task, self.average = task, average or "none"
        if task == "binary":
            if num_classes not in (None, 2) or top_k != 1:
                raise UsageError(f"{name}: task='binary' has 2 classes and top_k=1, received num_classes={num_classes}, top_k={top_k}")
            self.state = Counts(task, 2, threshold, ignore_index)
        else:
            self.state = self._state(num_classes, top_k, ignore_index)

    def _state(self, num_classes: int | None, top_k: int, ignore_index: int | None) -> State:
        if num_classes is None:
            raise UsageError(f"{type(self).__name__}: expected num_classes")
        return Counts("multiclass", num_classes, 0.5, ignore_index) if top_k == 1 else TopCounts(num_classes, top_k, ignore_index)

    def ratio(self, tp, fp, fn):
        """(numerator, denominator)."""
        raise NotImplementedError

    def compute(self):
        """A float, or with average="none" float64 (C,)."""
        tp, fp, fn = self._positives()
        if self.task == "binary":
            return float(_divided(*self.ratio(tp[1], fp[1], fn[1])))
        if self.average == "micro":
            return float(_divided(*self.ratio(tp.sum(), fp.sum(), fn.sum())))
        values = _divided(*self.ratio(tp, fp, fn))
        if self.average == "none":
            return values
        weights = tp + fn if self.average == "weighted" else (tp + fp + fn > 0).astype(float)
        return float(_divided((values * weights).sum(), weights.sum()))

    def _positives(self):
        if isinstance(self.state, TopCounts):
            return self.state.positives
        counts = self.state.counts
        tp = np.diag(counts)
        return tp, counts.sum(0) - tp, counts.sum(1) - tp


def _divided(a, b) -> np.ndarray:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.divide(a, b, out=np.zeros(np.broadcast(a, b).shape), where=b != 0)


class Precision(_OfPositives):
    """tp / (tp + fp): how many of those called so are."""

    def ratio(self, tp, fp, fn):
        return tp, tp + fp


class Recall(_OfPositives):
    """tp / (tp + fn): how many of those that are, are called so."""

    def ratio(self, tp, fp, fn):
        return tp, tp + fn


class F1Score(_OfPositives):
    """The harmonic mean of precision and recall."""

    def ratio(self, tp, fp, fn):
        return 2 * tp, 2 * tp + fp + fn


class Accuracy(_OfPositives):
    """The share of samples whose target is the class of the highest score, or among the `top_k` highest.

    Parameters
    ----------
    task : "multiclass" or "binary"
    num_classes : int
        Not needed for "micro".
    average : "micro", "macro", "weighted" or "none"
        All but the first are of the classes' recalls.
    top_k : int
    threshold : float
        Of binary scores.
    ignore_index : int, optional
        A target that does not count.
    """

    def _state(self, num_classes, top_k, ignore_index):
        return Hits(top_k, ignore_index) if self.average == "micro" else super()._state(num_classes, top_k, ignore_index)

    def ratio(self, tp, fp, fn):
        return tp, tp + fn

    def compute(self):
        """A float, NaN of nothing; with average="none" float64 (C,)."""
        if isinstance(self.state, Hits):
            return float(self.state.hits / self.state.total) if self.state.total else float("nan")
        if self.task == "binary":                           # both classes count
            counts = self.state.counts
            return float(np.trace(counts) / counts.sum()) if counts.sum() else float("nan")
        return super().compute()
