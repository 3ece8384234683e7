"""The data of a segmentation run: scenes made up from a seed, or a folder of pictures and masks."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from numbanet.data import CollatedBatch, Dataset
from numbanet.data.datasets import MaskFolder, create_dataset
from numbanet.data.datasets.mask_folder import VOID as VOID_VALUE
from numbanet.data.images import image_header
from numbanet.data.randomness import ORDER, enter_sample, keyed_generator, sample_generator
from numbanet.errors import DataError, NumbanetError, UsageError
from numbanet.segmentation.losses import VOID
from numbanet.train.pictures import KEPT_BYTES
from numbanet.train.preprocessing import Preprocessing
from numbanet.train.recipe import Recipe
from numbanet.vision.draw import save_image

logger = logging.getLogger(__name__)

SCENES = {"count": 4000, "test_count": 500, "size": 64, "anew": True}     # where no data are given
LARGEST = 512           # longer side that pictures of one size may have to be taken as they are; others are scaled to SIZE
SIZE = 256
NAMED_AT_MOST = 5
BACKGROUND = "background"
HELD_OUT = ("val", "valid", "validation", "test")
SMALLEST_WINDOW = 0.7   # of a picture's sides, where they are distorted


@dataclass
class SegmentationData:
    """Datasets of (input, classes of the pixels), with what describes them."""

    train: MaskedPictures
    test: MaskedPictures
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    description: str

    def save_samples(self, folder: Path, count: int = 10) -> None:
        """Keep test pictures as PNGs, to try the network on."""
        for index in range(min(count, len(self.test))):
            try:
                save_image(folder / f"{index}.png", self.test.picture(index))
            except DataError:               # on_error="skip", or it was whole a moment ago
                continue


class MaskedPictures(Dataset):
    """Pictures and masks as network input and int64 labels (H, W), of one size; void pixels are -100.

    Parameters
    ----------
    source : MaskFolder, or a data set whose ``scene(index)`` has `image` and `segmentation`
    preprocessing : Preprocessing
    distort : bool
        Mirror half of the pictures, and scale up a window of each, 0.7 to 1 of its sides.
    positions : sequence of int, optional
        The samples of the source that belong to it; by default all.
    """

    def __init__(self, source, preprocessing: Preprocessing, distort: bool = False, positions: Sequence[int] | None = None):
        self.source, self.preprocessing, self.distort = source, preprocessing, distort
        self.positions = range(len(source)) if positions is None else [int(i) for i in positions]
        self._transform = preprocessing.batch_transform()
        each = preprocessing.picture_bytes + preprocessing.image_size[0] * preprocessing.image_size[1]
        self._capacity = 0 if getattr(source, "anew", False) else KEPT_BYTES // each
        self._kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.positions)

    def sample_path(self, index: int) -> str | None:
        return self.source.sample_path(self.positions[index]) if hasattr(self.source, "sample_path") else None

    def pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """(uint8 picture, uint8 mask) of the preprocessing's size, as they are without distortion."""
        found = self._kept.get(index)
        if found is None:
            found = self._read(self.positions[index])
            if index < self._capacity:
                self._kept[index] = found
        return found

    def picture(self, index: int) -> np.ndarray:
        """The picture alone."""
        return self.pair(index)[0]

    def mask(self, index: int) -> np.ndarray:
        """The mask alone: numbers of classes, 255 for none."""
        return self.pair(index)[1]

    def _read(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        if isinstance(self.source, MaskFolder):
            image, mask = self.source[position]
        else:
            scene = self.source.scene(position)
            image, mask = Image.fromarray(scene.image), scene.segmentation
        size = self.preprocessing.image_size
        pixels = self.preprocessing.pixels(image, raw=True)
        if mask.shape != size:
            mask = np.asarray(Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST))
        return np.ascontiguousarray(pixels), np.ascontiguousarray(mask)

    def problems(self):
        """What is wrong with each sample in a file, in order; None where nothing is."""
        if not isinstance(self.source, MaskFolder):
            return

        def problem(position: int) -> DataError | None:
            try:
                self.source.check(position)
            except DataError as error:
                return error

        with ThreadPoolExecutor(os.cpu_count()) as workers:
            yield from workers.map(problem, self.positions)

    def __getitem__(self, index: int):
        images, masks = self.__getitems__([index])
        return images[0], masks[0]

    def __getitems__(self, indices: Sequence[int]) -> CollatedBatch:
        indices, size = np.asarray(indices, np.int64), self.preprocessing.image_size
        pictures = np.empty((len(indices), *self.preprocessing.picture_shape), np.uint8)
        masks = np.empty((len(indices), *size), np.int64)
        for row, index in enumerate(indices.tolist()):
            enter_sample(index)
            try:
                picture, mask = self.pair(index)
            except DataError as error:          # names its file
                raise DataError(f"sample {index}: {error}") from error
            if self.distort:
                picture, mask = distorted(picture, mask, sample_generator(index))
            pictures[row], masks[row] = picture, mask
        masks[masks == VOID_VALUE] = VOID
        return CollatedBatch((self._transform(pictures, indices), masks))


