"""A classifier on every window of a picture at once: where it sees which class, with boxes of the best windows and heat maps.

Sermanet et al.: OverFeat, ICLR 2014, arXiv:1312.6229, section 3.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import numbanet
from numbanet._tensor import Tensor
from numbanet.autograd.grad_mode import no_grad
from numbanet.nn import functional as F
from numbanet.ops.boxes import nms
from numbanet.vision.explaining import overlay
from numbanet.vision.layers import evaluating


@dataclass
class WindowScores:
    """What a classifier says of the windows of a picture.

    Attributes
    ----------
    probabilities : float32 (C, OH, OW)
        Of the classes, at each window.
    size : (int, int)
        Height and width of a window, in pixels.
    stride : int
        Pixels from window to window.
    """

    probabilities: np.ndarray
    size: tuple[int, int]
    stride: int

    def box(self, row: int, column: int) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) of a window, the last two exclusive."""
        top, left = row * self.stride, column * self.stride
        return left, top, left + self.size[1], top + self.size[0]

    def best(self, category: int, most: int = 5, least: float = 0.5, overlap: float = 0.3) -> list[tuple[tuple[int, int, int, int], float]]:
        """(box, probability) of the windows surest of a class, of which none overlaps a better one by more than `overlap`; those of
        probability `least` and more, and the best in any case."""
        scores = self.probabilities[category].reshape(-1)
        columns = self.probabilities.shape[2]
        boxes = np.array([self.box(i // columns, i % columns) for i in range(len(scores))], np.float32)
        kept = nms(numbanet.tensor(boxes), numbanet.tensor(np.ascontiguousarray(scores)), overlap).numpy()[:most]
        return [(tuple(int(edge) for edge in boxes[i]), float(scores[i])) for n, i in enumerate(kept) if n == 0 or scores[i] >= least]

    def map(self, category: int, height: int, width: int) -> np.ndarray:
        """float32 (height, width): the class's probability at each pixel, that of the windows in whose middle it lies, interpolated
        between them and repeated beyond the outermost."""
        rows, columns = (self._weights(n, size, count) for n, size, count in zip((height, width), self.size,
                                                                                 self.probabilities.shape[1:]))
        return (rows @ self.probabilities[category] @ columns.T).astype(np.float32)

    def _weights(self, n: int, size: int, count: int) -> np.ndarray:
        """(n, count): how much each window counts at each pixel of an axis."""
        at = np.clip((np.arange(n) + 0.5 - size / 2) / self.stride, 0, count - 1)
        low = np.minimum(at.astype(np.int64), max(count - 2, 0))
        made = np.zeros((n, count))
        made[np.arange(n), low] = 1 - (at - low)
        if count > 1:
            made[np.arange(n), low + 1] = at - low
        return made


def sliding_windows(model, x: Tensor, input_size=None) -> WindowScores:
    """A classifier of the zoo on all windows of a picture, computed at once.

    Parameters
    ----------
    model : a classifier, or a FullyConvolutional
    x : Tensor (1, C, H, W), at least as large as a window
    input_size : (H, W), optional
        Of a window; by default what the model was made for.

    Raises
    ------
    UsageError, UnsupportedOperationError
        The model cannot be converted: see ``to_fully_convolutional``.
    ShapeError
        The picture is smaller than a window.
    """
    if not hasattr(model, "windows"):
        from numbanet.zoo.fully_convolutional import fully_convolutional
        model = fully_convolutional(model, input_size)
    with evaluating(model), no_grad():
        probabilities = F.softmax(model(x), 1).numpy()[0]
    return WindowScores(probabilities, model.windows.size, model.windows.stride)


def heatmap_sheet(scores: WindowScores, category: int, pixels: np.ndarray, label: str, title: str, lines):
    """The picture with the best windows, the heat map over it, and the windows' probabilities."""
    from numbanet.vision.colours import colourise
    from numbanet.vision.composition import ACCENT, Cell, Scale, Section, compose
    height, width = pixels.shape[:2]
    heat = scores.map(category, height, width)
    rgb = np.broadcast_to(pixels.reshape(height, width, -1), (height, width, 3)) / 255
    marks = [((top, left, bottom, right), ACCENT) for (left, top, right, bottom), _ in scores.best(category)]
    grid = scores.probabilities[category]
    cells = [Cell(pixels, ("the surest windows",), True, boxes=marks[::-1]),
             Cell(overlay(rgb, heat, True), (f"{label}: its probability",), True),
             Cell(colourise(grid, "heat", 0, 1), (f"{grid.shape[0]} x {grid.shape[1]} windows",), False)]
    return compose(title, lines, [Section(cells, "", 3, Scale("heat", 0, 1, "probability"))])
