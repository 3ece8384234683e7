"""Which values of a state belong to which members of a module, and why some do not."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Container, Mapping

PREFIXES = ("module.", "_orig_mod.", "model.")      # of DistributedDataParallel, torch.compile, and trainers that wrap the network
LISTED = 20                                         # names in a message; more are counted
HINTED = 10                                         # names that are compared with all others, which takes time

log = logging.getLogger(__name__)


def without_prefix(state: Mapping, members: Container[str]) -> Mapping:
    """The state without the `PREFIXES` that all its names share, as far as more names fit `members` then; else as it is."""
    best, stripped, fitting = state, "", sum(key in members for key in state)
    shorter, removed = state, ""
    while shorter and (prefix := next((p for p in PREFIXES if all(isinstance(k, str) and k.startswith(p) for k in shorter)), None)):
        shorter, removed = {key.removeprefix(prefix): value for key, value in shorter.items()}, removed + prefix
        if (fits := sum(key in members for key in shorter)) > fitting:
            best, stripped, fitting = shorter, removed, fits
    if stripped:
        log.info("load_state_dict: the names begin with %r, which was left out", stripped)
    return best


def explain(model: str, missing: list[str], unexpected: list[str], different: list[tuple[str, tuple, tuple]]) -> str:
    """The message about names without partner and shapes that differ: (name, received, expected)."""
    lines = [f"load_state_dict: the state does not fit {model}:"]
    lines += _listed(missing, "missing", lambda key: _hint(key, unexpected, "the state has {}: another name?"))
    lines += _listed(unexpected, "unexpected", lambda key: _hint(key, missing, "did you mean {}?"))
    lines += [f"  {key} expects shape {tuple(expected)}, received {tuple(received)}" for key, received, expected in different[:LISTED]]
    lines += _more(different)
    remedy = _remedy(different)
    if remedy:
        lines.append(remedy)
    if missing or unexpected:
        lines.append("load_state_dict(..., strict=False) loads what fits by name")
    return "\n".join(lines)


def _listed(keys: list[str], what: str, hint) -> list[str]:
    return [f"  {what} {key}" + (hint(key) if i < HINTED else "") for i, key in enumerate(keys[:LISTED])] + _more(keys)


def _more(entries: list) -> list[str]:
    return [f"  ... and {len(entries) - LISTED} more"] if len(entries) > LISTED else []


def _hint(key: str, others: list[str], text: str) -> str:
    close = difflib.get_close_matches(key, others, n=1, cutoff=0.6) if isinstance(key, str) else []
    return f" ({text.format(close[0])})" if close else ""


def _remedy(different: list[tuple[str, tuple, tuple]]) -> str | None:
    """What to do where the shapes show that the numbers of classes or of input channels differ."""
    axes = {tuple(axis for axis, sizes in enumerate(zip(received, expected)) if sizes[0] != sizes[1])
            if len(received) == len(expected) else None for _, received, expected in different}
    if axes == {(0,)} and len(sizes := {(received[0], expected[0]) for _, received, expected in different}) == 1:
        (received, expected), = sizes
        return (f"the state is of a model with num_classes={received}, this one has {expected}: make it with "
                f"create_model(..., num_classes={received}), load, and then call reset_classifier({expected})")
    if axes == {(1,)} and len(different) == 1:
        _, received, expected = different[0]
        return (f"the state is of a model with in_chans={received[1]}, this one has {expected[1]}: make it with "
                f"create_model(..., in_chans={received[1]})")
    return None
