"""What an image is here, and the transforms that change its form or values: Compose, ToTensor, Normalize, ...

An image is one of
- a `PIL.Image.Image`;
- a uint8 array (H, W) or (H, W, C), as in files and in MNIST;
- a floating-point array (C, H, W), which `ToTensor` and `ToDtype` give;
- an `Image`: an array (C, H, W) of any dtype, which `ToImage` gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from numbanet.data.images import image_array, to_mode
from numbanet.errors import DTypeError, ShapeError, UsageError


class Image(np.ndarray):
    """An array (C, H, W) of pixels."""


class Transform:
    """Base of transforms: shows the parameters that it was made with."""

    def __call__(self, image: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no __call__: define it to return the changed image")

    def __repr__(self) -> str:
        values = (f"{name}={value!r}" for name, value in vars(self).items() if not name.startswith("_"))
        return f"{type(self).__name__}({', '.join(values)})"


class Compose(Transform):
    """One transform after the other."""

    def __init__(self, transforms: Sequence[Callable]):
        self.transforms = list(transforms)

    def __call__(self, image: Any) -> Any:
        for transform in self.transforms:
            image = transform(image)
        return image

    def __repr__(self) -> str:
        return f"Compose({self.transforms})"


class Lambda(Transform):
    """A function as a transform."""

    def __init__(self, function: Callable):
        self.function = function

    def __call__(self, image: Any) -> Any:
        return self.function(image)


class ToTensor(Transform):
    """Make float32 (C, H, W).

    PIL images and uint8 arrays (H, W[, C]) come to lie between 0 and 1; other arrays (H, W[, C]) keep their values.
    """

    def __call__(self, image: Any) -> np.ndarray:
        if isinstance(image, np.ndarray) and not isinstance(image, Image):
            if image.ndim not in (2, 3):
                raise ShapeError(f"ToTensor: expected an array (H, W) or (H, W, C), received {image.shape}")
            array = image if image.ndim == 3 else image[:, :, None]
        else:
            array, _ = as_channels_last(image)
        result = np.ascontiguousarray(array.transpose(2, 0, 1), np.float32)
        if array.dtype == np.uint8:
            result /= np.float32(255)
        return result


class ToImage(Transform):
    """A PIL image or array (H, W[, C]) to an `Image` (C, H, W) with the same values."""

    def __call__(self, image: Any) -> Image:
        array, _ = as_channels_last(image)
        return np.ascontiguousarray(array.transpose(2, 0, 1)).view(Image)


class ToDtype(Transform):
    """An `Image` to another dtype; with `scale` between the ranges 0 ... 255 of uint8 and 0 ... 1 of floats."""

    def __init__(self, dtype: Any = np.float32, scale: bool = False):
        self.dtype, self.scale = np.dtype(dtype), scale

    def __call__(self, image: np.ndarray) -> np.ndarray:
        if not isinstance(image, np.ndarray) or (image.dtype == np.uint8 and not isinstance(image, Image)):
            raise DTypeError(f"ToDtype: expected an array (C, H, W), received {_describe(image)}; put ToImage() before "
                             "it")
        to_float, from_float = self.dtype.kind == "f", image.dtype.kind == "f"
        if self.scale and to_float and image.dtype == np.uint8:
            return image.astype(self.dtype) / self.dtype.type(255)
        if self.scale and from_float and self.dtype == np.uint8:
            return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8).view(Image)
        if self.scale and to_float != from_float:
            raise DTypeError(f"ToDtype: scale=True converts between uint8 and floats, received {image.dtype} to "
                             f"{self.dtype}")
        return image.astype(self.dtype).view(Image)


class Normalize(Transform):
    """(image - mean) / std for each channel of a floating-point (C, H, W)."""

    def __init__(self, mean: Sequence[float] | float, std: Sequence[float] | float, inplace: bool = False):
        self.mean, self.std, self.inplace = (np.atleast_1d(np.asarray(mean, np.float32)),
                                             np.atleast_1d(np.asarray(std, np.float32)), inplace)
        if not self.std.all():
            raise UsageError(f"Normalize: expected a std other than 0, received {std}")

    def __call__(self, image: np.ndarray) -> np.ndarray:
        if not isinstance(image, np.ndarray) or image.dtype.kind != "f" or image.ndim < 3:
            raise DTypeError(f"Normalize: expected a floating-point array (C, H, W), received {_describe(image)}; put "
                             "ToTensor() before it")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, image.shape[-3]):
                raise ShapeError(f"Normalize: expected {name} of 1 or {image.shape[-3]} values, one a channel, "
                                 f"received {len(values)}")
        out = np.subtract(image, self.mean[:, None, None], out=image if self.inplace else None, dtype=image.dtype)
        out /= self.std[:, None, None]
        return out

    def __repr__(self) -> str:
        return f"Normalize(mean={self.mean.tolist()}, std={self.std.tolist()})"


def as_channels_last(image: Any) -> tuple[np.ndarray, Callable[[np.ndarray], Any]]:
    """An image's pixels as (H, W, C), and the function that makes an image of the same kind of such pixels."""
    if isinstance(image, np.ndarray):
        if isinstance(image, Image) or image.dtype.kind == "f":
            if image.ndim == 3:
                kind = type(image)
                return image.view(np.ndarray).transpose(1, 2, 0), lambda a: a.transpose(2, 0, 1).view(kind)
        elif image.dtype == np.uint8 and image.ndim == 3:
            return image, lambda a: a
        elif image.dtype == np.uint8 and image.ndim == 2:
            return image[:, :, None], lambda a: a[:, :, 0] if a.shape[2] == 1 else a
    elif is_pillow(image):
        array = image_array(standard_mode(image))
        return (array if array.ndim == 3 else array[:, :, None]), _to_pil
    raise DTypeError("transform: expected a PIL image, a uint8 array (H, W) or (H, W, C), or a floating-point array "
                     f"(C, H, W), received {_describe(image)}")


def is_pillow(image: Any) -> bool:
    """Whether it is a `PIL.Image.Image`."""
    return hasattr(image, "getbands")


def standard_mode(image: Any) -> Any:
    """A Pillow image as L or RGB; 16-bit, palette, CMYK and transparent ones as `numbanet.data.load_image` reads them."""
    if image.mode in ("L", "RGB"):
        return image
    grey = image.mode in ("1", "LA", "F") or image.mode.startswith("I")
    return to_mode(image, "L" if grey else "RGB")


def _to_pil(array: np.ndarray) -> Any:
    from PIL import Image as PILImage

    return PILImage.fromarray(np.ascontiguousarray(array[:, :, 0] if array.shape[2] == 1 else array))


def _describe(image: Any) -> str:
    return f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
