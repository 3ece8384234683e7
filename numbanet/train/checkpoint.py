"""Checkpoints: everything a run needs to go on, in one folder that is there whole or not at all.

    checkpoints/step-600/
      tensors.safetensors     model.*, optimizer.*
      state.json              numbers: step, epoch, optimiser and scheduler, random generator, best accuracy, history
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np

from numbanet._tensor import Tensor, tensor
from numbanet.errors import CheckpointError
from numbanet.files import atomic_folder
from numbanet.weights import load_weights, save_weights

KEEP = 2


def save_checkpoint(folder, step: int, model, optimizer, scheduler, numbers: dict) -> Path:
    """Write `folder`/step-N and remove all but the newest two; returns its path."""
    target = Path(folder) / f"step-{step}"
    arrays: dict = {f"model.{k}": v for k, v in model.state_dict().items()}
    state = {"optimizer": _without_tensors(optimizer.state_dict(), "optimizer", arrays),
             "scheduler": None if scheduler is None else scheduler.state_dict(), "numbers": numbers}
    with atomic_folder(target) as temporary:
        save_weights(temporary / "tensors.safetensors", arrays)
        (temporary / "state.json").write_text(json.dumps(state), encoding="utf-8")
    for old in list_checkpoints(folder)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def list_checkpoints(folder) -> list[Path]:
    """Checkpoint folders, oldest first."""
    found = [p for p in Path(folder).glob("step-*") if p.is_dir() and p.name[5:].isdigit()]
    return sorted(found, key=lambda p: int(p.name[5:]))


def load_checkpoint(folder, model, optimizer, scheduler) -> dict:
    """Restore the newest readable checkpoint of `folder` into the given objects; returns its numbers."""
    candidates = list_checkpoints(folder)
    if not candidates:
        raise CheckpointError(f"resume: {folder} holds no checkpoint")
    failures = []
    for candidate in reversed(candidates):
        try:
            model_state, optimizer_state, scheduler_state, numbers = _read(candidate)
        except (CheckpointError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            failures.append(f"{candidate.name} ({type(error).__name__}: {error})")
            continue
        if failures:
            logging.getLogger(__name__).warning("resume: damaged: %s; going on from %s", ", ".join(failures), candidate.name)
        model.load_state_dict(model_state)
        optimizer.load_state_dict(optimizer_state)
        if scheduler is not None and scheduler_state is not None:
            scheduler.load_state_dict(scheduler_state)
        return numbers
    raise CheckpointError(f"resume: no checkpoint of {folder} can be read: {', '.join(failures)}")


def _read(folder: Path) -> tuple:
    """The states of model, optimiser and scheduler, and the numbers."""
    arrays, _ = load_weights(folder / "tensors.safetensors")
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    model_state = {k.removeprefix("model."): v for k, v in arrays.items() if k.startswith("model.")}
    return model_state, _with_tensors(state["optimizer"], arrays), state["scheduler"], state["numbers"]


def _without_tensors(value, path: str, arrays: dict):
    """`value` for JSON, its tensors moved to `arrays` and replaced by their names."""
    if isinstance(value, (Tensor, np.ndarray)):
        arrays[path] = value
        return {"__tensor__": path}
    if isinstance(value, dict):
        if any(not isinstance(k, str) for k in value):
            return {"__items__": [[k, _without_tensors(v, f"{path}.{k}", arrays)] for k, v in value.items()]}
        return {k: _without_tensors(v, f"{path}.{k}", arrays) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_tensors(v, f"{path}.{i}", arrays) for i, v in enumerate(value)]
    return value.item() if isinstance(value, np.generic) else value


def _with_tensors(value, arrays: dict):
    if isinstance(value, dict):
        if "__tensor__" in value:
            return tensor(arrays[value["__tensor__"]])
        if "__items__" in value:
            return {k: _with_tensors(v, arrays) for k, v in value["__items__"]}
        return {k: _with_tensors(v, arrays) for k, v in value.items()}
    return [_with_tensors(v, arrays) for v in value] if isinstance(value, list) else value
