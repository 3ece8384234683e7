"""Scenes of handwritten digits: MNIST's, placed, scaled, turned and coloured on cluttered backgrounds, with known boxes and masks."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from numbanet.data.dataset import Dataset
from numbanet.data.datasets.mnist import MNIST, MNISTSample
from numbanet.data.datasets.synthetic_scenes import Scene, box_of, draw_background, paint, scene_number, with_noise
from numbanet.data.randomness import SCENES, keyed_generator
from numbanet.errors import UsageError

TARGETS = ("detection", "segmentation")
TRIES = 20              # places tried for a digit before it is left out
TURN = 15.0             # degrees, either way
STRETCH = (0.85, 1.15)  # of the width
INK = 64                # of 255: fainter pixels are outside of a digit


class DigitScenes(Dataset):
    """Digits of MNIST on backgrounds of gradients, stripes and clouds with strokes, dots and noise.

    Sample i is a function of (`seed`, `train`, i), of the digits and of what is set here; nothing is stored. Training scenes are made
    of training digits, test scenes of test digits.

    Parameters
    ----------
    count : int
        Number of scenes; a smaller set holds the first ones of a larger.
    size : int or (H, W)
        Of the pictures, 32 or more.
    train : bool
        Training or test scenes.
    root : path, optional
        Folder of MNIST's files; by default the sample that the package ships.
    transform, target_transform
        As in `ArrayDataset`.
    seed : int
    target : {"detection", "segmentation"}
        What goes with an image: a dict of `boxes`, `labels` and `masks`, as torchvision's detectors take it; or the classes of all
        pixels (`Scene.segmentation`).
    objects : (int, int)
        Fewest and most digits; where there is no room, it may be fewer.
    scale : (float, float)
        Height of the digits, of the scene's shorter side.
    overlap : float
        Most of the smaller of two boxes that the other may cover.
    noise : float
        Largest amplitude of the noise, in grey levels.
    anew : bool
        Training scenes that a `DataLoader` asks for are others in each epoch: sample i of epoch e is number ``e * count + i``.

    Attributes
    ----------
    classes : tuple of str

    Raises
    ------
    UsageError
        Parameters out of their ranges.
    DataError
        MNIST's files are missing or damaged.
    """

    classes = MNIST.classes

    def __init__(self, count: int = 1000, size: int | Sequence[int] = 128, train: bool = True, root: str | os.PathLike | None = None,
                 transform: Callable | None = None, target_transform: Callable | None = None, *, seed: int = 0, target: str = "detection",
                 objects: Sequence[int] = (1, 6), scale: Sequence[float] = (0.16, 0.45), overlap: float = 0.3, noise: float = 24.0,
                 anew: bool = False):
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        if count < 0 or len(self.size) != 2 or min(self.size) < 32:
            raise UsageError(f"DigitScenes: expected a count of 0 or more and a size of 32 or more, received {count} and {size}")
        if target not in TARGETS:
            raise UsageError(f"DigitScenes: expected target to be {' or '.join(TARGETS)}, received {target!r}")
        if len(objects) != 2 or not 0 <= objects[0] <= objects[1]:
            raise UsageError(f"DigitScenes: expected objects of (fewest, most) from 0 on, received {objects}")
        if len(scale) != 2 or not 0.05 <= scale[0] <= scale[1] <= 0.9:
            raise UsageError(f"DigitScenes: expected scale of (smallest, largest) between 0.05 and 0.9, received {scale}")
        if not 0 <= overlap <= 1 or not 0 <= noise <= 255:
            raise UsageError(f"DigitScenes: expected an overlap from 0 to 1 and noise from 0 to 255, received {overlap} and {noise}")
        self.count, self.train, self.seed, self.target, self.noise = count, train, seed, target, noise
        self.objects, self.scale, self.overlap, self.anew = tuple(objects), tuple(scale), overlap, anew and train
        self.transform, self.target_transform = transform, target_transform
        self.digits = MNISTSample(train) if root is None else MNIST(root, train)

    def __len__(self) -> int:
        return self.count

    @property
    def class_to_idx(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.classes)}

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        scene = self.scene(index)
        target = scene.segmentation if self.target == "segmentation" else {"boxes": scene.boxes, "labels": scene.labels,
                                                                           "masks": scene.masks}
        target = target if self.target_transform is None else self.target_transform(target)
        return (scene.image if self.transform is None else self.transform(scene.image)), target

    def scene(self, index: int) -> Scene:
        """Draw a scene, with all that is known of it."""
        rng = keyed_generator(self.seed, int(self.train), SCENES, scene_number(self, index))
        picture = draw_background(rng, self.size)
        masks: list[np.ndarray] = []
        labels, boxes = [], []
        for _ in range(rng.integers(self.objects[0], self.objects[1] + 1)):
            which = int(rng.integers(len(self.digits.data)))
            alpha = self._digit(rng, self.digits.data[which])
            corner = self._place(rng, alpha.size, boxes)
            if corner is None:
                continue
            box = *corner, corner[0] + alpha.size[0], corner[1] + alpha.size[1]
            boxes.append(box)
            labels.append(int(self.digits.targets[which]))
            beneath = np.asarray(picture.crop(box), np.float64).mean((0, 1))
            picture.paste(paint(rng, alpha.size, beneath), corner, alpha)
            whole = Image.new("L", picture.size)
            whole.paste(alpha, corner)
            mask = np.asarray(whole) >= 128
            masks = [earlier & ~mask for earlier in masks] + [mask]
        image = with_noise(rng, np.array(picture), self.noise)
        kept = [i for i, mask in enumerate(masks) if mask.any()]
        return Scene(image, np.array([box_of(masks[i]) for i in kept], np.float32).reshape(-1, 4),
                     np.array([labels[i] for i in kept], np.int64), np.array([masks[i] for i in kept]).reshape(-1, *self.size))

    def _digit(self, rng: np.random.Generator, pixels: np.ndarray) -> Image.Image:
        """A digit's ink as a mask, turned, stretched and scaled, without a border."""
        height = rng.uniform(*self.scale) * min(self.size)
        turned = Image.fromarray(pixels).resize((4 * pixels.shape[1], 4 * pixels.shape[0]), Image.Resampling.BICUBIC)
        turned = turned.rotate(rng.uniform(-TURN, TURN), Image.Resampling.BILINEAR, expand=True)
        ink = turned.crop(turned.point([255 * (value >= INK) for value in range(256)]).getbbox())
        width = height * ink.size[0] / ink.size[1] * rng.uniform(*STRETCH)
        limit = [min(max(round(side), 3), n) for side, n in zip((width, height), self.size[::-1])]
        return ink.resize(limit, Image.Resampling.BOX if height < ink.size[1] else Image.Resampling.BICUBIC)

    def _place(self, rng: np.random.Generator, size: tuple[int, int], boxes: list) -> tuple[int, int] | None:
        """A corner where no box is covered too much."""
        for x, y in rng.random((TRIES, 2)):
            left, top = int(x * (self.size[1] - size[0] + 1)), int(y * (self.size[0] - size[1] + 1))
            box = left, top, left + size[0], top + size[1]
            if all(_covered(box, other) <= self.overlap for other in boxes):
                return left, top
        return None


def _covered(a: tuple, b: tuple) -> float:
    """Common share of the smaller of two boxes."""
    across, down = (max(0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1))
    return across * down / min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
