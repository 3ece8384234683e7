"""Reading image files safely: broken, huge and foreign files give an error that names them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

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
    try:
        with Image.open(source) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise DataError(f"{name}: {width} x {height} is more than the {max_pixels} pixels that an image may "
                                "have; scale it down, or raise max_pixels if you trust the file")
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
