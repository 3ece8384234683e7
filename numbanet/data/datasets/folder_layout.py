"""What lies in a folder: IDX files, CIFAR's binary files, packed images, CSV lists, class folders under train/ and val/ or test/, or class
folders to be split."""

from __future__ import annotations

import copy
import logging
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from numbanet.data.dataset import ArrayDataset
from numbanet.data.datasets.cifar import CIFAR10, CIFAR100, find_cifar
from numbanet.data.datasets.csv_list import CSVDataset
from numbanet.data.datasets.idx import read_idx
from numbanet.data.datasets.image_files import ImageFiles
from numbanet.data.datasets.image_folder import ImageFolder, class_folders
from numbanet.data.datasets.mnist import FashionMNIST, find_idx
from numbanet.data.datasets.packed import PackedDataset, packed_splits
from numbanet.data.images import image_header
from numbanet.data.randomness import ORDER, keyed_generator
from numbanet.errors import DataError, UsageError

logger = logging.getLogger("numbanet.data")

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

    train: ArrayDataset | ImageFiles
    test: ArrayDataset | ImageFiles
    classes: tuple[str, ...]
    channels: int
    image_size: tuple[int, int]
    layout: str


def open_image_data(root: str | os.PathLike, val_fraction: float = 0.2, seed: int = 0) -> ImageData:
    """Open a folder of images, whatever its layout.

    In this order: IDX files as MNIST's; the binary files of CIFAR-10 or CIFAR-100; packed images; what `image_splits` finds: lists as CSV
    files, class folders in ``train/`` and in ``val/`` or ``test/``, or class folders. What has no held-out images is split:
    `val_fraction` of each class, at least one image, the same ones for the same files and `seed`.

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
    for kind, name in ((CIFAR10, "CIFAR-10"), (CIFAR100, "CIFAR-100")):
        if find_cifar(root, kind) is not None:
            train, test = kind(root, True), kind(root, False)
            return ImageData(train, test, tuple(train.classes), 3, train.data.shape[1:3], f"{name} files")
    if packed_splits(root):
        return _open_packed(root, val_fraction, seed)
    splits, layout = image_splits(root)
    train, held_out = splits["train"], next((name for name in _HELD_OUT if name in splits), None)
    if held_out is not None:
        return ImageData(train, splits[held_out], tuple(train.classes), *_look_at(train), layout)
    train, test = hold_out(train, val_fraction, seed)
    return ImageData(train, test, tuple(train.classes), *_look_at(train), f"{layout}, {val_fraction:.0%} of each class held out")


def hold_out(images: ImageFiles, val_fraction: float = 0.2, seed: int = 0) -> tuple[ImageFiles, ImageFiles]:
    """Two parts of image files: `val_fraction` of each class, at least one image, is in the second.

    Raises
    ------
    DataError
        A class of one image.
    """
    parts = _split(np.asarray(images.targets), [Path(images.root) / name for name in images.classes], val_fraction, seed)
    made = copy.copy(images), copy.copy(images)
    for part, positions in zip(made, parts):
        part.set_samples([images.samples[i] for i in positions])
    return made


def image_splits(root: str | os.PathLike) -> tuple[dict[str, ImageFiles], str]:
    """The image files of a folder, by split, "train" first and all with the classes of "train", and the layout in words.

    In this order: a CSV file that is given itself; ``train.csv``, with ``val.csv`` or ``test.csv`` beside it; ``labels.csv``, whose column
    `split` may divide it; class folders in ``train/``, with ``val/`` or ``test/`` beside it; class folders.

    Raises
    ------
    DataError
        A missing, empty or damaged folder or list; classes of another split that the training images lack.
    """
    root = Path(root)
    if root.is_file() and root.suffix.lower() == ".csv":
        return _list_splits(root)
    if (root / "train.csv").is_file():
        found = [name for name in _HELD_OUT if (root / f"{name}.csv").is_file()]
        train = CSVDataset(root / "train.csv")
        splits = {name: CSVDataset(root / f"{name}.csv", classes=train.classes) for name in found}
        return {"train": train, **splits}, " and ".join(f"{name}.csv" for name in ("train", *found))
    if (root / "labels.csv").is_file():
        return _list_splits(root / "labels.csv")
    folders = class_folders(root)
    if "train" not in folders or not _has_folders(root / "train"):      # without them it is a class of that name
        return {"train": ImageFolder(root)}, "class folders"
    train = ImageFolder(root / "train")
    found = [name for name in _HELD_OUT if name in folders]
    splits = {name: _of_classes(ImageFolder(root / name), train) for name in found}
    return {"train": train, **splits}, "class folders" + (f" in train/ and {' and '.join(f'{name}/' for name in found)}" if found else "")


def _list_splits(path: Path) -> tuple[dict[str, ImageFiles], str]:
    """One list, divided by its column `split` where it has one."""
    whole = CSVDataset(path)
    if "train" not in whole.splits:
        if whole.splits:
            raise DataError(f"{path}: expected rows with train in the column of splits, received only {', '.join(whole.splits)}")
        return {"train": whole}, path.name
    train = CSVDataset(path, split="train")
    splits = {name: CSVDataset(path, split=name, classes=train.classes) for name in whole.splits if name in _HELD_OUT}
    unknown = [name for name in whole.splits if name not in (*_HELD_OUT, "train")]
    if unknown:
        raise DataError(f"{path}: expected splits named train, {', '.join(_HELD_OUT[:-1])} or {_HELD_OUT[-1]}, received "
                        f"{', '.join(unknown)}")
    return {"train": train, **splits}, f"{path.name} with a column of splits"


def _open_packed(root: Path, val_fraction: float, seed: int) -> ImageData:
    splits = packed_splits(root)
    if "train" not in splits:
        raise DataError(f"{root}: expected packed training images (train_images.npy), received only {', '.join(splits)}")
    train = PackedDataset(root)
    classes, held_out = train.classes, next((name for name in _HELD_OUT if name in splits), None)
    if held_out is not None:
        test, layout = PackedDataset(root, held_out), f"packed, train and {held_out}"
        if test.data.shape[1:] != train.data.shape[1:]:
            raise DataError(f"{root}: expected {held_out} images of {train.data.shape[1:]} as the training images, received "
                            f"{test.data.shape[1:]}")
    else:
        kept, out = _split(train.targets, [f"class {name} of {root}" for name in train.classes], val_fraction, seed)
        # Copies, for want of arrays that are mapped in parts: `numbanet data pack` holds images out where the folder does not.
        train, test = (ArrayDataset(np.asarray(train.data)[rows], train.targets[rows]) for rows in (kept, out))
        layout = f"packed, {val_fraction:.0%} of each class held out"
    channels = 1 if train.data.ndim == 3 or train.data.shape[3] == 1 else 3
    return ImageData(train, test, classes, channels, train.data.shape[1:3], layout)


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


def _of_classes(images: ImageFolder, train: ImageFolder) -> ImageFolder:
    """The images of another split, with the labels of the training images."""
    unknown = sorted(set(images.classes) - set(train.classes))
    if unknown:
        raise DataError(f"{images.root}: expected the classes of {train.root}, received also {', '.join(unknown)}")
    missing = sorted(set(train.classes) - set(images.classes))
    if missing:
        logger.warning("%s has no images of %s, which %s has: they are not tested", images.root, ", ".join(missing), train.root)
    # A class that is not held out must not shift the labels of the others.
    images.set_samples([(path, train.class_to_idx[images.classes[label]]) for path, label in images.samples])
    images.classes, images.class_to_idx = train.classes, train.class_to_idx
    return images


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


def _look_at(images: ImageFiles) -> tuple[int, tuple[int, int]]:
    """Channels and size, by what can be read of those looked at; the others are told of when they are used."""
    chosen = np.unique(np.linspace(0, len(images) - 1, min(_LOOKED_AT, len(images))).astype(int))
    headers, broken = [], None
    for i in chosen:
        try:
            headers.append(image_header(images.samples[i][0]))
        except DataError as error:
            broken = broken or error
    if not headers:
        raise broken
    return (1 if all(grey for _, grey in headers) else 3), Counter(size for size, _ in headers).most_common(1)[0][0]
