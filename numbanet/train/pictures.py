"""Pictures of a classification run as batches of network input."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from numbanet.data import ArrayDataset, CollatedBatch, Dataset, load_image
from numbanet.data import transforms as T
from numbanet.data.collate import empty_batch
from numbanet.data.images import image_array, image_header
from numbanet.data.randomness import enter_sample
from numbanet.errors import DataError
from numbanet.train.preprocessing import Preprocessing

KEPT_BYTES = 1 << 30        # decoded pictures kept in memory between epochs, at most


def picture_of(dataset, index: int) -> np.ndarray:
    """The uint8 picture of a sample of pictures or of an array, before normalisation."""
    return dataset.picture(index) if hasattr(dataset, "picture") else dataset.data[index]


class Pictures(Dataset):
    """Samples are (input, label): uint8 pictures of one size, of which `batch_transform` makes network input, a batch at once."""

    def __init__(self, source, preprocessing: Preprocessing, batch_transform: Callable):
        self.source, self.preprocessing, self.batch_transform = source, preprocessing, batch_transform
        self.targets = np.asarray(source.targets, np.int64)

    def __len__(self) -> int:
        return len(self.targets)

    def sample_path(self, index: int) -> str | None:
        return self.source.sample_path(index) if hasattr(self.source, "sample_path") else None

    def picture(self, index: int) -> np.ndarray:
        """One picture as uint8 of the preprocessing's size."""
        raise NotImplementedError

    def kept(self, index: int) -> bool:
        """Whether the picture stays in memory once it was decoded."""
        return False

    def problems(self) -> Iterator[DataError | None]:
        """What is wrong with each picture in a file, in order: those that are kept are decoded, of the others the headers are read."""
        if isinstance(self.source, ArrayDataset):
            return

        def problem(index: int) -> DataError | None:
            try:
                if self.kept(index):
                    self.picture(index)
                else:
                    image_header(self.sample_path(index))
            except DataError as error:
                return error

        with ThreadPoolExecutor(os.cpu_count()) as workers:
            yield from workers.map(problem, range(len(self)))

    def __getitem__(self, index: int):
        return self.batch_transform(self.picture(index)[None], [index])[0], int(self.targets[index])

    def __getitems__(self, indices: Sequence[int]) -> CollatedBatch:
        indices = np.asarray(indices, np.int64)
        pictures = empty_batch((len(indices), *self.preprocessing.picture_shape))
        for position, index in enumerate(indices.tolist()):
            enter_sample(index)
            try:
                pictures[position] = self.picture(index)
            except DataError as error:          # names its file
                raise DataError(f"sample {index}: {error}") from error
            except Exception as error:
                path = self.sample_path(index)
                raise DataError(f"sample {index}{'' if path is None else f' ({path})'} failed: {type(error).__name__}: {error}") from error
        return CollatedBatch((self.batch_transform(pictures, indices), self.targets[indices]))


class PictureFolder(Pictures):
    """Image files, decoded and scaled once, and kept in memory up to a limit."""

    def __init__(self, folder, preprocessing: Preprocessing, batch_transform: Callable):
        super().__init__(folder, preprocessing, batch_transform)
        self._capacity = KEPT_BYTES // preprocessing.picture_bytes
        self._kept: dict[int, np.ndarray] = {}

    def kept(self, index: int) -> bool:
        return index < self._capacity

    def picture(self, index: int) -> np.ndarray:
        found = self._kept.get(index)
        if found is None:
            found = self.preprocessing.read(self.sample_path(index))
            if self.kept(index):
                self._kept[index] = found
        return found


