"""The data of a classification run: the shipped digits, or a folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from numbanet.data import ArrayDataset
from numbanet.data.datasets import MNISTSample, open_image_data
from numbanet.train.preprocessing import MNIST_SIZE, PictureFolder, Preprocessing
from numbanet.vision.draw import save_image


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


def open_classifier_data(directory, info, val_fraction: float, seed: int, distort: bool) -> ClassifierData:
    """The data of `directory` (None: the digits that the package ships), for the model of `info`."""
    if directory is None:
        train, test, classes, size, channels = MNISTSample(True), MNISTSample(False), MNISTSample.classes, MNIST_SIZE, 1
        description = "the MNIST sample of the package"
    else:
        found = open_image_data(directory, val_fraction, seed)
        train, test, classes, size, channels = found.train, found.test, tuple(found.classes), found.image_size, found.channels
        description = f"{directory} ({found.layout})"
    arrays = isinstance(train, ArrayDataset)
    digits = channels == 1 and tuple(classes) == MNISTSample.classes
    preprocessing = Preprocessing.for_data(info, channels, size, digits or (arrays and tuple(size) == MNIST_SIZE))
    if not digits:
        preprocessing = Preprocessing(preprocessing.input_size, preprocessing.image_size, preprocessing.mean, preprocessing.std, False)
    made = [_prepared(part, preprocessing, distort and part is train) for part in (train, test)]
    description += (f": {len(made[0]):,} training and {len(made[1]):,} test images, {len(classes)} classes, "
                    f"{' x '.join(map(str, size))} {'grey' if channels == 1 else 'colour'} -> {' x '.join(map(str, preprocessing.input_size))}")
    return ClassifierData(*made, classes, preprocessing, description)


def _prepared(data, preprocessing: Preprocessing, distort: bool):
    transform = preprocessing.batch_transform(distort)
    if not isinstance(data, ArrayDataset):
        return PictureFolder(data, preprocessing, transform)
    images = data.data
    if images.shape[1:3] != preprocessing.image_size:
        from PIL import Image
        images = np.stack([preprocessing.pixels(Image.fromarray(i), raw=True) for i in images])
    return ArrayDataset(images, data.targets, batch_transform=transform)
