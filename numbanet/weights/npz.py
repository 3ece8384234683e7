"""NumPy's ``.npz``: a zip archive of ``.npy`` files. Arrays of objects, which would have to be unpickled, are refused.

The metadata are one more array, of bytes: JSON in UTF-8.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping

import numpy as np

from numbanet import dtypes
from numbanet.errors import CheckpointError
from numbanet.weights import metadata as own_metadata
from numbanet.weights.mapping import array_at, checked_size
from numbanet.weights.zip_archive import Archive

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_HEADER_LIMIT = 10_000          # NumPy's own for the text, plus what stands before it
EPOCH = (1980, 1, 1, 0, 0, 0)   # zip's earliest: the same arrays give the same file


def read(archive: Archive) -> tuple[dict[str, np.ndarray], dict]:
    """Arrays by name and metadata."""
    if not archive.members:
        raise CheckpointError("a zip file without arrays")
    for name in archive.members:
        if not name.endswith(".npy"):
            raise CheckpointError(f"a zip file that is neither .npz nor PyTorch's: {name!r:.80} is not a .npy file")
    arrays = {name.removesuffix(".npy"): _array(name, archive.read(name, check=True)) for name in archive.members}
    described = arrays.pop(own_metadata.NAME, None)
    return arrays, {} if described is None else own_metadata.decode_json(described.tobytes())


def write(file, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write to an open binary file. bfloat16, which ``.npy`` files cannot name, is widened to float32."""
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
            raise CheckpointError(f"save_weights: {name} is of dtype {array.dtype}; weights are arrays of numbers")
    described = np.frombuffer(json.dumps(metadata).encode(), np.uint8)
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in {**arrays, own_metadata.NAME: described}.items():
            if array.dtype.name == "bfloat16":
                array = array.astype(np.float32)
            with archive.open(zipfile.ZipInfo(f"{name}.npy", EPOCH), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _array(name: str, data) -> np.ndarray:
    stream = io.BytesIO(data[:_HEADER_LIMIT + 100])
    try:
        shape, fortran, dtype = _HEADERS[np.lib.format.read_magic(stream)](stream, _HEADER_LIMIT)
    except Exception as error:      # of tokenize, ast and struct, which NumPy reads headers with
        raise CheckpointError(f"{name} is not a whole .npy file ({str(error)[:200]})") from error
    if dtype.hasobject or dtype.kind not in "fiub" or dtype.itemsize > 8 or dtype.subdtype is not None:
        raise CheckpointError(f"{name} holds {dtype}; weights are arrays of numbers, and objects are never unpickled")
    if any(type(n) is not int for n in shape) or checked_size(name, shape, dtype) != len(data) - stream.tell():
        raise CheckpointError(f"{name} is not a whole .npy file: {list(shape)} of {dtype} does not take {len(data) - stream.tell()} bytes")
    array = array_at(data, stream.tell(), dtype, shape[::-1] if fortran else shape)
    array = array.T if fortran else array
    return array if dtype.isnative else array.astype(dtypes.as_dtype(dtype.name))
