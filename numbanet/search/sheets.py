"""Contact sheets of pictures that belong together: what a search found, clusters, duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from numbanet.data.images import load_image
from numbanet.errors import DataError
from numbanet.search.index import shown
from numbanet.vision.composition import Cell, Section, compose

SIDE = 320          # pixels of the longer side of a picture on a sheet
PAPER = np.full((64, 64, 3), 235, np.uint8)


def picture_cell(source, *captions: str, boxes=()) -> Cell:
    """A picture (path or Pillow image) small enough for a sheet; grey where it can no longer be read."""
    try:
        image = source if isinstance(source, Image.Image) else load_image(source)
    except DataError:
        return Cell(PAPER, captions or ("not readable",))
    size, longest = image.size, max(image.size)
    if longest > SIDE:
        image = image.resize([max(1, round(n * SIDE / longest)) for n in size], Image.Resampling.BICUBIC, reducing_gap=2.0)
    factor = image.size[0] / size[0]
    boxes = [(tuple(edge * factor for edge in box), colour) for box, colour in boxes]
    return Cell(np.asarray(image), captions, smooth=longest > 64, boxes=boxes)


def names_of(paths: Sequence[str], folders: Sequence[str]) -> list[str]:
    """Paths as they are told: below their folder where there is one, else whole."""
    if len(folders) == 1:
        paths = [str(Path(p).relative_to(folders[0])) if Path(p).is_relative_to(folders[0]) else p for p in paths]
    return [shown(p) for p in paths]


def search_sheet(title: str, lines, queries, found, folders, columns: int = 8) -> Image.Image:
    """A row for each query: the picture asked with, then those found with their similarities."""
    sections = []
    for (name, source), hits in zip(queries, found):
        names = names_of([hit.path for hit in hits], folders)
        cells = [picture_cell(source, "query"),
                 *(picture_cell(hit.path, f"{hit.score:.3f}", Path(name).name) for hit, name in zip(hits, names))]
        sections.append(Section(cells, shown(name), min(columns, max(4, len(cells)))))
    return compose(title, lines, sections)


def group_sheet(title: str, lines, groups, columns: int = 10, longest: int = 160) -> Image.Image:
    """A section for each group (heading, [(path, *captions)])."""
    return compose(title, lines, [Section([picture_cell(path, *captions) for path, *captions in members], heading, columns, longest=longest)
                                  for heading, members in groups])
