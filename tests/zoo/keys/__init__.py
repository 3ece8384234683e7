"""The names and shapes of torchvision's parameters and buffers, one file a model; `tests/zoo/write_keys.py` wrote them."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent


def keys_of(state) -> list[str]:
    """One line for each entry of a state_dict: its name and its shape, such as ``fc.weight 1000x512``."""
    return [f"{name} {'x'.join(map(str, value.shape)) or 'scalar'}" for name, value in state.items()]


def committed_keys(model: str) -> list[str] | None:
    """The lines of a model; None where torchvision has no such model."""
    path = FOLDER / f"{model}.txt"
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else None
