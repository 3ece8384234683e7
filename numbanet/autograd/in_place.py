"""Changing a tensor in place, by PyTorch's rules.

The operation writes into the tensor's array; then the tensor takes over the operation's record, and the version of its
storage rises, so that whoever saved the old values finds out.
"""

from __future__ import annotations

from numbanet._tensor import Tensor
from numbanet.autograd.grad_mode import is_grad_enabled
from numbanet.errors import AutogradError


def check_in_place(name: str, x: Tensor) -> None:
    """Raise where the tape could not follow a change of x.

    Raises
    ------
    AutogradError
        With recording on, x is a leaf that requires a gradient, or a view of a tensor that does.
    """
    if not is_grad_enabled() or not x.requires_grad:
        return
    if x._record is None:
        raise AutogradError(f"{name}: a leaf that requires a gradient (shape {x.shape}) cannot be changed in place; "
                            "do it under "
                            "no_grad(), or on a clone()")
    if x._record.operation.view:
        raise AutogradError(f"{name}: x (shape {x.shape}) is a view of a tensor that requires a gradient "
                            f"({x._record.name}), which "
                            "would not learn of the change; use an out-of-place operation, or assign through x[...] = "
                            "value")


def adopt(x: Tensor, result: Tensor) -> Tensor:
    """Let x, whose array now holds the values of `result`, take over its place on the tape."""
    x._record, x._index, x.requires_grad = result._record, result._index, result.requires_grad
    x.storage.version += 1
    return x
