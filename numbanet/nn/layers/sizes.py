"""Sizes as layers keep them: one int for each spatial axis."""

from __future__ import annotations

from numbanet.errors import ShapeError


def per_axis(value, rank: int, name: str, layer: str) -> tuple[int, ...]:
    """`value` repeated, or checked, for `rank` axes."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,) * rank
    values = values * rank if len(values) == 1 else values
    if len(values) != rank or not all(isinstance(v, int) for v in values):
        raise ShapeError(f"{layer}: {name} expects an int or {rank} ints, received {value!r}")
    return values
