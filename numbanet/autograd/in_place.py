"""Changing a tensor in place, by PyTorch's rules.

The operation writes into the tensor's array; then the tensor takes over the operation's record, and the version of its
storage rises, so that whoever saved the old values finds out (see `Operation.saved`).

Other tensors over the same memory (views, or what this one is a view of) do not learn of the new record. Each tensor knows the
version at which its record told the truth, each storage the version of its last recorded change: a tensor that is older
is stale, and using it with recording on raises (see `operation.record`).
"""

from __future__ import annotations

from numbanet._tensor import Tensor
from numbanet.autograd.grad_mode import is_grad_enabled
from numbanet.autograd.operation import record
from numbanet.errors import AutogradError


def check_in_place(name: str, x: Tensor) -> None:
    """Raise where the tape could not follow a change of x.

    Raises
    ------
    AutogradError
        With recording on, x is a leaf that requires a gradient, or a view of one.
    """
    if not is_grad_enabled() or not x.requires_grad:
        return
    record, what = x._record, "a leaf"
    while record is not None and record.operation.view:
        edge, what = record.edges[0], "a view of a leaf"
        record = edge[0] if type(edge) is tuple else None
    if record is None:
        raise AutogradError(f"{name}: {what} that requires a gradient (shape {x.shape}) cannot be changed in place; do it under "
                            "no_grad(), or on a clone()")


def adopt(x: Tensor, result: Tensor) -> Tensor:
    """Let x, whose array now holds the values of `result`, take over its place on the tape."""
    x.storage.version += 1
    if result._record is not None:
        x._record, x._index, x.requires_grad = result._record, result._index, True
        x.storage.recorded = x._seen = x.storage.version
    elif x._seen == x.storage.version - 1:
        x._seen += 1
    return x


def accept_piece(x: Tensor, piece: Tensor, place) -> None:
    """Before x[index] = piece, `place` being x[index]: x is not stale if all that happened to it was the change of this piece.

    ``x[i] += y`` is such an assignment: Python changes the view x[i] in place, and then assigns it to where it is.
    """
    storage = x.storage
    if piece._seen == storage.recorded == x._seen + 1 and piece.shape == place.shape and piece.array.strides == place.strides and (
            x.backend.may_share_memory(piece.array, place)):
        x._seen = storage.recorded


def apply_in_place(operation_class, x: Tensor, *arguments) -> Tensor:
    """x = operation(x, *arguments), in x's memory.

    An operation whose forward gives ``out=self.out`` to its last primitive writes there directly; the result of any other is
    copied. Where backward reads the old x (`keeps_input`), it gets a copy of it.

    Raises
    ------
    AutogradError
        As :func:`check_in_place`.
    """
    operation = operation_class()
    check_in_place(f"{operation.name}_", x)
    recording = is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in (x, *arguments))
    backend = x.backend
    array = backend.copy(x.array) if recording and operation.keeps_input(*arguments) else x.array
    source = Tensor._wrap(array, backend, x.storage)
    source._record, source._index, source.requires_grad = x._record, x._index, x.requires_grad
    arguments = [_copied(t) if isinstance(t, Tensor) and t.storage is x.storage and (recording or t is not x) else t
                 for t in arguments]            # an operand that overlaps x is read before any of it is overwritten
    operation.out = x.array
    result = record(operation, (source, *arguments))
    if result.array is not x.array:
        backend.copy(result.array, out=x.array)
    adopt(x, result)
    if recording:                               # where the output is saved, it is saved in x's storage, at its new version
        operation._versions = [(x.storage, x.storage.version, *rest) if storage is result.storage else (storage, version, *rest)
                               for storage, version, *rest in operation._versions if storage is not x.storage]
    return x


def _copied(t: Tensor) -> Tensor:
    """t over memory of its own, at the same place on the tape."""
    made = Tensor._wrap(t.backend.copy(t.array), t.backend)
    made._record, made._index, made.requires_grad = t._record, t._index, t.requires_grad
    return made
