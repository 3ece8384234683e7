"""Writing packed images (`datasets.PackedDataset`): decoded once, scaled, and kept as one array a split."""

from __future__ import annotations

import csv
import itertools
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from numbanet.data.datasets.packed import CLASSES, COLUMNS, IMAGES, LABELS
from numbanet.data.images import image_array, image_header, load_image
from numbanet.errors import DataError, UsageError
from numbanet.files import atomic_folder

FITS = ("crop", "stretch", "pad")
DEFAULT_SIZE = 256
NAMED_AT_MOST = 5       # broken images that an error names
HEADER = 128            # bytes before the pixels
AHEAD = 64              # images decoded before the one that is written


@dataclass(frozen=True)
class Packed:
    """What `pack` wrote.

    Attributes
    ----------
    path : Path
    counts : dict of str to int
        Images of each split.
    shape : (H, W) or (H, W, 3)
    skipped : list of str
        What is wrong with each image that was left out.
    """

    path: Path
    counts: dict[str, int]
    shape: tuple[int, ...]
    skipped: list[str]


def pack(splits: Mapping[str, Any], out: str | os.PathLike, size: int | Sequence[int] | None = None, *, fit: str = "crop",
         on_error: str = "raise", num_workers: int | None = None, watch: Callable[..., Iterable] | None = None,
         overwrite: bool = False) -> Packed:
    """Write image files with labels as a folder for `PackedDataset`, whole or not at all.

    Parameters
    ----------
    splits
        By name, datasets with `samples` (path, label) and `classes`, such as `ImageFolder` and `CSVDataset`; all with the same classes.
    out
        The folder to write.
    size : int or (H, W), optional
        Of the packed images; by default the images' own where all have the same and it is not above 256, otherwise 256.
    fit : {"crop", "stretch", "pad"}
        Of images with other proportions the middle is kept, or all of it is kept and distorted, or padded with black.
    on_error : {"raise", "skip"}
        Whether images that cannot be decoded are an error, which names them, or are left out and returned as `Packed.skipped`.
    num_workers : int, optional
        Threads that decode; by default one a core.
    watch
        ``watch(iterator, total=...)`` passes on what it is given and may show progress.
    overwrite : bool
        Replace a folder of packed images that stands there.

    Raises
    ------
    DataError
        Images that cannot be decoded, classes that differ, or a disk with too little room: before anything is written.
    UsageError
        `out` exists, or parameters that cannot be meant.
    CheckpointError
        The disk failed while writing; nothing was changed.
    """
    out = Path(out)
    _check(splits, out, fit, on_error, overwrite)
    classes = next(iter(splits.values())).classes
    watch = watch or (lambda iterator, total: iterator)
    total = sum(map(len, splits.values()))
    with ThreadPoolExecutor(num_workers or os.cpu_count()) as pool:
        sizes, grey, broken = _look_at(pool, splits)
        if broken and on_error == "raise":
            raise _cannot(broken, total)
        shape = (*_size(size, sizes), *(() if grey else (3,)))
        samples = ((name, path, label) for name, dataset in splits.items() for path, label in dataset.samples)
        pictures = watch(_decoded(pool, splits, shape, fit), total=total)
        entries = ((name, path, image, label) for (name, path, label), image in zip(samples, pictures))
        return write_packed(out, entries, {name: len(dataset) for name, dataset in splits.items()}, shape, classes, on_error=on_error,
                            overwrite=overwrite)


def write_packed(out: str | os.PathLike, entries: Iterable[tuple[str, str, np.ndarray | str, int]], counts: Mapping[str, int],
                 shape: tuple[int, ...], classes: Sequence[str], *, on_error: str = "raise", overwrite: bool = False) -> Packed:
    """Write images as a folder for `PackedDataset`, whole or not at all.

    Parameters
    ----------
    out
        The folder to write.
    entries
        (split, name of the image, uint8 pixels of `shape` or the text of what is wrong with it, label), split after split.
    counts
        Images of each split, in the order in which they come.
    shape : (H, W) or (H, W, 3)
    classes
        Names of the labels.
    on_error, overwrite
        As in `pack`.

    Raises
    ------
    DataError, UsageError, CheckpointError
        As `pack`.
    """
    out = Path(out)
    _check_free(out, overwrite)
    total = sum(counts.values())
    _check_room(out, total * int(np.prod(shape)))
    written, skipped, entries = {}, [], iter(entries)
    with atomic_folder(out) as folder:
        (folder / CLASSES).write_text(json.dumps(list(classes), ensure_ascii=False, indent=1) + "\n", "utf-8")
        for name, count in counts.items():
            written[name] = _write_split(folder, name, itertools.islice(entries, count), classes, shape, skipped)
        deque(entries, 0)               # lets a progress bar end
        if skipped and on_error == "raise":
            raise _cannot(skipped, total)
        empty = [name for name, count in written.items() if not count]
        if empty:
            raise DataError(f"{', '.join(empty)}: none of the images can be used{f'; {skipped[0]}' if skipped else ''}")
    return Packed(out, written, shape, skipped)


def fit_image(image: Any, size: tuple[int, int], fit: str = "crop") -> Any:
    """A Pillow image scaled to (H, W) as `pack` says; one that fits is returned as it is."""
    from PIL import Image, ImageOps

    target = size[::-1]
    if image.size == target:
        return image
    if fit == "stretch":
        return image.resize(target, Image.Resampling.BILINEAR)
    if fit == "pad":
        return ImageOps.pad(image, target, Image.Resampling.BILINEAR)
    return ImageOps.fit(image, target, Image.Resampling.BILINEAR)


