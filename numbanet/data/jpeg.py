"""Plain JPEG files in one go: what Pillow does to open any image takes a fifth of the time of decoding a small one.

Pillow's own decoder does the work. What is not plain, or not whole, is left to `PIL.Image.open`, which says what is wrong with it.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_BYTES = 1 << 24
FRAMES = (0xC0, 0xC1, 0xC2)         # baseline, extended and progressive, with Huffman codes (ITU-T T.81, table B.1)
APP1, APP14 = 0xE1, 0xEE            # EXIF and XMP, which may say how it is turned; Adobe, which may say that it is not YCbCr
MODES = {1: "L", 3: "RGB"}


def plain_size(data: bytes) -> tuple[int, int, int] | None:
    """(width, height, bands) of a JPEG of one or three bands of 8 bits without notes that change what is seen; None of anything else."""
    at = 2
    if data[:3] != b"\xff\xd8\xff":
        return None
    while at + 9 < len(data):
        mark, kind = data[at], data[at + 1]
        if mark != 0xFF or kind in (APP1, APP14):
            return None
        if kind in FRAMES:
            height, width, bands = data[at + 5] << 8 | data[at + 6], data[at + 7] << 8 | data[at + 8], data[at + 9]
            return (width, height, bands) if data[at + 4] == 8 and bands in MODES and width and height else None
        if not 0xC4 <= kind <= 0xFE or 0xD0 <= kind <= 0xDA:
            return None
        at += 2 + (data[at + 2] << 8 | data[at + 3])
    return None


class _Own(threading.local):
    """A picture of this thread, as large as the last one: new memory would be fetched from the system for each, page by page."""

    picture: Image | None = None


_own = _Own()


def read_plain_jpeg(path: str | os.PathLike, max_pixels: int, lent: bool = False) -> Image | None:
    """The picture, L or RGB, of a plain and whole file; None of any other.

    Where it is only `lent`, its memory is that of the next one too that this thread asks for so.
    """
    from PIL import Image

    try:
        with open(path, "rb", buffering=0) as file:
            data = file.read() if os.fstat(file.fileno()).st_size <= MOST_BYTES else b""
        size = plain_size(data)
        if size is None or size[0] * size[1] > max_pixels:
            return None
        mode, picture = MODES[size[2]], _own.picture if lent else None
        if picture is None or picture.mode != mode or picture.size != size[:2]:
            picture = Image.Image()._new(Image.core.new(mode, size[:2]))
        decoder = Image._getdecoder(mode, "jpeg", (mode, ""), ())
        decoder.setimage(picture.im, (0, 0, *size[:2]))
        left, error = decoder.decode(data)
        if left >= 0 or error < 0:
            return None
        if lent:
            _own.picture = picture
        return picture
    except Exception:           # whatever it is, opening it as any image says it better
        return None
