"""Transforms of whole batches of uint8 images, many times faster than one image at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from numbanet.data.randomness import sample_uniforms
from numbanet.data.transforms.affine import DRAWS, AffineRanges, images_affine_normalize, images_crop_normalize
from numbanet.data.transforms.functional import paddings
from numbanet.data.transforms.geometric import TRIES, check_window, pair, probability
from numbanet.errors import ShapeError


class BatchAffineNormalize:
    """Pad or crop to a size, distort by a small random affine map, and normalise: uint8 (N, H, W[, C]) to float32 (N,
    C, OH, OW).

    Without ranges it only pads or crops evenly and normalises. With them, the map of a sample is that which
    `RandomAffine` draws for the same (seed, epoch, index).

    Parameters
    ----------
    output_size : (OH, OW) or int
    mean, std : float or C floats
        Of pixels between 0 and 1.
    degrees, translate, scale, shear
        As in `RandomAffine`.
    """

    def __init__(self, output_size: Sequence[int] | int, mean: Sequence[float] | float = 0.0,
                 std: Sequence[float] | float = 1.0, *, degrees: float | Sequence[float] = 0.0,
                 translate: Sequence[float] | None = None, scale: Sequence[float] | None = None,
                 shear: float | Sequence[float] | None = None):
        self.output_size = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
        self.mean, self.std = mean, std
        self.ranges = AffineRanges(degrees, translate, scale, shear)
        # Ranges without width draw nothing, and the map is the same for all.
        self._random = any((degrees, translate, scale, shear))

    def __call__(self, images: np.ndarray, indices: Sequence[int] | None = None) -> np.ndarray:
        """Transform a batch; `indices` are its samples' positions in the dataset, which choose their random numbers."""
        count = len(images)
        if self._random:
            uniforms = sample_uniforms(range(count) if indices is None else indices, DRAWS)
        else:
            uniforms = np.full((count, DRAWS), 0.5)     # the middle of every range: no change
        matrices = self.ranges.matrices(uniforms, images.shape[1:3], self.output_size)
        return images_affine_normalize(images, matrices, self.output_size, self.mean, self.std)

    def __repr__(self) -> str:
        return f"BatchAffineNormalize({self.output_size}, mean={self.mean}, std={self.std}, {self.ranges})"


