"""From a drawing or photograph of a digit to a picture as MNIST's: white ink on black, 28 x 28, the digit in a box of
20 x 20 about its centre of mass.

LeCun et al. (1998), section III.A: digits "were size normalized to fit in a 20x20 pixel box while preserving their
aspect ratio [...] centered in a 28x28 image by computing the center of mass of the pixels". The steps before that,
finding ink on an uneven background of either polarity, are of our own making: paper is a plane fitted to the border,
ink is what differs from it on the side where more does, and specks are dropped.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet.errors import DataError, DTypeError

SIZE, BOX = 28, 20          # pixels of the picture, and of the digit's longer side
MIDDLE = 14.5               # where the centre of mass lies in MNIST: the middle of pixel 14 (14.00 on average)
_LARGEST = 320              # larger images are scaled down first: it is enough, and averages noise
_LEAST_CONTRAST = 16.0      # grey levels between paper and ink
_SPECK = 0.04               # parts of the ink with less than this share of the largest one are dirt
_THIN = 1.6                 # pixels of the picture below which strokes are widened; MNIST's have two to three
_NO_INK = "normalize_digit: expected a digit on an even background, received an image without clear ink"


def normalize_digit(image: Any) -> np.ndarray:
    """Make a picture of a digit look as MNIST's do.

    Parameters
    ----------
    image : PIL.Image.Image or uint8 array (H, W) or (H, W, C)
        Dark ink on light paper or light on dark, of any size, with any margin.

    Returns
    -------
    numpy.ndarray
        uint8 (28, 28), ink 255 on 0.

    Raises
    ------
    DataError
        No ink is found.
    """
    ink = _ink(_grey(image))
    ink = _thicken(*_crop(ink, _without_specks(ink > 0.5)))
    return _place(ink)


def _grey(image: Any) -> np.ndarray:
    """Brightness (H, W) as float64, the longer side `_LARGEST` at most."""
    from PIL import Image

    from numbanet.data.images import to_mode

    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3):
            raise DTypeError(f"normalize_digit: expected a uint8 array (H, W) or (H, W, C), received {image.dtype} "
                             f"{image.shape}")
        image = Image.fromarray(image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image)
    if min(image.size) < 3:
        raise DataError(f"normalize_digit: expected an image of 3 x 3 pixels or more, received {image.width} x "
                        f"{image.height}")
    image = to_mode(image, "L")
    image.thumbnail((_LARGEST, _LARGEST), Image.Resampling.BOX)
    return np.asarray(image, np.float64)


def _ink(grey: np.ndarray) -> np.ndarray:
    """How much ink there is at each pixel, 0 ... 1."""
    contrast = grey - _paper(grey)
    if (contrast**3).sum() < 0:     # the longer tail is the ink
        contrast = -contrast
    if np.ptp(contrast) < _LEAST_CONTRAST:
        raise DataError(_NO_INK)
    noise = 1.4826 * np.median(np.abs(contrast[_border(grey.shape)]))
    threshold = _otsu(contrast)
    above = contrast[contrast > threshold]
    level = np.percentile(above, 75) if above.size else 0.0
    if level < max(_LEAST_CONTRAST, 4 * noise):
        raise DataError(_NO_INK)
    floor = 3 * noise
    return np.clip((contrast - floor) / (level - floor), 0, 1)


def _paper(grey: np.ndarray) -> np.ndarray:
    """A plane through the pixels of the border, of which those far off (ink that touches it) are left out."""
    rows, columns = np.indices(grey.shape)
    terms = np.stack([np.ones(grey.size), rows.ravel() / grey.shape[0], columns.ravel() / grey.shape[1]], 1)
    border, values = _border(grey.shape).ravel(), grey.ravel()
    used = border & (np.abs(values - np.median(values[border])) <= 64)
    for _ in range(4):
        plane = terms @ np.linalg.lstsq(terms[used], values[used], rcond=None)[0]
        distance = np.abs(values - plane)
        limit = max(2.0, 2.5 * np.median(distance[used]))
        kept = border & (distance <= limit)
        if kept.sum() < 12:
            break
        used = kept
    return plane.reshape(grey.shape)


def _border(shape: tuple[int, int]) -> np.ndarray:
    inner = np.zeros(shape, bool)
    width = max(1, min(shape) // 24)
    inner[width:-width, width:-width] = True
    return ~inner


def _otsu(values: np.ndarray) -> float:
    """The threshold that best separates two groups (N. Otsu, IEEE Trans. Systems, Man and Cybernetics 9(1), 1979)."""
    counts, edges = np.histogram(values, 128)
    centres = (edges[1:] + edges[:-1]) / 2
    below, above = np.cumsum(counts), counts.sum() - np.cumsum(counts)
    sum_below = np.cumsum(counts * centres)
    sum_above = sum_below[-1] - sum_below
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sum_below / below - sum_above / above) ** 2
    return float(edges[1:][np.nanargmax(between[:-1])])


def _without_specks(mask: np.ndarray) -> np.ndarray:
    labels = _components(mask)
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    return (areas >= _SPECK * areas.max())[labels] & mask


def _components(mask: np.ndarray) -> np.ndarray:
    """Number the parts that hang together, also by corners: runs of each row joined with those of the row above."""
    parent = [0]

    def root(label: int) -> int:
        while parent[label] != label:
            label = parent[label]
        return label

    labels = np.zeros(mask.shape, np.int64)
    above: list[tuple[int, int, int]] = []          # (start, end, label) of the runs in the row above
    for row, line in enumerate(mask):
        changes = np.flatnonzero(np.diff(line.astype(np.int8), prepend=0, append=0))
        runs = []
        for start, end in changes.reshape(-1, 2).tolist():
            touching = {root(label) for s, e, label in above if s <= end and start <= e}
            if touching:
                label = min(touching)
                for other in touching:
                    parent[other] = label
            else:
                label = len(parent)
                parent.append(label)
            labels[row, start:end] = label
            runs.append((start, end, label))
        above = runs
    return np.array([root(label) for label in range(len(parent))])[labels]


def _crop(ink: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The digit's bounding box with one pixel around for its soft edges, without what was left out of `mask`."""
    near = np.pad(mask, 1)
    near = near[:-2] | near[1:-1] | near[2:]
    near = near[:, :-2] | near[:, 1:-1] | near[:, 2:]
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    ink, mask = (np.pad(a, 1)[rows[0]:rows[-1] + 3, columns[0]:columns[-1] + 3] for a in (ink * near, mask))
    return ink, mask


