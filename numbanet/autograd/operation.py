"""An operation on the tape: the mathematics of one forward and its backward pass, adjacent, in terms of primitives."""

from __future__ import annotations

import itertools

from numbanet._tensor import Tensor
from numbanet.autograd.autocast import cast_arguments
from numbanet.autograd.autocast import state as _autocast
from numbanet.autograd.grad_mode import _mode
from numbanet.dtypes import is_floating_point
from numbanet.errors import AutogradError, BackendError

_serial = itertools.count().__next__


class Operation:
    """Base of all differentiable operations.

    A subclass gives two methods over arrays of one backend::

        def forward(self, backend, *arguments)               -> array or tuple of arrays
        def backward(self, backend, *grad_outputs, needs)    -> gradient or tuple, one per tensor argument

    `arguments` are those of :meth:`apply`, tensors replaced by their arrays. `forward` keeps what `backward` needs with
    ``self.save(...)``, arrays and constants alike; `backward` reads it as ``self.saved``. `needs[i]` says whether the
    gradient of the i-th tensor argument is wanted; where it is not, return None. Arrays are touched only through primitives
    of `backend`, and no value of an element is branched on, so that the operation runs and traces on every backend.
    """

    view = False                     # outputs share the memory (and the version) of the first tensor
    differentiable = True            # False: integer or boolean results, never recorded
    out = None                       # the array that an in-place call wants the result in: `forward` may pass it on as out=;
                                     # in `backward` the gradient itself, where nobody needs it any longer
    overwrites_gradient = False      # True: `backward` passes `out` on, to a primitive that may overwrite its gradient
    __slots__ = ("_saved", "_versions", "_inputs", "_released", "__dict__")

    def forward(self, backend, *arguments):
        raise NotImplementedError

    def backward(self, backend, *grad_outputs, needs):
        raise NotImplementedError

    @classmethod
    def keeps_input(cls, *arguments) -> bool:
        """Whether an in-place call must keep a copy of the tensor for backward; `arguments` are those after the tensor."""
        return True

    def save(self, *values) -> None:
        """Keep arrays and constants for the backward pass."""
        self._saved = values

    @property
    def saved(self) -> tuple:
        """What :meth:`save` kept; raises where an array was changed in place since."""
        if self._released:
            raise AutogradError(f"{self.name}: a second backward pass through it, but its saved arrays were freed by the first; "
                                "pass retain_graph=True to the first")
        for storage, version, role, position, shape in self._versions:
            if storage.version != version:
                raise AutogradError(
                    f"{self.name}: {role} {position} (shape {shape}) was changed in place after the forward pass (version "
                    f"{storage.version}, expected {version}), but its backward pass needs the old values; use an out-of-place "
                    "operation or clone() it before")
        return self._saved

    @property
    def name(self) -> str:
        """What error messages call the operation."""
        return getattr(self, "operation_name", None) or type(self).__name__

    @classmethod
    def apply(cls, *arguments):
        """Run the operation on tensors and constants; recorded where a tensor requires a gradient."""
        if _autocast.dtype is not None:
            arguments = cast_arguments(cls, arguments)
        return record(cls(), arguments)

    def release(self) -> None:
        """Free the saved arrays."""
        self._saved, self._versions, self._released = None, (), True


class Record:
    """One executed operation on the tape: where its gradients go. Held by its outputs only."""

    __slots__ = ("operation", "backend", "edges", "outputs", "serial", "hooks", "retained", "__weakref__")

    def __init__(self, operation, backend, edges, outputs):
        self.operation = operation
        self.backend = backend
        self.edges = edges          # per tensor argument: None, a leaf Tensor, or (Record, index of its output)
        self.outputs = outputs      # per output: (shape, dtype), to make zeros for outputs that got no gradient
        self.serial = _serial()
        self.hooks = None           # {output index: ordered dict of callables(grad Tensor)}
        self.retained = None        # {output index: weak reference to the tensor whose .grad is wanted}

    @property
    def name(self) -> str:
        return self.operation.name

    @property
    def next_functions(self):
        """The records this one sends gradients to, with the index of their output; leaves as (tensor, 0)."""
        return tuple(e if type(e) is tuple else (e, 0) for e in self.edges if e is not None)

    def __repr__(self):
        return f"<{self.name} #{self.serial}>"


def common_backend(operation, tensors):
    """The backend of all tensors, which may lift the others' arrays into its own (a tracer), or a BackendError."""
    backend = tensors[0].backend
    for t in tensors:
        if t.backend is not backend:
            for candidate in (t.backend, backend):
                if hasattr(candidate, "lift"):
                    return candidate
            names = [x.backend.name for x in tensors]
            raise BackendError(f"{operation.name}: expected tensors on one device, received {', '.join(names)}; "
                               f"move them with .to({names[0]!r})")
    return backend


def record(operation: Operation, arguments: tuple):
    """Execute `operation`; its outputs hold its record if one of its tensors requires a gradient."""
    operation._saved, operation._versions, operation._released = (), (), False
    tensors = [a for a in arguments if isinstance(a, Tensor)]
    if not tensors:
        raise AutogradError(f"{operation.name}: expected at least one tensor, received {[type(a).__name__ for a in arguments]}")
    backend, recording, wanted = tensors[0].backend, _mode.enabled, False
    for t in tensors:
        if t.backend is not backend:
            return _record_lifted(operation, arguments, tensors)
        if recording:
            wanted = wanted or t.requires_grad
            if t._seen < t.storage.recorded:
                raise AutogradError(f"{operation.name}: a tensor of shape {t.shape} shares memory with one that was changed in place, "
                                    "so its gradient would be wrong; take views after the change, or change a clone()")
    if backend.is_tracing:
        backend.label(operation)
    results = operation.forward(backend, *[a.array if isinstance(a, Tensor) else a for a in arguments])
    single = type(results) is not tuple
    outputs = [Tensor._wrap(r, backend, tensors[0].storage if operation.view else None)
               for r in ((results,) if single else results)]
    if wanted and operation.differentiable:
        edges = tuple([None if not t.requires_grad else t if t._record is None else (t._record, t._index) for t in tensors])
        made = Record(operation, backend, edges, [(o.array.shape, o.array.dtype) for o in outputs])
        for index, o in enumerate(outputs):
            if is_floating_point(o.array.dtype):
                o.requires_grad, o._record, o._index = True, made, index
        _remember_versions(operation, tensors, outputs)
    else:
        operation.release()
    return outputs[0] if single else tuple(outputs)


def _record_lifted(operation, arguments, tensors):
    """As :func:`record`, for tensors of several backends, one of which may take in the others' arrays."""
    backend = common_backend(operation, tensors)
    return record(operation, tuple(backend.lift(a) if isinstance(a, Tensor) and a.backend is not backend else a for a in arguments))


def _remember_versions(operation, tensors, outputs) -> None:
    """Note the versions of the saved arrays that are inputs or outputs, to notice in-place changes."""
    versions = []
    for role, group in (("input", tensors), ("output", outputs)):
        for position, t in enumerate(group):
            array = t.array
            for value in operation._saved:
                if value is array:
                    versions.append((t.storage, t.storage.version, role, position, array.shape))
    operation._versions = versions
