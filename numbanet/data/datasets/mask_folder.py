"""Pictures and masks in folders: ``root/images/name.jpg`` and ``root/masks/name.png``, whose pixels are numbers of classes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from numbanet.data.dataset import Dataset
from numbanet.data.images import MAX_PIXELS, image_header, is_image_file, load_image
from numbanet.errors import DataError

VOID = 255              # of a mask: pixels that belong to no class
NAMED_AT_MOST = 5
MASK_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")


class MaskFolder(Dataset):
    """Each picture of ``root/images`` has a mask of its name and size in ``root/masks``: grey or with a palette, PNG or another format
    without loss.

    The value of a mask's pixel is the number of a class; 255 is none ("void"), and is left out of losses and metrics. ``root/classes.txt``
    names the classes, a line each. Without it they are as many as the largest value of all masks says. Where all masks hold nothing but 0
    and 255, 255 is not void but class 1.

    Samples are (image, mask): an RGB `PIL.Image` and uint8 (H, W), of equal size, changed by ``transforms(image, mask)``.

    Parameters
    ----------
    root
        The folder.
    transforms : callable, optional
    classes : sequence of str, optional
        Instead of ``classes.txt``.

    Attributes
    ----------
    classes : list of str
    samples : list of (path of the picture, path of the mask)

    Raises
    ------
    DataError
        A folder is missing or empty, a picture has no mask or a mask no picture; when a sample is read, and by :meth:`check`: a broken
        file, a mask in colours or of another size than its picture, a value that is no class.
    """

    def __init__(self, root: str | os.PathLike, transforms: Callable | None = None, *, classes=None):
        self.root, self.transforms = os.fspath(root), transforms
        images, masks = (_files(Path(root, name)) for name in ("images", "masks"))
        for found, others, what, lacks in ((images, masks, "pictures", "mask"), (masks, images, "masks", "picture")):
            alone = [path for name, path in found.items() if name not in others]
            if alone:
                more = f" and {len(alone) - NAMED_AT_MOST} more" if len(alone) > NAMED_AT_MOST else ""
                raise DataError(f"{root}: {len(alone)} {what} have no {lacks} of the same name: "
                                f"{', '.join(p.name for p in alone[:NAMED_AT_MOST])}{more}; add or remove them")
        self.samples = [(str(path), str(masks[name])) for name, path in images.items()]
        names = read_class_names(Path(root, "classes.txt")) if classes is None else list(classes)
        self.foreground, self.classes = False, names
        if not names:
            self.classes = self._classes_of_values()

    def __len__(self) -> int:
        return len(self.samples)

    def sample_path(self, index: int) -> str:
        return self.samples[index][0]

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, mask = load_image(self.samples[index][0]), self.mask(index)
        if mask.shape != image.size[::-1]:
            raise DataError(_other_size(*self.samples[index], image.size[::-1], mask.shape))
        return (image, mask) if self.transforms is None else self.transforms(image, mask)

    def mask(self, index: int) -> np.ndarray:
        """uint8 (H, W): numbers of classes, and 255."""
        path = self.samples[index][1]
        mask = load_mask(path)
        if self.foreground:
            mask = np.where(mask == VOID, np.uint8(1), mask)
        wrong = np.unique(mask[(mask >= len(self.classes)) & (mask != VOID)])
        if len(wrong):
            raise DataError(f"{path}: expected pixels of 0 to {len(self.classes) - 1} for the classes {', '.join(self.classes)}, or "
                            f"{VOID} for none, received {', '.join(map(str, wrong[:NAMED_AT_MOST].tolist()))}"
                            f"{' and more' if len(wrong) > NAMED_AT_MOST else ''}")
        return mask

    def check(self, index: int) -> None:
        """Raise what is wrong with a sample; its mask is decoded, of the picture the header is read."""
        path, mask_path = self.samples[index]
        size, mask = image_header(path)[0], self.mask(index)
        if mask.shape not in (size, size[::-1]):            # photographs may lie on their side; reading tells
            raise DataError(_other_size(path, mask_path, size, mask.shape))

    def _classes_of_values(self) -> list[str]:
        used = np.zeros(256, bool)
        for _, path in self.samples:
            used[np.unique(load_mask(path))] = True
        if not used[1:VOID].any() and used[VOID]:           # void alone would leave nothing to learn
            self.foreground = True
            return ["background", "foreground"]
        return [str(i) for i in range(int(np.flatnonzero(used[:VOID]).max(initial=0)) + 1)]


def load_mask(path: str | os.PathLike) -> np.ndarray:
    """The values of a mask, uint8 (H, W).

    Raises
    ------
    DataError
        The file is missing, broken or huge, has colours, or values above 255.
    """
    from PIL import Image
    size = image_header(path)[0]                            # says what is wrong with files that are no images
    if size[0] * size[1] > MAX_PIXELS:
        raise DataError(f"{path}: {size[1]} x {size[0]} is more than the {MAX_PIXELS} pixels that an image may have")
    try:
        with Image.open(path) as image:
            if image.mode not in MASK_MODES:
                raise DataError(f"{path}: expected a mask of class numbers, grey or with a palette, received {image.mode} colours; "
                                "save the number of each pixel's class")
            values = np.asarray(image)
    except DataError:
        raise
    except Exception as error:      # decoders raise whatever a damaged file leads them to
        raise DataError(f"{path}: the mask is broken or truncated ({type(error).__name__}: {error})") from error
    if values.size and (values.max() > 255 or values.min() < 0):
        raise DataError(f"{path}: expected class numbers from 0 to 255, received {values.min()} to {values.max()}")
    return values.astype(np.uint8)


def _other_size(path, mask_path, size, other) -> str:
    return (f"{mask_path}: expected a mask of {size[1]} x {size[0]} pixels as {path}, received {other[1]} x {other[0]}; "
            "masks cannot be scaled without guessing")


def _files(folder: Path) -> dict[str, Path]:
    """Images of a folder by their names without extension."""
    try:
        paths = sorted(p for p in folder.iterdir() if is_image_file(p))
    except FileNotFoundError:
        raise DataError(f"{folder}: the folder is missing; expected images/ with pictures, and masks/ with a mask of each") from None
    except OSError as error:
        raise DataError(f"{folder}: expected a folder, received something else ({error.strerror})") from None
    if not paths:
        raise DataError(f"{folder}: expected images, received a folder without any")
    found: dict[str, Path] = {}
    for path in paths:
        if path.stem in found:
            raise DataError(f"{folder}: {found[path.stem].name} and {path.name} have one name; which belongs to the mask?")
        found[path.stem] = path
    return found


def read_class_names(path: Path) -> list[str]:
    """The lines of a file; none if it is not there."""
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    names = [name for name in names if name]
    if len(names) < 2 or len({*names}) < len(names) or len(names) > VOID:
        raise DataError(f"{path}: expected two to {VOID} different names of classes, a line each, the first that of class 0; received "
                        f"{len(names)}, {len({*names})} of them different")
    return names
