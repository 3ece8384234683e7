"""PyTorch's files, both formats, without PyTorch and without unpickling.

zip (since 1.6)   NAME/data.pkl with the objects, NAME/data/KEY with each storage, NAME/byteorder; NAME is the archive's own
legacy            five pickles one after another (magic number, version, sys_info, objects, list of keys), then for each key its
                  number of elements (int64) and its elements
"""

from __future__ import annotations

import logging
import re
import struct

import numpy as np

from numbanet.errors import CheckpointError
from numbanet.weights import metadata as own_metadata
from numbanet.weights.mapping import array_at
from numbanet.weights.pickle_machine import Machine
from numbanet.weights.torch_objects import FUNCTIONS, Storage, Storages, TensorView, materialise
from numbanet.weights.zip_archive import Archive

CONTAINERS = ("state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "weights", "params")
METADATA = "extra/numbanet.json"            # beside what PyTorch reads
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001
VERSIONS = range(1, 11)                     # of the zip format
NUMBERS = (".format_version", ".storage_alignment", ".data/serialization_id")       # records that PyTorch reads as numbers
_LEGACY_START = b"\x8a\n" + LEGACY_MAGIC.to_bytes(10, "little", signed=True) + b"."      # behind the protocol, and a frame from 4 on

log = logging.getLogger(__name__)


def is_torch(archive: Archive) -> bool:
    return any(name.endswith("/data.pkl") for name in archive.members)


def is_legacy(data) -> bool:
    return data[:1] == b"\x80" and _LEGACY_START in data[2:32]


def read_zip(archive: Archive) -> tuple[dict[str, np.ndarray], dict]:
    """Arrays by name, views of the archive where it stores them plainly; and the metadata that numbanet wrote."""
    prefix = next(iter(archive.members)).partition("/")[0]
    if f"{prefix}/constants.pkl" in archive.members:
        raise CheckpointError("a TorchScript program; load it in PyTorch and save its state_dict()")
    _member(archive, f"{prefix}/data.pkl")
    version = bytes(_member(archive, f"{prefix}/version"))
    if not re.fullmatch(rb"\d{1,9}\n?", version) or int(version) not in VERSIONS:
        raise CheckpointError(f"a PyTorch file of version {version[:20]!r}; versions {VERSIONS[0]} to {VERSIONS[-1]} are read")
    for name in NUMBERS:
        if f"{prefix}/{name}" in archive.members and not bytes(archive.read(f"{prefix}/{name}")).isdigit():
            raise CheckpointError(f"not a whole PyTorch file: {name} is no number")
    order = bytes(archive.read(f"{prefix}/byteorder")) if f"{prefix}/byteorder" in archive.members else b"little"
    if order not in (b"little", b"big"):
        raise CheckpointError(f"a PyTorch file of byte order {order[:20]!r}; expected little or big")

    def read_storage(storage: Storage) -> None:
        values = _member(archive, f"{prefix}/data/{storage.key}")
        if len(values) != storage.nbytes:
            raise CheckpointError(f"storage {storage.key!r:.40} has {len(values)} bytes; expected {storage.nbytes}")
        storage.values = array_at(values, 0, storage.dtype, (storage.count,))
        if order == b"big":
            storage.values = storage.values.byteswap()

    machine = Machine(archive.read(f"{prefix}/data.pkl"), FUNCTIONS, Storages(read_storage).find)
    arrays = materialise(find_state(machine.load(0)), len(archive.data))
    described = f"{prefix}/{METADATA}"
    return arrays, own_metadata.decode_json(bytes(archive.read(described))) if described in archive.members else {}


def _member(archive: Archive, name: str):
    if name not in archive.members:
        raise CheckpointError(f"not a whole PyTorch file: it has no {name!r:.80}")
    return archive.read(name)


def read_legacy(data) -> dict[str, np.ndarray]:
    """Arrays by name, views of `data` where their elements are aligned."""
    storages = Storages()
    machine = Machine(data, FUNCTIONS)
    magic, version, system = machine.load(0), machine.load(), machine.load()
    if magic != LEGACY_MAGIC or version != LEGACY_VERSION or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise CheckpointError("a PyTorch file of an unknown version, or written on a big-endian machine")
    machine.persistent = storages.find
    state = machine.load()
    machine.persistent = None
    keys = machine.load()
    if not isinstance(keys, list) or any(type(key) is not str for key in keys) or sorted(keys) != sorted(storages.by_key):
        raise CheckpointError("not a whole PyTorch file: its list of storages does not fit its tensors")
    position = machine.position
    for storage in map(storages.by_key.get, keys):
        begin, position = position + 8, position + 8 + storage.nbytes
        if position > len(data) or struct.unpack("<q", data[begin - 8:begin])[0] != storage.count:
            raise CheckpointError(f"not a whole PyTorch file: storage {storage.key!r:.40} is truncated or contradicts its size")
        storage.values = array_at(data, begin, storage.dtype, (storage.count,))
    return materialise(find_state(state), len(data))


def find_state(loaded) -> dict[str, TensorView]:
    """The tensors of a state_dict, or of the state_dict within a checkpoint.

    A mapping that holds tensors is the state itself; else the first of `CONTAINERS` that is a mapping with tensors. What is no tensor
    is left out, and logged.
    """
    state = loaded
    if isinstance(loaded, dict) and not _has_tensors(loaded):
        inside = next((name for name in CONTAINERS if _has_tensors(loaded.get(name))), None)
        if inside is not None:
            state = loaded[inside]
            others = [f"{key!s:.40}" for key in loaded if key != inside]
            log.info("read %r of the checkpoint; left out %s", inside, ", ".join(others[:20]) or "nothing")
    if not _has_tensors(state):
        raise CheckpointError(f"the file holds {_kind(loaded)}; expected a state_dict: tensors by name, or one under "
                              f"{', '.join(CONTAINERS)}")
    if any(type(key) is not str for key in state):
        raise CheckpointError("the file holds tensors under numbers; expected a state_dict: tensors by name")
    left_out = [key for key, value in state.items() if not isinstance(value, TensorView)]
    if left_out:
        log.info("left out of the state_dict, since they are no tensors: %s", ", ".join(f"{key:.40}" for key in left_out[:20]))
    return {key: value for key, value in state.items() if isinstance(value, TensorView)}


def _has_tensors(value) -> bool:
    return isinstance(value, dict) and any(isinstance(v, TensorView) for v in value.values())


def _kind(value) -> str:
    if isinstance(value, dict):
        return f"a dict of {', '.join(f'{key!s:.40}' for key in list(value)[:20]) or 'nothing'}"
    return "a single tensor" if isinstance(value, TensorView) else f"a {type(value).__name__}"