def _check(splits: Mapping[str, Any], out: Path, fit: str, on_error: str, overwrite: bool) -> None:
    if fit not in FITS:
        raise UsageError(f"pack: expected fit to be {', '.join(FITS[:-1])} or {FITS[-1]}, received {fit!r}")
    if on_error not in ("raise", "skip"):
        raise UsageError(f"pack: expected on_error to be raise or skip, received {on_error!r}")
    if not splits or not all(len(dataset) for dataset in splits.values()):
        raise DataError("pack: expected splits with images, received none")
    first, *others = splits.items()
    for name, dataset in others:
        if list(dataset.classes) != list(first[1].classes):
            raise DataError(f"pack: expected the same classes in all splits, received other ones in {name} than in {first[0]}")
    _check_free(out, overwrite)


def _check_free(out: Path, overwrite: bool) -> None:
    if out.exists():
        if not overwrite:
            raise UsageError(f"{out}: exists already; choose another folder, or ask to overwrite it")
        if not (out / CLASSES).is_file():
            raise UsageError(f"{out}: is no folder of packed images, so it is not overwritten; choose another folder")


def _look_at(pool: ThreadPoolExecutor, splits: Mapping[str, Any]) -> tuple[set[tuple[int, int]], bool, list[str]]:
    """Sizes (H, W) that there are, whether all images are grey, and what is wrong with those whose headers cannot be read."""
    def header(path: str):
        try:
            return image_header(path)
        except DataError as error:
            return str(error)

    found = list(pool.map(header, [path for dataset in splits.values() for path, _ in dataset.samples]))
    good = [f for f in found if not isinstance(f, str)]
    return {size for size, _ in good}, all(grey for _, grey in good), [f for f in found if isinstance(f, str)]


def _size(size: int | Sequence[int] | None, sizes: set[tuple[int, int]]) -> tuple[int, int]:
    if size is None:
        only = next(iter(sizes)) if len(sizes) == 1 else None
        return only if only is not None and max(only) <= DEFAULT_SIZE else (DEFAULT_SIZE, DEFAULT_SIZE)
    size = (size, size) if isinstance(size, int) else tuple(size)
    if len(size) != 2 or min(size) < 1:
        raise UsageError(f"pack: expected a size of 1 or more, or (H, W), received {size}")
    return size


def _check_room(out: Path, needed: int) -> None:
    folder = out.absolute().parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(f"{out}: expected {needed / 1e9:.1f} GB of free disk, received {free / 1e9:.1f} GB; make room, or pack at a "
                        "smaller size")


def _decoded(pool: ThreadPoolExecutor, splits: Mapping[str, Any], shape: tuple[int, ...], fit: str) -> Iterator[np.ndarray | str]:
    """Pixels of every image in order, or what is wrong with it, decoded a little ahead."""
    def decode(path: str) -> np.ndarray | str:
        try:
            pixels = image_array(fit_image(load_image(path, "RGB" if len(shape) == 3 else "L"), shape[:2], fit))
        except DataError as error:
            return str(error)
        return np.ascontiguousarray(pixels)

    paths = (path for dataset in splits.values() for path, _ in dataset.samples)
    pending = deque(pool.submit(decode, path) for path in itertools.islice(paths, AHEAD))
    while pending:
        image = pending.popleft().result()
        pending.extend(pool.submit(decode, path) for path in itertools.islice(paths, 1))
        yield image


def _write_split(folder: Path, split: str, entries: Iterator, classes: Sequence[str], shape: tuple[int, ...], skipped: list[str]) -> int:
    """Write the files of a split; what cannot be used is appended to `skipped`. Returns the number of images."""
    count = 0
    with open(folder / f"{split}{IMAGES}", "wb") as pixels, open(folder / f"{split}{LABELS}", "w", encoding="utf-8", newline="") as table:
        # Plain writes and no mapping: a disk that is full raises an error instead of ending the process.
        _write_header(pixels, (0, *shape))
        rows = csv.writer(table)
        rows.writerow(COLUMNS)
        for _, name, image, label in entries:
            if isinstance(image, str):
                skipped.append(image)
                continue
            if image.shape != shape or image.dtype != np.uint8:
                raise UsageError(f"{name}: expected uint8 {shape}, received {image.dtype} {image.shape}")
            pixels.write(np.ascontiguousarray(image).data)
            rows.writerow((name, label, classes[label]))
            count += 1
        pixels.seek(0)
        _write_header(pixels, (count, *shape))
    return count


def _write_header(file: Any, shape: tuple[int, ...]) -> None:
    """Write the header of a .npy file of uint8; its length is the same for all shapes."""
    text = repr({"descr": "|u1", "fortran_order": False, "shape": shape}).encode("latin1")
    magic = np.lib.format.magic(1, 0)
    length = HEADER - len(magic) - 2
    file.write(magic + length.to_bytes(2, "little") + text.ljust(length - 1) + b"\n")


def _cannot(problems: list[str], total: int) -> DataError:
    more = f"\n  and {len(problems) - NAMED_AT_MOST} more" if len(problems) > NAMED_AT_MOST else ""
    return DataError(f"{len(problems)} of {total} images cannot be used; replace or remove them, or ask to skip them:"
                     + "".join(f"\n  {p}" for p in problems[:NAMED_AT_MOST]) + more)
