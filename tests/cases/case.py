"""What a family of operations hands to the suites that every operation and every primitive must pass.

`tests/cases/<family>.py` holds `OPERATION_CASES` (see `tests/ops/test_every_operation.py`) and `PRIMITIVE_CASES`
(see `tests/backends/test_every_primitive.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class OperationCase:
    """One use of an operation, to be differentiated.

    `call(*tensors)` returns a tensor (or tuple); `inputs(rng)` gives the float64 arrays that become tensors with gradients;
    integer arrays become tensors without. `torch(*tensors)` is the same in PyTorch, where there is one, for values and gradients.
    """

    name: str
    operations: tuple[type, ...]            # the Operation classes that this case exercises
    call: Callable[..., Any]
    inputs: Callable[[np.random.Generator], tuple]
    torch: Callable[..., Any] | None = None
    tolerance: float = 1e-6                 # of gradient_check in float64
    float32_tolerance: float = 1e-5         # of cpu float32 against reference float64, relative to the largest element


@dataclass
class PrimitiveCase:
    """One call of a primitive: `arguments(rng)` gives all its arguments, arrays in float32 (or integers).

    exact: the backends must agree bit for bit (small-integer data through direct kernels, copies, comparisons).
    """

    primitive: str
    arguments: Callable[[np.random.Generator], tuple]
    exact: bool = False
    tolerance: float = 1e-5                 # relative to the largest element of the reference result
    float64: bool = True                    # run in float64 too (arrays are converted), to 1e-12
    label: str = field(default="")
    large: bool = False                     # too large for simulated threads that wait for one another
    inexact_on: tuple[str, ...] = ()        # backends whose mathematical functions round otherwise: `exact` does not hold there

    def allowed(self, backend: str) -> float:
        """How far a backend may be from the reference, relative to the largest element."""
        return 0.0 if self.exact and backend not in self.inexact_on else self.tolerance


def integers(rng, *shape, low=-4, high=5, dtype=np.float32) -> np.ndarray:
    """Small integers in floating point: sums of products of them are exact, so kernels can be compared bit for bit."""
    return rng.integers(low, high, shape).astype(dtype)


def floats(rng, *shape, dtype=np.float32) -> np.ndarray:
    return rng.standard_normal(shape).astype(dtype)


def channels_last(x: np.ndarray) -> np.ndarray:
    """The same (N, C, ...) values in channels-last memory."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)).transpose(0, x.ndim - 1, *range(1, x.ndim - 1))


def strided(x: np.ndarray) -> np.ndarray:
    """The same values as a view with gaps along every axis, NaN (or an extreme integer) between them."""
    big = np.full([2 * n + 1 for n in x.shape], np.nan if x.dtype.kind == "f" else 1, x.dtype)
    view = big[tuple(slice(1, None, 2) for _ in x.shape)]
    view[...] = x
    return view