class BatchCropNormalize:
    """Cut out a window, mirror it or not, and normalise: uint8 (N, H, W[, C]) to float32 (N, C, OH, OW), in one pass.

    Without randomness the windows are the middles, as `CenterCrop` takes them. With it, this is `RandomCrop(size, padding)` and
    `RandomHorizontalFlip(flip)`, `ToTensor` and `Normalize` for a batch.

    Parameters
    ----------
    size : (OH, OW) or int
    mean, std : float or C floats
        Of pixels between 0 and 1.
    random : bool
        Draw the place of the window for each sample.
    padding : int, (left and right, top and bottom), or (left, top, right, bottom)
        How far a random window may reach outside, where pixels are 0.
    flip : float
        Probability of mirroring left and right.
    """

    reads_rows = True       # of a whole data set, so that the batch need not be gathered first

    def __init__(self, size: Sequence[int] | int, mean: Sequence[float] | float = 0.0, std: Sequence[float] | float = 1.0, *,
                 random: bool = False, padding: int | Sequence[int] = 0, flip: float = 0.0):
        self.size, self.mean, self.std = pair("BatchCropNormalize", size), mean, std
        self.random, self.padding, self.flip = random, paddings(padding), probability("BatchCropNormalize", flip)

    def __call__(self, images: np.ndarray, indices: Sequence[int] | None = None, rows: np.ndarray | None = None) -> np.ndarray:
        """Transform a batch; `indices` are its samples' positions in the dataset, which choose their random numbers; with `rows`, the
        batch is these of `images`."""
        rows = np.arange(len(images)) if rows is None else np.asarray(rows, np.int64)
        have = images.shape[1:3]
        if self.random or self.flip:
            top, left, flip = sample_uniforms(range(len(rows)) if indices is None else indices, 3).T
        else:
            top = left = flip = np.ones(len(rows))
        if self.random:
            before_x, before_y, after_x, after_y = self.padding
            room = [n + more - want for n, more, want in zip(have, (before_y + after_y, before_x + after_x), self.size)]
            if min(room) < 0:
                raise ShapeError(f"BatchCropNormalize: expected images of {self.size} or more, received {have} with padding "
                                 f"{self.padding}; use more padding or smaller windows")
            top, left = np.floor(top * (room[0] + 1)) - before_y, np.floor(left * (room[1] + 1)) - before_x
        else:
            top, left = (np.full(len(rows), -(max(0, want - n) // 2) if want > n else round((n - want) / 2))
                         for want, n in zip(self.size, have))
        windows = np.stack([rows, top, left, flip < self.flip], 1).astype(np.int64)
        return images_crop_normalize(images, windows, self.size, self.mean, self.std)

    def __repr__(self) -> str:
        return (f"BatchCropNormalize({self.size}, mean={self.mean}, std={self.std}, random={self.random}, padding={self.padding}, "
                f"flip={self.flip})")


class BatchResizedCropNormalize:
    """Cut out a window of random size and shape, scale it, mirror it or not, and normalise: uint8 (N, H, W[, C]) to float32 (N, C, OH,
    OW).

    Windows are drawn as by `RandomResizedCrop`. Values between pixels are bilinear and over two by two pixels, whatever the scale, and
    the corners of the window lie on those of the result: right for windows of up to about twice the result's size, such as those of
    224 pixels out of 256.

    Parameters
    ----------
    size : (OH, OW) or int
    mean, std : float or C floats
        Of pixels between 0 and 1.
    scale, ratio
        As in `RandomResizedCrop`.
    flip : float
        Probability of mirroring left and right.
    """

    def __init__(self, size: Sequence[int] | int, mean: Sequence[float] | float = 0.0, std: Sequence[float] | float = 1.0, *,
                 scale: Sequence[float] = (0.08, 1.0), ratio: Sequence[float] = (3 / 4, 4 / 3), flip: float = 0.5):
        self.size, self.mean, self.std = pair("BatchResizedCropNormalize", size), mean, std
        self.scale, self.ratio = check_window("BatchResizedCropNormalize", scale, ratio)
        self.flip = probability("BatchResizedCropNormalize", flip)

    def windows(self, uniforms: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """(top, left, height, width) for numbers (N, 22) in [0, 1), of images of (H, W): int64 (N, 4)."""
        height, width = size
        area = height * width * (self.scale[0] + (self.scale[1] - self.scale[0]) * uniforms[:, :TRIES])
        low, high = np.log(self.ratio)
        shape = np.exp(low + (high - low) * uniforms[:, TRIES:2 * TRIES])
        heights, widths = np.rint(np.sqrt(area / shape)), np.rint(np.sqrt(area * shape))
        fits = (heights > 0) & (heights <= height) & (widths > 0) & (widths <= width)
        first = fits.argmax(1)[:, None]
        h, w = (np.take_along_axis(a, first, 1)[:, 0] for a in (heights, widths))
        top, left = (np.floor(u * (n - m + 1)) for u, n, m in ((uniforms[:, -2], height, h), (uniforms[:, -1], width, w)))
        largest_h = min(height, max(1, round(width / self.ratio[0])))       # the middle, where none fits
        largest_w = min(width, max(1, round(height * self.ratio[1])))
        middle = [(height - largest_h) // 2, (width - largest_w) // 2, largest_h, largest_w]
        return np.where(fits.any(1)[:, None], np.stack([top, left, h, w], 1), middle).astype(np.int64)

    def __call__(self, images: np.ndarray, indices: Sequence[int] | None = None) -> np.ndarray:
        """Transform a batch; `indices` are its samples' positions in the dataset, which choose their random numbers."""
        count = len(images)
        uniforms = sample_uniforms(range(count) if indices is None else indices, 2 * TRIES + 3)
        top, left, height, width = self.windows(uniforms[:, 1:], images.shape[1:3]).T
        mirrored = uniforms[:, 0] < self.flip
        step_y, step_x = ((n - 1) / max(want - 1, 1) for n, want in ((height, self.size[0]), (width, self.size[1])))
        matrices = np.zeros((count, 2, 3))
        matrices[:, 0, 0], matrices[:, 0, 2] = np.where(mirrored, -step_x, step_x), left + np.where(mirrored, width - 1, 0)
        matrices[:, 1, 1], matrices[:, 1, 2] = step_y, top
        return images_affine_normalize(images, matrices, self.size, self.mean, self.std)

    def __repr__(self) -> str:
        return (f"BatchResizedCropNormalize({self.size}, mean={self.mean}, std={self.std}, scale={self.scale}, ratio={self.ratio}, "
                f"flip={self.flip})")
