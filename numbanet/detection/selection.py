"""From a detector's scores at all positions to a list of objects."""

from __future__ import annotations

import numpy as np

import numbanet
from numbanet.ops.boxes import batched_nms

THRESHOLD = 0.05        # of scores: lower ones are no use even to mean average precision
SURE = 0.5              # least score of what people are told
OVERLAP = 0.6           # boxes of a class that overlap a better one by more go
CANDIDATES, MOST = 1000, 100


def select(boxes: np.ndarray, scores: np.ndarray, threshold: float = THRESHOLD, overlap: float = OVERLAP, most: int = MOST) -> dict:
    """The objects on one picture, the surest first.

    Parameters
    ----------
    boxes : float32 (P, 4)
    scores : float32 (P, classes)
    threshold : float
        Least score.
    overlap : float
        Of two boxes of one class that overlap by more (intersection over union) only the better one remains.
    most : int

    Returns
    -------
    dict of boxes float32 (K, 4), scores float32 (K,) and labels int64 (K,)
    """
    position, label = np.nonzero(scores > threshold)
    values = scores[position, label]
    if len(values) > CANDIDATES:
        best = np.argsort(-values, kind="stable")[:CANDIDATES]
        position, label, values = position[best], label[best], values[best]
    label = label.astype(np.int64)
    kept = batched_nms(*map(numbanet.tensor, (np.ascontiguousarray(boxes[position]), values, label)), overlap).numpy()[:most]
    return {"boxes": boxes[position[kept]], "scores": values[kept], "labels": label[kept]}
