"""Writing PyTorch's zip format, so that ``torch.load(path, weights_only=True)`` gives an OrderedDict of tensors.

The pickle is put together opcode by opcode (protocol 2); storages begin at multiples of 64 bytes, as in PyTorch's own files.
"""

from __future__ import annotations

import json
import math
import struct
import zipfile
from collections.abc import Mapping

import numpy as np

from numbanet.errors import CheckpointError
from numbanet.weights.npz import EPOCH
from numbanet.weights.torch_file import METADATA
from numbanet.weights.torch_objects import STORAGE_OF

NAME = "archive"
ALIGNMENT = 64
_LOCAL_HEADER = 30              # bytes before the member's name
_PADDING_FIELD = 0x4246         # the extra field that PyTorch aligns with: "FB"


def write(file, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write to an open binary file."""
    for name, array in arrays.items():
        if array.dtype.name not in STORAGE_OF:
            raise CheckpointError(f"save_weights: {name} is of dtype {array.dtype}; PyTorch files hold {', '.join(STORAGE_OF)}")
    with zipfile.ZipFile(file, "w") as archive:
        _put(archive, file, "data.pkl", _pickle(arrays))
        _put(archive, file, "byteorder", b"little")
        for key, array in enumerate(arrays.values()):
            _put(archive, file, f"data/{key}", np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        _put(archive, file, "version", b"3\n")
        _put(archive, file, METADATA, json.dumps(metadata).encode())


def _put(archive: zipfile.ZipFile, file, name: str, data) -> None:
    member = zipfile.ZipInfo(f"{NAME}/{name}", EPOCH)
    begin = file.tell() + _LOCAL_HEADER + len(member.filename) + 4
    padding = -begin % ALIGNMENT
    member.extra = struct.pack("<2H", _PADDING_FIELD, padding) + bytes(padding)
    archive.writestr(member, data)


def _pickle(arrays: Mapping[str, np.ndarray]) -> bytes:
    ordered_dict = b"ccollections\nOrderedDict\n)R"
    parts = [b"\x80\x02", ordered_dict, b"("]
    for key, (name, array) in enumerate(arrays.items()):
        steps = [math.prod(array.shape[axis + 1:]) for axis in range(array.ndim)]
        storage = b"ctorch\n%s\n" % STORAGE_OF[array.dtype.name].encode()
        parts += [_text(name), b"ctorch._utils\n_rebuild_tensor_v2\n((",
                  _text("storage"), storage, _text(str(key)), _text("cpu"), _integer(array.size), b"tQ",
                  _integer(0), _integers(array.shape), _integers(steps), b"\x89", ordered_dict, b"tR"]
    return b"".join([*parts, b"u."])


def _text(text: str) -> bytes:
    encoded = text.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _integer(value: int) -> bytes:
    if value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x08" + struct.pack("<q", value)


def _integers(values) -> bytes:
    return b"(" + b"".join(map(_integer, values)) + b"t"
