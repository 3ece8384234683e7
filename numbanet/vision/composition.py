"""Contact sheets: labelled pictures in aligned grids, at most 1,200 pixels wide, drawn with Pillow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

from numbanet.files import atomic_file
from numbanet.vision.colours import colour_table
from numbanet.vision.draw import INK, text_font

WIDTH, MARGIN, GAP = 1200, 24, 12
PAPER, SOFT, FRAME, ACCENT = (255, 255, 255), (96, 96, 108), (208, 208, 216), (214, 96, 30)
TITLE, TEXT, CAPTION = 24, 15, 14          # sizes of letters


@dataclass
class Cell:
    """A picture and the lines below it.

    Attributes
    ----------
    pixels : uint8 (H, W) or (H, W, 3)
    captions : lines of text
    smooth : whether enlarging interpolates; otherwise every pixel stays a square
    boxes : ((top, left, bottom, right) in pixels of the picture, colour), drawn over it; edges between pixels
    numbers : array (H, W), written into the squares of the pixels where there is room
    """

    pixels: np.ndarray
    captions: Sequence[str] = ()
    smooth: bool = False
    boxes: Sequence[tuple] = ()
    numbers: np.ndarray | None = None


@dataclass
class Scale:
    """A colour scale and what its ends stand for."""

    name: str
    low: float
    high: float
    label: str = ""


@dataclass
class Section:
    """Cells of one size under a heading; `columns` None: as many as fit at a size between 64 and 160 pixels. `offset` columns stay empty
    at the left of the first row."""

    cells: Sequence[Cell]
    heading: str = ""
    columns: int | None = None
    scale: Scale | None = None
    longest: int = 380          # of a cell's picture, in pixels
    notes: Sequence[str] = field(default_factory=tuple)
    offset: int = 0
    legend: Sequence[tuple] = ()        # (colour, text), in lines below the cells


def compose(title: str, lines: Sequence[str], sections: Sequence[Section], width: int = WIDTH) -> Image.Image:
    """The sheet: title, lines of text, then every section below the other."""
    canvas = Image.new("RGB", (width, 16), PAPER)
    parts = [_text_block(title, lines, width), *(_section(s, width) for s in sections if s.cells)]
    height = MARGIN + sum(p.height + 2 * GAP for p in parts) + MARGIN - 2 * GAP
    canvas = Image.new("RGB", (width, height), PAPER)
    y = MARGIN
    for part in parts:
        canvas.paste(part, (0, y))
        y += part.height + 2 * GAP
    return canvas


def save_sheet(path, image: Image.Image) -> None:
    """Write a sheet as PNG; the file is the old one or the whole new one."""
    with atomic_file(path) as temporary:
        image.save(temporary, "PNG", optimize=False)


def number(value: float, digits: int = 3) -> str:
    """That many significant digits, or all before the point."""
    if not math.isfinite(value):
        return str(value)
    text = f"{value:,.0f}" if 100 <= abs(value) < 1e7 else f"{value:.{digits}g}"
    return "0" if text in ("-0", "0") else text


def _text_block(title: str, lines, width: int) -> Image.Image:
    wrapped = [part for line in lines for part in wrap(line, TEXT, width - 2 * MARGIN)]
    block = Image.new("RGB", (width, TITLE + 8 + (TEXT + 6) * len(wrapped)), PAPER)
    draw = ImageDraw.Draw(block)
    draw.text((MARGIN, 0), shorten(title, TITLE, width - 2 * MARGIN), INK, text_font(TITLE))
    for i, line in enumerate(wrapped):
        draw.text((MARGIN, TITLE + 10 + (TEXT + 6) * i), line, SOFT, text_font(TEXT))
    return block


def _section(section: Section, width: int) -> Image.Image:
    inner = width - 2 * MARGIN
    columns = section.columns or min(_columns(section.cells, inner), len(section.cells))
    step = (inner + GAP) // columns
    box = min(section.longest, step - GAP)
    tall = max(c.pixels.shape[0] / c.pixels.shape[1] for c in section.cells)
    across, down = (box, max(1, round(box * tall))) if tall <= 1 else (max(1, round(box / tall)), box)
    caption_lines = max(len(c.captions) for c in section.cells)
    row_height = down + (CAPTION + 4) * caption_lines + (8 if caption_lines else 0) + GAP
    head = (TEXT + 14) if section.heading or section.scale else 0
    notes = [part for line in section.notes for part in wrap(line, TEXT, inner)]
    entries, legend_height = _placed_legend(section.legend, inner)
    rows = math.ceil((len(section.cells) + section.offset) / columns)
    part = Image.new("RGB", (width, head + rows * row_height - GAP + (TEXT + 6) * len(notes) + (6 if notes else 0)
                             + legend_height), PAPER)
    draw = ImageDraw.Draw(part)
    room = inner - (_draw_scale(part, section.scale, width) + GAP if section.scale else 0)
    if section.heading:
        draw.text((MARGIN, 0), shorten(section.heading, TEXT + 2, room), INK, text_font(TEXT + 2))
    numbers = _number_format([c.numbers for c in section.cells if c.numbers is not None])
    for i, cell in enumerate(section.cells, section.offset):
        x, y = MARGIN + i % columns * step, head + i // columns * row_height
        _draw_cell(part, draw, cell, x, y, across, down, step - GAP, numbers)
    top = head + rows * row_height - GAP
    for x, y, colour, text in entries:
        draw.rectangle((MARGIN + x, top + y + 1, MARGIN + x + TEXT - 2, top + y + TEXT - 1), colour, FRAME)
        draw.text((MARGIN + x + TEXT + 5, top + y - 1), text, INK, text_font(CAPTION))
    for i, line in enumerate(notes):
        draw.text((MARGIN, part.height - (TEXT + 6) * (len(notes) - i)), line, SOFT, text_font(TEXT))
    return part


def _placed_legend(legend, inner: int) -> tuple[list[tuple], int]:
    """(x, y, colour, text) of each entry, and the height of all of them."""
    entries, x, y = [], 0, 10
    for colour, text in legend:
        text = shorten(text, CAPTION, inner - TEXT - 24)
        width = TEXT + 24 + round(text_font(CAPTION).getlength(text))
        if x and x + width > inner:
            x, y = 0, y + TEXT + 8
        entries.append((x, y, colour, text))
        x += width
    return entries, y + TEXT + 6 if entries else 0


def _columns(cells, inner: int) -> int:
    """As many as are needed for one to four rows, with pictures of 64 to 160 pixels."""
    most, least = (inner + GAP) // (64 + GAP), (inner + GAP) // (160 + GAP)
    return max(least, min(most, math.ceil(len(cells) / 4)))


def _draw_cell(part, draw, cell: Cell, x: int, y: int, across: int, down: int, room: int, numbers) -> None:
    height, width = cell.pixels.shape[:2]
    factor = min(across / width, down / height)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    method = (Image.Resampling.BICUBIC if cell.smooth else Image.Resampling.NEAREST) if factor > 1 else Image.Resampling.BOX
    picture = Image.fromarray(cell.pixels).convert("RGB").resize(size, method)
    part.paste(picture, (x, y))
    draw.rectangle((x - 1, y - 1, x + size[0], y + size[1]), outline=FRAME)
    if cell.numbers is not None:
        _draw_numbers(draw, cell, x, y, size, numbers)
    for (top, left, bottom, right), colour in cell.boxes:
        edges = (x + left * factor, y + top * factor, x + right * factor - 1, y + bottom * factor - 1)
        edges = [min(max(e, low), high) for e, low, high in zip(
            edges, (x - 1, y - 1, x - 1, y - 1), (x + size[0], y + size[1]) * 2)]
        draw.rectangle(edges, outline=(255, 255, 255), width=4)
        draw.rectangle(edges, outline=colour, width=2)
    for i, line in enumerate(cell.captions):
        draw.text((x, y + down + 5 + (CAPTION + 4) * i), shorten(line, CAPTION, room), INK if i == 0 else SOFT, text_font(CAPTION))


def _number_format(tables) -> tuple[str, int]:
    """How the numbers of a section are written, and the longest of them in letters."""
    values = np.concatenate([np.ravel(t) for t in tables]) if tables else np.zeros(1)
    most = float(np.abs(values).max(initial=0))
    style = ".0f" if (values == np.round(values)).all() and most < 1e5 else ".2f" if 0.1 <= most < 1000 else ".2g"
    return style, max(len(f"{v:{style}}") for v in values)


def _draw_numbers(draw, cell: Cell, x: int, y: int, size, numbers) -> None:
    """Values in the middle of their squares, dark on bright and bright on dark."""
    (rows, columns), (style, longest) = cell.numbers.shape, numbers
    wide, high = size[0] / columns, size[1] / rows
    letters = min(18, int(high * 0.6), int(wide * 1.6 / max(2, longest)))
    if letters < 8:
        return
    for i, row in enumerate(cell.numbers):
        for j, value in enumerate(row):
            bright = float(np.mean(cell.pixels[i, j])) > 140
            text = f"{float(value) + 0.0:{style}}"
            draw.text((x + (j + 0.5) * wide, y + (i + 0.5) * high), text, INK if bright else PAPER, text_font(letters), anchor="mm")


def _draw_scale(part, scale: Scale, width: int) -> int:
    """The colour scale at the upper right edge, its ends beside it; returns how wide that is."""
    draw, font, long = ImageDraw.Draw(part), text_font(CAPTION), 160
    low, high = number(scale.low), number(scale.high)
    right = width - MARGIN
    draw.text((right, 10), high, SOFT, font, anchor="rm")
    right -= round(font.getlength(high)) + 8
    strip = np.broadcast_to(colour_table(scale.name)[None], (14, 256, 3))
    part.paste(Image.fromarray(np.ascontiguousarray(strip)).resize((long, 14)), (right - long, 3))
    draw.rectangle((right - long - 1, 2, right, 17), outline=FRAME)
    right -= long + 8
    text = f"{scale.label}  {low}" if scale.label else low
    draw.text((right, 10), text, SOFT, font, anchor="rm")
    return round(width - MARGIN - right + font.getlength(text))


def shorten(text: str, size: int, room: float) -> str:
    """`text`, cut with three dots where it is longer than `room` pixels."""
    font = text_font(size)
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(text + "...") > room:
        text = text[:-1]
    return text.rstrip() + "..."


def wrap(text: str, size: int, room: float) -> list[str]:
    """`text` in lines of at most `room` pixels."""
    font, lines = text_font(size), [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if lines[-1] and font.getlength(longer) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return [shorten(line, size, room) for line in lines]
