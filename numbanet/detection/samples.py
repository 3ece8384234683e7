"""From pictures with boxes to what a detector trains on: pictures of its size, and dense targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from PIL import Image

from numbanet.data import CollatedBatch, Dataset
from numbanet.data.dataset import sample_path
from numbanet.data.randomness import enter_sample, sample_generator
from numbanet.detection.augment import GREY, Augmentation
from numbanet.detection.targets import Levels
from numbanet.errors import CheckpointError, DataError

KEPT_BYTES = 512 << 20          # of pictures, that are kept in memory rather than drawn or decoded anew


@dataclass(frozen=True)
class Fitting:
    """How a picture becomes a detector's input: scaled as a whole, as large as it fits, with grey at the right and below.

    Attributes
    ----------
    size : (H, W) of the input
    mean, std : of each channel, of values from 0 to 1
    """

    size: tuple[int, int]
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def scale(self, width: int, height: int) -> float:
        """Pixels of the input per pixel of a picture."""
        return min(self.size[0] / height, self.size[1] / width)

    def pixels(self, picture: Image.Image) -> np.ndarray:
        """uint8 (H, W, 3) of an RGB picture."""
        scale = self.scale(*picture.size)
        wanted = [max(1, round(n * scale)) for n in picture.size]
        if tuple(wanted) != picture.size:
            picture = picture.resize(wanted, Image.Resampling.BILINEAR)
        if picture.size == self.size[::-1]:
            return np.asarray(picture)
        canvas = np.full((*self.size, 3), GREY, np.uint8)
        canvas[:picture.size[1], :picture.size[0]] = np.asarray(picture)
        return canvas

    def normalized(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (N, H, W, 3) to float32 (N, 3, H, W), channels last in memory."""
        mean, std = (np.asarray(values, np.float32) * 255 for values in (self.mean, self.std))
        made = np.multiply(pixels, 1 / std, dtype=np.float32)
        made -= mean / std
        return made.transpose(0, 3, 1, 2)

    def as_metadata(self) -> dict:
        return asdict(self)

    @classmethod
    def from_metadata(cls, stored) -> Fitting:
        """The inverse of :meth:`as_metadata`.

        Raises
        ------
        CheckpointError
            It is no such thing.
        """
        try:
            made = cls(tuple(map(int, stored["size"])), *(tuple(map(float, stored[name])) for name in ("mean", "std")))
            if len(made.size) != 2 or not 0 < min(made.size) <= max(made.size) <= 1 << 14 or not len(made.mean) == len(made.std) == 3 \
                    or not min(made.std) > 0:
                raise ValueError("numbers out of their ranges")
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"the weights do not say how pictures become the detector's input ({error})") from None
        return made


class DetectorSamples(Dataset):
    """Inputs and dense targets of a dataset of (picture, {boxes, labels, ...}).

    Samples are (float32 (3, H, W), float32 (P, 5)); batches are made at once.

    Parameters
    ----------
    dataset : Dataset
        Pictures uint8 (H, W, 3) or Pillow's, and dicts of `boxes` (K, 4), `labels` (K,) and, where there are some, `crowd` bool (K,).
    fitting : Fitting
    levels : Levels
    augmentation : Augmentation, optional
        Drawn anew each time.
    """

    def __init__(self, dataset: Dataset, fitting: Fitting, levels: Levels, augmentation: Augmentation | None = None):
        self.dataset, self.fitting, self.levels, self.augmentation = dataset, fitting, levels, augmentation
        keeps = len(dataset) * fitting.size[0] * fitting.size[1] * 3 <= KEPT_BYTES and not getattr(dataset, "anew", False)
        self._kept: dict[int, tuple[np.ndarray, dict]] | None = {} if keeps else None

    def __len__(self) -> int:
        return len(self.dataset)

    def sample_path(self, index: int) -> str | None:
        return sample_path(self.dataset, index)

    def truth(self, index: int) -> tuple[np.ndarray, dict]:
        """A picture of the input's size (H, W, 3), and what is on it, in its pixels."""
        if self._kept is not None and index in self._kept:
            return self._kept[index]
        picture, target = self.dataset[index]
        picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        scale = self.fitting.scale(*picture.size)
        labels = np.asarray(target["labels"], np.int64)
        crowd = np.asarray(target.get("crowd", np.zeros(len(labels))), bool)
        boxes = np.asarray(target["boxes"], np.float32).reshape(-1, 4) * np.float32(scale)
        made = self.fitting.pixels(picture.convert("RGB")), {"boxes": boxes, "labels": labels, "crowd": crowd}
        if self._kept is not None:
            self._kept[index] = made
        return made

    def __getitem__(self, index: int):
        pixels, targets = self._sample(index)
        return self.fitting.normalized(pixels[None])[0], targets

    def __getitems__(self, indices: Sequence[int]) -> CollatedBatch:
        made = []
        for index in indices:
            enter_sample(index)
            try:
                made.append(self._sample(index))
            except DataError:
                raise
            except Exception as error:
                path = self.sample_path(index)
                raise DataError(f"sample {index}{'' if path is None else f' ({path})'} failed: {type(error).__name__}: {error}") from error
        pixels, targets = (np.stack(part) for part in zip(*made))
        return CollatedBatch((self.fitting.normalized(pixels), targets))

    def _sample(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        pixels, truth = self.truth(index)
        if self.augmentation is not None:
            pixels, truth = self.augmentation(pixels, truth, sample_generator())
        return pixels, self.levels.encode(truth["boxes"], truth["labels"], truth["crowd"])
