"""Weights as safetensors files: names, shapes, values, and what is needed to use them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from numbanet._tensor import Tensor
from numbanet.errors import CheckpointError
from numbanet.files import atomic_file

FORMAT = "1"


def save_weights(path, state: dict, metadata: dict | None = None) -> None:
    """Write a state_dict (of tensors or NumPy arrays) atomically.

    `metadata` is any JSON-able dict: model, class names, preprocessing.
    """
    from safetensors.numpy import save
    arrays = {name: np.asarray(_host(value), order="C") for name, value in state.items()}
    with atomic_file(path) as temporary:
        temporary.write_bytes(save(arrays, {"format": "numbanet", "version": FORMAT, "numbanet": json.dumps(metadata or {})}))


def load_weights(path) -> tuple[dict[str, np.ndarray], dict]:
    """Read a safetensors file: (arrays by name, metadata; empty for files of other programs).

    Raises
    ------
    CheckpointError
        The file is missing, truncated, not safetensors, or of a newer format.
    """
    from safetensors import SafetensorError, safe_open
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"load_weights: {path} does not exist" if not path.exists() else f"load_weights: {path} is not a file")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"load_weights: {path} is not a whole safetensors file ({error})") from error
    if metadata.get("format") != "numbanet":
        return arrays, {}
    try:
        own, version = json.loads(metadata["numbanet"]), int(metadata["version"])
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"load_weights: {path} has damaged metadata ({error})") from error
    if version > int(FORMAT):
        raise CheckpointError(f"load_weights: {path} was written by a newer numbanet (format {version}, "
                              f"this one reads {FORMAT}); update numbanet")
    return arrays, own if isinstance(own, dict) else {}


def _host(value) -> np.ndarray:
    return value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)
