"""Function: an own operation with its own gradient, written over tensors as in PyTorch.

:class:`numbanet.autograd.Operation` is the form that numbanet's operations have: over arrays and primitives. A Function
is written with tensor operations instead, forward and backward, and so needs no backend.
"""

from __future__ import annotations

from numbanet._tensor import Tensor
from numbanet.autograd.grad_mode import _mode, no_grad
from numbanet.autograd.operation import Operation, Record, common_backend
from numbanet.errors import AutogradError, ShapeError


class FunctionContext:
    """What `forward` leaves for `backward`: saved tensors, and any attributes.

    `needs_input_grad[i]` says whether the gradient of the i-th argument of `apply` is wanted.
    """

    def __init__(self, name: str, needs_input_grad: tuple[bool, ...]):
        self.needs_input_grad = needs_input_grad
        self._name = name
        self._to_save: tuple = ()
        self._saved: list | None = []           # (tensor without tape, version, position), None once released
        self._not_differentiable: set[int] = set()
        self._dirty: set[int] = set()

    def save_for_backward(self, *tensors) -> None:
        """Keep tensors (or None) for `backward`, which reads them as `saved_tensors`. Call once, in `forward`."""
        for position, t in enumerate(tensors):
            if t is not None and not isinstance(t, Tensor):
                raise AutogradError(f"{self._name}: save_for_backward expects tensors or None, argument {position} is "
                                    f"{type(t).__name__}; keep it as an attribute: ctx.name = value")
        self._to_save = tensors

    @property
    def saved_tensors(self) -> tuple:
        """What :meth:`save_for_backward` kept."""
        if self._saved is None:
            raise AutogradError(f"{self._name}: a second backward pass through it, but its saved tensors were freed by "
                                "the first; pass retain_graph=True to the first")
        for position, (t, version) in enumerate(self._saved):
            if t is not None and t.storage.version != version:
                raise AutogradError(f"{self._name}: saved tensor {position} (shape {tuple(t.shape)}) was changed in "
                                    "place after the forward pass, but its backward pass needs the old values; use "
                                    "an out-of-place operation or clone() it before")
        return tuple(t for t, _ in self._saved)

    def mark_non_differentiable(self, *outputs: Tensor) -> None:
        """These outputs get no gradient, such as indices or masks."""
        self._not_differentiable |= {id(t) for t in outputs}

    def mark_dirty(self, *inputs: Tensor) -> None:
        """These inputs were changed in place by `forward`, which must return them."""
        self._dirty |= {id(t) for t in inputs}

    def _finish(self) -> None:
        """After `forward`: keep the saved tensors without their records, so that no cycle keeps them alive."""
        self._saved = [(t, None) if t is None else (t.detach(), t.storage.version) for t in self._to_save]
        self._to_save = ()


class _FunctionBackward(Operation):
    """The backward pass of a Function on the tape."""

    def __init__(self, function: type[Function], context: FunctionContext, arguments: tuple):
        self.operation_name = function.__name__
        self.function, self.context = function, context
        self.shapes = tuple(a.shape if isinstance(a, Tensor) else None for a in arguments)
        self._saved, self._versions, self._released = (), (), False

    def backward(self, backend, *gradients, needs):
        results = self.function.backward(
            self.context, *(None if g is None else Tensor._wrap(g, backend) for g in gradients))
        results = results if isinstance(results, tuple) else (results,)
        count = len(self.shapes)
        if len(results) < count or any(r is not None for r in results[count:]):
            raise AutogradError(f"{self.name}: backward returned {len(results)} gradients, expected {count}, one per "
                                "argument of forward (None for those that have none)")
        return tuple(self._checked(position, result) for position, result in enumerate(results[:count])
                     if self.shapes[position] is not None)

    def _checked(self, position: int, gradient):
        if gradient is None:
            return None
        if not isinstance(gradient, Tensor):
            raise AutogradError(f"{self.name}: backward expects tensors or None, gradient {position} is "
                                f"{type(gradient).__name__}")
        if gradient.shape != self.shapes[position]:
            raise ShapeError(f"{self.name}: backward expects a gradient of shape {tuple(self.shapes[position])} for "
                             f"argument {position}, received {tuple(gradient.shape)}; sum over broadcast axes")
        return gradient.array

    def release(self) -> None:
        super().release()
        self.context._saved = None


class Function:
    """Base of own operations with own gradients: two static methods over tensors, used by ``MyFunction.apply(...)``.

    ::

        class Exp(Function):
            @staticmethod
            def forward(ctx, x):
                y = x.exp()
                ctx.save_for_backward(y)
                return y

            @staticmethod
            def backward(ctx, grad_y):
                y, = ctx.saved_tensors
                return grad_y * y

    Both run outside of the tape. `backward` gets one gradient per output (zeros where none arrived) and returns one per
    argument of `forward`, None for those without. Instead of saving in `forward(ctx, ...)`, a subclass may give
    `forward(...)` and `setup_context(ctx, inputs, output)`.
    """

    setup_context = None

    @staticmethod
    def forward(*arguments):
        raise NotImplementedError("Function.forward is not defined; give a @staticmethod forward(ctx, ...)")

    @staticmethod
    def backward(ctx, *grad_outputs):
        raise NotImplementedError("Function.backward is not defined; give a @staticmethod backward(ctx, *grad_outputs)")

    @classmethod
    def apply(cls, *arguments):
        """Run `forward`; its outputs are recorded where a tensor among the arguments requires a gradient."""
        tensors = [a for a in arguments if isinstance(a, Tensor)]
        needs = tuple(isinstance(a, Tensor) and a.requires_grad for a in arguments)
        recorded = _mode.enabled and any(needs)
        context = FunctionContext(cls.__name__, needs)
        with no_grad():
            if cls.setup_context is None:
                results = cls.forward(context, *arguments)
            else:
                results = cls.forward(*arguments)
                cls.setup_context(context, arguments, results)
        single = not isinstance(results, tuple)
        results = (results,) if single else results
        outputs = tuple(_own(cls, context, r, tensors) for r in results)
        if recorded:
            _attach(cls, context, arguments, tensors, results, outputs)
        return outputs[0] if single else outputs


def _own(function, context, result, tensors):
    """A tensor that can carry the record: never an argument itself, unless it was changed in place."""
    if not isinstance(result, Tensor):
        return result
    if id(result) in context._dirty:
        if result.is_leaf and result.requires_grad and _mode.enabled:
            raise AutogradError(f"{function.__name__}: a leaf that requires a gradient cannot be changed in place; "
                                "clone() it before")
        result.storage.version += 1
        return result
    if any(result is t for t in tensors):
        return result.detach()
    return result


def _attach(function, context, arguments, tensors, results, outputs) -> None:
    context._finish()
    operation = _FunctionBackward(function, context, arguments)
    edges = tuple(None if not t.requires_grad else t if t._record is None else (t._record, t._index) for t in tensors)
    produced = [(r, o) for r, o in zip(results, outputs) if isinstance(o, Tensor)]
    backend = common_backend(operation, tensors)
    made = Record(operation, backend, edges, [(o.array.shape, o.array.dtype) for _, o in produced])
    for index, (result, output) in enumerate(produced):
        if output.is_floating_point() and id(result) not in context._not_differentiable:
            output.requires_grad, output._record, output._index = True, made, index


def once_differentiable(backward):
    """Decorates a `backward` in PyTorch; here every backward is differentiable once, so it changes nothing."""
    return backward
