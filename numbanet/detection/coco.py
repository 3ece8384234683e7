"""Pictures with boxes in the format of COCO: a JSON file that names images, categories and annotations.

    {"images": [{"id": 1, "file_name": "a.jpg", "width": 640, "height": 480}, ...],
     "categories": [{"id": 1, "name": "cat"}, ...],
     "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [left, top, width, height], "area": 100.0, "iscrowd": 0}, ...]}

Categories become classes 0, 1, ... in the order of their ids. Files come from anywhere: everything is checked when they are opened, and
what cannot be used is an error that names it. Nothing is left out on its own account.
"""

from __future__ import annotations

import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from numbanet.data import Dataset
from numbanet.data.images import MAX_PIXELS, image_header, load_image
from numbanet.errors import DataError
from numbanet.files import atomic_file, write_text

MAX_BYTES = 1 << 30             # of JSON
NAMED_AT_MOST = 5               # problems that an error names
OUTSIDE = 1.0                   # pixels that a box may reach beyond its picture, for rounding; it is cut there
MAX_SIDE = 1 << 20
ORIENTATION = 0x0112            # of EXIF; from 5 on the image lies on its side
FOLDERS = {"train": ("train", "train2017", "train2014"), "val": ("val", "val2017", "val2014", "test")}


class CocoPictures(Dataset):
    """Samples (Pillow picture, {boxes, labels, crowd, area}): boxes are left, top, right, bottom in pixels.

    Parameters
    ----------
    annotations : path of the JSON file
    folder : path, optional
        Where the images are, by default beside the file.

    Attributes
    ----------
    classes : tuple of str
    category_ids : list of int
        Of the classes.
    image_ids : list

    Raises
    ------
    DataError
        The file is no such JSON; an annotation of an unknown image or category, or with a box that is negative, empty, not finite or
        outside of its image; an image that is missing or named outside of the folder. When a sample is loaded: an image that is broken, too
        large, or of another size than the file says.
    """

    def __init__(self, annotations, folder=None):
        self.path = Path(annotations)
        self.folder = self.path.parent if folder is None else Path(folder)
        stored = read_json(self.path)
        problems: list[str] = []
        categories = _by_id(stored, "categories", self.path, problems)
        images = _by_id(stored, "images", self.path, problems)
        _fail(self.path, problems)
        self.category_ids = sorted(categories)
        self.classes = tuple(_text(categories[i].get("name"), f"category {i}: name", problems) for i in self.category_ids)
        if len({*self.classes}) < len(self.classes):
            problems.append(f"categories: expected different names, received {', '.join(self.classes)[:200]}")
        if not self.classes or not images:
            problems.append(f"expected images and categories, received {len(images)} and {len(self.classes)}")
        self.image_ids = list(images)
        self.files = [self._file(images[i], i, problems) for i in self.image_ids]
        self.sizes = [_size(images[i], i, problems) for i in self.image_ids]
        _fail(self.path, problems)
        self.targets = self._targets(stored["annotations"], problems)
        _fail(self.path, problems)

    def _file(self, image: dict, number, problems: list[str]) -> Path:
        name = _text(image.get("file_name"), f"image {number}: file_name", problems)
        path = self.folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            problems.append(f"image {number}: file_name {name[:100]!r} leads out of {self.folder}")
        elif name and not path.is_file():
            problems.append(f"image {number}: {path} is missing")
        return path

    def _targets(self, annotations: list, problems: list[str]) -> list[dict]:
        at = {number: i for i, number in enumerate(self.image_ids)}
        label = {number: k for k, number in enumerate(self.category_ids)}
        gathered: list[list] = [[] for _ in self.image_ids]
        for position, one in enumerate(annotations):
            where = f"annotation {one.get('id', f'at position {position}')}" if isinstance(one, dict) else f"annotation {position}"
            if not isinstance(one, dict):
                problems.append(f"{where}: expected a mapping, received {type(one).__name__}")
            elif _key(one.get("image_id")) not in at:
                problems.append(f"{where}: image_id {one.get('image_id')!r} is none of the images")
            elif _key(one.get("category_id")) not in label:
                problems.append(f"{where}: category_id {one.get('category_id')!r} is none of the categories {self.category_ids[:20]}")
            else:
                i = at[one["image_id"]]
                box = _box(one.get("bbox"), self.sizes[i], where, problems)
                if box is not None:
                    area = one.get("area")
                    area = float(area) if isinstance(area, (int, float)) and not isinstance(area, bool) and 0 <= area < math.inf else (
                        (box[2] - box[0]) * (box[3] - box[1]))
                    gathered[i].append((box, label[one["category_id"]], bool(one.get("iscrowd", 0)), area))
        return [{"boxes": np.array([o[0] for o in found], np.float32).reshape(-1, 4), "labels": np.array([o[1] for o in found], np.int64),
                 "crowd": np.array([o[2] for o in found], bool), "area": np.array([o[3] for o in found], np.float64)} for found in gathered]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int):
        picture = load_image(self.files[index])
        self._check_size(index, picture.size)
        return picture, self.targets[index]

    def sample_path(self, index: int) -> str:
        return str(self.files[index])

    def problems(self):
        """What is wrong with each image, as far as its header tells; None where nothing is."""
        def problem(index: int) -> DataError | None:
            try:
                width, height = upright_size(self.files[index])
                self._check_size(index, (width, height))
                if width * height > MAX_PIXELS:
                    load_image(self.files[index])           # says so
            except DataError as error:
                return error

        with ThreadPoolExecutor(os.cpu_count()) as workers:
            yield from workers.map(problem, range(len(self)))

    def _check_size(self, index: int, size: tuple[int, int]) -> None:
        expected = self.sizes[index]
        if expected is not None and size != expected:
            raise DataError(f"{self.files[index]}: {self.path.name} says {expected[0]} x {expected[1]} pixels, the image has "
                            f"{size[0]} x {size[1]}; its boxes would lie elsewhere")
        if expected is None:            # now that it is known how large the image is
            for box in self.targets[index]["boxes"]:
                problems: list[str] = []
                _box([*box[:2], *(box[2:] - box[:2])], size, str(self.files[index]), problems)
                _fail(self.path, problems)

    def count_boxes(self) -> int:
        return sum(len(target["boxes"]) for target in self.targets)


