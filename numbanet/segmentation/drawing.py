"""Labels of pixels drawn over their picture, and the legend that tells the colours."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np

from numbanet.data.datasets.mask_folder import VOID
from numbanet.vision.composition import Cell, Section, compose, save_sheet

# Colours that stay apart for the colour-blind too (Okabe and Ito 2008), then others.
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 92, 190), (213, 94, 0), (204, 121, 167), (122, 76, 220),
           (150, 90, 40), (120, 220, 120), (255, 130, 150), (90, 90, 90))
SHARE = 0.5             # of the colour over the picture


def class_colours(classes: Sequence[str]) -> np.ndarray:
    """uint8 (C, 3): a colour for each class; of one called background black, which is not drawn over pictures."""
    made, number = np.zeros((len(classes), 3), np.uint8), 0
    for i, name in enumerate(classes):
        if is_background(i, name):
            continue
        if number < len(COLOURS):
            made[i] = COLOURS[number]
        else:               # hues a golden angle apart
            made[i] = [round(255 * v) for v in colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.55 + 0.4 * (number % 2), 0.9)]
        number += 1
    return made


def is_background(index: int, name: str) -> bool:
    return index == 0 and name.lower() in ("background", "0", "_background_", "unlabeled", "unlabelled")


def overlay(picture: np.ndarray, labels: np.ndarray, classes: Sequence[str], share: float = SHARE) -> np.ndarray:
    """A picture tinted with the colours of its pixels' classes, edges between classes drawn in full colour.

    Parameters
    ----------
    picture : uint8 (H, W) or (H, W, 3)
    labels : integers (H, W); 255 and the background are left as they are

    Returns
    -------
    numpy.ndarray
        uint8 (H, W, 3)
    """
    rgb = np.broadcast_to(picture.reshape(*picture.shape[:2], -1), (*picture.shape[:2], 3))
    drawn = labels != VOID
    drawn &= ~(labels == 0) if is_background(0, classes[0]) else True
    colours = class_colours(classes)[np.where(drawn, labels, 0)]
    weight = np.where(_edges(labels), 1.0, share)[..., None] * drawn[..., None]
    return np.round(rgb * (1 - weight) + colours * weight).astype(np.uint8)


def _edges(labels: np.ndarray) -> np.ndarray:
    """Pixels with a neighbour, to the left, right, above or below, of another class."""
    edges = np.zeros(labels.shape, bool)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    edges[:, 1:] |= across
    edges[:, :-1] |= across
    edges[1:] |= down
    edges[:-1] |= down
    return edges


def coloured(labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """uint8 (H, W, 3): labels as colours alone; void is white."""
    colours = class_colours(classes)
    return np.where((labels == VOID)[..., None], np.uint8(255), colours[np.where(labels == VOID, 0, labels)])


def legend(classes: Sequence[str], labels: np.ndarray, most: int = 24) -> list[tuple[tuple[int, int, int], str]]:
    """(colour, text) of the classes on a picture, those of the most pixels first."""
    counts = np.bincount(labels[labels != VOID].reshape(-1), minlength=len(classes))
    colours = class_colours(classes)
    order = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i] and not is_background(int(i), classes[int(i)])]
    return [(tuple(map(int, colours[i])), f"{classes[i]} {100 * counts[i] / labels.size:.1f}%") for i in order[:most]]


def draw_comparison(path, rows, classes: Sequence[str], title: str, lines: Sequence[str]) -> None:
    """A sheet of (picture, mask, labels, caption): two of them a line, each as picture, mask and labels over it."""
    cells = []
    for picture, mask, labels, caption in rows:
        smooth = min(picture.shape[:2]) > 64
        cells += [Cell(picture, (caption,), smooth), Cell(overlay(picture, mask, classes), ("true",), smooth),
                  Cell(overlay(picture, labels, classes), ("predicted",), smooth)]
    colours = class_colours(classes)
    names = [(tuple(map(int, colours[i])), name) for i, name in enumerate(classes) if not is_background(i, name)]
    save_sheet(path, compose(title, lines, [Section(cells, "", 6, legend=names)]))


def segmentation_sheet(picture: np.ndarray, labels: np.ndarray, classes: Sequence[str], title: str, lines: Sequence[str]):
    """The picture, the picture with its labels over it, and the legend."""
    smooth = min(picture.shape[:2]) > 64
    cells = [Cell(picture, ("the picture",), smooth), Cell(overlay(picture, labels, classes), ("what the network sees on it",), smooth)]
    return compose(title, lines, [Section(cells, "", 2, longest=560, legend=legend(classes, labels))])
