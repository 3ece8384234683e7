"""What travels with weights besides arrays (model, class names, preprocessing), as strings that every format can hold."""

from __future__ import annotations

import json

from numbanet.errors import CheckpointError

FORMAT = "1"
MAX_TEXT = 4 << 20          # bytes of JSON
NAME = "__metadata__"       # among the names of arrays, in safetensors by definition


def encode(metadata: dict | None) -> dict[str, str]:
    """Any JSON-able dict as the map of strings that a safetensors header takes."""
    return {"format": "numbanet", "version": FORMAT, "numbanet": json.dumps(metadata or {})}


def decode(strings: dict) -> dict:
    """The inverse of :func:`encode`; empty for what other programs wrote.

    Raises
    ------
    CheckpointError
        Damaged, or of a newer format.
    """
    if strings.get("format") != "numbanet":
        return {}
    try:
        own, version = json.loads(strings["numbanet"]), int(strings["version"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"damaged metadata ({type(error).__name__}: {error})") from error
    if version > int(FORMAT):
        raise CheckpointError(f"written by a newer numbanet (format {version}, this one reads {FORMAT}); update numbanet")
    return own if isinstance(own, dict) else {}


def decode_json(text: bytes) -> dict:
    """:func:`decode` of a JSON text, as ``.npz`` and PyTorch files carry it."""
    if len(text) > MAX_TEXT:
        raise CheckpointError(f"metadata of {len(text)} bytes; at most {MAX_TEXT} are read")
    try:
        strings = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"damaged metadata ({error})") from error
    return decode(strings) if isinstance(strings, dict) else {}
