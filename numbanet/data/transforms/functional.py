"""Single changes of images with torchvision's names, for every kind of image that `transforms.image` defines.

Pillow does the work on bytes; what it does not know (floating-point arrays, other numbers of channels) passes through it one channel at a
time. Images stay of the kind that they were, and uint8 stays uint8.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

import numpy as np
from PIL import Image as PILImage
from PIL import ImageEnhance, ImageOps

from numbanet.data.transforms.affine import affine_matrices
from numbanet.data.transforms.image import as_channels_last, is_pillow, standard_mode
from numbanet.errors import DTypeError, ShapeError, UsageError

PADDING_MODES = ("constant", "edge", "reflect", "symmetric")


class InterpolationMode(StrEnum):
    """How values between pixels are found."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"

    @classmethod
    def _missing_(cls, value):
        raise UsageError(f"interpolation: expected one of {', '.join(cls)}, received {value!r}")

    @property
    def pillow(self) -> PILImage.Resampling:
        """Pillow's name of it."""
        return PILImage.Resampling[self.name.partition("_")[0]]


def get_size(image: Any) -> tuple[int, int]:
    """(H, W)."""
    return image.size[::-1] if is_pillow(image) else as_channels_last(image)[0].shape[:2]


def get_num_channels(image: Any) -> int:
    """Number of channels; Pillow's images count as grey or RGB."""
    return len(standard_mode(image).getbands()) if is_pillow(image) else as_channels_last(image)[0].shape[2]


# --- geometry -------------------------------------------------------------------------------------------------------

def crop(image: Any, top: int, left: int, height: int, width: int) -> Any:
    """Cut out a window; what of it lies outside is 0."""
    if is_pillow(image):
        return standard_mode(image).crop((left, top, left + width, top + height))
    pixels, restore = as_channels_last(image)
    outside = -top, -left, top + height - pixels.shape[0], left + width - pixels.shape[1]
    if max(outside) > 0:
        before_y, before_x, after_y, after_x = (max(0, n) for n in outside)
        pixels = np.pad(pixels, ((before_y, after_y), (before_x, after_x), (0, 0)))
        top, left = top + before_y, left + before_x
    return restore(pixels[top:top + height, left:left + width])


