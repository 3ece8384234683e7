"""Checkpoints: everything a run needs to go on, in one folder that is there whole or not at all.

    checkpoints/step-600/
      tensors.safetensors     all tensors of the state, by their path in it: model.*, optimizer.*, ema.*, ...
      state.json              the rest of it: numbers, names, schedules, random generators
      manifest.json           SHA-256 and size of both, versions, the value that "best" is judged by; it vouches for itself as well

Written to a temporary folder, flushed, renamed, the folder above flushed; only then are older ones removed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import shutil
from pathlib import Path

import numpy as np

from numbanet._tensor import Tensor
from numbanet._version import __version__
from numbanet.errors import CheckpointError, UsageError
from numbanet.files import atomic_folder
from numbanet.weights import load_weights, save_weights

KEEP = 2
FORMAT = 1
TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
UNREADABLE = (CheckpointError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)
log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of a run.

    Parameters
    ----------
    folder : path
    keep : int
        The newest that are kept; besides them the best.
    mode : "min" or "max"
        Which value is best.

    Only one process may write at a time; see :class:`~numbanet.files.FolderLock`.
    """

    def __init__(self, folder, keep: int = KEEP, mode: str = "max"):
        if not isinstance(keep, int) or keep < 1:
            raise UsageError(f"Checkpoints: keep expects an integer of at least 1, received {keep!r}")
        if mode not in ("min", "max"):
            raise UsageError(f"Checkpoints: mode expects 'min' or 'max', received {mode!r}")
        self.folder, self.keep, self.mode = Path(folder), keep, mode

    def save(self, step: int, state: dict, value: float | None = None) -> Path:
        """Write a state as ``step-<step>`` and remove those that are not kept; it is on the disk when this returns.

        Parameters
        ----------
        step : int
        state : nested dicts and lists of tensors, arrays, numbers, strings, booleans and None
        value : float, optional
            What "best" is judged by.

        Raises
        ------
        CheckpointError
            It cannot be written; what was there before is unchanged.
        """
        target = self.folder / f"step-{step}"
        self.recover()
        write_state(target, state, step=step, value=value)
        self._remove_old()
        return target

    def load(self) -> tuple[dict, Path]:
        """(state, its folder) of the newest checkpoint that is whole; damaged ones are named in a warning.

        Raises
        ------
        CheckpointError
            There is none.
        """
        candidates = self.list()
        if not candidates:
            raise CheckpointError(f"resume: {self.folder} holds no checkpoint")
        failures = []
        for candidate in reversed(candidates):
            try:
                state = read_state(candidate)
            except UNREADABLE as error:
                failures.append(f"{candidate.name} ({error})")
                continue
            if failures:
                log.warning("resume: damaged: %s; going on from %s", ", ".join(failures), candidate.name)
            return state, candidate
        raise CheckpointError(f"resume: no checkpoint of {self.folder} can be read: {', '.join(failures)}")

    def list(self) -> list[Path]:
        """Checkpoint folders, oldest first."""
        return list_checkpoints(self.folder)

    def best(self) -> Path | None:
        """The checkpoint with the best value, the oldest of equals; None without values."""
        found = [(value, path) for path in self.list() if (value := _value_of(path)) is not None]
        choose = max if self.mode == "max" else min
        return choose(found, key=lambda pair: pair[0])[1] if found else None

    def recover(self) -> None:
        """Clear up after a writer that was killed: half a checkpoint goes, one that had given way for its replacement comes back."""
        for left in sorted(self.folder.glob(".step-*")):
            name = left.name[1:].partition(".")[0]
            if left.name.endswith(".old") and not (self.folder / name).exists():
                left.rename(self.folder / name)
            else:
                shutil.rmtree(left, ignore_errors=True)

    def _remove_old(self) -> None:
        best = self.best()
        for old in self.list()[:-self.keep]:
            if old != best:
                shutil.rmtree(old, ignore_errors=True)


def list_checkpoints(folder) -> list[Path]:
    """Checkpoint folders, oldest first."""
    found = [p for p in Path(folder).glob("step-*") if p.is_dir() and p.name[5:].isdigit()]
    return sorted(found, key=lambda p: int(p.name[5:]))


