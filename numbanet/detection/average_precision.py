"""Mean average precision and recall of detections, as COCO's own program (pycocotools) computes them.

Lin et al. (2014), Microsoft COCO: Common Objects in Context, arXiv:1405.0312, and https://cocodataset.org/#detection-eval:

- Detections of a class on a picture, by falling score, each take the box of that class that they overlap most, if by the threshold at
  least, and if it is free; crowds may be taken by many. A detection that took a box to be ignored (a crowd, or of an area out of range), or
  that took none and is itself of an area out of range, counts neither way.
- Over all pictures, by falling score: precision at 101 recalls 0, 0.01, ..., 1, each the highest at that recall or beyond.
- AP is the mean over thresholds 0.5, 0.55, ..., 0.95 and over classes that occur; AR the mean of the highest recall with at most so many
  detections a picture.

The overlap with a crowd is the part of the detection that lies in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from numbanet.errors import ShapeError, UsageError

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
MOST = (1, 10, 100)             # detections of a class on a picture
_EPSILON = np.spacing(1)


@dataclass
class AveragePrecision:
    """What :meth:`MeanAveragePrecision.compute` found; -1 where there is nothing to judge by, as in pycocotools.

    Attributes
    ----------
    values : dict
        COCO's twelve numbers: AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl.
    per_class : dict
        AP of each class, by its number.
    precision : float64 (10 thresholds, 101 recalls, classes, 4 areas, 3 numbers of detections)
    recall : float64 (10 thresholds, classes, 4 areas, 3 numbers of detections)
    """

    values: dict[str, float]
    per_class: dict[int, float]
    precision: np.ndarray = field(repr=False)
    recall: np.ndarray = field(repr=False)


class MeanAveragePrecision:
    """Gathers pictures, each with what is on it and what was found, and judges them together.

    Parameters
    ----------
    num_classes : int
    """

    def __init__(self, num_classes: int):
        if not isinstance(num_classes, int) or num_classes < 1:
            raise UsageError(f"MeanAveragePrecision: num_classes expects an integer of at least 1, received {num_classes!r}")
        self.num_classes = num_classes
        self.reset()

    def reset(self) -> None:
        self._pictures: list[tuple[dict, dict]] = []

    def update(self, found: dict, truth: dict) -> None:
        """Add a picture.

        Parameters
        ----------
        found : dict
            `boxes` (K, 4) as left, top, right, bottom, `scores` (K,), `labels` (K,).
        truth : dict
            `boxes` (M, 4), `labels` (M,), and where they are known `crowd` bool (M,) and `area` (M,), by default those of the boxes.

        Raises
        ------
        ShapeError, UsageError
            Arrays that do not fit each other, or a label that is no class.
        """
        found, truth = ({name: np.asarray(value) for name, value in part.items()} for part in (found, truth))
        for name, part, others in (("found", found, ("scores", "labels")), ("truth", truth, ("labels", "crowd", "area"))):
            boxes = part["boxes"] = np.asarray(part["boxes"], np.float64).reshape(-1, 4)
            for other in others:
                if other in part and part[other].shape != boxes.shape[:1]:
                    raise ShapeError(f"MeanAveragePrecision: {other} of {name} expects shape {boxes.shape[:1]}, received {part[other].shape}")
            labels = part["labels"]
            if len(labels) and not (labels.min() >= 0 and labels.max() < self.num_classes):
                raise UsageError(f"MeanAveragePrecision: labels of {name} expects 0 to {self.num_classes - 1}, received {labels.min()} to "
                                 f"{labels.max()}")
        truth.setdefault("crowd", np.zeros(len(truth["boxes"]), bool))
        truth.setdefault("area", np.prod(truth["boxes"][:, 2:] - truth["boxes"][:, :2], 1))
        self._pictures.append((found, truth))

    def compute(self, areas=tuple(AREAS)) -> AveragePrecision:
        """Judge all pictures that were added. `areas`: of which ranges; the values of others are left out."""
        shape = len(THRESHOLDS), self.num_classes, len(areas), len(MOST)
        precision, recall = np.full((shape[0], len(RECALLS), *shape[1:]), -1.0), np.full(shape, -1.0)
        for k in range(self.num_classes):
            pictures = [p for p in (_OfClass.select(found, truth, k) for found, truth in self._pictures) if p is not None]
            for a, area in enumerate(areas):
                matched = [picture.match(AREAS[area]) for picture in pictures]
                for m, most in enumerate(MOST):
                    made = _accumulate(matched, most)
                    if made is not None:
                        precision[:, :, k, a, m], recall[:, k, a, m] = made
        return AveragePrecision(_summary(precision, recall, areas), {k: _mean(precision[:, :, k, 0, -1]) for k in range(self.num_classes)},
                                precision, recall)


@dataclass
class _OfClass:
    """Detections of one class on one picture, by falling score, its boxes, and how much they overlap."""

    scores: np.ndarray          # (D,)
    areas: np.ndarray           # (D,)
    overlaps: np.ndarray        # (D, G)
    crowd: np.ndarray           # (G,)
    true_areas: np.ndarray      # (G,)

    @classmethod
    def select(cls, found: dict, truth: dict, k: int) -> _OfClass | None:
        mine, true = found["labels"] == k, truth["labels"] == k
        if not mine.any() and not true.any():
            return None
        scores = found["scores"][mine]
        order = np.argsort(-scores, kind="mergesort")[:MOST[-1]]
        boxes, crowd = found["boxes"][mine][order], truth["crowd"][true].astype(bool)
        return cls(scores[order], np.prod(boxes[:, 2:] - boxes[:, :2], 1), _overlaps(boxes, truth["boxes"][true], crowd), crowd,
                   truth["area"][true])

    def match(self, area: tuple[float, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """(scores, whether detections (T, D) took a box, whether they are ignored, number of boxes that count)."""
        ignored = self.crowd | (self.true_areas < area[0]) | (self.true_areas > area[1])
        order = np.argsort(ignored, kind="mergesort")                   # those that count come first
        ignored, crowd, overlaps = ignored[order], self.crowd[order], self.overlaps[:, order]
        T, D, G = len(THRESHOLDS), len(self.scores), len(ignored)
        taken, took, skipped = np.zeros((T, G), bool), np.zeros((T, D), bool), np.zeros((T, D), bool)
        for t, threshold in enumerate(THRESHOLDS):
            for d in range(D):
                best, least = -1, min(threshold, 1 - 1e-10)
                for g in range(G):
                    if taken[t, g] and not crowd[g]:
                        continue
                    if best > -1 and not ignored[best] and ignored[g]:
                        break                                           # it has one that counts already
                    if overlaps[d, g] >= least:
                        best, least = g, overlaps[d, g]
                if best > -1:
                    took[t, d], skipped[t, d], taken[t, best] = True, ignored[best], True
        out = (self.areas < area[0]) | (self.areas > area[1])
        return self.scores, took, skipped | (~took & out), int((~ignored).sum())


def _overlaps(found: np.ndarray, true: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """IoU of (D, 4) and (G, 4); of a crowd, the part of the detection that lies in it."""
    sides = np.minimum(found[:, None, 2:], true[:, 2:]) - np.maximum(found[:, None, :2], true[:, :2])
    common = np.prod(np.where((sides > 0).all(2, keepdims=True), sides, 0.0), 2)
    own, other = np.prod(found[:, 2:] - found[:, :2], 1), np.prod(true[:, 2:] - true[:, :2], 1)
    union = np.where(crowd, own[:, None], own[:, None] + other - common)
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def _accumulate(matched: list, most: int):
    """(precision (T, R), recall (T,)) over all pictures; None where no box counts."""
    count = sum(m[3] for m in matched)
    if not count:
        return None
    scores = np.concatenate([m[0][:most] for m in matched])
    order = np.argsort(-scores, kind="mergesort")
    took, skipped = (np.concatenate([m[i][:, :most] for m in matched], 1)[:, order] for i in (1, 2))
    right, wrong = (took & ~skipped).cumsum(1).astype(np.float64), (~took & ~skipped).cumsum(1).astype(np.float64)
    precision, recall = np.zeros((len(THRESHOLDS), len(RECALLS))), np.zeros(len(THRESHOLDS))
    for t, (r, w) in enumerate(zip(right, wrong)):
        if not len(r):
            continue
        reached, exact = r / count, r / (r + w + _EPSILON)
        recall[t] = reached[-1]
        exact = np.maximum.accumulate(exact[::-1])[::-1]                # the highest at that recall or beyond
        at = np.searchsorted(reached, RECALLS, side="left")
        precision[t] = np.where(at < len(exact), exact[np.minimum(at, len(exact) - 1)], 0.0)
    return precision, recall


def _mean(values: np.ndarray) -> float:
    """Over what is known."""
    known = values[values > -1]
    return float(known.mean()) if known.size else -1.0


def _summary(precision: np.ndarray, recall: np.ndarray, areas: tuple) -> dict[str, float]:
    """COCO's numbers; those of areas that were not asked for are left out."""
    values = {}
    for area in areas:
        a, letter = areas.index(area), "" if area == "all" else area[0]
        values[f"AP{letter}"] = _mean(precision[..., a, -1])
        if area == "all":
            values["AP50"], values["AP75"] = _mean(precision[0, :, :, a, -1]), _mean(precision[5, :, :, a, -1])
            values |= {f"AR{most}": _mean(recall[:, :, a, m]) for m, most in enumerate(MOST)}
        else:
            values[f"AR{letter}"] = _mean(recall[:, :, a, -1])
    order = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
    return {name: values[name] for name in order if name in values}
