"""Pictures and arrays as text that JSON can hold."""

from __future__ import annotations

import base64
import io

import numpy as np


def png(pixels: np.ndarray) -> str:
    """A data URL of uint8 (H, W), (H, W, 1) or (H, W, 3)."""
    from PIL import Image
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels).save(file, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def coded(values: np.ndarray) -> str:
    """The bytes of an array, row by row."""
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
