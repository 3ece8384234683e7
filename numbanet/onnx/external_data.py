"""Tensors whose bytes lie in a file beside the model: found, checked and memory-mapped.

A location is a relative path below the model's folder. Absolute paths, "..", symbolic links and anything that is not a plain file are
refused, so that a model cannot read what it was not shipped with.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np

from numbanet.errors import OnnxError


def map_external(name: str, entries, folder: Path | None, dtype: np.dtype, count: int) -> np.ndarray:
    """The `count` elements of an external tensor, mapped copy-on-write: changes stay in memory.

    Parameters
    ----------
    entries : (key, value) pairs of the tensor: location, and optionally offset and length in bytes
    folder : of the model; None where the model has no file

    Raises
    ------
    OnnxError
        The location leaves the folder, is a link or no file, or is too short.
    """
    fields = {}
    for key, value in entries:
        if key in fields:
            raise OnnxError(f"onnx: external tensor {name!r} gives {key!r} twice")
        fields[key] = value
    location = fields.get("location", "")
    if folder is None:
        raise OnnxError(f"onnx: tensor {name!r} lies in the external file {location!r}, but the model was not given as a path; "
                        "load it by its path")
    path = _beside(name, location, folder)
    offset, length = _number(name, fields, "offset", 0), _number(name, fields, "length", None)
    nbytes = count * dtype.itemsize
    if length is not None and length != nbytes:
        raise OnnxError(f"onnx: external tensor {name!r} expects {nbytes} bytes, its entry says length {length}")
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if offset + nbytes > size:
            raise OnnxError(f"onnx: external tensor {name!r} needs bytes {offset} to {offset + nbytes} of {location!r}, which has {size}; "
                            "the file is truncated or belongs to another model")
        if count == 0:
            return np.empty(0, dtype)
        mapped = np.memmap(file, np.uint8, mode="c", offset=offset, shape=(nbytes,))
    array = np.frombuffer(mapped, dtype)
    return array if array.flags.aligned else array.copy()


def _number(name: str, fields: dict, key: str, default):
    text = fields.get(key)
    if text is None or text == "":
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise OnnxError(f"onnx: external tensor {name!r}: {key} expects a number of bytes, received {text!r}")
    return int(text)


def _beside(name: str, location: str, folder: Path) -> Path:
    """The file of a location, without a link on its way."""
    parts = location.replace("\\", "/").split("/")
    if not location or "\0" in location or location.startswith(("/", "\\", "~")) or ":" in parts[0] or ".." in parts:
        raise OnnxError(f"onnx: external tensor {name!r}: location expects a file in the model's folder, received {location!r}")
    path = folder
    for part in parts:
        path = path / part
        try:
            mode = path.lstat().st_mode
        except (OSError, ValueError):
            raise OnnxError(f"onnx: external tensor {name!r}: {location!r} does not exist beside the model") from None
        if stat.S_ISLNK(mode):
            raise OnnxError(f"onnx: external tensor {name!r}: {location!r} goes through a symbolic link, which is not followed; "
                            "put the file itself beside the model")
    if not stat.S_ISREG(mode):
        raise OnnxError(f"onnx: external tensor {name!r}: {location!r} is not a plain file")
    return path
