"""A metric: a state that batches are counted into, and a function of it.

Metrics of one collection that count the same share one state, so that accuracy, precision, recall, F1 and the confusion matrix
cost one pass over the batch together.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np

from numbanet._tensor import Tensor
from numbanet.errors import IndexRangeError, ShapeError, UsageError

TASKS = ("multiclass", "binary")


class State:
    """Sums over all samples so far. `key` says what is counted: states of equal keys are interchangeable."""

    key: tuple
    names: tuple[str, ...]                  # its arrays

    def update(self, batch: Batch) -> None:
        raise NotImplementedError

    def reset(self) -> None:
        for name in self.names:
            setattr(self, name, np.zeros_like(getattr(self, name)))

    def arrays(self) -> list[np.ndarray]:
        """The sums, which add up over the parts of a data set."""
        return [getattr(self, name) for name in self.names]

    def load(self, arrays) -> None:
        for name, value in zip(self.names, arrays, strict=True):
            setattr(self, name, np.array(value, getattr(self, name).dtype).reshape(getattr(self, name).shape))


class Batch:
    """Predictions and targets of a batch, brought to (N, C) scores or (N,) labels and (N,) labels; what several states need is
    computed once."""

    def __init__(self, preds, target):
        preds, target = _host(preds), _host(target)
        if target.ndim == preds.ndim and target.dtype.kind == "f" and preds.dtype.kind == "f" and target.shape == preds.shape \
                and target.ndim > 1:
            target = target.argmax(1)                       # probabilities of classes, of mixed samples
        if preds.ndim == target.ndim + 1:                   # (N, C, ...): a pixel is a sample
            preds = np.moveaxis(preds, 1, -1).reshape(-1, preds.shape[1]) if preds.ndim > 2 else preds
        elif preds.shape != target.shape:
            raise ShapeError(f"metric: preds expects (N, C, ...) scores or labels of target's shape {target.shape}, received {preds.shape}")
        else:
            preds = preds.reshape(-1)
        if target.dtype.kind not in "iub":
            raise ShapeError(f"metric: target expects class indices, or probabilities of preds' shape, received {target.dtype} of shape "
                             f"{target.shape}")
        self.scores, self.target, self.shape = preds, target.reshape(-1), target.shape
        self._labels: np.ndarray | None = None

    @property
    def labels(self) -> np.ndarray:
        """(N,) the class of the highest score; the first of equals."""
        if self._labels is None:
            if self.scores.ndim == 2:
                self._labels = self.scores.argmax(1)
            elif self.scores.dtype.kind == "f":
                raise ShapeError("metric: preds of one dimension are labels and expect integers, received scores; binary scores need "
                                 "task='binary'")
            else:
                self._labels = self.scores
        return self._labels

    def top(self, k: int) -> np.ndarray:
        """(N, k) the classes of the k highest scores; of equal scores the first classes."""
        if self.scores.ndim != 2 or self.scores.shape[1] < k:
            raise ShapeError(f"metric: top_k={k} expects scores (N, C) of at least {k} classes, received {self.scores.shape}")
        return np.argsort(-self.scores, axis=1, kind="stable")[:, :k]

    def kept(self, ignore_index: int | None) -> np.ndarray | slice:
        return slice(None) if ignore_index is None else self.target != ignore_index


def _host(values) -> np.ndarray:
    return values.detach().numpy() if isinstance(values, Tensor) else np.asarray(values)


def check_labels(labels: np.ndarray, num_classes: int, what: str) -> None:
    if labels.size and (labels.min() < 0 or labels.max() >= num_classes):
        wrong = labels[(labels < 0) | (labels >= num_classes)][0]
        raise IndexRangeError(f"metric: {what} expects classes from 0 to {num_classes - 1}, received {wrong}")


def check_options(name: str, task: str, num_classes, average: str | None, top_k: int) -> None:
    if task not in TASKS:
        raise UsageError(f"{name}: task expects {' or '.join(map(repr, TASKS))}, received {task!r}")
    if average not in ("micro", "macro", "weighted", "none", None):
        raise UsageError(f"{name}: average expects 'micro', 'macro', 'weighted' or 'none', received {average!r}")
    if not isinstance(top_k, int) or top_k < 1:
        raise UsageError(f"{name}: top_k expects an integer of at least 1, received {top_k!r}")
    if num_classes is not None and (not isinstance(num_classes, int) or num_classes < 2):
        raise UsageError(f"{name}: num_classes expects an integer of at least 2, received {num_classes!r}")


class Metric:
    """Base of the metrics; a subclass gives `state` and ``compute()``."""

    state: State
    higher_is_better: bool | None = None

    def update(self, preds, target) -> None:
        """Count a batch.

        Parameters
        ----------
        preds : Tensor or array (N, C, ...) of scores (logits or probabilities), or (N, ...) of labels
        target : Tensor or array (N, ...) of class indices, or of probabilities, of which the largest counts
        """
        self.state.update(Batch(preds, target))

    def compute(self):
        raise NotImplementedError(f"{type(self).__name__} implements compute()")

    def reset(self) -> None:
        """Forget all batches."""
        self.state.reset()

    def __call__(self, preds, target):
        """The value of one batch, which is counted as well."""
        alone = copy.deepcopy(self)
        alone.reset()
        alone.update(preds, target)
        self.update(preds, target)
        return alone.compute()


class MetricCollection(Mapping):
    """Metrics by name, updated together: each different state once a batch.

    Parameters
    ----------
    metrics : dict of name -> Metric, or a sequence of metrics, whose names are their classes'
    """

    def __init__(self, metrics):
        if isinstance(metrics, Metric):
            metrics = [metrics]
        if not isinstance(metrics, Mapping):
            names = [type(m).__name__ for m in metrics]
            twice = {name for name in names if names.count(name) > 1}
            if twice:
                raise UsageError(f"MetricCollection: several metrics are called {', '.join(sorted(twice))}; pass a dict of names")
            metrics = dict(zip(names, metrics))
        self._metrics = dict(metrics)
        states: dict[tuple, State] = {}
        for metric in self._metrics.values():
            metric.state = states.setdefault(metric.state.key, metric.state)
        self.states = list(states.values())

    def update(self, preds, target) -> None:
        """Count a batch in all metrics."""
        if self.states:
            batch = Batch(preds, target)
            for state in self.states:
                state.update(batch)

    def compute(self) -> dict:
        """{name: value}."""
        return {name: metric.compute() for name, metric in self._metrics.items()}

    def reset(self) -> None:
        """Forget all batches."""
        for state in self.states:
            state.reset()

    def __getitem__(self, name):
        return self._metrics[name]

    def __iter__(self):
        return iter(self._metrics)

    def __len__(self):
        return len(self._metrics)
