"""Pictures of a training, drawn with Pillow: confusions, mistakes, filters, and what happens in the layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from numbanet.files import atomic_file
from numbanet.vision.draw import COLOURS, GRID, INK, text_font

MOST_CLASSES = 40           # in a confusion matrix; above, the most confused are drawn
WARM = (200, 60, 30)
SERIES = (*COLOURS, (44, 140, 70), (140, 70, 160), (120, 100, 60), (200, 60, 110), (60, 60, 60), (20, 160, 170))


def _save(image: Image.Image, path) -> None:
    with atomic_file(path) as temporary:
        image.save(temporary, "PNG")


def _short(text, length: int) -> str:
    text = str(text)
    return text if len(text) <= length else text[:length - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _blend(share: float, colour) -> tuple[int, int, int]:
    return tuple(round(255 + (c - 255) * share) for c in colour)


def draw_confusion(path, counts: np.ndarray, names: Sequence[str]) -> None:
    """Rows the true classes, columns the predicted; colour is the share of the row, blue where right, red where wrong."""
    counts = np.asarray(counts)
    shown = np.arange(len(counts))
    if len(counts) > MOST_CLASSES:
        wrong = counts.sum(1) + counts.sum(0) - 2 * np.diag(counts)
        shown = np.sort(np.argsort(-wrong, kind="stable")[:MOST_CLASSES])
    size = max(18, min(48, 900 // len(shown)))
    left, top = 130, 150
    image = Image.new("RGB", (left + size * len(shown) + 30, top + size * len(shown) + 30), "white")
    draw = ImageDraw.Draw(image)
    title = "confusion matrix" + (f", the {len(shown)} most confused of {len(counts)} classes" if len(shown) < len(counts) else "")
    draw.text((12, 12), title, INK, text_font(18))
    draw.text((12, 38), "rows: true, columns: predicted; colour: share of the row", INK, text_font(13))
    sums = np.maximum(counts.sum(1), 1)
    for row, true in enumerate(shown):
        y = top + row * size
        draw.text((left - 8, y + size / 2), _short(names[true], 15), INK, text_font(13), anchor="rm")
        label = Image.new("L", (80, 18), 0)
        ImageDraw.Draw(label).text((0, 9), _short(names[true], 11), 255, text_font(13), anchor="lm")
        turned = label.rotate(90, expand=True)
        image.paste(INK, (left + row * size + (size - 18) // 2, top - 86), turned)
        for column, predicted in enumerate(shown):
            x, count = left + column * size, int(counts[true, predicted])
            share = count / sums[true]
            colour = COLOURS[0] if true == predicted else WARM
            # the root makes few confusions visible
            draw.rectangle((x, y, x + size - 2, y + size - 2), _blend(share if true == predicted else math.sqrt(share), colour))
            if count and size >= 22:
                ink = "white" if (share if true == predicted else math.sqrt(share)) > 0.55 else INK
                draw.text((x + size / 2 - 1, y + size / 2 - 1), str(count), ink, text_font(min(13, size * 2 // 5)), anchor="mm")
    _save(image, path)


def draw_mistakes(path, items: Sequence[tuple[np.ndarray, str, str, float]], title: str, columns: int = 6, size: int = 112) -> None:
    """Pictures (uint8) with (true class, predicted class, probability of the prediction) below each."""
    rows = max(1, -(-len(items) // columns))
    width, height = size + 24, size + 58
    image = Image.new("RGB", (columns * width + 24, rows * height + 52), "white")
    draw = ImageDraw.Draw(image)
    draw.text((12, 12), title, INK, text_font(18))
    if not items:
        draw.text((12, 60), "none", INK, text_font(15))
    for position, (pixels, true, predicted, probability) in enumerate(items):
        x, y = 12 + position % columns * width, 48 + position // columns * height
        picture = Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")
        scale = size / max(picture.size)
        shape = tuple(max(1, round(n * scale)) for n in picture.size)
        picture = picture.resize(shape, Image.Resampling.NEAREST if scale > 2 else Image.Resampling.BILINEAR)
        image.paste(picture, (x + (size - shape[0]) // 2, y + (size - shape[1]) // 2))
        draw.text((x, y + size + 4), f"is {_short(true, 14)}", INK, text_font(13))
        draw.text((x, y + size + 21), f"said {_short(predicted, 11)}", WARM, text_font(13))
        draw.text((x, y + size + 37), f"{100 * probability:.0f}% sure", INK, text_font(12))
    _save(image, path)


def draw_filters(path, snapshots: Sequence[tuple[str, np.ndarray]], most: int = 24) -> None:
    """First-layer filters (K, C, R, S), a row for each moment; grey is 0, one scale for all."""
    first = snapshots[0][1]
    count, cell = min(len(first), most), max(20, 5 * first.shape[-1])
    cell = min(cell, 48)
    left, step = 84, cell + 4
    image = Image.new("RGB", (left + count * step + 12, 48 + len(snapshots) * step + 12), "white")
    draw = ImageDraw.Draw(image)
    draw.text((12, 12), "filters of the first convolution", INK, text_font(18))
    top = max(float(np.abs(weights[:count]).max()) for _, weights in snapshots) or 1.0
    for row, (label, weights) in enumerate(snapshots):
        y = 48 + row * step
        draw.text((left - 8, y + cell / 2), label, INK, text_font(13), anchor="rm")
        for k, taps in enumerate(weights[:count]):
            pixels = np.clip(127.5 + 127.5 * taps / top, 0, 255).astype(np.uint8)
            pixels = pixels.transpose(1, 2, 0) if len(taps) == 3 else np.clip(127.5 + 127.5 * taps.mean(0) / top, 0, 255).astype(np.uint8)
            image.paste(Image.fromarray(pixels).convert("RGB").resize((cell, cell), Image.Resampling.NEAREST), (left + k * step, y))
    _save(image, path)


def draw_layers(path, history: Sequence[dict], most: int = 8) -> None:
    """What happens in the layers over the epochs; `history` is that of LayerStatistics."""
    panels = (("mean of outputs", "mean", False), ("spread of outputs", "std", True), ("dead or saturated, %", "stuck", False),
              ("gradient norm", "gradient", True), ("update / weight", "ratio", True))
    width, height = 460, 300
    last = history[-1]["layers"]
    image = Image.new("RGB", (width * 3, height * 2), "white")
    for position, (title, key, logarithmic) in enumerate(panels):
        layers = [name for name in last if last[name].get(key) is not None]
        chosen = layers if len(layers) <= most else [layers[round(i * (len(layers) - 1) / (most - 1))] for i in range(most)]
        series = {name: [row["layers"].get(name, {}).get(key) for row in history] for name in chosen}
        if key == "stuck":
            series = {name: [None if v is None else 100 * v for v in values] for name, values in series.items()}
        _lines(image, (position % 3 * width, position // 3 * height, width, height), title, [row["epoch"] for row in history], series,
               logarithmic)
    _save(image, path)


def _lines(image, box, title: str, xs, series: dict[str, list], logarithmic: bool) -> None:
    left, top, width, height = box
    draw = ImageDraw.Draw(image)
    draw.text((left + 56, top + 8), title, INK, text_font(15))
    usable = lambda v: v is not None and math.isfinite(v) and (v > 0 or not logarithmic)
    values = [v for line in series.values() for v in line if usable(v)]
    if not values:
        draw.text((left + 56, top + 60), "no such layers", INK, text_font(13))
        return
    scale = math.log10 if logarithmic else float
    low, high = scale(min(values)), scale(max(values))
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    x0, x1, y0, y1 = left + 56, left + width - 150, top + height - 40, top + 36
    for share in (0, 0.25, 0.5, 0.75, 1):
        y, value = y0 + share * (y1 - y0), low + share * (high - low)
        draw.line((x0, y, x1, y), GRID)
        draw.text((x0 - 6, y), f"{10**value if logarithmic else value:.2g}", INK, text_font(12), anchor="rm")
    at = lambda x, v: (x0 + (x - xs[0]) / max(xs[-1] - xs[0], 1) * (x1 - x0), y0 + (scale(v) - low) / (high - low) * (y1 - y0))
    for position, (name, line) in enumerate(series.items()):
        colour = SERIES[position % len(SERIES)]
        points = [at(x, v) for x, v in zip(xs, line) if usable(v)]
        if len(points) > 1:
            draw.line(points, colour, 2)
        for x, y in points:
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), colour)
        y = top + 40 + 18 * position
        draw.line((x1 + 8, y, x1 + 22, y), colour, 3)
        draw.text((x1 + 26, y), name if len(name) <= 17 else "\N{HORIZONTAL ELLIPSIS}" + name[-16:], INK, text_font(12), anchor="lm")
    for x in (xs[0], xs[-1]):
        draw.text((at(x, values[0])[0], y0 + 6), str(x), INK, text_font(12), anchor="ma")
    draw.text(((x0 + x1) / 2, y0 + 18), "epoch", INK, text_font(12), anchor="ma")