def distorted(picture: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A window of both, scaled up to their size, mirrored or not; masks keep whole numbers."""
    height, width = mask.shape
    share = rng.uniform(SMALLEST_WINDOW, 1.0)
    left, top = rng.uniform(0, width * (1 - share)), rng.uniform(0, height * (1 - share))
    box, mirrored = (left, top, left + share * width, top + share * height), rng.random() < 0.5
    made = []
    for array, method in ((picture, Image.Resampling.BILINEAR), (mask, Image.Resampling.NEAREST)):
        array = np.asarray(Image.fromarray(array).resize((width, height), method, box=box))
        made.append(array[:, ::-1] if mirrored else array)
    return made[0], made[1]


def open_segmentation_data(recipe: Recipe, info, watch=None) -> SegmentationData:
    """What a recipe's `data` names: a folder, or a data set of scenes (by default ``synthetic_scenes``) that is made with `data_options`.

    A folder holds ``images/`` and ``masks/`` (:class:`~numbanet.data.datasets.MaskFolder`), or ``train/`` and ``val/`` or ``test/`` with
    these inside; what has no held-out pictures is split. All masks are read here, so that training does not meet a broken one.

    Raises
    ------
    DataError
        Nothing that can be trained on, or files that cannot be used.
    UsageError
        Options that the data do not take.
    """
    if recipe.train_transforms:
        raise UsageError("--train-transforms: would leave masks behind; --distort mirrors and scales pictures and masks together")
    if recipe.distortions:
        raise UsageError("--distortions: are ranges for classifiers; --distort mirrors and scales pictures and masks together")
    if recipe.mixup or recipe.cutmix:
        raise UsageError(f"--{'mixup' if recipe.mixup else 'cutmix'}: mixes labels of whole pictures; leave it out for a segmenter")
    if recipe.data is None or not Path(recipe.data).exists() and Path(recipe.data).name == recipe.data:
        train, test, classes, size, description = _scenes(recipe)
        parts, channels = ((train, None), (test, None)), 3
    else:
        parts, classes, channels, size, description = _folder(recipe)
    if recipe.resize is not None:
        size = (recipe.resize, recipe.resize)
    mean, std = (info.mean, info.std) if any(info.mean) and len(info.mean) == channels else ((0.5,) * channels, (0.25,) * channels)
    preprocessing = Preprocessing((channels, *size), tuple(size), mean, std)
    made = [MaskedPictures(source, preprocessing, recipe.distort and not i, positions) for i, (source, positions) in enumerate(parts)]
    _check(made, watch, recipe.on_error)
    description += (f"\n      {len(made[0]):,} training and {len(made[1]):,} test images, {len(classes)} classes, "
                    f"{'x'.join(map(str, size))} {'grey' if channels == 1 else 'colour'}")
    return SegmentationData(*made, tuple(classes), preprocessing, description)


def _scenes(recipe: Recipe):
    """(training and test scenes, classes, (H, W), description)."""
    name, options = recipe.data or "synthetic_scenes", {**SCENES, **recipe.data_options}
    counts = options.pop("count"), options.pop("test_count")
    try:
        train, test = (create_dataset(name, count=count, train=i == 0, target="segmentation", **options) for i, count in enumerate(counts))
        if not len(train) or not len(test):
            raise ValueError("there are no scenes")
        classes = (BACKGROUND, *train.classes)
        size = train.scene(0).image.shape[:2]
    except (TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"--data {name} with options {options | dict(zip(('count', 'test_count'), counts))}: cannot be used for "
                         f"segmentation ({error}); expected scenes, such as synthetic_scenes with count, test_count and size") from error
    except NumbanetError as error:
        raise type(error)(f"--data: {error.message}") from error
    return train, test, classes, size, f"{name}, made up from seed {train.seed}"


def _folder(recipe: Recipe):
    """(((source, positions) of training and test), classes, channels, (H, W), description)."""
    root = Path(recipe.data)
    if recipe.data_options:
        raise UsageError(f"--data-options: are of a data set by name; leave them out with the folder {root}")
    if (root / "train").is_dir():
        names = [name for name in HELD_OUT if (root / name).is_dir()]
        if not names:
            raise DataError(f"{root}: expected val/ or test/ beside train/, received neither")
        train = MaskFolder(root / "train", classes=_shared_names(root))
        test = MaskFolder(root / names[0], classes=train.classes)
        test.foreground = train.foreground
        parts, layout = ((train, None), (test, None)), f"images and masks in train/ and {names[0]}/"
    else:
        train = MaskFolder(root)
        if len(train) < 2:
            raise DataError(f"{root}: expected two pictures or more, received {len(train)}; one at least is held out")
        order = keyed_generator(recipe.seed, 0, ORDER, 0).permutation(len(train))
        held = max(1, round(recipe.val_fraction * len(train)))
        parts = ((train, np.sort(order[held:])), (train, np.sort(order[:held])))
        layout = f"images and masks, {recipe.val_fraction:.0%} held out"
    if len(train.classes) < 2:
        raise DataError(f"{root}: expected masks of two classes or more, received only {', '.join(train.classes)}")
    sizes, greys = zip(*(image_header(path) for path, _ in itertools.islice(train.samples, 64)))
    size = sizes[0] if len({*sizes}) == 1 and max(sizes[0]) <= LARGEST else (SIZE, SIZE)
    return parts, train.classes, 1 if all(greys) else 3, size, f"{root} ({layout})"


def _shared_names(root: Path):
    from numbanet.data.datasets.mask_folder import read_class_names
    return read_class_names(root / "classes.txt") or None


def _check(parts: list[MaskedPictures], watch, on_error: str) -> None:
    """Raise where pictures or masks cannot be used, naming the first few; with `on_error` "skip" only where none can."""
    if not isinstance(parts[0].source, MaskFolder):
        return
    total = sum(map(len, parts))
    problems = itertools.chain.from_iterable(part.problems() for part in parts)
    found = list(problems if watch is None else watch(problems, total=total))
    broken = [p for p in found if p is not None]
    if not broken:
        return
    more = f"\n  and {len(broken) - NAMED_AT_MOST} more" if len(broken) > NAMED_AT_MOST else ""
    named = "".join(f"\n  {p}" for p in broken[:NAMED_AT_MOST]) + more
    if on_error == "raise" or len(broken) == total:
        raise DataError(f"{len(broken)} of {total} pictures cannot be used; mend or remove them, or leave them out with --on-error skip:"
                        + named)
    logger.warning("%d of %d pictures cannot be used and are left out:%s", len(broken), total, named)
