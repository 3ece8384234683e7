"""The IDX format of MNIST: a magic number, the sizes as big-endian 32-bit integers, and the values, row by row.

The magic number is two zero bytes, the type of the values and the number of dimensions. (Y. LeCun, C. Cortes and
C. J. C. Burges, "The MNIST database of handwritten digits", section on file formats.)
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from numbanet.errors import DataError

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_DEFLATE_RATIO = 1032       # no deflate stream expands further


def read_idx(path: str | os.PathLike, ndim: int | None = None) -> np.ndarray:
    """Read an IDX file, plain or gzip-compressed (told by its content, not by its name).

    The header is checked against the size of the file before any memory is taken.

    Parameters
    ----------
    ndim
        The number of dimensions to expect: 1 for labels, 3 for images.

    Returns
    -------
    numpy.ndarray
        In native byte order.

    Raises
    ------
    DataError
        A file that is missing, not IDX, of other dimensions, or of another size than its header says.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if compressed:
                limit = os.fstat(file.fileno()).st_size * _MAX_DEFLATE_RATIO
                with gzip.GzipFile(fileobj=file) as unpacked:
                    return _read(unpacked, path, ndim, limit)
            return _read(file, path, ndim, os.fstat(file.fileno()).st_size)
    except FileNotFoundError:
        raise DataError(f"{path}: the file is missing") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: the gzip data is damaged or truncated ({error}); fetch the file again") from error
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read ({error.strerror or error})") from error


def _read(file: BinaryIO, path: Path, ndim: int | None, limit: int) -> np.ndarray:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES or magic[3] == 0:
        raise DataError(f"{path}: not an IDX file; expected a magic number 0x0000TTDD (type, dimensions), received "
                        f"0x{magic.hex()}")
    if ndim is not None and magic[3] != ndim:
        raise DataError(f"{path}: expected an IDX file of {ndim} dimensions (magic number "
                        f"0x0000{magic[2]:02x}{ndim:02x}), received {magic[3]} (0x{magic.hex()})")
    sizes = file.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise DataError(f"{path}: truncated in its header: expected {4 + 4 * magic[3]} bytes, received "
                        f"{4 + len(sizes)}")
    shape = tuple(int.from_bytes(sizes[i:i + 4], "big") for i in range(0, len(sizes), 4))
    dtype = np.dtype(_TYPES[magic[2]])
    expected, header = math.prod(shape) * dtype.itemsize, 4 + len(sizes)
    if header + expected > limit:
        raise DataError(f"{path}: truncated: its header announces {_describe(shape, dtype)}, {header + expected} bytes "
                        f"with the header, and the file holds {limit} at most")
    values = np.empty(shape, dtype)
    received = _fill(file, values)
    if received < expected or file.read(1):
        found = f"{header + received}" if received < expected else f"more than {header + expected}"
        raise DataError(f"{path}: its header announces {_describe(shape, dtype)}: expected {header + expected} bytes "
                        f"with the header, received {found}")
    return values.astype(dtype.newbyteorder("="), copy=False)


def _fill(file: BinaryIO, values: np.ndarray) -> int:
    if not values.size:
        return 0
    buffer, received = memoryview(values).cast("B"), 0
    while received < len(buffer):
        count = file.readinto(buffer[received:])
        if not count:
            break
        received += count
    return received


def _describe(shape: tuple[int, ...], dtype: np.dtype) -> str:
    return f"{' x '.join(map(str, shape))} values of {dtype.newbyteorder('=').name}"
