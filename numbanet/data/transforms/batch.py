"""Transforms of whole batches of uint8 images, many times faster than one image at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from numbanet.data.randomness import sample_uniforms
from numbanet.data.transforms.affine import DRAWS, AffineRanges, images_affine_normalize


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
