"""Images in files, each with a label: what class folders and CSV lists have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from numbanet.data.collate import empty_batch
from numbanet.data.dataset import CollatedBatch, Dataset, load_each
from numbanet.data.images import image_array, load_image, load_pixels
from numbanet.data.randomness import enter_sample
from numbanet.errors import DataError, UsageError


class ImageFiles(Dataset):
    """Samples are (image, label): an RGB `PIL.Image`, changed by `transform`, and the position of the class in `classes`.

    Parameters
    ----------
    samples : list of (path, label)
    classes : sequence of str
    transform, target_transform
        Applied to the image and to the label.
    loader
        ``loader(path)`` decodes an image; by default `numbanet.data.images.load_image`.
    batch_transform
        ``batch_transform(images, indices)`` makes a whole batch's float32 (N, C, H, W) of its uint8 images (N, H, W, C), as
        `transforms.BatchCropNormalize` does, after `transform`, which has to bring them to one size then.

    Attributes
    ----------
    classes : list of str
    class_to_idx : dict of str to int
    samples : list of (path, label)
    targets : list of int
    """

    root = ""       # where the files are, for messages

    def __init__(self, samples: list[tuple[str, int]], classes: Sequence[str], transform: Callable | None = None,
                 target_transform: Callable | None = None, loader: Callable[[str], Any] = load_image,
                 batch_transform: Callable | None = None):
        self.classes, self.loader = list(classes), loader
        self.class_to_idx = {name: label for label, name in enumerate(self.classes)}
        self.transform, self.target_transform, self.batch_transform = transform, target_transform, batch_transform
        self.set_samples(samples)

    def set_samples(self, samples: list[tuple[str, int]]) -> None:
        """Let the dataset consist of these (path, label)."""
        self.samples = self.imgs = samples
        self.targets = [label for _, label in samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        path, label = self.samples[index]
        image = self._image(path)
        if self.batch_transform is not None:
            image = self.batch_transform(pixels_of(image)[None], [index])[0]
        return image, self._label(label)

    def __getitems__(self, indices: Sequence[int]) -> CollatedBatch | list[tuple[Any, Any]]:
        if self.batch_transform is None:
            return load_each(self, indices)
        batch = None
        for position, index in enumerate(indices):
            enter_sample(index)
            path = self.samples[index][0]
            try:
                slot = None if batch is None else batch[position]
                plain = self.transform is None and self.loader is load_image
                pixels = load_pixels(path, slot) if plain else pixels_of(self._image(path), slot)
            except Exception as error:
                raise DataError(f"sample {index} ({path}) of {type(self).__name__} failed: {type(error).__name__}: {error}") from error
            if batch is None:
                batch = empty_batch((len(indices), *pixels.shape))
            elif pixels.shape != batch.shape[1:]:
                raise DataError(f"sample {index} ({path}) of {type(self).__name__}: expected an image of {batch.shape[1:]} as the others "
                                f"of its batch, received {pixels.shape}; resize or crop in transform, before batch_transform")
            if pixels is not slot:
                batch[position] = pixels
        labels = [self._label(self.samples[index][1]) for index in indices]
        return CollatedBatch((self.batch_transform(batch, indices), np.asarray(labels)))

    def sample_path(self, index: int) -> str:
        return self.samples[index][0]

    def _image(self, path: str) -> Any:
        image = self.loader(path)
        return image if self.transform is None else self.transform(image)

    def _label(self, label: int) -> Any:
        return label if self.target_transform is None else self.target_transform(label)


def pixels_of(image: Any, out: np.ndarray | None = None) -> np.ndarray:
    """A Pillow image or uint8 array as uint8 (H, W) or (H, W, C), in `out` where it fits."""
    pixels = image_array(image, out)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
        raise UsageError(f"batch_transform: expected Pillow images or uint8 arrays (H, W) or (H, W, C) from loader and transform, "
                         f"received {pixels.dtype} {pixels.shape}; leave ToTensor and Normalize to batch_transform")
    return pixels
