"""The confusion matrix: counts[true, predicted]."""

from __future__ import annotations

import numpy as np

from numbanet.errors import UsageError
from numbanet.train.metrics.metric import Batch, Metric, State, check_labels, check_options


class Counts(State):
    """counts[true, predicted] of all pairs of classes."""

    names = ("counts",)

    def __init__(self, task: str, num_classes: int, threshold: float, ignore_index: int | None):
        self.key = "confusion", task, num_classes, threshold, ignore_index
        self.task, self.num_classes, self.threshold, self.ignore_index = task, num_classes, threshold, ignore_index
        self.counts = np.zeros((num_classes, num_classes), np.int64)

    def update(self, batch: Batch) -> None:
        kept = batch.kept(self.ignore_index)
        labels = binary_labels(batch, self.threshold) if self.task == "binary" else batch.labels
        predicted, true = labels[kept], batch.target[kept]
        check_labels(true, self.num_classes, "target")
        check_labels(predicted, self.num_classes, "preds")
        pairs = np.bincount(true.astype(np.int64) * self.num_classes + predicted, minlength=self.num_classes**2)
        self.counts += pairs.reshape(self.counts.shape)


def binary_labels(batch: Batch, threshold: float) -> np.ndarray:
    """Of (N,) probabilities or logits (any outside of 0..1), or labels; of (N, 2) scores the larger."""
    scores = batch.scores
    if scores.ndim == 2 or scores.dtype.kind != "f":
        return batch.labels
    if scores.size and not ((scores >= 0) & (scores <= 1)).all():
        with np.errstate(over="ignore"):
            scores = 1 / (1 + np.exp(-scores))
    return (scores > threshold).astype(np.int64)


class ConfusionMatrix(Metric):
    """counts[true, predicted].

    Parameters
    ----------
    num_classes : int
        2 with ``task="binary"``.
    task : "multiclass" or "binary"
    normalize : "true", "pred", "all" or None
        Divide by the sums of rows, of columns, or of all; a sum of 0 gives 0.
    threshold : float
        Of binary scores.
    ignore_index : int, optional
        A target that does not count.
    """

    def __init__(self, num_classes: int = 2, task: str = "multiclass", normalize: str | None = None, threshold: float = 0.5,
                 ignore_index: int | None = None):
        check_options("ConfusionMatrix", task, num_classes, None, 1)
        if normalize not in ("true", "pred", "all", "none", None):
            raise UsageError(f"ConfusionMatrix: normalize expects 'true', 'pred', 'all' or None, received {normalize!r}")
        self.normalize = normalize
        self.state = Counts(task, num_classes, threshold, ignore_index)

    @property
    def counts(self) -> np.ndarray:
        """int64 (C, C)."""
        return self.state.counts

    def compute(self) -> np.ndarray:
        """(C, C): counts, or shares as `normalize` says."""
        counts = self.counts
        axis = {"true": 1, "pred": 0, "all": (0, 1)}.get(self.normalize)
        if axis is None:
            return counts.copy()
        sums = counts.sum(axis, keepdims=True)
        return np.divide(counts, sums, out=np.zeros(counts.shape), where=sums != 0)

    @property
    def accuracy(self) -> float:
        """The share on the diagonal; NaN of nothing."""
        total = self.counts.sum()
        return float(np.trace(self.counts) / total) if total else float("nan")

    def table(self, names, limit: int = 14) -> str:
        """The matrix as text, rows the true classes; above `limit` classes the most frequent confusions instead."""
        if len(names) > limit:
            return self._confusions(names)
        short = [str(n)[:8] for n in names]
        width = max(len(str(self.counts.max())), max(map(len, short))) + 1
        lines = [" " * 10 + "".join(n.rjust(width) for n in short)]
        for name, row in zip(short, self.counts):
            cells = "".join((str(count) if count else ".").rjust(width) for count in row)
            lines.append(name.rjust(9) + " " + cells)
        return "\n".join(lines)

    def most_confused(self, most: int = 10) -> list[tuple[int, int, int]]:
        """(true, predicted, count) of the most frequent confusions."""
        wrong = self.counts - np.diag(np.diag(self.counts))
        order = np.argsort(-wrong, axis=None, kind="stable")[:most]
        pairs = [np.unravel_index(i, wrong.shape) for i in order]
        return [(int(t), int(p), int(wrong[t, p])) for t, p in pairs if wrong[t, p]]

    def _confusions(self, names) -> str:
        lines = [f"  {names[t]} taken for {names[p]}: {count}" for t, p, count in self.most_confused()]
        return "\n".join(["most frequent confusions:", *lines]) if lines else "no confusions"
