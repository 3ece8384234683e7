"""Training pictures of a detector in another way each time, and their boxes with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from numbanet.errors import UsageError

SEEN = 0.4          # of a box's area that has to be left for it to be looked for; what is left of others counts neither way


@dataclass(frozen=True)
class Augmentation:
    """Mirror images, and parts or smaller copies of pictures.

    Attributes
    ----------
    flip : float
        Probability of a mirror image, left to right.
    zoom : (float, float)
        Smallest and largest scale: below 1 the picture has grey around it, above 1 it is a part.
    """

    flip: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self):
        if not 0 <= self.flip <= 1:
            raise UsageError(f"--flip: expected a probability from 0 to 1, received {self.flip}")
        if len(self.zoom) != 2 or not 0.1 <= self.zoom[0] <= self.zoom[1] <= 10:
            raise UsageError(f"--zoom: expected two scales from 0.1 to 10, the smaller first, received {list(self.zoom)}")

    def __call__(self, pixels: np.ndarray, truth: dict, rng: np.random.Generator) -> tuple[np.ndarray, dict]:
        """(uint8 (H, W, 3), {boxes, labels, crowd}) of the same."""
        if self.flip and rng.random() < self.flip:
            pixels, truth = flipped(pixels, truth)
        if self.zoom != (1.0, 1.0):
            scale, (x, y) = float(np.exp(rng.uniform(*np.log(self.zoom)))), rng.random(2)
            pixels, truth = zoomed(pixels, truth, scale, x, y)
        return pixels, truth


def flipped(pixels: np.ndarray, truth: dict) -> tuple[np.ndarray, dict]:
    """The mirror image, left to right."""
    boxes, width = truth["boxes"], pixels.shape[1]
    return pixels[:, ::-1], {**truth, "boxes": np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)}


def zoomed(pixels: np.ndarray, truth: dict, scale: float, x: float, y: float) -> tuple[np.ndarray, dict]:
    """A part of the picture enlarged, or the picture made smaller on grey; x and y, from 0 to 1, are where it lies."""
    height, width = pixels.shape[:2]
    size = max(1, round(scale * width)), max(1, round(scale * height))
    left, top = round(x * (width - size[0])), round(y * (height - size[1]))         # negative: what is cut off
    across, down = size[0] / width, size[1] / height
    picture = Image.fromarray(pixels)
    source = [max(0.0, -left / across), max(0.0, -top / down), min(width, (width - left) / across), min(height, (height - top) / down)]
    shown = min(size[0], width), min(size[1], height)
    part = np.asarray(picture.resize(shown, Image.Resampling.BILINEAR, tuple(source)))
    made = np.full_like(pixels, 114)
    made[max(0, top):max(0, top) + shown[1], max(0, left):max(0, left) + shown[0]] = part
    moved = truth["boxes"] * np.float32([across, down, across, down]) + np.float32([left, top, left, top])
    return made, clipped({**truth, "boxes": moved}, height, width)


def clipped(truth: dict, height: int, width: int) -> dict:
    """Boxes cut at the edges of a picture; those of which little is left are to be ignored, those of which nothing is left go."""
    boxes = truth["boxes"]
    inside = np.clip(boxes, 0, np.float32([width, height, width, height]))
    area, left = (np.prod(b[:, 2:] - b[:, :2], 1) for b in (boxes, inside))
    there = left > 0
    return {"boxes": inside[there], "labels": truth["labels"][there], "crowd": (truth["crowd"] | (left < SEEN * area))[there]}
