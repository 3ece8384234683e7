"""A contact sheet of a data set: a row of images for each class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from numbanet.data.randomness import ORDER, keyed_generator
from numbanet.files import atomic_file

CELL, GAP, TITLES = 96, 4, 150      # pixels
MOST_CLASSES = 40
INK = (32, 32, 40)


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
    targets, shown = np.asarray(dataset.targets), min(len(classes), MOST_CLASSES)
    sheet = Image.new("RGB", (TITLES + columns * (CELL + GAP) + GAP, shown * (CELL + GAP) + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for label in range(shown):
        top = GAP + label * (CELL + GAP)
        members = np.flatnonzero(targets == label)
        draw.text((8, top + CELL / 2), f"{_shortened(classes[label])}\n{len(members):,}", INK, font, anchor="lm")
        for column, index in enumerate(keyed_generator(seed, 0, ORDER, label).permutation(members)[:columns]):
            image = dataset[int(index)][0]
            image = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image).squeeze())
            method = Image.Resampling.NEAREST if max(image.size) <= CELL // 2 else Image.Resampling.BILINEAR
            sheet.paste(ImageOps.contain(image.convert("RGB"), (CELL, CELL), method), (TITLES + GAP + column * (CELL + GAP), top))
    with atomic_file(path) as temporary:
        sheet.save(temporary, "PNG")
    return shown


def _shortened(name: str, most: int = 18) -> str:
    return name if len(name) <= most else f"{name[:most - 1]}…"
