"""CIFAR-10 and CIFAR-100 in their binary version.

A record is the label (CIFAR-100: the coarse one, then the fine one), one byte each, and 3 x 32 x 32 bytes: the red plane, the green
and the blue one, each row by row. Nothing else is in the files (A. Krizhevsky, "Learning multiple layers of features from tiny
images", 2009, and the page of the data sets).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from numbanet.data.dataset import ArrayDataset
from numbanet.errors import DataError, UnsupportedOperationError

SIZE = 32
PIXELS = 3 * SIZE * SIZE

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR100_CLASSES = tuple("""
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle caterpillar
    cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl
    hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
    oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road
    rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank
    telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
    """.split())
CIFAR100_COARSE_CLASSES = tuple("""
    aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices household_furniture insects
    large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes large_omnivores_and_herbivores medium_mammals
    non-insect_invertebrates people reptiles small_mammals trees vehicles_1 vehicles_2
    """.split())


class _CIFAR(ArrayDataset):
    """What both have in common: records in files of a folder, or of the folder that the archive unpacks to."""

    folder: str                                 # that the archive unpacks to
    files: dict[bool, tuple[str, ...]]
    label_bytes: int

    def __init__(self, root, train, transform, target_transform, download, batch_transform, label: int, classes: Sequence[str],
                 names_file: str):
        folder = find_cifar(root, type(self), train)
        if folder is None:
            if download:
                raise UnsupportedOperationError(f"{type(self).__name__}: numbanet downloads nothing; unpack the binary version of the "
                                                f"data set into {root}")
            other = next((p for p in (Path(root), *_below(root)) if (p / "data_batch_1").is_file() or p.name.endswith("-py")
                          or (p / "meta").is_file()), None)
            hint = f"; {other} holds the version for Python, whose pickles could run anything" if other else ""
            raise DataError(f"{root}: expected {self.files[train][0]} of the binary version, also in {self.folder}/, received a folder "
                            f"without it{hint}")
        missing = [name for name in self.files[train] if not (folder / name).is_file()]
        if missing:
            raise DataError(f"{folder}: expected {len(self.files[train])} files of {type(self).__name__}, received a folder without "
                            f"{', '.join(missing)}; unpack the archive again")
        self.root, self.train = Path(root), train
        self.classes = _read_names(folder / names_file, classes)
        parts = [read_records(folder / name, self.label_bytes) for name in self.files[train]]
        images, labels = (np.concatenate(arrays) for arrays in zip(*parts))
        targets = labels[:, label].astype(np.int64)
        if len(targets) and targets.max() >= len(classes):
            raise DataError(f"{folder}: expected labels from 0 to {len(classes) - 1}, received {targets.max()}; the files are damaged or "
                            "of another data set")
        super().__init__(images, targets, transform, target_transform, batch_transform)

    @property
    def class_to_idx(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.classes)}


class CIFAR10(_CIFAR):
    """60,000 photographs of ten kinds of things, 32 x 32 pixels, from the binary version's files.

    Samples are (image, label): a uint8 array (32, 32, 3), changed by `transform`, and an int.

    Parameters
    ----------
    root
        Folder of ``data_batch_1.bin`` ... ``data_batch_5.bin`` and ``test_batch.bin``, or of ``cifar-10-batches-bin/`` with them.
    train : bool
        The 50,000 training images, or the 10,000 test images.
    transform, target_transform, batch_transform
        As in `ArrayDataset`.
    download : bool
        Accepted for compatibility: files that are there are used, and nothing is ever downloaded.

    Raises
    ------
    DataError
        A file that is missing, of no whole number of records, or with labels that there are not.

    References
    ----------
    Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    """

    folder, label_bytes = "cifar-10-batches-bin", 1
    files = {True: tuple(f"data_batch_{i}.bin" for i in range(1, 6)), False: ("test_batch.bin",)}

    def __init__(self, root: str | os.PathLike, train: bool = True, transform: Callable | None = None,
                 target_transform: Callable | None = None, download: bool = False, *, batch_transform: Callable | None = None):
        super().__init__(root, train, transform, target_transform, download, batch_transform, 0, CIFAR10_CLASSES, "batches.meta.txt")


class CIFAR100(_CIFAR):
    """60,000 photographs of a hundred kinds of things in twenty groups, from the binary version's files.

    Parameters
    ----------
    root
        Folder of ``train.bin`` and ``test.bin``, or of ``cifar-100-binary/`` with them.
    coarse : bool
        The label is the group instead of the kind.
    train, transform, target_transform, download, batch_transform
        As in `CIFAR10`, which names errors and reference.
    """

    folder, label_bytes = "cifar-100-binary", 2
    files = {True: ("train.bin",), False: ("test.bin",)}

    def __init__(self, root: str | os.PathLike, train: bool = True, transform: Callable | None = None,
                 target_transform: Callable | None = None, download: bool = False, *, coarse: bool = False,
                 batch_transform: Callable | None = None):
        classes, names = (CIFAR100_COARSE_CLASSES, "coarse_label_names.txt") if coarse else (CIFAR100_CLASSES, "fine_label_names.txt")
        super().__init__(root, train, transform, target_transform, download, batch_transform, 0 if coarse else 1, classes, names)


def find_cifar(root: str | os.PathLike, kind: type[_CIFAR], train: bool = True) -> Path | None:
    """The folder at or below `root` with a file of that split, or None."""
    folders = (Path(root), Path(root, kind.folder))
    return next((f for f in folders if any((f / name).is_file() for name in kind.files[train])), None)


def read_records(path: Path, label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (N, 32, 32, 3) and labels uint8 (N, label_bytes) of one file.

    Raises
    ------
    DataError
        The file cannot be read, or its size is not that of one record or more.
    """
    record = label_bytes + PIXELS
    try:
        size = path.stat().st_size
        if not size or size % record:
            raise DataError(f"{path}: expected records of {record} bytes, {label_bytes} of labels and {PIXELS} of pixels, received {size} "
                            f"bytes, {size % record} too many; the file is truncated or of another format")
        values = np.fromfile(path, np.uint8).reshape(-1, record)
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read ({error.strerror or error})") from error
    planes = values[:, label_bytes:].reshape(-1, 3, SIZE, SIZE)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), values[:, :label_bytes]


def _read_names(path: Path, expected: Sequence[str]) -> tuple[str, ...]:
    """The names in the file that comes with the data, or the published ones where it is missing."""
    if not path.is_file():
        return tuple(expected)
    names = tuple(path.read_text("utf-8", "replace").split())
    if len(names) != len(expected):
        raise DataError(f"{path}: expected {len(expected)} names of classes, received {len(names)}")
    return names


def _below(root: str | os.PathLike) -> list[Path]:
    return [Path(e.path) for e in os.scandir(root) if e.is_dir()] if os.path.isdir(root) else []
