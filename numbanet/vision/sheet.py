"""A contact sheet of a data set: a row of images for each class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from numbanet.data.randomness import ORDER, keyed_generator
from numbanet.vision.composition import Cell, Section, compose, save_sheet

MOST_CLASSES = 40
LONGEST = 120       # pixels of a picture on the sheet


def draw_sheet(path, dataset, classes: Sequence[str], columns: int = 10, seed: int = 0) -> int:
    """Draw `columns` images of each class, chosen by `seed`, and write them as PNG.

    Parameters
    ----------
    dataset
        Of (image, label) without transform, images as Pillow or uint8, with `targets`.

    Returns
    -------
    int
        Classes that are shown: all, or the first 40.
    """
    targets, sections = np.asarray(dataset.targets), []
    for label, name in enumerate(classes[:MOST_CLASSES]):
        members = np.flatnonzero(targets == label)
        chosen = keyed_generator(seed, 0, ORDER, label).permutation(members)[:columns]
        cells = [Cell(_pixels(dataset[int(index)][0])) for index in chosen]
        sections.append(Section(cells, f"{name}: {len(members):,}", columns, longest=LONGEST))
    shown = f", the first {MOST_CLASSES}" if len(classes) > MOST_CLASSES else ""
    save_sheet(path, compose(f"{len(targets):,} images", [f"{len(classes)} classes{shown}, {columns} images of each"], sections))
    return len(sections)


def _pixels(image) -> np.ndarray:
    """uint8 (H, W) or (H, W, 3) of a Pillow image in any mode, or of an array."""
    pixels = np.asarray(image if isinstance(image, np.ndarray) else image.convert("RGB"))
    return pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
