"""Images in class folders: ``root/class/image.png``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numbanet.data.datasets.image_files import ImageFiles
from numbanet.data.images import IMG_EXTENSIONS, is_image_file, load_image
from numbanet.errors import DataError


class ImageFolder(ImageFiles):
    """Each sub-folder of `root` is a class, and holds its images, also in folders of its own.

    Hidden files and folders and files without an image's extension are ignored. Samples are (image, label): an RGB
    `PIL.Image`, changed by `transform`, and the position of the class in the sorted names.

    Parameters
    ----------
    root
        The folder.
    transform, target_transform, loader, batch_transform
        See `ImageFiles`.
    is_valid_file
        ``is_valid_file(path)`` replaces the choice by extension.
    allow_empty : bool
        A class without an image is no error.

    Attributes
    ----------
    classes, class_to_idx, samples, targets
        See `ImageFiles`.

    Raises
    ------
    DataError
        `root` is missing, has no class folders, or a class has no images; when a sample is read: a broken or huge
        image.
    """

    def __init__(self, root: str | os.PathLike, transform: Callable | None = None,
                 target_transform: Callable | None = None, loader: Callable[[str], Any] = load_image,
                 is_valid_file: Callable[[str], bool] | None = None, allow_empty: bool = False, *,
                 batch_transform: Callable | None = None):
        self.root = os.fspath(root)
        classes = class_folders(root)
        samples: list[tuple[str, int]] = []
        for label, name in enumerate(classes):
            paths = _image_files(Path(root, name), is_valid_file or is_image_file)
            if not paths and not allow_empty:
                raise DataError(f"{Path(root, name)}: expected images ({', '.join(e[1:] for e in IMG_EXTENSIONS)}), "
                                "received a class folder without any; add some or remove the folder")
            samples += [(path, label) for path in paths]
        super().__init__(samples, classes, transform, target_transform, loader, batch_transform)


def class_folders(root: str | os.PathLike) -> list[str]:
    """Sorted names of the visible sub-folders.

    Raises
    ------
    DataError
        `root` is missing, no folder, or has none.
    """
    try:
        names = sorted(e.name for e in os.scandir(root) if e.is_dir() and not e.name.startswith("."))
    except FileNotFoundError:
        raise DataError(f"{root}: the folder is missing") from None
    except OSError as error:
        raise DataError(f"{root}: expected a folder of class folders, received something else "
                        f"({error.strerror})") from None
    if not names:
        raise DataError(f"{root}: expected a folder for each class with its images in it, received a folder without "
                        "folders")
    return names


def _image_files(folder: Path, is_valid: Callable[[str], bool]) -> list[str]:
    found = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        found += [path for name in sorted(names) if is_valid(path := os.path.join(parent, name))]
    return found