def _thicken(ink: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Widen strokes that would nearly vanish when scaled down: a fine pen on a large sheet."""
    from PIL import Image, ImageFilter

    framed = np.pad(mask, 1)
    edges = (framed[1:] != framed[:-1]).sum() + (framed[:, 1:] != framed[:, :-1]).sum()
    width = 2.5 * mask.sum() / edges        # area over half of the outline, which edges of pixels overestimate by 5/4
    scale = BOX / (max(mask.shape) - 2)
    radius = round((_THIN / scale - width) / 2)
    if radius < 1 or scale > 1:
        return ink
    image = Image.fromarray(np.rint(np.pad(ink, radius) * 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.MaxFilter(2 * radius + 1)), np.float64) / 255


def _place(ink: np.ndarray) -> np.ndarray:
    """Scale the longer side to `BOX` and put the centre of mass at `MIDDLE`, in one resampling."""
    from PIL import Image

    rows, columns = (np.flatnonzero((ink > 0.5).any(axis)) for axis in (1, 0))
    side = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1.0
    window = side * SIZE / BOX
    margin = int(np.ceil(window))
    corner = []
    for axis, inked in ((1, rows), (0, columns)):
        mass = ink.sum(axis)
        centre = (mass * (np.arange(len(mass)) + 0.5)).sum() / mass.sum()
        # A digit with its mass far to one side stays inside all the same.
        start = np.clip(centre - window * MIDDLE / SIZE, inked[-1] + 1 - window, inked[0])
        corner.append(float(start) + margin)
    image = Image.fromarray(np.pad(ink, margin).astype(np.float32))
    box = (corner[1], corner[0], corner[1] + window, corner[0] + window)
    picture = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.HAMMING, box=box))
    return np.rint(np.clip(picture / picture.max(), 0, 1) * 255).astype(np.uint8)