def upright_size(path) -> tuple[int, int]:
    """(width, height) of an image as :func:`~numbanet.data.load_image` gives it, from its header.

    Raises
    ------
    DataError
        As there.
    """
    (height, width), _ = image_header(path)
    try:
        with Image.open(path) as image:         # of a PNG without the tag, Pillow would decode all of it in search of one at its end
            turned = (image.format != "PNG" or "exif" in image.info) and image.getexif().get(ORIENTATION, 1) >= 5
    except Exception:                           # decoders raise whatever a damaged file leads them to
        return load_image(path).size            # says what is wrong
    return (height, width) if turned else (width, height)


def find_splits(folder, splits: tuple[str, ...] = tuple(FOLDERS)) -> list[tuple[Path, Path]]:
    """(annotations, folder of the images) to train on and to judge by, or of some `splits`, in a folder laid out in one of the usual ways.

    ``train.json`` and ``val.json``, or ``annotations/instances_train2017.json`` and the like; images in a folder of the same name, in
    ``images``, or beside them.

    Raises
    ------
    DataError
        One of them is not there.
    """
    folder, found = Path(folder), []
    for split in splits:
        names = FOLDERS[split]
        candidates = [(folder / place / f"{prefix}{name}.json", name) for name in names for place in (".", "annotations")
                      for prefix in ("", "instances_")]
        match = next(((path, name) for path, name in candidates if path.is_file()), None)
        if match is None:
            raise DataError(f"{folder}: expected COCO's annotations {split}.json or annotations/instances_{split}2017.json, found neither; "
                            "for scenes of digits, MNIST's files")
        images = next((p for p in (folder / match[1], folder / "images" / match[1], folder / "images") if p.is_dir()), folder)
        found.append((match[0], images))
    return found


def write_coco(folder, split: str, samples, classes) -> int:
    """Write pictures as PNGs and their boxes as ``<split>.json`` into a folder.

    Parameters
    ----------
    samples : iterable of (uint8 (H, W, 3), {boxes, labels, and where there are some crowd and area})
    classes : names of the labels

    Returns
    -------
    int : how many pictures there are
    """
    folder, images, annotations = Path(folder), [], []
    (folder / split).mkdir(parents=True, exist_ok=True)
    for number, (pixels, target) in enumerate(samples, 1):
        name = f"{number:06d}.png"
        with atomic_file(folder / split / name) as temporary:
            Image.fromarray(pixels).save(temporary, "PNG")
        images.append({"id": number, "file_name": name, "width": pixels.shape[1], "height": pixels.shape[0]})
        annotations += annotations_of(number, target, len(annotations) + 1)
    write_text(folder / f"{split}.json", json.dumps({
        "images": images, "categories": [{"id": k + 1, "name": name} for k, name in enumerate(classes)], "annotations": annotations}))
    return len(images)


