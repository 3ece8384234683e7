"""Architectures side by side: depth, parameters and multiply-adds, counted on their traced graphs, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

import numbanet
from numbanet.graph.graph import Graph
from numbanet.graph.summary import summarize
from numbanet.graph.trace import trace
from numbanet.nn import init
from numbanet.vision.composition import MARGIN, PAPER, SOFT, WIDTH
from numbanet.vision.draw import COLOURS, GRID, INK, text_font
from numbanet.vision.layers import evaluating
from numbanet.zoo import create_model, model_info

ROW, LEFT = 40, 190         # pixels


@dataclass(frozen=True)
class Architecture:
    """A network in numbers; `note` is what the caller has to say about it."""

    name: str
    depth: int
    parameters: int
    multiply_adds: int
    note: str = ""


def compare_architectures(names: Sequence[str], notes: Sequence[str] | None = None) -> list[Architecture]:
    """Count networks of the zoo, for one picture of their own size.

    Depth is the most layers with weights on a way through. Parameters are those of the layers that run in evaluation: without the
    auxiliary classifiers of GoogLeNet.
    """
    found = []
    for name, note in zip(names, notes or [""] * len(names), strict=True):
        with init.skip():
            model = create_model(name)
        example = numbanet.zeros(1, *model_info(name).input_size)
        summary = summarize(model, example)
        with evaluating(model):
            depth = weighted_depth(trace(model, example))
        found.append(Architecture(name, depth, sum(row.parameters for row in summary.rows), summary.multiply_adds, note))
    return found


def weighted_depth(graph: Graph) -> int:
    """The most convolutions and linear layers on one way from the input to the output."""
    depth: dict = {}
    for node in graph.nodes:
        here = max((depth.get(v, 0) for v in node.operands()), default=0) + node.primitive.startswith(("conv", "linear"))
        for v in (*node.outputs, *(node.writes_into or ())):
            if v is not None:
                depth[v] = max(here, depth.get(v, 0))
    return max((depth.get(v, 0) for v in graph.outputs), default=0)


def architecture_table(rows: Sequence[Architecture]) -> str:
    """The rows as aligned text."""
    cells = [("network", "depth", "parameters", "multiply-adds", ""),
             *((r.name, str(r.depth), f"{r.parameters:,}", f"{r.multiply_adds:,}", r.note) for r in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(5)]
    lines = ["  ".join((row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:4], widths[1:4])), row[4])) for row in cells]
    return "\n".join(line.rstrip() for line in lines)


def draw_architectures(rows: Sequence[Architecture], title: str, foot: str = "") -> Image.Image:
    """Three panels of bars, a row for each network."""
    panels = (("layers with weights", [r.depth for r in rows], "{:,.0f}", 1),
              ("million parameters", [r.parameters for r in rows], "{:,.1f}", 1e6),
              ("billion multiply-adds", [r.multiply_adds for r in rows], "{:,.2f}", 1e9))
    top = MARGIN + 80
    height = top + ROW * len(rows) + MARGIN + (30 if foot else 0)
    image = Image.new("RGB", (WIDTH, height), PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((MARGIN, MARGIN), title, INK, text_font(24))
    panel = (WIDTH - LEFT - MARGIN) // len(panels)
    for i, row in enumerate(rows):
        y = top + i * ROW
        draw.text((MARGIN, y + 2), row.name, INK, text_font(16))
        draw.text((MARGIN, y + 20), row.note, SOFT, text_font(13))
    for position, (name, values, style, unit) in enumerate(panels):
        x = LEFT + position * panel
        draw.text((x, top - 28), name, SOFT, text_font(15))
        draw.line((x, top - 4, x, top + ROW * len(rows) - 8), GRID)
        longest = panel - 90
        for i, value in enumerate(values):
            y, long = top + i * ROW, max(2, round(longest * value / max(values)))
            draw.rectangle((x, y + 4, x + long, y + 24), COLOURS[position % 2])
            draw.text((x + long + 8, y + 14), style.format(value / unit), INK, text_font(15), anchor="lm")
    if foot:
        draw.text((MARGIN, height - MARGIN - 12), foot, SOFT, text_font(14))
    return image
