"""Packed images: one memory-mapped array of pixels and a list of labels, for fast epochs.

A folder holds, for each split, ``<split>_images.npy``, uint8 (N, H, W) or (N, H, W, 3) in C order, and ``<split>_labels.csv`` with
the columns path, label and class, a row for each image; and ``classes.json``, the list of the names of all classes. Every part is a
format that other programs read. `numbanet data pack` and `numbanet.data.packing.pack` write it.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from numbanet.data.dataset import ArrayDataset
from numbanet.errors import DataError, UsageError

IMAGES, LABELS, CLASSES = "_images.npy", "_labels.csv", "classes.json"
COLUMNS = ("path", "label", "class")


class PackedDataset(ArrayDataset):
    """Images of a folder that `numbanet data pack` wrote; the pixels stay on disk until they are used.

    Samples are (image, label): a uint8 array (H, W) or (H, W, 3), changed by `transform`, and an int.

    Parameters
    ----------
    root
        The folder.
    split : str
        "train", or another split that the folder has.
    transform, target_transform, batch_transform
        As in `ArrayDataset`.

    Attributes
    ----------
    data : numpy.memmap
        uint8, read-only.
    targets : int64 array
    paths : list of str
        Where the images came from.
    classes : tuple of str

    Raises
    ------
    DataError
        A file that is missing, damaged or does not fit the others.
    """

    def __init__(self, root: str | os.PathLike, split: str = "train", transform: Callable | None = None,
                 target_transform: Callable | None = None, *, batch_transform: Callable | None = None):
        self.root, self.split = Path(root), split
        splits = packed_splits(root)
        if split not in splits:
            raise (UsageError if splits else DataError)(f"{root}: expected {split}{IMAGES}, received a folder "
                                                        + (f"of {', '.join(splits)}" if splits else "without packed images"))
        self.classes = _read_classes(self.root / CLASSES)
        images = _map_images(self.root / f"{split}{IMAGES}")
        self.paths, labels = _read_labels(self.root / f"{split}{LABELS}", len(images), self.classes)
        super().__init__(images, labels, transform, target_transform, batch_transform)

    @property
    def class_to_idx(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.classes)}

    def sample_path(self, index: int) -> str:
        return self.paths[index]


def packed_splits(root: str | os.PathLike) -> list[str]:
    """The splits that a folder holds, "train" first; none where it is no folder of packed images."""
    try:
        names = [e.name.removesuffix(IMAGES) for e in os.scandir(root) if e.name.endswith(IMAGES) and not e.name.startswith(".")]
    except OSError:
        return []
    return sorted(names, key=lambda name: (name != "train", name))


def _map_images(path: Path) -> np.memmap:
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:    # also a file shorter than its header says
        raise DataError(f"{path}: not a readable .npy file of images ({error}); pack the images again") from error
    if not isinstance(images, np.memmap) or images.dtype != np.uint8 or images.ndim not in (3, 4) \
            or (images.ndim == 4 and images.shape[3] not in (1, 3)) or not images.flags.c_contiguous:
        raise DataError(f"{path}: expected uint8 (N, H, W) or (N, H, W, 3) in C order, received {getattr(images, 'dtype', '')} "
                        f"{getattr(images, 'shape', 'no array')}")
    return images


def _read_classes(path: Path) -> tuple[str, ...]:
    try:
        classes = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: the file is missing; it lists the names of the classes") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected a JSON list of names of classes, received something else ({error})") from error
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes) or len({*classes}) < len(classes):
        raise DataError(f"{path}: expected a JSON list of different names of classes")
    return tuple(classes)


def _read_labels(path: Path, count: int, classes: tuple[str, ...]) -> tuple[list[str], np.ndarray]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.reader(file, strict=True)
            if tuple(next(reader, ())) != COLUMNS:
                raise DataError(f"{path}: expected the columns {', '.join(COLUMNS)} in its first line")
            rows = list(reader)
        labels = np.array([int(row[1]) for row in rows], np.int64)
        paths = [row[0] for row in rows]
    except FileNotFoundError:
        raise DataError(f"{path}: the file of labels is missing") from None
    except (OSError, ValueError, IndexError, OverflowError, csv.Error) as error:
        raise DataError(f"{path}: expected a row path,label,class for each image, received something else ({error})") from error
    if len(rows) != count:
        raise DataError(f"{path}: expected a label for each of the {count} images beside it, received {len(rows)}")
    if count and (labels.min() < 0 or labels.max() >= len(classes)):
        raise DataError(f"{path}: expected labels from 0 to {len(classes) - 1}, received {labels.min()} to {labels.max()}")
    return paths, labels
