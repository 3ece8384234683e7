"""What lies in a folder: IDX files, class folders under train/ and val/ or test/, or class folders to be split."""

from __future__ import annotations

import copy
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from numbanet.data.dataset import ArrayDataset
from numbanet.data.datasets.idx import read_idx
from numbanet.data.datasets.image_folder import ImageFolder, class_folders
from numbanet.data.datasets.mnist import FashionMNIST, find_idx
from numbanet.data.images import image_header
from numbanet.data.randomness import ORDER, keyed_generator
from numbanet.errors import DataError, UsageError

_HELD_OUT = ("val", "valid", "validation", "test")      # in order of preference
_LOOKED_AT = 64                                         # images whose headers tell size and channels


@dataclass(frozen=True)
class ImageData:
    """Training and test images found in a folder.

    Attributes
    ----------
    train, test
        Datasets of their own, without transform: set the `transform` (or, of arrays, `batch_transform`) of each.
    classes : tuple of str
    channels : int
        1 if the images looked at are grey, otherwise 3.
    image_size : (H, W)
        The size that most images have.
    layout : str
        What was found, in words.
    """

    train: ArrayDataset | ImageFolder
    test: ArrayDataset | ImageFolder
    classes: tuple[str, ...]
    channels: int
    image_size: tuple[int, int]
    layout: str


def open_image_data(root: str | os.PathLike, val_fraction: float = 0.2, seed: int = 0) -> ImageData:
    """Open a folder of images, whatever its layout.

    In this order: IDX files as MNIST's; class folders in ``train/`` and in ``val/`` or ``test/``; class folders. What
    has no held-out images is split: `val_fraction` of each class, at least one image, the same ones for the same files
    and `seed`.

    Raises
    ------
    DataError
        A missing, empty or damaged folder; held-out classes that the training images lack.
    UsageError
        `val_fraction` outside of (0, 1).
    """
    if not 0 < val_fraction < 1:
        raise UsageError(f"val_fraction: expected a number between 0 and 1, received {val_fraction}")
    root = Path(root)
    if any(find_idx(root, True)):
        return _open_idx(root, val_fraction, seed)
    folders = class_folders(root)
    if "train" in folders and _has_folders(root / "train"):     # without them it is a class of that name
        held_out = next((name for name in _HELD_OUT if name in folders), None)
        if held_out is not None:
            return _open_splits(root, held_out)
        return _open_classes(root / "train", val_fraction, seed)
    return _open_classes(root, val_fraction, seed)


def _open_idx(root: Path, val_fraction: float, seed: int) -> ImageData:
    train = _idx_split(root, True)
    if any(find_idx(root, False)):
        test, layout = _idx_split(root, False), "IDX files"
        count = int(max(train.targets.max(), test.targets.max())) + 1
    else:
        count = int(train.targets.max()) + 1
        kept, held_out = _split(train.targets, [f"class {i} of {root}" for i in range(count)], val_fraction, seed)
        train, test = (ArrayDataset(train.data[i], train.targets[i]) for i in (kept, held_out))
        layout = f"IDX files, {val_fraction:.0%} of each class held out"
    fashion = "fashion" in root.name.lower() and count == len(FashionMNIST.classes)
    classes = FashionMNIST.classes if fashion else tuple(str(i) for i in range(count))
    return ImageData(train, test, classes, 1, train.data.shape[1:3], layout)


def _idx_split(root: Path, train: bool) -> ArrayDataset:
    images_path, labels_path = find_idx(root, train)
    if images_path is None or labels_path is None:
        raise DataError(f"{root}: found {images_path or labels_path} without its file of "
                        f"{'images' if images_path is None else 'labels'}")
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels) or not len(images):
        raise DataError(f"{labels_path}: expected one image at least and a label for each, received {len(labels)} "
                        f"labels for the {len(images)} images of {images_path}")
    if images.dtype != np.uint8 or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise DataError(f"{images_path}: expected uint8 images and labels of 0 or more, received {images.dtype} images "
                        f"and {labels.dtype} labels")
    return ArrayDataset(images, labels)


def _open_splits(root: Path, held_out: str) -> ImageData:
    train, test = ImageFolder(root / "train"), ImageFolder(root / held_out)
    unknown = sorted(set(test.classes) - set(train.classes))
    if unknown:
        raise DataError(f"{root / held_out}: expected the classes of {root / 'train'}, received also "
                        f"{', '.join(unknown)}")
    # A class that is not held out must not shift the labels of the others.
    test.set_samples([(path, train.class_to_idx[test.classes[label]]) for path, label in test.samples])
    test.classes, test.class_to_idx = train.classes, train.class_to_idx
    return ImageData(train, test, tuple(train.classes), *_look_at(train), f"class folders in train/ and {held_out}/")


def _open_classes(root: Path, val_fraction: float, seed: int) -> ImageData:
    train = ImageFolder(root)
    parts = _split(np.asarray(train.targets), [root / name for name in train.classes], val_fraction, seed)
    test, samples = copy.copy(train), train.samples
    for images, part in zip((train, test), parts):
        images.set_samples([samples[i] for i in part])
    return ImageData(train, test, tuple(train.classes), *_look_at(train),
                     f"class folders, {val_fraction:.0%} of each class held out")


def _split(targets: np.ndarray, names: list, val_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions to train with and to hold out, both ascending."""
    held_out = []
    for label, name in enumerate(names):
        members = np.flatnonzero(targets == label)
        if len(members) == 1:
            raise DataError(f"{name}: expected two images or more, one to train with and one to test with, received 1")
        count = min(max(1, round(val_fraction * len(members))), len(members) - 1) if len(members) else 0
        held_out.append(keyed_generator(seed, 0, ORDER, label).permutation(members)[:count])
    held_out = np.sort(np.concatenate(held_out))
    return np.setdiff1d(np.arange(len(targets)), held_out), held_out


def _has_folders(folder: Path) -> bool:
    return any(e.is_dir() and not e.name.startswith(".") for e in os.scandir(folder))


def _look_at(images: ImageFolder) -> tuple[int, tuple[int, int]]:
    chosen = np.unique(np.linspace(0, len(images) - 1, min(_LOOKED_AT, len(images))).astype(int))
    headers = [image_header(images.samples[i][0]) for i in chosen]
    return (1 if all(grey for _, grey in headers) else 3), Counter(size for size, _ in headers).most_common(1)[0][0]
