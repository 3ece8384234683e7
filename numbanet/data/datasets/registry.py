"""The datasets that can be made by name: numbanet's own and those of installed packages.

A package adds a dataset through the entry-point group ``numbanet.datasets``: the name is the dataset's, the object a class or
function that makes it.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from numbanet.data.datasets.cifar import CIFAR10, CIFAR100
from numbanet.data.datasets.csv_list import CSVDataset
from numbanet.data.datasets.digit_scenes import DigitScenes
from numbanet.data.datasets.image_folder import ImageFolder
from numbanet.data.datasets.mask_folder import MaskFolder
from numbanet.data.datasets.mnist import MNIST, FashionMNIST, MNISTSample
from numbanet.data.datasets.packed import PackedDataset
from numbanet.data.datasets.synthetic_scenes import SyntheticScenes
from numbanet.errors import DataError, UsageError

ENTRY_POINT_GROUP = "numbanet.datasets"

_datasets: dict[str, Callable[..., Any]] = {
    "cifar10": CIFAR10, "cifar100": CIFAR100, "csv": CSVDataset, "digit_scenes": DigitScenes, "fashion_mnist": FashionMNIST,
    "image_folder": ImageFolder, "mask_folder": MaskFolder, "mnist": MNIST, "mnist_sample": MNISTSample, "packed": PackedDataset,
    "synthetic_scenes": SyntheticScenes}


def register_dataset(name: str, create: Callable[..., Any]) -> None:
    """Make a dataset available by name, for this process: `create` is a class or function that returns it.

    Raises
    ------
    UsageError
        The name is taken.
    """
    if name in _datasets or _installed(name):
        raise UsageError(f"register_dataset: {name} is already registered; choose another name")
    _datasets[name] = create


def list_datasets(filter: str = "*") -> list[str]:
    """The names of all datasets that match a shell pattern, sorted."""
    return sorted(fnmatch.filter({*_datasets, *(point.name for point in _installed())}, filter))


def create_dataset(name: str, *arguments, **options):
    """A dataset by name.

    Parameters
    ----------
    name : str
        One of :func:`list_datasets`.
    arguments, options
        Passed to the dataset's class or function.

    Raises
    ------
    UsageError
        No dataset has that name, or several have.
    DataError
        The package that holds it cannot be loaded, or what the dataset itself raises.
    """
    points = _installed(name)
    makers = [f"{point.value} (of {point.dist.name})" for point in points] + ["numbanet's own"] * (name in _datasets)
    if len(makers) > 1:
        raise UsageError(f"create_dataset: {name!r} is the name of several datasets, {' and '.join(makers)}; uninstall a package")
    if not makers:
        known = list_datasets()
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
        raise UsageError(f"create_dataset: there is no dataset {name!r}; {hint}")
    return (_load(points[0]) if points else _datasets[name])(*arguments, **options)


def _installed(name: str | None = None) -> list[EntryPoint]:
    return list(entry_points(group=ENTRY_POINT_GROUP) if name is None else entry_points(group=ENTRY_POINT_GROUP, name=name))


def _load(point: EntryPoint) -> Callable[..., Any]:
    try:
        return point.load()
    except Exception as error:      # whatever a foreign module does when it is imported
        raise DataError(f"create_dataset: {point.name} of {point.dist.name} cannot be loaded: "
                        f"{type(error).__name__}: {error}") from error
