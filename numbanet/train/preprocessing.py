"""From pictures to a network's input; what it did in training is stored with the weights, so that predicting does the same."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from numbanet.data import load_image
from numbanet.data.images import image_array
from numbanet.data.transforms import BatchAffineNormalize
from numbanet.errors import CheckpointError, DataError

MNIST_SIZE = (28, 28)
# What --distort does where a recipe names no ranges of its own; digits stay readable.
DISTORTIONS = {"degrees": 12.0, "translate": (0.08, 0.08), "scale": (0.85, 1.15), "shear": 10.0}
INTERPOLATIONS = ("bilinear", "bicubic")


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes a network's input.

    Attributes
    ----------
    input_size : (C, H, W) of the network
    image_size : (H, W) that pictures are scaled to before they are padded to `input_size`
    mean, std : per channel of the network, of pixels between 0 and `pixel_scale`
    digits : whether pictures are made to look like MNIST's first: ink white on black, centred, 20 pixels high
    resize : length of the shorter side of the scaled picture, whose centre of `image_size` is then used; None scales the whole picture
        to `image_size`, whatever its proportions
    interpolation : "bilinear" or "bicubic", both over as many pixels as the reduction needs
    channel_order : "rgb", or "bgr" as networks trained with Caffe expect
    pixel_scale : 1.0 or 255.0
    """

    input_size: tuple[int, int, int]
    image_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    digits: bool = False
    resize: int | None = None
    interpolation: str = "bilinear"
    channel_order: str = "rgb"
    pixel_scale: float = 1.0

    def __post_init__(self):
        """ValueError for what cannot be meant."""
        if len(self.input_size) != 3 or len(self.image_size) != 2 or not len(self.mean) == len(self.std) == self.input_size[0]:
            raise ValueError("sizes do not fit")
        if self.resize is not None and self.resize < max(self.image_size):
            raise ValueError(f"resize {self.resize} is less than image_size {self.image_size}")
        for name, allowed in (("interpolation", INTERPOLATIONS), ("channel_order", ("rgb", "bgr")), ("pixel_scale", (1.0, 255.0))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} expects {' or '.join(map(str, allowed))}")

    @classmethod
    def for_model(cls, info) -> Preprocessing:
        """What the published weights of a model (its :class:`~numbanet.zoo.registry.ModelInfo`) were evaluated with."""
        size = info.input_size[1:]
        resize = round(max(size) / info.crop_pct) if size[0] == size[1] else None
        return cls(info.input_size, size, info.mean, info.std, resize=resize, interpolation=info.interpolation,
                   channel_order=info.channel_order)

    @classmethod
    def for_data(cls, info, channels: int, image_size, pad: bool, digits: bool) -> Preprocessing:
        """For a model (its :class:`~numbanet.zoo.registry.ModelInfo`) and pictures of this kind; with `pad`, small ones are padded to
        the model's size instead of scaled."""
        height, width = info.input_size[1:]
        small = image_size[0] <= height and image_size[1] <= width
        mean, std = (values if len(values) == channels else (values[0],) * channels for values in (info.mean, info.std))
        return cls((channels, height, width), tuple(image_size) if small and pad else (height, width), mean, std, digits)

    @classmethod
    def from_metadata(cls, values) -> Preprocessing:
        """The inverse of :meth:`as_metadata`."""
        try:
            resize = values.get("resize")           # this and what follows came later: older weights do not have them
            return cls(tuple(map(int, values["input_size"])), tuple(map(int, values["image_size"])), tuple(map(float, values["mean"])),
                       tuple(map(float, values["std"])), bool(values["digits"]), None if resize is None else int(resize),
                       values.get("interpolation", "bilinear"), values.get("channel_order", "rgb"), float(values.get("pixel_scale", 1.0)))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"the preprocessing stored with the weights is damaged or missing ({error}); weights written by "
                                  "'numbanet train' have it") from error

    def as_metadata(self) -> dict:
        return asdict(self)

    @property
    def mode(self) -> str:
        """Pillow's name for the network's channels."""
        return "L" if self.input_size[0] == 1 else "RGB"

    @property
    def picture_shape(self) -> tuple[int, ...]:
        """Of a uint8 picture before it is normalised: (H, W), or (H, W, 3)."""
        return (*self.image_size, 3) if self.input_size[0] == 3 else self.image_size

    @property
    def picture_bytes(self) -> int:
        return math.prod(self.picture_shape)

    @property
    def scaled_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """(mean, std) of pixels between 0 and 1."""
        return tuple(value / self.pixel_scale for value in self.mean), tuple(value / self.pixel_scale for value in self.std)

    def read(self, source, raw: bool = False) -> np.ndarray:
        """Decode an image (path or open binary file) into :meth:`pixels`.

        Raises
        ------
        DataError
            Not an image, broken, too large, or no ink on a picture of a digit; the message begins with the image's name.
        """
        picture = load_image(source, self.mode)
        try:
            return self.pixels(picture, raw)
        except DataError as error:
            raise DataError(f"{source if isinstance(source, (str, os.PathLike)) else getattr(source, 'name', 'image')}: {error}") from error

    def pixels(self, picture, raw: bool = False) -> np.ndarray:
        """A decoded picture (Pillow) as uint8 (H, W) or (H, W, 3) of `image_size`, in the network's order of channels; `raw` leaves
        digits as they are."""
        from PIL import Image
        if self.digits and not raw:
            from numbanet.data.transforms import normalize_digit
            picture = Image.fromarray(normalize_digit(picture))
        if picture.mode != self.mode:
            picture = picture.convert(self.mode)
        if picture.size != self.image_size[::-1] or self.resize is not None:
            method = Image.Resampling[self.interpolation.upper()]
            picture = picture.resize(self.image_size[::-1], method, box=self._box(picture.size))
        pixels = image_array(picture)
        return np.ascontiguousarray(pixels[..., ::-1]) if self.channel_order == "bgr" and pixels.ndim == 3 else pixels

    def _box(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """The part of a picture of `size` (width, height) that the network sees: (left, top, right, bottom).

        Cutting before scaling gives the same pixels, but for the outermost, and a long thin picture does not grow.
        """
        width, height = size
        if self.resize is None:
            return 0, 0, width, height
        scale = min(width, height) / self.resize                # pixels of the picture for each pixel of the scaled one
        left, top = max(0.0, (width - self.image_size[1] * scale) / 2), max(0.0, (height - self.image_size[0] * scale) / 2)
        return left, top, width - left, height - top

    def of_any_size(self, picture) -> tuple[np.ndarray, np.ndarray]:
        """(network input float32 (C, H, W), uint8 pixels that show it) of a decoded picture (Pillow) as large as it is."""
        shown = np.asarray(picture.convert(self.mode))
        values = shown[..., None] if shown.ndim == 2 else shown[..., ::-1 if self.channel_order == "bgr" else 1]
        mean, std = (np.asarray(v, np.float32) for v in (self.mean, self.std))
        scaled = (values.astype(np.float32) * np.float32(self.pixel_scale / 255) - mean) / std
        return np.ascontiguousarray(scaled.transpose(2, 0, 1)), shown

    def picture(self, x) -> np.ndarray:
        """The inverse of :meth:`batch_transform`: network input (C, H, W) as uint8 (H, W) or (H, W, 3), red first; what lies beyond
        black and white is cut."""
        mean, std = (np.asarray(v, np.float64).reshape(-1, 1, 1) for v in (self.mean, self.std))
        pixels = np.clip(np.round((np.asarray(x, np.float64) * std + mean) * (255 / self.pixel_scale)), 0, 255).astype(np.uint8)
        if len(pixels) == 1:
            return pixels[0]
        return np.ascontiguousarray(pixels[::-1 if self.channel_order == "bgr" else 1].transpose(1, 2, 0))

    def black_and_white(self) -> tuple[np.ndarray, np.ndarray]:
        """What black and white pixels become: float32 (C, 1, 1) each."""
        mean, std = (np.asarray(v, np.float32).reshape(-1, 1, 1) for v in (self.mean, self.std))
        return -mean / std, (np.float32(self.pixel_scale) - mean) / std

    def batch_transform(self, distortions: Mapping | None = None) -> BatchAffineNormalize:
        """uint8 pictures of `image_size` to float32 input, with random affine maps of these ranges or without."""
        return BatchAffineNormalize(self.input_size[1:], *self.scaled_statistics, **(distortions or {}))
