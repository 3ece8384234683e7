"""Reading image files safely: broken, huge and foreign files give an error that names them."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from numbanet.data.jpeg import read_plain_jpeg
from numbanet.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

IMG_EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
MAX_PIXELS = 89_478_485     # 256 MB of RGB, as in PIL


def load_image(source: str | os.PathLike | BinaryIO, mode: str = "RGB", max_pixels: int = MAX_PIXELS) -> Image:
    """Decode an image file.

    The size is read from the header and checked before decoding. Photographs are turned upright by their EXIF tag,
    16-bit values are scaled to 8, and what is transparent becomes white paper.

    Parameters
    ----------
    source
        Path or open binary file.
    mode : {"RGB", "L"}

    Returns
    -------
    PIL.Image.Image

    Raises
    ------
    DataError
        The file is missing, no image, broken, truncated, or has more than `max_pixels` (a decompression bomb).
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    name = source if isinstance(source, str | os.PathLike) else getattr(source, "name", "image")
    plain = read_plain_jpeg(source, max_pixels) if name is source and _is_jpeg(name) else None
    if plain is not None:
        return to_mode(plain, mode)
    try:
        with Image.open(source) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise DataError(f"{name}: {width} x {height} is more than the {max_pixels} pixels that an image may "
                                "have; scale it down, or raise max_pixels if you trust the file")
            if image.format != "JPEG" or "exif" in image.info or "xmp" in image.info:      # to look for it takes as long as opening
                ImageOps.exif_transpose(image, in_place=True)
            return to_mode(image, mode)
    except FileNotFoundError:
        raise DataError(f"{name}: the file is missing") from None
    except IsADirectoryError:
        raise DataError(f"{name}: expected an image file, received a folder") from None
    except UnidentifiedImageError:
        raise DataError(f"{name}: not an image, or of a format that cannot be read; expected PNG, JPEG or another of "
                        f"{', '.join(e[1:] for e in IMG_EXTENSIONS)}") from None
    except Image.DecompressionBombError as error:
        raise DataError(f"{name}: more than the {max_pixels} pixels that an image may have ({error})") from None
    except DataError:
        raise
    except Exception as error:      # decoders raise whatever a damaged file leads them to
        raise DataError(f"{name}: the image is broken or truncated ({type(error).__name__}: {error})") from error


def _is_jpeg(path: str | os.PathLike) -> bool:
    return str(path).lower().endswith((".jpg", ".jpeg"))


def load_pixels(path: str | os.PathLike, out: np.ndarray | None = None) -> np.ndarray:
    """``image_array(load_image(path), out)``, without a picture in between that lasts."""
    plain = read_plain_jpeg(path, MAX_PIXELS, lent=True) if out is not None and _is_jpeg(path) else None
    if plain is None or plain.mode != "RGB" or out.shape != (plain.height, plain.width, 3):
        return image_array(load_image(path), out)
    return image_array(plain, out)


def image_array(image: Image | np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """What ``np.asarray`` gives; where it is uint8 of the shape of `out`, written there.

    ``np.asarray`` has Pillow write its four bytes a pixel out as three, in pieces that are then joined: an eighth of the time that
    decoding a JPEG takes. Here they are read where they are (the Arrow C data interface), by a kernel that does not hold Python's lock.

    Parameters
    ----------
    image : PIL.Image.Image or array
    out : uint8 array, optional

    Returns
    -------
    numpy.ndarray
        `out`, or an array of its own or of the image's memory.
    """
    bands = {"L": 1, "RGB": 3}.get(getattr(image, "mode", None), 0)
    shape = (image.height, image.width, bands)[:3 if bands == 3 else 2] if bands else ()
    stored, owner = _stored_bytes(image) if bands else (None, None)
    if stored is None:
        return _into(np.asarray(image), out)
    if bands == 1:
        return _into(stored.reshape(shape).copy() if out is None else stored.reshape(shape), out)
    from numbanet.backends import get_backend

    fits = out is not None and out.shape == shape and out.dtype == np.uint8
    made = get_backend("cpu").images_rgbx_to_rgb(stored.reshape(1, *shape[:2], 4), out=out[None] if fits else None)
    del owner               # until here
    return out if fits else made[0]


def _into(pixels: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    if out is None or pixels.shape != out.shape or pixels.dtype != out.dtype:
        return pixels
    out[...] = pixels
    return out


class _ArrowArray(ctypes.Structure):
    """``struct ArrowArray`` of the Arrow C data interface."""


_ArrowArray._fields_ = [*((name, ctypes.c_int64) for name in ("length", "null_count", "offset", "n_buffers", "n_children")),
                        ("buffers", ctypes.POINTER(ctypes.c_void_p)), ("children", ctypes.POINTER(ctypes.POINTER(_ArrowArray))),
                        ("dictionary", ctypes.POINTER(_ArrowArray)), ("release", ctypes.c_void_p), ("private_data", ctypes.c_void_p)]


def _stored_bytes(image: Image) -> tuple[np.ndarray | None, Any]:
    """The memory of an L or RGB image, one or four bytes a pixel, and what keeps it alive; None where Pillow (before 11.2) does not tell,
    or has it in several blocks (beyond 16 MB)."""
    try:
        owner = image.__arrow_c_array__()
    except (AttributeError, ValueError):
        return None, None
    capsule = ctypes.pythonapi.PyCapsule_GetPointer
    capsule.restype, capsule.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    array = _ArrowArray.from_address(capsule(owner[1], b"arrow_array"))
    while array.n_children:             # four bytes are a list of fixed size
        array = array.children[0].contents
    expected = image.width * image.height * (1 if image.mode == "L" else 4)
    if array.length != expected or array.offset or array.n_buffers != 2 or not array.buffers[1]:
        return None, None
    return np.frombuffer((ctypes.c_uint8 * expected).from_address(array.buffers[1]), np.uint8), owner


def image_header(path: str | os.PathLike) -> tuple[tuple[int, int], bool]:
    """Size (H, W) and whether the image is grey, from the header alone.

    Raises
    ------
    DataError
        As `load_image`.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            grey = image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;16")
            return (image.height, image.width), grey
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        load_image(path)    # says what is wrong
        raise DataError(f"{path}: the image cannot be read") from None


def is_image_file(path: str | os.PathLike) -> bool:
    """Whether the name has the extension of an image and is not hidden."""
    path = Path(path)
    return path.suffix.lower() in IMG_EXTENSIONS and not path.name.startswith(".")


def to_mode(image: Image, mode: str) -> Image:
    """An image as RGB or L: 16-bit values scaled to 8, and white paper where it is transparent."""
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        if image.mode != "F":
            values = values >> 8 if values.max(initial=0) > 255 else values
        image = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image)
    if image.mode == mode:
        image.load()        # before its file is closed; `convert` would copy it too
        return image
    return image.convert(mode)
