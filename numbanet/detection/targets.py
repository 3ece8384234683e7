"""What each position of a detector's levels is to say: boxes of a picture as a dense table, made beside the training, on the host.

FCOS (arXiv:1904.01355), with its sampling around the middle: a position answers for a box of its level's sizes if it lies within it and
close to its middle; of several the smallest. A box for which none is left takes the position next to its middle, so that none is forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RADIUS = 1.5            # strides from a box's middle to the positions that answer for it
SIZES = 8               # strides that the longer side of a box is long, at most, of what a level is for
BACKGROUND, IGNORED = -1, -2
COLUMNS = 5             # of a target: class, left, top, right, bottom


@dataclass(frozen=True)
class Levels:
    """The positions of a detector on pictures of one size.

    Attributes
    ----------
    size : (H, W) of the pictures
    strides : of the levels
    """

    size: tuple[int, int]
    strides: tuple[int, ...]

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Rows and columns of each level; at the right and below the coarsest one may reach beyond the picture, and so all do."""
        last = self.strides[-1]
        return [tuple(-(-n // last) * last // stride for n in self.size) for stride in self.strides]

    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """x and y of all positions (P, 2), and the stride of each (P,)."""
        made, strides = [], []
        for stride, (height, width) in zip(self.strides, self.shapes):
            y, x = np.mgrid[:height, :width]
            made.append((np.stack([x, y], 2).reshape(-1, 2) + 0.5) * stride)
            strides.append(np.full(height * width, stride))
        return np.concatenate(made).astype(np.float32), np.concatenate(strides)

    def encode(self, boxes: np.ndarray, labels: np.ndarray, crowd: np.ndarray | None = None) -> np.ndarray:
        """Targets float32 (P, 5) of the boxes (K, 4) on a picture: the class or -1 for background, and the box.

        Positions within a box that `crowd` (K,) marks are -2, which no loss looks at, unless they answer for another box.
        """
        points, strides = self.points()
        targets = np.zeros((len(points), COLUMNS), np.float32)
        targets[:, 0] = BACKGROUND
        if crowd is not None and crowd.any():
            for box in boxes[crowd]:
                targets[((points >= box[:2]) & (points <= box[2:])).all(1), 0] = IGNORED
            boxes, labels = boxes[~crowd], labels[~crowd]
        if not len(boxes):
            return targets
        order = np.argsort(-np.prod(boxes[:, 2:] - boxes[:, :2], 1), kind="stable")      # the smallest is written last
        boxes, labels = boxes[order], labels[order]
        edges = np.concatenate([points[:, None] - boxes[None, :, :2], boxes[None, :, 2:] - points[:, None]], 2)      # (P, K, 4)
        middles = (boxes[:, :2] + boxes[:, 2:]) / 2
        apart = np.abs(points[:, None] - middles).max(2)                                 # (P, K)
        level = _level_of(np.max(boxes[:, 2:] - boxes[:, :2], 1) / 2, self.strides)
        answers = (edges.min(2) > 0) & (apart <= RADIUS * strides[:, None]) & (strides[:, None] == level)
        owner = np.where(answers.any(1), len(boxes) - 1 - answers[:, ::-1].argmax(1), -1)
        for k in range(len(boxes)):
            if not (owner == k).any():
                owner[_nearest(apart[:, k], strides == level[k], owner)] = k
        positive = owner >= 0
        targets[positive, 0] = labels[owner[positive]]
        targets[positive, 1:] = boxes[owner[positive]]
        return targets


def strides_for(size: int) -> tuple[int, ...]:
    """Of levels for objects up to pictures' `size`: 8, 16 and as many more."""
    strides = [8, 16]
    while SIZES * strides[-1] < size:
        strides.append(2 * strides[-1])
    return tuple(strides)


def _level_of(half: np.ndarray, strides: tuple[int, ...]) -> np.ndarray:
    """The stride of the level that boxes belong to whose longer side is twice `half`; the coarsest takes all larger ones."""
    limits = [SIZES * stride / 2 for stride in strides[:-1]]
    return np.asarray(strides)[np.searchsorted(limits, half)]


def _nearest(apart: np.ndarray, of_level: np.ndarray, owner: np.ndarray) -> int:
    """The position of a level that is next to a middle, of those that no other box has as its only one."""
    found = np.flatnonzero(of_level)
    found = found[np.argsort(apart[found], kind="stable")]
    return int(next((p for p in found if owner[p] < 0 or (owner == owner[p]).sum() > 1), found[0]))
