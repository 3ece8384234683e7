"""The shapes of `SyntheticScenes`: each as a soft mask of its own, turned and scaled."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

FINER = 4       # masks are drawn this many times larger and averaged


def draw_mask(name: str, radius: float, angle: float, stretch: float, middle: tuple[float, float]) -> tuple[Image.Image, tuple[int, int]]:
    """A shape as a picture L of 0 ... 255, and the column and row of its first pixel.

    Parameters
    ----------
    name
        One of `SHAPES`.
    radius : float
        Of the circle around the shape, in pixels.
    angle, stretch : float
        Turned by radians; wider by this factor and lower by it, before turning.
    middle : (x, y)
        Centre of that circle, in pixels.
    """
    reach = math.ceil(radius * max(stretch, 1 / stretch)) + 1
    left, top = math.floor(middle[0]) - reach, math.floor(middle[1]) - reach
    side = 2 * reach + 2
    picture = Image.new("L", (side * FINER, side * FINER))
    cosine, sine = math.cos(angle), math.sin(angle)
    centre = np.array([middle[0] - left, middle[1] - top]) * FINER
    turn = np.array([[cosine, -sine], [sine, cosine]]) @ np.diag([stretch, 1 / stretch]) * (radius * FINER)
    draw = ImageDraw.Draw(picture)
    for points, ink in SHAPES[name]():
        draw.polygon((np.asarray(points) @ turn.T + centre).ravel().tolist(), ink)
    return picture.reduce(FINER), (left, top)


def _ring_of(count: int, radius: float = 1.0, first: float = -math.pi / 2, x: float = 0.0) -> np.ndarray:
    """`count` points on a circle of that radius, (count, 2)."""
    angles = first + 2 * np.pi * np.arange(count) / count
    return radius * np.stack([np.cos(angles), np.sin(angles)], 1) + (x, 0)


def _star() -> np.ndarray:
    points = np.empty((10, 2))
    points[::2], points[1::2] = _ring_of(5), _ring_of(5, 0.42, -math.pi / 2 + math.pi / 5)
    return points


def _cross() -> np.ndarray:
    a, b = 0.95, 0.3
    return np.array([(-b, -a), (b, -a), (b, -b), (a, -b), (a, b), (b, b), (b, a), (-b, a), (-b, b), (-a, b), (-a, -b), (-b, -b)])


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x, y], 1) / 17


# Name: polygons (P, 2) within the circle of radius 1, drawn one over the other, ink 255 or 0.
SHAPES: dict[str, Callable[[], list[tuple[np.ndarray, int]]]] = {
    "circle": lambda: [(_ring_of(64), 255)],
    "square": lambda: [(_ring_of(4, first=math.pi / 4), 255)],
    "triangle": lambda: [(_ring_of(3), 255)],
    "star": lambda: [(_star(), 255)],
    "ring": lambda: [(_ring_of(64), 255), (_ring_of(64, 0.6), 0)],
    "cross": lambda: [(_cross(), 255)],
    "crescent": lambda: [(_ring_of(64), 255), (_ring_of(64, 0.85, x=0.5), 0)],
    "heart": lambda: [(_heart(), 255)],
}
