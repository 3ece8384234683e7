"""load_weights and save_weights: one door for all formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from numbanet._tensor import Tensor
from numbanet.errors import CheckpointError
from numbanet.files import atomic_file
from numbanet.weights import metadata as own_metadata
from numbanet.weights import npz, safetensors, torch_file, torch_writer
from numbanet.weights.mapping import map_file
from numbanet.weights.zip_archive import Archive

ZIP, TAR = b"PK\x03\x04", b"ustar"
WRITERS = {".npz": npz.write, ".pt": torch_writer.write, ".pth": torch_writer.write}


def save_weights(path, state: dict, metadata: dict | None = None) -> None:
    """Write a state_dict (of tensors or NumPy arrays) atomically.

    Parameters
    ----------
    path : path
        Its suffix chooses the format: ``.npz``, ``.pt`` or ``.pth`` (PyTorch's), safetensors for all others.
    state : mapping from names to tensors or arrays
    metadata : dict, optional
        What JSON can hold: model, class names, preprocessing.

    Raises
    ------
    CheckpointError
        A dtype that the format lacks, a name that is taken, or a file that cannot be written.
    """
    if own_metadata.NAME in state:
        raise CheckpointError(f"save_weights: {own_metadata.NAME} is where the metadata stand; give the array another name")
    arrays = {name: np.asarray(_host(value), order="C") for name, value in state.items()}
    write = WRITERS.get(Path(path).suffix.lower(), safetensors.write)
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        write(file, arrays, own_metadata.encode(metadata))


def load_weights(path) -> tuple[dict[str, np.ndarray], dict]:
    """Read a file of weights; its content, not its name, tells the format: safetensors, ``.npz``, PyTorch's zip and legacy formats.

    The arrays of safetensors and of uncompressed PyTorch files are views of the file mapped copy-on-write: they can be written to,
    and the file stays as it is. No file is unpickled: of PyTorch's files an own reader takes tensors in plain containers only. Of a
    checkpoint that holds more (epoch, optimiser), the first of `torch_file.CONTAINERS` that holds tensors is read.

    Returns
    -------
    (arrays by name, metadata) : the metadata is what :func:`save_weights` was given, empty for files of other programs

    Raises
    ------
    CheckpointError
        The file is missing, truncated, of another format, of a newer version, or holds code.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"load_weights: {path} does not exist" if not path.exists() else f"load_weights: {path} is not a file")
    if path.stat().st_size == 0:
        raise CheckpointError(f"load_weights: {path} is empty")
    try:
        return _read(map_file(path))
    except CheckpointError as error:
        raise CheckpointError(f"load_weights: {path}: {error.message}") from error
    except OSError as error:
        raise CheckpointError(f"load_weights: {path} cannot be read ({error.strerror or error})") from error


def _read(data) -> tuple[dict[str, np.ndarray], dict]:
    if data[:4] == ZIP:
        archive = Archive(data)
        return torch_file.read_zip(archive) if torch_file.is_torch(archive) else npz.read(archive)
    if torch_file.is_legacy(data):
        return torch_file.read_legacy(data), {}
    if data[257:262] == TAR:
        raise CheckpointError("a tar file, as PyTorch wrote before version 0.2; load it there and save model.state_dict() again")
    if len(data) > 8 and data[8:9] != b"{":
        raise CheckpointError(f"neither safetensors nor .npz nor a PyTorch file: it begins with {bytes(data[:12])!r}")
    arrays, strings = safetensors.read(data)
    return arrays, own_metadata.decode(strings)


def _host(value) -> np.ndarray:
    return value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)