def annotations_of(image_id, target: dict, first_id: int = 1, category_ids=None) -> list[dict]:
    """COCO's annotations of a picture, or with `scores` in `target` its results, as plain values."""
    boxes = np.asarray(target["boxes"], np.float64).reshape(-1, 4)
    made = []
    for j, (box, label) in enumerate(zip(boxes.tolist(), np.asarray(target["labels"]).tolist())):
        one = {"image_id": image_id, "category_id": label + 1 if category_ids is None else category_ids[label],
               "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]]}
        if "scores" in target:
            one["score"] = float(target["scores"][j])
        else:
            area = float(target["area"][j]) if "area" in target else one["bbox"][2] * one["bbox"][3]
            one |= {"id": first_id + j, "area": area, "iscrowd": int(target["crowd"][j]) if "crowd" in target else 0}
        made.append(one)
    return made


def read_json(path: Path) -> dict:
    """The mapping of a COCO file, its three lists there."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: {path.stat().st_size:,} bytes are more than the {MAX_BYTES:,} that are read")
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({' '.join(str(error).split())[:150]})") from None
    if not isinstance(stored, dict):
        raise DataError(f"{path}: expected a mapping of images, categories and annotations, received {type(stored).__name__}")
    for name in ("images", "categories", "annotations"):
        if not isinstance(stored.get(name), list):
            raise DataError(f"{path}: expected a list of {name}, received {type(stored.get(name)).__name__}")
    return stored


def _by_id(stored: dict, name: str, path: Path, problems: list[str]) -> dict:
    found: dict = {}
    for position, one in enumerate(stored[name]):
        if not isinstance(one, dict) or _key(one.get("id")) is None:
            problems.append(f"{name}[{position}]: expected a mapping with an id, a number")
        elif one["id"] in found:
            problems.append(f"{name}[{position}]: id {one['id']} is there already")
        else:
            found[one["id"]] = one
    return found


def _key(value):
    """An id: an integer; None for what is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value, what: str, problems: list[str]) -> str:
    if not isinstance(value, str) or not value:
        problems.append(f"{what} expects text, received {str(value)[:50]!r}")
        return ""
    return value


def _size(image: dict, number, problems: list[str]) -> tuple[int, int] | None:
    """(width, height), None where the file does not say it."""
    size = image.get("width"), image.get("height")
    if size == (None, None):
        return None
    if not all(_key(n) is not None and 1 <= n <= MAX_SIDE for n in size):
        problems.append(f"image {number}: width and height expect integers from 1 to {MAX_SIDE}, received {str(size)[:60]}")
        return None
    return size


def _box(bbox, size: tuple[int, int] | None, where: str, problems: list[str]) -> tuple[float, ...] | None:
    """(left, top, right, bottom) of COCO's bbox; a problem where it cannot be."""
    try:
        left, top, width, height = map(float, bbox)
    except (TypeError, ValueError, OverflowError):
        problems.append(f"{where}: bbox expects [left, top, width, height], received {str(bbox)[:80]}")
        return None
    right, bottom = left + width, top + height
    told = f"[{left:g}, {top:g}, {width:g}, {height:g}]"
    if not all(map(math.isfinite, (left, top, right, bottom))):
        problems.append(f"{where}: bbox {told} is not finite")
    elif not (width > 0 and height > 0):
        problems.append(f"{where}: bbox {told} is empty; width and height have to be above 0")
    elif left < -OUTSIDE or top < -OUTSIDE or size is not None and (right > size[0] + OUTSIDE or bottom > size[1] + OUTSIDE):
        of_size = "" if size is None else f" of {size[0]} x {size[1]} pixels"
        problems.append(f"{where}: bbox {told} reaches outside of its image{of_size}")
    else:
        wide, high = size or (math.inf, math.inf)
        cut = max(left, 0.0), max(top, 0.0), min(right, wide), min(bottom, high)
        if cut[2] > cut[0] and cut[3] > cut[1]:
            return cut
        problems.append(f"{where}: bbox {told} lies outside of its image")
    return None


def _fail(path: Path, problems: list[str]) -> None:
    if problems:
        more = f"\n  and {len(problems) - NAMED_AT_MOST} more" if len(problems) > NAMED_AT_MOST else ""
        count = "1 entry" if len(problems) == 1 else f"{len(problems):,} entries"
        raise DataError(f"{path}: {count} cannot be used; correct or remove what is wrong:\n  "
                        + "\n  ".join(problems[:NAMED_AT_MOST]) + more)