def write_state(target: Path, state: dict, **facts) -> None:
    """Write a nested state as a folder; `facts` enter its manifest."""
    arrays: dict = {}
    plain = _without_tensors(state, "", arrays)
    with atomic_folder(target) as temporary:
        save_weights(temporary / TENSORS, arrays)
        (temporary / STATE).write_text(json.dumps(plain), encoding="utf-8")
        files = {name: {"bytes": (temporary / name).stat().st_size, "sha256": _sha256(temporary / name)} for name in (TENSORS, STATE)}
        manifest = {"format": FORMAT, **facts, "files": files,
                    "versions": {"numbanet": __version__, "numpy": np.__version__, "python": platform.python_version()}}
        (temporary / MANIFEST).write_text(_sealed(manifest), encoding="utf-8")


def read_state(folder: Path) -> dict:
    """The state of a folder of :func:`write_state`, its tensors as arrays.

    Raises
    ------
    CheckpointError
        A byte of it is not as it was written, or it is of a newer format.
    """
    manifest = read_manifest(folder)
    for name in (TENSORS, STATE):
        expected, file = manifest["files"][name], folder / name
        size = file.stat().st_size
        if size != expected["bytes"] or _sha256(file) != expected["sha256"]:
            raise CheckpointError(f"{name} is not as it was written: {size} bytes, {expected['bytes']} expected; the SHA-256 differs")
    arrays, _ = load_weights(folder / TENSORS)
    return _with_arrays(json.loads((folder / STATE).read_text(encoding="utf-8")), arrays)


def read_manifest(folder: Path) -> dict:
    """The manifest of a checkpoint, checked against its own checksum."""
    text = (Path(folder) / MANIFEST).read_bytes()
    try:
        manifest = json.loads(text)
        sealed = {name: value for name, value in manifest.items() if name != "sha256"}
    except (ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{MANIFEST} cannot be read ({type(error).__name__})") from error
    if _sealed(sealed).encode() != text:
        raise CheckpointError(f"{MANIFEST} is not as it was written")
    if manifest["format"] != FORMAT:
        raise CheckpointError(f"format {manifest['format']} of checkpoints; this numbanet reads {FORMAT}")
    return manifest


def _sealed(manifest: dict) -> str:
    """The one text of a manifest, with the checksum of what is before it: any other text is damaged."""
    text = json.dumps(manifest, indent=1)
    return json.dumps({**manifest, "sha256": hashlib.sha256(text.encode()).hexdigest()}, indent=1) + "\n"


def _sha256(file: Path) -> str:
    with open(file, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _value_of(folder: Path) -> float | None:
    try:
        value = read_manifest(folder).get("value")
    except UNREADABLE:
        return None
    return value if isinstance(value, (int, float)) and value == value else None


def _without_tensors(value, path: str, arrays: dict):
    """`value` for JSON, its tensors moved to `arrays` and replaced by their names."""
    if isinstance(value, (Tensor, np.ndarray)):
        arrays[path] = value
        return {"__tensor__": path}
    inside = f"{path}." if path else ""
    if isinstance(value, dict):
        if any(not isinstance(k, str) for k in value):
            return {"__items__": [[k, _without_tensors(v, f"{inside}{k}", arrays)] for k, v in value.items()]}
        return {k: _without_tensors(v, f"{inside}{k}", arrays) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_tensors(v, f"{inside}{i}", arrays) for i, v in enumerate(value)]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise CheckpointError(f"checkpoint: {path} is of type {type(value).__name__}; a state holds tensors, numbers, strings, lists and dicts")


def _with_arrays(value, arrays: dict):
    if isinstance(value, dict):
        if "__tensor__" in value:
            return np.array(arrays[value["__tensor__"]])        # not a view of the file, which may be removed
        if "__items__" in value:
            return {k: _with_arrays(v, arrays) for k, v in value["__items__"]}
        return {k: _with_arrays(v, arrays) for k, v in value.items()}
    return [_with_arrays(v, arrays) for v in value] if isinstance(value, list) else value

