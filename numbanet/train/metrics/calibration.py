"""The calibration error: how far confidence is from accuracy (Naeini et al., AAAI 2015; Guo et al., ICML 2017).

Samples are binned by confidence, the probability of the predicted class. With c_b the mean confidence, a_b the accuracy and w_b the
share of the samples of bin b:

    l1 (expected)  sum_b w_b |a_b - c_b|     l2  sqrt(sum_b w_b (a_b - c_b)^2)     max  max_b |a_b - c_b|
"""

from __future__ import annotations

import numpy as np

from numbanet.errors import ShapeError, UsageError
from numbanet.train.metrics.metric import Batch, Metric, State


class Bins(State):
    """Samples, confidence and hits of each bin."""

    names = ("sums",)

    def __init__(self, n_bins: int, ignore_index: int | None):
        self.key = "calibration", n_bins, ignore_index
        self.n_bins, self.ignore_index = n_bins, ignore_index
        self.sums = np.zeros((3, n_bins))

    def update(self, batch: Batch) -> None:
        if batch.scores.ndim != 2:
            raise ShapeError(f"CalibrationError: preds expects scores (N, C), received {batch.scores.shape}")
        kept = batch.kept(self.ignore_index)
        scores, labels, target = batch.scores[kept].astype(np.float64), batch.labels[kept], batch.target[kept]
        if scores.size and not ((scores >= 0) & (scores <= 1)).all():       # logits
            scores = np.exp(scores - scores.max(1, keepdims=True))
            scores /= scores.sum(1, keepdims=True)
        confidence = scores[np.arange(len(scores)), labels]
        if not np.isfinite(confidence).all():
            raise UsageError("CalibrationError: scores are not finite")
        # bins are open below and closed above, as in the papers; 0 falls into the first
        position = np.clip(np.ceil(confidence * self.n_bins).astype(int) - 1, 0, self.n_bins - 1)
        for row, weights in enumerate((None, confidence, (labels == target).astype(float))):
            self.sums[row] += np.bincount(position, weights, self.n_bins)


class CalibrationError(Metric):
    """The difference between confidence and accuracy.

    Parameters
    ----------
    n_bins : int
    norm : "l1", "l2" or "max"
    ignore_index : int, optional
        A target that does not count.
    """

    higher_is_better = False

    def __init__(self, n_bins: int = 15, norm: str = "l1", ignore_index: int | None = None):
        if not isinstance(n_bins, int) or n_bins < 1:
            raise UsageError(f"CalibrationError: n_bins expects an integer of at least 1, received {n_bins!r}")
        if norm not in ("l1", "l2", "max"):
            raise UsageError(f"CalibrationError: norm expects 'l1', 'l2' or 'max', received {norm!r}")
        self.norm, self.state = norm, Bins(n_bins, ignore_index)

    def compute(self) -> float:
        """NaN of nothing."""
        count, confidence, hits = self.state.sums
        if not count.sum():
            return float("nan")
        used = count > 0
        gap = np.abs(hits[used] - confidence[used]) / count[used]
        share = count[used] / count.sum()
        return float({"l1": (share * gap).sum(), "l2": np.sqrt((share * gap**2).sum()), "max": gap.max()}[self.norm])
