"""The data of a classification run: the shipped digits, or a folder."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from numbanet.data import ArrayDataset, Dataset, load_image
from numbanet.data.datasets import ImageFolder, MNISTSample, open_image_data
from numbanet.data.transforms import Compose
from numbanet.data.transforms import Image as PixelArray
from numbanet.errors import DataError, UsageError
from numbanet.train.preprocessing import MNIST_SIZE, PictureFolder, Preprocessing
from numbanet.train.recipe import make_transforms
from numbanet.vision.draw import save_image

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
            pixels = self.test.picture(index) if isinstance(self.test, PictureFolder) else self.test.data[index]
            name = re.sub(r"[^\w-]+", "_", self.classes[label]) or "class"
            save_image(folder / f"{name}-{index}.png", pixels)


def open_classifier_data(directory, info, val_fraction: float, seed: int, distort: bool, watch=None, train_transforms=(),
                         resize: int | None = None) -> ClassifierData:
    """The data of `directory` (None: the digits that the package ships), for the model of `info`.

    `train_transforms`, as :func:`~numbanet.train.recipe.make_transforms` takes them, work on each training picture as it was decoded, and
    give uint8 pictures of the network's size. Test pictures are scaled to the shorter side `resize`, of which the centre is cut out.

    Pictures of class folders are decoded here, so that training does not meet a broken one; `watch(iterator, total=...)` passes on
    what it is given and may show progress.

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
    # Pictures in folders are made to look like MNIST's; arrays must do so already.
    digits = channels == 1 and classes == MNISTSample.classes and (pad or isinstance(train, ImageFolder))
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
        made = [TransformedPictures(train, make_transforms(train_transforms), preprocessing), _prepared(test, preprocessing, False)]
    else:
        made = [_prepared(part, preprocessing, distort and part is train) for part in (train, test)]
    _check([part for part in made if isinstance(part, PictureFolder)], watch)
    kind = "grey" if channels == 1 else "colour"
    description += (f"\n      {len(made[0]):,} training and {len(made[1]):,} test images, {len(classes)} classes, "
                    f"{'x'.join(map(str, size))} {kind} -> {'x'.join(map(str, preprocessing.input_size))}")
    return ClassifierData(*made, classes, preprocessing, description)


class TransformedPictures(Dataset):
    """Pictures of a folder or an array, each changed by transforms, as batches of network input: uint8 until the last step."""

    def __init__(self, source, transforms: list, preprocessing: Preprocessing):
        self.source, self.transform, self.preprocessing = source, Compose(transforms), preprocessing
        self.targets = np.asarray(source.targets, np.int64)
        self.batch_transform = preprocessing.batch_transform()

    def __len__(self) -> int:
        return len(self.targets)

    def sample_path(self, index: int) -> str | None:
        return self.source.sample_path(index) if hasattr(self.source, "sample_path") else None

    def picture(self, index: int) -> np.ndarray:
        """One transformed picture as uint8 (H, W) or (H, W, 3), in the network's order of channels."""
        mode = self.preprocessing.mode
        if isinstance(self.source, ArrayDataset):
            picture = Image.fromarray(np.asarray(self.source.data[index])).convert(mode)
        else:
            picture = load_image(self.source.sample_path(index), mode)
        made = self.transform(picture)
        pixels = np.asarray(made)
        if isinstance(made, PixelArray):
            pixels = pixels.transpose(1, 2, 0)
        if pixels.ndim == 3 and pixels.shape[2] == 1:
            pixels = pixels[..., 0]
        expected = (*self.preprocessing.image_size, *((3,) if mode == "RGB" else ()))
        if pixels.dtype != np.uint8 or pixels.shape != expected:
            raise DataError(f"--train-transforms: expected them to give uint8 pictures of {expected}, received {pixels.dtype} of "
                            f"{pixels.shape}; end with a crop or Resize to that size, and leave normalising to the run")
        return pixels[..., ::-1] if self.preprocessing.channel_order == "bgr" and pixels.ndim == 3 else pixels

    def __getitem__(self, index: int):
        return self.batch_transform(self.picture(index)[None], [index])[0], int(self.targets[index])


def _prepared(data, preprocessing: Preprocessing, distort: bool):
    transform = preprocessing.batch_transform(distort)
    if not isinstance(data, ArrayDataset):
        return PictureFolder(data, preprocessing, transform)
    images = data.data
    if images.shape[1:3] != preprocessing.image_size:
        images = np.stack([preprocessing.pixels(Image.fromarray(i), raw=True) for i in images])
    return ArrayDataset(images, data.targets, batch_transform=transform)


def _check(folders: list[PictureFolder], watch) -> None:
    """Raise where pictures cannot be used, naming the first few."""
    total = sum(map(len, folders))
    if not total:
        return
    problems = itertools.chain.from_iterable(f.problems() for f in folders)
    broken = [p for p in (problems if watch is None else watch(problems, total=total)) if p is not None]
    if broken:
        more = f"\n  and {len(broken) - NAMED_AT_MOST} more" if len(broken) > NAMED_AT_MOST else ""
        raise DataError(f"{len(broken)} of {total} images cannot be used; replace or remove them:"
                        + "".join(f"\n  {p}" for p in broken[:NAMED_AT_MOST]) + more)
