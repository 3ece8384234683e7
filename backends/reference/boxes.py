"""Overlaps of rectangles, and their suppression. See `contract/boxes.py`."""

from __future__ import annotations

import numpy as np

from numbanet.backends.reference import reduction
from numbanet.backends.reference.registry import implements


def areas_of(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def overlaps(box: np.ndarray, area, boxes: np.ndarray, areas: np.ndarray, smaller: bool = False) -> np.ndarray:
    """Of one box (4,) with others (K, 4)."""
    sides = np.maximum(np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2]), 0)
    common = sides[:, 0] * sides[:, 1]
    with np.errstate(all="ignore"):
        return common / (np.minimum(area, areas) if smaller else area + areas - common)


def order_of(scores: np.ndarray) -> np.ndarray:
    """Positions of falling scores: NaN first, equal ones as they stand."""
    found = np.empty_like(scores), np.empty(scores.shape, np.int64)
    reduction.sort(scores, 0, True, found)
    return found[1]


@implements
def box_iou(boxes1, boxes2, out):
    areas = areas_of(boxes2)
    for n, (box, area) in enumerate(zip(boxes1, areas_of(boxes1))):
        out[n] = overlaps(box, area, boxes2, areas)


@implements
def nms(boxes, scores, classes, iou_threshold, smaller, out):
    areas, rest, kept = areas_of(boxes), order_of(scores), []
    while len(rest):
        best, rest = rest[0], rest[1:]
        kept.append(best)
        beside = overlaps(boxes[best], areas[best], boxes[rest], areas[rest], smaller) > iou_threshold
        rest = rest[~(beside if classes is None else beside & (classes[rest] == classes[best]))]
    out[0][...] = -1
    out[0][:len(kept)] = kept
    out[1][0] = len(kept)
