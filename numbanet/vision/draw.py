"""Pictures of a run, drawn with Pillow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

from PIL import Image, ImageDraw, ImageFont

from numbanet.files import atomic_file

WIDTH, HEIGHT, MARGIN = 560, 360, 64
INK, GRID, COLOURS = (32, 32, 40), (224, 224, 230), ((31, 107, 182), (214, 96, 30))


def draw_curves(path, history: Sequence[dict], measure: str = "accuracy") -> None:
    """`curves.png`: loss of each epoch in `history`, and what `measure` is short of 1, training and test, side by side."""
    losses = [[row[key] for row in history] for key in ("train_loss", "test_loss")]
    errors = [[100 * (1 - row.get(key, math.nan)) for row in history] for key in (f"train_{measure}", f"test_{measure}")]
    names = ("cross-entropy", "error, %") if measure == "accuracy" else ("loss", f"1 - {measure}, %")
    draw_panels(path, [row["epoch"] for row in history], [(name, series, ("training", "test"))
                                                          for name, series in zip(names, (losses, errors))])


def draw_panels(path, xs: Sequence[float], panels: Sequence[tuple]) -> None:
    """Logarithmic plots over `xs` side by side, each (title, series, names of the series)."""
    image = Image.new("RGB", (len(panels) * WIDTH, HEIGHT), "white")
    for number, (title, series, names) in enumerate(panels):
        _panel(image, number * WIDTH, title, xs, series, names)
    with atomic_file(path) as temporary:
        image.save(temporary, "PNG")


@cache
def text_font(size: int):
    """Pillow's own font, so that pictures are the same everywhere; it has ASCII and little more."""
    return ImageFont.load_default(size)


def _panel(image, left, title, xs, series, names) -> None:
    """One logarithmic plot of several series; values of 0 lie on the lower edge."""
    draw = ImageDraw.Draw(image)
    values = [v for s in series for v in s if v > 0 and math.isfinite(v)]
    low, high = (min(values), max(values)) if values else (0.1, 1.0)
    low, high = math.log10(low) - 0.05, math.log10(high) + 0.05
    x0, x1, y0, y1 = left + MARGIN, left + WIDTH - 24, HEIGHT - 52, 48

    def at(x, value):
        across = (x - xs[0]) / max(xs[-1] - xs[0], 1)
        up = (math.log10(max(value, 10**low)) - low) / max(high - low, 1e-9)
        return x0 + across * (x1 - x0), y0 + min(up, 1) * (y1 - y0)

    draw.text((x0, 14), title, INK, text_font(18))
    for tick in _ticks(10**low, 10**high):
        y = at(xs[0], tick)[1]
        draw.line((x0, y, x1, y), GRID)
        draw.text((x0 - 8, y), f"{tick:.3g}", INK, text_font(13), anchor="rm")
    step = max(1, math.ceil(len(xs) / 10))
    for x in xs[::step]:
        draw.text((at(x, 10**low)[0], y0 + 8), str(x), INK, text_font(13), anchor="ma")
    draw.text(((x0 + x1) / 2, y0 + 28), "epoch", INK, text_font(13), anchor="ma")
    draw.line((x0, y0, x1, y0), INK)
    for position, (values, name, colour) in enumerate(zip(series, names, COLOURS)):
        points = [at(x, v) for x, v in zip(xs, values) if math.isfinite(v)]
        if len(points) > 1:
            draw.line(points, colour, 3, joint="curve")
        for x, y in points:
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), colour)
        draw.line((x1 - 110, 24 + 18 * position, x1 - 86, 24 + 18 * position), colour, 3)
        draw.text((x1 - 80, 24 + 18 * position), name, INK, text_font(13), anchor="lm")


def _ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 times powers of ten between two values."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [m * 10.0**p for p in powers for m in (1, 2, 5) if low <= m * 10.0**p <= high]
    return ticks if len(ticks) > 1 else [low, high]


def save_image(path, pixels) -> None:
    """Write a uint8 (H, W) or (H, W, C) NumPy array as PNG."""
    with atomic_file(path) as temporary:
        Image.fromarray(pixels).save(temporary, "PNG")
