"""Rectangles (left, top, right, bottom): how much they overlap, and which of many that overlap remain.

    common(a, b)         max(0, min(right) - max(left)) * max(0, min(bottom) - max(top))
    overlap(a, b)        common / (area(a) + area(b) - common), or with `smaller` common / min(area(a), area(b))
    nms                  in the order of falling scores: a box remains unless overlap(a, b) > iou_threshold with one that remains

area(a) = (right - left) * (bottom - top), of any sign, as in torchvision. A NaN overlaps nothing; as a score it is the greatest; of
equal scores the first box comes first.
"""

from __future__ import annotations

import math

import numpy as np

from numbanet.backends.contract.checks import check_float, check_rank, check_shape
from numbanet.backends.interface import Array, ArraySpec, primitive
from numbanet.errors import DTypeError, ShapeError, UsageError

INT64 = np.dtype(np.int64)


def _check_boxes(operation: str, name: str, boxes) -> None:
    check_rank(operation, name, boxes, 2, "(count, 4)")
    if boxes.shape[1] != 4:
        raise ShapeError(f"{operation}: {name} expects 4 columns, left, top, right and bottom, received shape {boxes.shape}")


@primitive
def box_iou(boxes1: Array, boxes2: Array):
    """Intersection over union of each of (N, 4) with each of (M, 4): (N, M)."""
    check_float("box_iou", boxes1=boxes1, boxes2=boxes2)
    _check_boxes("box_iou", "boxes1", boxes1)
    _check_boxes("box_iou", "boxes2", boxes2)
    return ArraySpec((boxes1.shape[0], boxes2.shape[0]), boxes1.dtype)


@primitive
def nms(boxes: Array, scores: Array, classes: Array | None, iou_threshold: float, smaller: bool = False):
    """Boxes (N, 4) that remain beside better ones of the same class (N,): (positions int64 (N,), best first, then -1; int64 (1,) count)."""
    check_float("nms", boxes=boxes, scores=scores)
    _check_boxes("nms", "boxes", boxes)
    check_shape("nms", "scores", scores, boxes.shape[:1])
    check_shape("nms", "classes", classes, boxes.shape[:1])
    if classes is not None and classes.dtype != INT64:
        raise DTypeError(f"nms: classes expects int64, received {classes.dtype}; convert it with .long()")
    if not (math.isfinite(iou_threshold) and 0 <= iou_threshold <= 1):
        raise UsageError(f"nms: iou_threshold expects a number from 0 to 1, received {iou_threshold}")
    return ArraySpec(boxes.shape[:1], INT64), ArraySpec((1,), INT64)