def center_crop(image: Any, size: Sequence[int]) -> Any:
    """Cut out the middle (H, W); a smaller image gets a border of zeros."""
    have = get_size(image)
    # As torchvision: a border first, the larger half of it after the image, then the rounded middle.
    before = [max(0, want - n) // 2 for want, n in zip(size, have)]
    top, left = (-b if want > n else round((n - want) / 2) for b, want, n in zip(before, size, have))
    return crop(image, top, left, *size)


def resize(image: Any, size: int | Sequence[int] | None, interpolation: str = InterpolationMode.BILINEAR,
           max_size: int | None = None) -> Any:
    """Scale, over as many pixels as the reduction needs, to (H, W) or so that the shorter side is `size`."""
    have = get_size(image)
    want = resized_size(have, size, max_size)
    if want == have:
        return image
    method = InterpolationMode(interpolation).pillow
    return through_pillow(image, lambda picture, _: picture.resize(want[::-1], method))


def resized_size(have: tuple[int, int], size: int | Sequence[int] | None, max_size: int | None = None) -> tuple[int, int]:
    """(H, W) that `resize` makes of (H, W)."""
    if size is not None and not isinstance(size, int) and len(size) == 2:
        return tuple(size)
    short, long = sorted(have)
    new_short, new_long = (short, long) if size is None else (size, int(size * long / short)) if isinstance(size, int) else \
        (size[0], int(size[0] * long / short))
    if max_size is not None and (size is None or new_long > max_size):
        new_short, new_long = max(1, int(max_size * new_short / new_long)), max_size
    return (new_short, new_long) if have[0] <= have[1] else (new_long, new_short)


def resized_crop(image: Any, top: int, left: int, height: int, width: int, size: Sequence[int],
                 interpolation: str = InterpolationMode.BILINEAR) -> Any:
    """Cut out a window and scale it."""
    return resize(crop(image, top, left, height, width), size, interpolation)


def pad(image: Any, padding: int | Sequence[int], fill: float | Sequence[float] = 0, padding_mode: str = "constant") -> Any:
    """Add a border: one width, (left and right, top and bottom), or (left, top, right, bottom)."""
    left, top, right, bottom = paddings(padding)
    pixels, restore = as_channels_last(image)
    borders = ((top, bottom), (left, right), (0, 0))
    if padding_mode == "constant":
        padded = np.empty((pixels.shape[0] + top + bottom, pixels.shape[1] + left + right, pixels.shape[2]), pixels.dtype)
        padded[...] = _fill(0 if fill is None else fill, pixels.shape[2], np.uint8 if pixels.dtype.kind in "iu" else np.float32)
        padded[top:top + pixels.shape[0], left:left + pixels.shape[1]] = pixels
        return restore(padded)
    return restore(np.pad(pixels, borders, padding_mode))


def paddings(padding: int | Sequence[int]) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of 1, 2 or 4 numbers."""
    padding = (padding,) * 4 if isinstance(padding, int) else tuple(padding)
    padding = padding * (4 // len(padding)) if len(padding) in (1, 2) else padding
    if len(padding) != 4 or min(padding) < 0:
        raise UsageError(f"Pad: expected 1, 2 or 4 paddings of 0 or more, received {padding}")
    return padding


def horizontal_flip(image: Any) -> Any:
    """Mirror left and right."""
    if is_pillow(image):
        return standard_mode(image).transpose(PILImage.Transpose.FLIP_LEFT_RIGHT)
    pixels, restore = as_channels_last(image)
    return restore(pixels[:, ::-1])


def vertical_flip(image: Any) -> Any:
    """Mirror top and bottom."""
    if is_pillow(image):
        return standard_mode(image).transpose(PILImage.Transpose.FLIP_TOP_BOTTOM)
    pixels, restore = as_channels_last(image)
    return restore(pixels[::-1])


def rotate(image: Any, angle: float, interpolation: str = InterpolationMode.NEAREST, expand: bool = False,
           center: Sequence[float] | None = None, fill: float | Sequence[float] | None = 0) -> Any:
    """Turn counter-clockwise by degrees about `center` (x, y), by default the middle; `expand` makes room for all of it."""
    method = InterpolationMode(interpolation).pillow
    return through_pillow(image, lambda picture, ink: picture.rotate(angle, method, expand, center, fillcolor=ink), fill)


def affine(image: Any, angle: float, translate: Sequence[float], scale: float, shear: Sequence[float],
           interpolation: str = InterpolationMode.NEAREST, fill: float | Sequence[float] | None = 0,
           center: Sequence[float] | None = None) -> Any:
    """Shear and turn clockwise by degrees, scale about `center` (x, y), shift by pixels (x, y)."""
    size = get_size(image)
    offset = np.zeros(2) if center is None else np.asarray(center, np.float64) - np.array(size[::-1]) / 2
    matrix = affine_matrices(np.array([angle]), np.array([translate], np.float64), np.array([scale]), np.array([shear], np.float64),
                             size, size)[0]
    # Turning about another point is turning about the middle and a shift: c - M c.
    matrix[:, 2] += offset - matrix[:, :2] @ offset
    return transform(image, matrix, interpolation, fill)


def transform(image: Any, matrix: np.ndarray, interpolation: str = InterpolationMode.NEAREST,
              fill: float | Sequence[float] | None = 0) -> Any:
    """Sample through a map (2, 3) from output pixels (column, row, 1) to input pixels, whose centres are at whole numbers."""
    # Pillow's centres are at halves.
    shift = matrix[:, 2] + 0.5 - 0.5 * matrix[:, :2].sum(1)
    data = (*matrix[0, :2], shift[0], *matrix[1, :2], shift[1])
    method = InterpolationMode(interpolation).pillow
    kind = PILImage.Transform.AFFINE
    return through_pillow(image, lambda picture, ink: picture.transform(picture.size, kind, data, method, fillcolor=ink), fill)


# --- colours: bytes, grey or RGB ------------------------------------------------------------------------------------

def adjust_brightness(image: Any, brightness_factor: float) -> Any:
    """Mix with black: 0 is black, 1 the image, more is brighter."""
    return on_colours("adjust_brightness", image, lambda picture: ImageEnhance.Brightness(picture).enhance(brightness_factor))


def adjust_contrast(image: Any, contrast_factor: float) -> Any:
    """Mix with the grey of the mean brightness."""
    return on_colours("adjust_contrast", image, lambda picture: ImageEnhance.Contrast(picture).enhance(contrast_factor))


def adjust_saturation(image: Any, saturation_factor: float) -> Any:
    """Mix with the image in grey."""
    return on_colours("adjust_saturation", image, lambda picture: ImageEnhance.Color(picture).enhance(saturation_factor))


def adjust_sharpness(image: Any, sharpness_factor: float) -> Any:
    """Mix with the smoothed image: 0 is blurred, 2 sharpened."""
    return on_colours("adjust_sharpness", image, lambda picture: ImageEnhance.Sharpness(picture).enhance(sharpness_factor))


def adjust_hue(image: Any, hue_factor: float) -> Any:
    """Turn the colours by this part of the circle, -0.5 ... 0.5; grey images stay."""
    if not -0.5 <= hue_factor <= 0.5:
        raise UsageError(f"adjust_hue: expected a factor from -0.5 to 0.5, received {hue_factor}")
    steps = int(hue_factor * 255)

    def turn(picture):
        if picture.mode == "L":
            return picture
        hue, *others = picture.convert("HSV").split()
        return PILImage.merge("HSV", (hue.point([(value + steps) % 256 for value in range(256)]), *others)).convert("RGB")
    return on_colours("adjust_hue", image, turn)


def posterize(image: Any, bits: int) -> Any:
    """Keep the upper bits of each byte."""
    return on_colours("posterize", image, lambda picture: ImageOps.posterize(picture, bits))


def solarize(image: Any, threshold: float) -> Any:
    """Invert bytes from the threshold on."""
    return on_colours("solarize", image, lambda picture: ImageOps.solarize(picture, threshold))


def autocontrast(image: Any) -> Any:
    """Stretch each channel to 0 ... 255."""
    return on_colours("autocontrast", image, ImageOps.autocontrast)


def equalize(image: Any) -> Any:
    """Give each channel an even histogram."""
    return on_colours("equalize", image, ImageOps.equalize)


def invert(image: Any) -> Any:
    """255 - value."""
    return on_colours("invert", image, ImageOps.invert)


def rgb_to_grayscale(image: Any, num_output_channels: int = 1) -> Any:
    """Brightness by ITU-R BT.601, in one channel or repeated in three."""
    if num_output_channels not in (1, 3):
        raise UsageError(f"Grayscale: expected 1 or 3 output channels, received {num_output_channels}")
    if is_pillow(image):
        grey = standard_mode(image).convert("L")
        return grey if num_output_channels == 1 else grey.convert("RGB")
    pixels, restore = as_channels_last(image)
    if pixels.shape[2] not in (1, 3):
        raise ShapeError(f"Grayscale: expected 1 or 3 channels, received {pixels.shape[2]}")
    if pixels.shape[2] == 3:
        if pixels.dtype == np.uint8:
            pixels = np.asarray(_to_pillow(pixels).convert("L"))[:, :, None]
        else:
            pixels = (pixels @ np.array([0.299, 0.587, 0.114])).astype(pixels.dtype)[:, :, None]
    return restore(np.repeat(pixels, num_output_channels, 2))


def gaussian_blur(image: Any, kernel_size: Sequence[int], sigma: Sequence[float]) -> Any:
    """Average with weights exp(-d^2 / 2 sigma^2) over windows of (width, height) pixels, the image mirrored at its border."""
    pixels, restore = as_channels_last(image)
    values = pixels.astype(np.float32 if pixels.dtype != np.float64 else np.float64)
    for axis, length, spread in ((1, kernel_size[0], sigma[0]), (0, kernel_size[1], sigma[1])):
        reach = length // 2
        if reach >= pixels.shape[axis]:
            raise ShapeError(f"GaussianBlur: expected an image larger than half of the window of {length}, received {pixels.shape[:2]}")
        weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / spread) ** 2)
        weights /= weights.sum()
        padded = np.pad(values, [(reach, reach) if a == axis else (0, 0) for a in range(3)], "reflect")
        moved = np.moveaxis(padded, axis, 0)
        values = np.moveaxis(sum(values.dtype.type(w) * moved[k:k + pixels.shape[axis]] for k, w in enumerate(weights)), 0, axis)
    return restore((np.rint(values) if pixels.dtype.kind in "iu" else values).astype(pixels.dtype))


def erase(image: Any, i: int, j: int, h: int, w: int, v: Any, inplace: bool = False) -> Any:
    """Overwrite the window of h x w pixels at row i and column j with `v`: a number, one a channel, or an array (h, w, C)."""
    pixels, restore = as_channels_last(image)
    if not inplace or not pixels.flags.writeable:
        pixels = pixels.copy()
    pixels[i:i + h, j:j + w] = v
    return image if inplace and not is_pillow(image) and np.shares_memory(pixels, image) else restore(pixels)


# --- Pillow ---------------------------------------------------------------------------------------------------------

def through_pillow(image: Any, operation: Callable[[PILImage.Image, Any], PILImage.Image],
                   fill: float | Sequence[float] | None = None) -> Any:
    """``operation(picture, fill)`` on a Pillow image of bytes (L or RGB) or, one channel at a time, of floats (F)."""
    if is_pillow(image):
        image = standard_mode(image)
        return operation(image, _fill(fill, len(image.getbands())))
    pixels, restore = as_channels_last(image)
    if pixels.dtype == np.uint8 and pixels.shape[2] in (1, 3):
        result = np.asarray(operation(_to_pillow(pixels), _fill(fill, pixels.shape[2])))
        return restore(result if result.ndim == 3 else result[:, :, None])
    form, channels = np.uint8 if pixels.dtype == np.uint8 else np.float32, pixels.shape[2]
    fills = fill if isinstance(fill, Sequence) and len(fill) == channels else [fill] * channels
    planes = [np.asarray(operation(PILImage.fromarray(np.ascontiguousarray(pixels[:, :, c], form)), _fill(fills[c], 1, form)))
              for c in range(channels)]
    return restore(np.stack(planes, 2).astype(pixels.dtype, copy=False))


def on_colours(name: str, image: Any, operation: Callable[[PILImage.Image], PILImage.Image]) -> Any:
    """An operation on bytes, grey or RGB."""
    if is_pillow(image):
        return operation(standard_mode(image))
    pixels, restore = as_channels_last(image)
    if pixels.dtype != np.uint8:
        raise DTypeError(f"{name}: expected a Pillow image or uint8, received {pixels.dtype}; put it before ToTensor, ToDtype and "
                         "Normalize")
    if pixels.shape[2] not in (1, 3):
        raise ShapeError(f"{name}: expected 1 or 3 channels, received {pixels.shape[2]}")
    result = np.asarray(operation(_to_pillow(pixels)))
    return restore(result if result.ndim == 3 else result[:, :, None])


def _to_pillow(pixels: np.ndarray) -> PILImage.Image:
    return PILImage.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))


def _fill(fill: float | Sequence[float] | None, channels: int, form: type = np.uint8) -> Any:
    """Pillow's form of a fill: a number for one channel, a tuple for three."""
    if fill is None:
        return None
    values = tuple(fill) if isinstance(fill, Sequence) else (fill,)
    values = values * channels if len(values) == 1 else values
    if len(values) != channels or not all(math.isfinite(v) for v in values):
        raise UsageError(f"fill: expected a number or {channels}, one a channel, received {fill}")
    values = tuple(map(float if form is np.float32 else int, values))
    if form is np.uint8 and not 0 <= min(values) <= max(values) <= 255:
        raise UsageError(f"fill: expected values from 0 to 255 for bytes, received {fill}")
    return values[0] if channels == 1 else values
