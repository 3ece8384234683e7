"""The data of a classification run: the shipped digits, or a folder."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from numbanet.data import ArrayDataset
from numbanet.data.datasets import MNISTSample, open_image_data
from numbanet.errors import DataError, UsageError
from numbanet.train.pictures import KEPT_BYTES, PictureFolder, TransformedPictures, picture_of
from numbanet.train.preprocessing import MNIST_SIZE, Preprocessing
from numbanet.train.recipe import make_transforms
from numbanet.vision.draw import save_image

logger = logging.getLogger(__name__)

NAMED_AT_MOST = 5       # broken images that an error names


@dataclass
class ClassifierData:
    """Datasets of (input, label), with what describes them."""

    train: object
    test: object
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    description: str

    def save_samples(self, folder: Path, count: int = 10) -> None:
        """Keep test pictures of different classes as PNGs, to try predictions on."""
        targets = np.asarray(self.test.targets)
        chosen = []
        for label in range(len(self.classes)):
            members = np.flatnonzero(targets == label)
            chosen += [(int(i), label) for i in members[:max(1, count // len(self.classes))]]
        for index, label in chosen[:count]:
            try:
                pixels = picture_of(self.test, index)
            except DataError:               # on_error="skip", or it was whole a moment ago
                continue
            name = re.sub(r"[^\w-]+", "_", self.classes[label]) or "class"
            save_image(folder / f"{name}-{index}.png", pixels)


def open_classifier_data(directory, info, val_fraction: float, seed: int, distortions: Mapping | None, watch=None, train_transforms=(),
                         resize: int | None = None, on_error: str = "raise") -> ClassifierData:
    """The data of `directory` (None: the digits that the package ships), for the model of `info`.

    `train_transforms`, as :func:`~numbanet.train.recipe.make_transforms` takes them, work on each training picture as it was decoded, and
    give uint8 pictures of the network's size; without them they are moved by random affine maps of the ranges `distortions`, if any.
    Test pictures are scaled to the shorter side `resize`, of which the centre is cut out.

    Pictures in files are looked at here, and decoded where they can be kept, so that training does not meet a broken one; `watch(iterator,
    total=...)` passes on what it is given and may show progress. With `on_error` "skip" broken ones are told of and stay in the datasets,
    for the loader to leave out: positions, on which random numbers depend, are the same when a file breaks later.

    Raises
    ------
    DataError
        Nothing that can be trained on, or files that are broken.
    """
    if directory is None:
        train, test, classes, size, channels = MNISTSample(True), MNISTSample(False), MNISTSample.classes, MNIST_SIZE, 1
        description = "the MNIST sample of the package"
    else:
        found = open_image_data(directory, val_fraction, seed)
        train, test, classes, size, channels = found.train, found.test, tuple(found.classes), tuple(found.image_size), found.channels
        description = f"{directory} ({found.layout})"
    if len(classes) < 2:
        raise DataError(f"{directory}: expected two classes or more, received only {', '.join(classes)}; a classifier of one has nothing "
                        "to tell apart")
    pad = isinstance(train, ArrayDataset) and size == MNIST_SIZE
    # Pictures in files are made to look like MNIST's; arrays must do so already.
    digits = channels == 1 and classes == MNISTSample.classes and (pad or not isinstance(train, ArrayDataset))
    preprocessing = Preprocessing.for_data(info, channels, MNIST_SIZE if digits else size, pad or digits, digits)
    if resize is not None:
        try:
            preprocessing = replace(preprocessing, image_size=preprocessing.input_size[1:], resize=resize)
        except ValueError as error:
            raise UsageError(f"--resize: expected at least the network's {max(preprocessing.input_size[1:])}, received {resize}") from error
    if train_transforms and digits:
        raise UsageError("--train-transforms: pictures of digits are brought to MNIST's form first; leave "
                         "transforms out, --distort moves them")
    if train_transforms:
        made = [TransformedPictures(train, make_transforms(train_transforms), preprocessing), _prepared(test, preprocessing, None)]
    else:
        made = [_prepared(part, preprocessing, distortions if part is train else None) for part in (train, test)]
    check_pictures([part for part in made if hasattr(part, "problems")], watch, on_error)
    kind = "grey" if channels == 1 else "colour"
    description += (f"\n      {len(made[0]):,} training and {len(made[1]):,} test images, {len(classes)} classes, "
                    f"{'x'.join(map(str, size))} {kind} -> {'x'.join(map(str, preprocessing.input_size))}")
    return ClassifierData(*made, classes, preprocessing, description)


def _prepared(data, preprocessing: Preprocessing, distortions: Mapping | None):
    transform = preprocessing.batch_transform(distortions)
    if not isinstance(data, ArrayDataset):
        return PictureFolder(data, preprocessing, transform)
    images = data.data
    if images.shape[1:3] != preprocessing.image_size:
        if len(images) * preprocessing.picture_bytes > KEPT_BYTES:
            return TransformedPictures(data, [], preprocessing, distortions)
        images = np.stack([preprocessing.pixels(Image.fromarray(i), raw=True) for i in images])
    return ArrayDataset(images, data.targets, batch_transform=transform)


def check_pictures(parts: list, watch, on_error: str) -> None:
    """Raise where pictures of datasets with ``problems()`` cannot be used, naming the first few; with `on_error` "skip" only where all of
    one are."""
    total = sum(map(len, parts))
    if not total:
        return
    problems = itertools.chain.from_iterable(part.problems() for part in parts)
    found = list(problems if watch is None else watch(problems, total=total))
    broken = [p for p in found if p is not None]
    if not broken:
        return
    more = f"\n  and {len(broken) - NAMED_AT_MOST} more" if len(broken) > NAMED_AT_MOST else ""
    named = "".join(f"\n  {p}" for p in broken[:NAMED_AT_MOST]) + more
    if on_error == "raise":
        raise DataError(f"{len(broken)} of {total} images cannot be used; replace or remove them, or leave them out with --on-error skip:"
                        + named)
    for part in parts:
        if all(p is not None for p in itertools.islice(found, len(part))):
            raise DataError(f"none of {len(part)} images can be used, so that nothing is left to train or to test with:" + named)
        found = found[len(part):]
    logger.warning("%d of %d images cannot be used and are left out:%s", len(broken), total, named)
