"""Files mapped into memory copy-on-write, and arrays over them.

What is read comes from the page cache and is shared with it; what is written stays private to the process. The file must not be
cut while it is mapped; replacing it by a rename, as :func:`~numbanet.files.atomic_file` does, leaves mapped arrays as they are.
"""

from __future__ import annotations

import math
import mmap
from pathlib import Path

import numpy as np

from numbanet import dtypes
from numbanet.errors import CheckpointError

MAX_DIMENSIONS = 32             # what every NumPy takes
LARGEST = 1 << 47               # bytes that a processor's addresses can hold


def map_file(path: Path) -> mmap.mmap:
    """The bytes of a file that is not empty, writable without changing the file."""
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def checked_size(name: str, shape, dtype: np.dtype) -> int:
    """The bytes of an array; raises where no array can have that shape."""
    if len(shape) > MAX_DIMENSIONS:
        raise CheckpointError(f"{name} has {len(shape)} dimensions; at most {MAX_DIMENSIONS} are possible")
    if min(shape, default=0) < 0 or math.prod(n for n in shape if n) * dtype.itemsize > LARGEST:
        raise CheckpointError(f"{name} has the impossible shape {list(shape)}")
    return math.prod(shape) * dtype.itemsize


def array_at(buffer, offset: int, dtype: np.dtype, shape) -> np.ndarray:
    """The array of `shape` that begins at `offset`: a view, or a copy where kernels could not read it in place.

    Kernels need addresses that are multiples of the element's size, no more.
    """
    count = math.prod(shape)
    if not count:
        return np.empty(shape, dtype)
    array = np.frombuffer(buffer, dtype, count, offset).reshape(shape)
    if dtype == dtypes.bool and array.view(np.uint8).max() > 1:
        raise CheckpointError("a boolean array holds bytes other than 0 and 1")
    return array if array.flags.aligned else array.copy()
