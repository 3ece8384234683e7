"""Coloured shapes on cluttered backgrounds, made up from a seed: pictures with known classes, boxes and masks, and nothing to fetch."""

from __future__ import annotations

import colorsys
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from numbanet.data.dataset import ArrayDataset, CollatedBatch, Dataset, load_each
from numbanet.data.datasets.shapes import SHAPES, draw_mask
from numbanet.data.randomness import SCENES, keyed_generator, loading_epoch
from numbanet.errors import UsageError

TARGETS = ("label", "detection", "segmentation")
SALIENT = (0.2, 0.34)       # radius of the salient shape, of the shorter side
SMALL = (0.07, 0.13)        # of the others: none is as large as half of it
TRIES = 12                  # places tried for a shape before it is left out
MOST_OVERLAP = 0.15         # of the smaller of two boxes
LEAST_CONTRAST = 90.0       # distance of a shape's colour from the background's mean, in RGB


@dataclass(frozen=True)
class Scene:
    """A picture and what is on it.

    Attributes
    ----------
    image : uint8 (H, W, 3)
    boxes : float32 (K, 4)
        (left, top, right, bottom) of each shape's visible pixels, right and bottom exclusive.
    labels : int64 (K,)
        Classes of the shapes; the last one is the salient one.
    masks : bool (K, H, W)
        The visible pixels of each shape; no pixel belongs to two.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    masks: np.ndarray

    @property
    def label(self) -> int:
        """The class of the salient shape."""
        return int(self.labels[-1])

    @property
    def segmentation(self) -> np.ndarray:
        """uint8 (H, W): 0 where there is background, otherwise 1 + the class."""
        classes = np.zeros(self.masks.shape[1:], np.uint8)
        for mask, label in zip(self.masks, self.labels):
            classes[mask] = 1 + label
        return classes


class SyntheticScenes(Dataset):
    """Coloured shapes, one of them large, on backgrounds of gradients, stripes and clouds with strokes, dots and noise.

    Sample i is a function of (`seed`, `train`, i) and of what is set here; nothing is stored. The label is the class of the large
    shape. Pillow draws the shapes, so another version of it may place single pixels of their edges otherwise.

    Parameters
    ----------
    count : int
        Number of samples; a smaller set holds the first ones of a larger.
    size : int or (H, W)
        Of the pictures, 16 or more.
    train : bool
        Training or test pictures: two sequences without common samples.
    transform, target_transform, batch_transform
        As in `ArrayDataset`.
    seed : int
    target : {"label", "detection", "segmentation"}
        What goes with an image: the label of the salient shape; a dict of `boxes`, `labels` and `masks` of all shapes, as torchvision's
        detectors take it; or the classes of all pixels (`Scene.segmentation`).
    classes : sequence of str
        Some of circle, square, triangle, star, ring, cross, crescent, heart.
    objects : (int, int)
        Fewest and most shapes, the salient one included; where there is no room, it may be fewer.
    noise : float
        Largest amplitude of the noise, in grey levels.
    anew : bool
        Training pictures that a `DataLoader` asks for are others in each epoch: sample i of epoch e is number ``e * count + i``.

    Attributes
    ----------
    classes : tuple of str
    targets : int64 (count,)
        The label of every sample, without drawing it.

    Raises
    ------
    UsageError
        Parameters out of their ranges.
    """

    def __init__(self, count: int = 1000, size: int | Sequence[int] = 64, train: bool = True, transform: Callable | None = None,
                 target_transform: Callable | None = None, *, batch_transform: Callable | None = None, seed: int = 0, target: str = "label",
                 classes: Sequence[str] = tuple(SHAPES), objects: Sequence[int] = (1, 4), noise: float = 24.0,
                 anew: bool = False):
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        if count < 0 or len(self.size) != 2 or min(self.size) < 16:
            raise UsageError(f"SyntheticScenes: expected a count of 0 or more and a size of 16 or more, received {count} and {size}")
        unknown = [name for name in classes if name not in SHAPES]
        if unknown or not classes or len({*classes}) < len(classes):
            raise UsageError(f"SyntheticScenes: expected different classes out of {', '.join(SHAPES)}, received "
                             f"{', '.join(classes) or 'none'}")
        if target not in TARGETS:
            raise UsageError(f"SyntheticScenes: expected target to be {', '.join(TARGETS[:-1])} or {TARGETS[-1]}, received {target!r}")
        if len(objects) != 2 or not 1 <= objects[0] <= objects[1]:
            raise UsageError(f"SyntheticScenes: expected objects of (fewest, most) from 1 on, received {objects}")
        if not 0 <= noise <= 255:
            raise UsageError(f"SyntheticScenes: expected noise from 0 to 255, received {noise}")
        if batch_transform is not None and (transform is not None or target != "label"):
            raise UsageError("SyntheticScenes: batch_transform needs target='label' and no transform")
        self.count, self.train, self.seed, self.target, self.noise = count, train, seed, target, noise
        self.classes, self.objects, self.anew = tuple(classes), tuple(objects), anew and train
        self.transform, self.target_transform, self.batch_transform = transform, target_transform, batch_transform

    def __len__(self) -> int:
        return self.count

    @property
    def class_to_idx(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.classes)}

    @property
    def targets(self) -> np.ndarray:
        return np.array([self._label(self._generator(scene_number(self, i))) for i in range(self.count)], np.int64)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        scene = self.scene(index)
        if self.target == "label":
            target = scene.label
        elif self.target == "segmentation":
            target = scene.segmentation
        else:
            target = {"boxes": scene.boxes, "labels": scene.labels, "masks": scene.masks}
        target = target if self.target_transform is None else self.target_transform(target)
        if self.batch_transform is not None:
            return self.batch_transform(scene.image[None], [index])[0], target
        return (scene.image if self.transform is None else self.transform(scene.image)), target

    def __getitems__(self, indices: Sequence[int]) -> CollatedBatch | list[tuple[Any, Any]]:
        if self.batch_transform is None:
            return load_each(self, indices)
        scenes = [self.scene(i) for i in indices]
        labels = [s.label if self.target_transform is None else self.target_transform(s.label) for s in scenes]
        return CollatedBatch((self.batch_transform(np.stack([s.image for s in scenes]), indices), np.asarray(labels)))

    def to_arrays(self, **options) -> ArrayDataset:
        """All pictures and labels, drawn once and held in memory; `options` are those of `ArrayDataset`."""
        images, labels = np.empty((self.count, *self.size, 3), np.uint8), np.empty(self.count, np.int64)

        def draw(index: int) -> None:
            scene = self.scene(index)
            images[index], labels[index] = scene.image, scene.label

        with ThreadPoolExecutor(os.cpu_count()) as workers:
            list(workers.map(draw, range(self.count)))
        return ArrayDataset(images, labels, **options)

    def scene(self, index: int) -> Scene:
        """Draw a sample, with all that is known of it."""
        rng = self._generator(scene_number(self, index))
        label = self._label(rng)
        picture = draw_background(rng, self.size)
        mean = np.asarray(picture.resize((1, 1), Image.Resampling.BOX), np.float64)[0, 0]
        shapes = self._shapes(rng, label)
        masks: list[np.ndarray] = []
        for kind, radius, x, y in shapes:
            alpha, corner = draw_mask(self.classes[kind], radius, rng.uniform(0, 2 * np.pi), rng.uniform(0.88, 1.14), (x, y))
            whole = Image.new("L", picture.size)
            whole.paste(alpha, corner)
            picture.paste(paint(rng, alpha.size, mean), corner, alpha)
            mask = np.asarray(whole) >= 128
            masks = [earlier & ~mask for earlier in masks] + [mask]
        image = with_noise(rng, np.array(picture), self.noise)
        kept = [i for i, mask in enumerate(masks) if mask.any()]
        return Scene(image, np.array([box_of(masks[i]) for i in kept], np.float32).reshape(-1, 4),
                     np.array([shapes[i][0] for i in kept], np.int64), np.array([masks[i] for i in kept]))

    def _generator(self, index: int) -> np.random.Generator:
        return keyed_generator(self.seed, int(self.train), SCENES, index)

    def _label(self, rng: np.random.Generator) -> int:
        """The class of the salient shape: the first number that a sample draws."""
        return int(rng.integers(len(self.classes)))

    def _shapes(self, rng: np.random.Generator, label: int) -> list[tuple[int, float, float, float]]:
        """(class, radius, x, y) of each shape, the salient one last, so that nothing hides it."""
        (height, width), side = self.size, min(self.size)
        radius = rng.uniform(*SALIENT) * side
        placed = [(label, radius, rng.uniform(radius, width - radius), rng.uniform(radius, height - radius))]
        for _ in range(rng.integers(self.objects[0], self.objects[1] + 1) - 1):
            kind = int(rng.integers(len(self.classes)))
            for radius, x, y in zip(rng.uniform(*SMALL, TRIES) * side, rng.uniform(0, width, TRIES), rng.uniform(0, height, TRIES)):
                inside = 0.5 * radius < x < width - 0.5 * radius and 0.5 * radius < y < height - 0.5 * radius
                if inside and all(_overlap((radius, x, y), other[1:]) <= MOST_OVERLAP for other in placed):
                    placed.append((kind, radius, x, y))
                    break
        return placed[::-1]


def scene_number(scenes, index: int) -> int:
    """Which scene of the endless sequence of (`seed`, `train`) is a data set's sample now.

    Raises
    ------
    IndexError
    """
    if not -scenes.count <= index < scenes.count:
        raise IndexError(f"{type(scenes).__name__}: index {index} is out of range for {scenes.count} samples")
    return scenes.count * (loading_epoch() if scenes.anew else 0) + int(index) % scenes.count


def _overlap(a: tuple[float, float, float], b: tuple[float, float, float]) -> float:
    """Common share of the smaller of two squares around circles (radius, x, y)."""
    across = max(0.0, min(a[1] + a[0], b[1] + b[0]) - max(a[1] - a[0], b[1] - b[0]))
    down = max(0.0, min(a[2] + a[0], b[2] + b[0]) - max(a[2] - a[0], b[2] - b[0]))
    return across * down / (2 * min(a[0], b[0])) ** 2


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def _colour(rng: np.random.Generator) -> np.ndarray:
    return 255 * np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.2, 1.0), rng.uniform(0.3, 1.0)))


def _rgb(colour: np.ndarray) -> tuple[int, ...]:
    return tuple(np.clip(colour, 0, 255).astype(int).tolist())


def draw_background(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """A gradient, clouds or stripes, with strokes, arcs and dots on it."""
    height, width = size
    base = _colour(rng)
    kind = int(rng.integers(3))
    if kind == 0:       # a gradient from corner to corner
        grid = np.clip(base + rng.uniform(-50, 50, (2, 2, 3)), 0, 255)
    elif kind == 1:     # clouds
        grid = np.clip(base + rng.uniform(-60, 60, (*rng.integers(3, 9, 2), 3)), 0, 255)
    else:               # stripes
        count = int(rng.integers(4, 12))
        grid = np.clip(base + np.where(np.arange(count) % 2, 1, -1)[None, :, None] * rng.uniform(8, 30, 3), 0, 255)
        grid = grid if rng.random() < 0.5 else grid.transpose(1, 0, 2)
    method = Image.Resampling.BICUBIC if kind < 2 else Image.Resampling.BILINEAR
    picture = Image.fromarray(grid.astype(np.uint8)).resize((width, height), method)
    draw = ImageDraw.Draw(picture)
    unit = min(size) / 64
    for _ in range(rng.integers(2, 9)):     # strokes and arcs
        (x, y), length, angle = rng.uniform(0, 1, 2) * (width, height), rng.uniform(4, 22) * unit, rng.uniform(0, 2 * np.pi)
        ink, thick = _rgb(base + rng.uniform(-90, 90, 3)), max(1, round(rng.uniform(0.6, 1.8) * unit))
        if rng.random() < 0.6:
            draw.line((x, y, x + length * np.cos(angle), y + length * np.sin(angle)), ink, thick)
        else:
            start = np.degrees(angle)
            draw.arc((x - length / 2, y - length / 2, x + length / 2, y + length / 2), start, start + rng.uniform(40, 140), ink, thick)
    for x, y, radius in (rng.random((int(rng.integers(0, 12)), 3)) * (width, height, 1.3 * unit)).tolist():      # dots
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), _rgb(base + rng.uniform(-90, 90, 3)))
    return picture


def paint(rng: np.random.Generator, size: tuple[int, int], background: np.ndarray) -> Image.Image:
    """A colour that stands out, shaded from one side to the other."""
    colour = _colour(rng)
    for _ in range(TRIES):
        if np.linalg.norm(colour - background) >= LEAST_CONTRAST:
            break
        colour = _colour(rng)
    else:
        colour = np.where(background < 128, 230.0, 25.0)
    shade = rng.uniform(-30, 30, (2, 2, 1))
    corners = Image.fromarray(np.clip(colour + shade, 0, 255).astype(np.uint8))
    return corners.resize(size, Image.Resampling.BILINEAR)


def with_noise(rng: np.random.Generator, image: np.ndarray, most: float) -> np.ndarray:
    """The image with noise of an amplitude up to `most`: the difference of two random bytes, of which half is added and half taken."""
    amplitude = rng.uniform(0, most) / 255
    grain = Image.frombytes("RGB", image.shape[1::-1], rng.bytes(image.size))
    grain = grain.point([round(amplitude * value) for value in range(256)] * 3)
    half = round(amplitude * 127.5)
    return np.asarray(ImageChops.subtract(ImageChops.add(Image.fromarray(image), grain), Image.new("RGB", grain.size, (half,) * 3)))
