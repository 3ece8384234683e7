"""What classification is judged by."""

from __future__ import annotations

import numpy as np


class ConfusionMatrix:
    """counts[true, predicted], updated batch by batch."""

    def __init__(self, classes: int):
        self.counts = np.zeros((classes, classes), np.int64)

    def update(self, predicted: np.ndarray, true: np.ndarray) -> None:
        np.add.at(self.counts, (true, predicted), 1)

    @property
    def accuracy(self) -> float:
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

    def _confusions(self, names, most: int = 10) -> str:
        wrong = self.counts - np.diag(np.diag(self.counts))
        order = np.argsort(wrong, axis=None)[::-1][:most]
        pairs = [np.unravel_index(i, wrong.shape) for i in order]
        lines = [f"  {names[t]} taken for {names[p]}: {wrong[t, p]}" for t, p in pairs if wrong[t, p]]
        return "\n".join(["most frequent confusions:", *lines]) if lines else "no confusions"
