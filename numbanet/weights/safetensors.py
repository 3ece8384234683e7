"""The safetensors format, version 0.4: an 8-byte length, a JSON header, and the arrays one after another.

    length (u64) | {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "__metadata__": {...}} | bytes

Refused is whatever the format's own library refuses (https://github.com/huggingface/safetensors): gaps, overlaps, bytes left over,
sizes that contradict shapes, JSON that is not plain; and, beyond it, names that occur twice and headers above 4 MiB.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping

import numpy as np

from numbanet import dtypes
from numbanet.errors import CheckpointError
from numbanet.weights.mapping import array_at, checked_size
from numbanet.weights.metadata import NAME

MAX_HEADER = 4 << 20        # about 40,000 arrays; parsing costs up to 20 times the text in memory
ALIGNMENT = 64              # of the first array of the files written here
_CODES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32", "I16": "int16",
          "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool"}
_CODE_OF = {name: code for code, name in _CODES.items()}


def read(data) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays (views of `data`, a buffer of the whole file) and the header's metadata, strings by name."""
    header, start = _header(data)
    metadata = header.pop(NAME, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _damaged(f"{NAME} expects a map of strings")
    arrays, spans = {}, []
    for name, entry in header.items():
        dtype, shape, begin, end = _entry(name, entry)
        if checked_size(name, shape, dtype) != end - begin:
            raise _damaged(f"{name}: {list(shape)} of {entry['dtype']} does not take the {end - begin} bytes from {begin} to {end}")
        spans.append((begin, end, name))
        arrays[name] = dtype, shape, begin
    _check_layout(sorted(spans), len(data) - start)
    return {name: array_at(data, start + begin, dtype, shape) for name, (dtype, shape, begin) in arrays.items()}, metadata


def write(file, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write to an open binary file; the widest elements come first, so that each array stands at a multiple of its element's size."""
    header, position = {NAME: dict(metadata)}, 0
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    for name in order:
        array = arrays[name]
        if array.dtype.name not in _CODE_OF:
            raise CheckpointError(f"save_weights: {name} is of dtype {array.dtype}; safetensors holds {', '.join(_CODE_OF)}")
        begin, position = position, position + array.nbytes
        header[name] = {"dtype": _CODE_OF[array.dtype.name], "shape": list(array.shape), "data_offsets": [begin, position]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    file.write(struct.pack("<Q", len(text)) + text)
    for name in order:
        file.write(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8))


def _damaged(reason: str) -> CheckpointError:
    return CheckpointError(f"not a whole safetensors file ({reason})")


def _header(data) -> tuple[dict, int]:
    """The parsed header and where the arrays begin."""
    if len(data) < 8:
        raise _damaged(f"{len(data)} bytes")
    length, = struct.unpack("<Q", data[:8])
    if length > MAX_HEADER:
        raise _damaged(f"the header says it has {length} bytes; at most {MAX_HEADER} are read")
    if 8 + length > len(data):
        raise _damaged(f"a header of {length} bytes in a file of {len(data)}")
    try:
        text = bytes(data[8:8 + length]).decode()
        if not text.startswith("{"):
            raise ValueError("it begins with another character than {")
        header = json.loads(text, object_pairs_hook=_unique, parse_int=_natural, parse_float=_no_number, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise _damaged(f"the header cannot be read: {str(error)[:200]}") from error
    return header, 8 + length


def _unique(pairs: list) -> dict:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"{twice!r} occurs twice")
    for name in made:
        name.encode()           # lone surrogates, which JSON can write and UTF-8 cannot, raise
    return made


def _natural(digits: str) -> int:
    if digits.startswith("-") or len(digits) > 19:
        raise ValueError(f"the number {digits[:20]}")
    return int(digits)


def _no_number(text: str):
    raise ValueError(f"the number {text[:20]}")


def _entry(name: str, entry) -> tuple[np.dtype, tuple[int, ...], int, int]:
    """(dtype, shape, begin, end) of one array's description."""
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise _damaged(f"{name} has no dtype, shape and data_offsets")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in _CODES:
        raise CheckpointError(f"{name} has the dtype {code!r:.40}; numbanet reads {', '.join(_CODES)}")
    for what, numbers in (("shape", shape), ("data_offsets", offsets)):
        if not isinstance(numbers, list) or not all(type(n) is int for n in numbers):
            raise _damaged(f"{name}: {what} expects a list of numbers")
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _damaged(f"{name}: data_offsets expects two rising numbers")
    return dtypes.as_dtype(_CODES[code]), tuple(shape), *offsets


def _check_layout(spans: list[tuple[int, int, str]], size: int) -> None:
    """Every byte belongs to exactly one array."""
    position = 0
    for begin, end, name in spans:
        if begin != position:
            raise _damaged(f"{name} begins at byte {begin} where {position} is expected: a gap or an overlap")
        position = end
    if position != size:
        raise _damaged(f"the arrays take {position} bytes, the file has {size} for them")
