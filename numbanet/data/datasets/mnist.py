"""MNIST, Fashion-MNIST, and the sample of MNIST that comes with the package."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from numbanet.data.dataset import ArrayDataset
from numbanet.data.datasets.idx import read_idx
from numbanet.errors import DataError, UnsupportedOperationError

_SPLITS = {True: "train", False: "t10k"}
_FOLDERS = ("", "raw", "MNIST/raw", "FashionMNIST/raw")     # the last two are where torchvision keeps them


class MNIST(ArrayDataset):
    """Images and labels in IDX files: MNIST and whatever copies its layout.

    Samples are (image, label): a uint8 array (28, 28) with ink 255 on paper 0, changed by `transform`, and an int.

    Parameters
    ----------
    root
        Folder of ``train-images-idx3-ubyte`` and its three siblings, plain or ``.gz``; also torchvision's folder
        layout.
    train : bool
        The 60,000 training digits, or the 10,000 test digits.
    transform, target_transform, batch_transform
        As in `ArrayDataset`.
    download : bool
        Accepted for compatibility: files that are there are used, and nothing is ever downloaded.

    Raises
    ------
    DataError
        A file that is missing, damaged or truncated; other counts of images and labels.

    References
    ----------
    LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", Proc. IEEE 86(11), 1998.
    """

    classes: tuple[str, ...] = tuple("0123456789")

    def __init__(self, root: str | os.PathLike, train: bool = True, transform: Callable | None = None,
                 target_transform: Callable | None = None, download: bool = False, *,
                 batch_transform: Callable | None = None):
        images_path, labels_path = find_idx(root, train)
        if images_path is None or labels_path is None:
            if download:
                raise UnsupportedOperationError(f"{type(self).__name__}: numbanet downloads nothing; put the four IDX "
                                                f"files into {root}, or use datasets.MNISTSample, which needs no files")
            kind = "images-idx3-ubyte" if images_path is None else "labels-idx1-ubyte"
            raise DataError(f"{root}: expected {_SPLITS[train]}-{kind} or the same with .gz, received a folder without "
                            "it; datasets.MNISTSample needs no files")
        images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
        if len(images) != len(labels):
            raise DataError(f"{labels_path}: expected a label for each of the {len(images)} images of {images_path}, "
                            f"received {len(labels)}")
        if len(labels) and labels.max() >= len(self.classes):
            raise DataError(f"{labels_path}: expected labels from 0 to {len(self.classes) - 1}, received "
                            f"{labels.max()}")
        self.root, self.train = Path(root), train
        super().__init__(images, labels, transform, target_transform, batch_transform)

    @property
    def class_to_idx(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.classes)}


class FashionMNIST(MNIST):
    """Ten kinds of clothes in the format of MNIST (Xiao, Rasul, Vollgraf, arXiv:1708.07747)."""

    classes = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


class MNISTSample(ArrayDataset):
    """10,000 training and 2,000 test digits of MNIST, 1,000 and 200 of each, which the package ships.

    Samples are those of `MNIST`. How they were drawn, and their licence (CC BY-SA 3.0), stand in
    ``mnist_sample/LICENSE.txt``.
    """

    classes = MNIST.classes
    class_to_idx = MNIST.class_to_idx

    def __init__(self, train: bool = True, transform: Callable | None = None,
                 target_transform: Callable | None = None, *, batch_transform: Callable | None = None):
        self.train = train
        images, labels, self.indices = _sample("train" if train else "test")
        super().__init__(images, labels, transform, target_transform, batch_transform)


@cache
def _sample(split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with (files("numbanet.data.datasets") / "mnist_sample/digits.npz").open("rb") as file, np.load(file) as arrays:
        parts = tuple(arrays[f"{split}_{part}"] for part in ("images", "labels", "indices"))
    for part in parts:      # shared by every MNISTSample of the process
        part.flags.writeable = False
    return parts


def find_idx(root: str | os.PathLike, train: bool) -> tuple[Path | None, Path | None]:
    """The files of images and labels of a split below `root`, None for one that is not there."""
    return _find(root, _SPLITS[train], "images", "idx3"), _find(root, _SPLITS[train], "labels", "idx1")


def _find(root: str | os.PathLike, split: str, kind: str, form: str) -> Path | None:
    for folder in _FOLDERS:
        for name in (f"{split}-{kind}-{form}-ubyte", f"{split}-{kind}.{form}-ubyte"):
            for path in (Path(root, folder, name), Path(root, folder, name + ".gz")):
                if path.is_file():
                    return path
    return None