class TransformedPictures(Pictures):
    """Pictures of files or of an array, each changed by transforms; without any they are scaled as the preprocessing says.

    Of an array, cutting and mirroring are done for the whole batch by one kernel, with normalising: what :func:`batch_kernel` finds.
    """

    def __init__(self, source, transforms: list, preprocessing: Preprocessing, distortions: Mapping | None = None):
        super().__init__(source, preprocessing, preprocessing.batch_transform(distortions))
        self.transform = T.Compose(transforms) if transforms else None
        self.kernel = batch_kernel(transforms, source.data.shape[1:3], preprocessing) if isinstance(source, ArrayDataset) else None

    def picture(self, index: int) -> np.ndarray:
        mode, from_array = self.preprocessing.mode, isinstance(self.source, ArrayDataset)
        if from_array:
            picture = Image.fromarray(np.asarray(self.source.data[index])).convert(mode)
        else:
            picture = load_image(self.source.sample_path(index), mode)
        if self.transform is None:
            return self.preprocessing.pixels(picture, raw=from_array)
        made = self.transform(picture)
        pixels = image_array(made)
        if isinstance(made, T.Image):
            pixels = pixels.transpose(1, 2, 0)
        if pixels.ndim == 3 and pixels.shape[2] == 1:
            pixels = pixels[..., 0]
        expected = self.preprocessing.picture_shape
        if pixels.dtype != np.uint8 or pixels.shape != expected:
            raise DataError(f"--train-transforms: expected them to give uint8 pictures of {expected}, received {pixels.dtype} of "
                            f"{pixels.shape}; end with a crop or Resize to that size, and leave normalising to the run")
        return pixels[..., ::-1] if self.preprocessing.channel_order == "bgr" and pixels.ndim == 3 else pixels

    def __getitem__(self, index: int):
        if self.kernel is None:
            return super().__getitem__(index)
        return self.kernel(self.source.data[index:index + 1], [index])[0], int(self.targets[index])

    def __getitems__(self, indices: Sequence[int]) -> CollatedBatch:
        if self.kernel is None:
            return super().__getitems__(indices)
        indices, data = np.asarray(indices, np.int64), self.source.data
        if getattr(self.kernel, "reads_rows", False):       # no copy of the batch, nor of mapped pages that are not needed
            images = self.kernel(data, indices, indices)
        else:
            images = self.kernel(data[indices], indices)
        return CollatedBatch((images, self.targets[indices]))


def batch_kernel(transforms: list, size: tuple[int, int], preprocessing: Preprocessing):
    """The batch transform that does what these transforms do to arrays of (H, W), and normalises; None where there is none.

    A `RandomCrop` or `CenterCrop` with or without mirroring, or a `RandomResizedCrop` whose windows are at most twice as large as what
    they become: there bilinear values need no averaging.
    """
    crops = [t for t in transforms if isinstance(t, (T.RandomCrop, T.CenterCrop, T.RandomResizedCrop))]
    flips = [t for t in transforms if isinstance(t, T.RandomHorizontalFlip)]
    target, mean, std = preprocessing.input_size[1:], *preprocessing.scaled_statistics
    if (len(crops) != 1 or len(flips) > 1 or len(transforms) != 1 + len(flips) or crops[0].size != target
            or preprocessing.image_size != target or preprocessing.channel_order == "bgr"):
        return None
    crop, flip = crops[0], flips[0].p if flips else 0.0
    if isinstance(crop, T.RandomResizedCrop):
        fits = crop.interpolation == T.InterpolationMode.BILINEAR and all(have <= 2 * want for have, want in zip(size, target))
        return T.BatchResizedCropNormalize(target, mean, std, scale=crop.scale, ratio=crop.ratio, flip=flip) if fits else None
    if isinstance(crop, T.CenterCrop):
        return T.BatchCropNormalize(target, mean, std, flip=flip)
    left, top, right, bottom = padding = crop.padding or (0, 0, 0, 0)
    if crop.fill or crop.padding_mode != "constant" or size[0] + top + bottom < target[0] or size[1] + left + right < target[1]:
        return None
    return T.BatchCropNormalize(target, mean, std, random=True, padding=padding, flip=flip)
