"""Which function writes a primitive down as ONNX nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from numbanet.errors import UsageError
from numbanet.onnx.export.program import Shape

TRANSLATIONS: dict[str, Callable] = {}


@dataclass(frozen=True)
class Operand:
    """A value of the ONNX graph: its name (a small constant itself), its shape (sizes that follow the batch are `Size`), its dtype."""

    name: str | np.ndarray
    shape: Shape
    dtype: np.dtype


def translates(*primitives: str) -> Callable:
    """Register the translation of one or more primitives (decorator).

    The function takes a :class:`~numbanet.onnx.export.builder.Builder` and the primitive's arguments in their order, operands
    as :class:`Operand` and attributes as they are; it adds nodes and returns the name of the result, or one an output (None
    for an output that nobody reads; see `Builder.wanted`).

    Raises
    ------
    UsageError
        A primitive has a translation already.
    """
    def register(function: Callable) -> Callable:
        for name in primitives:
            if name in TRANSLATIONS:
                raise UsageError(f"translates: {name} is translated already, by {TRANSLATIONS[name].__module__}; choose another primitive")
            TRANSLATIONS[name] = function
        return function
    return register
