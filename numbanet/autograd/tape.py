"""The reverse sweep.

Every output of an operation holds its record, and a record holds the records of its inputs: together they are the tape.
`backward` gathers the reachable records with a stack and visits them by descending serial number. An operation is younger
than everything it read, so each record is visited after all who used its outputs, and its gradients are then complete:

    adjoint(input) += adjoint(outputs) * d outputs / d input          (the chain rule, in reverse)

No recursion, no global list: what nobody holds is freed at once.
"""

from __future__ import annotations

from numbanet._tensor import Tensor
from numbanet.autograd.grad_mode import no_grad
from numbanet.dtypes import is_floating_point
from numbanet.errors import AutogradError, ShapeError, UnsupportedOperationError


def backward(tensors, gradients=None, retain_graph: bool = False, create_graph: bool = False, inputs=None) -> None:
    """Add to `.grad` of every leaf (or of `inputs` only) the gradient of the sum of `tensors`, weighted by `gradients`.

    Raises
    ------
    AutogradError
        No tensor requires a gradient; a non-scalar without a gradient; a second pass without `retain_graph`.
    """
    tensors = _as_list(tensors)
    inner = {} if inputs is None else {_key(t): None for t in _as_list(inputs)}
    wanted = None if inputs is None else set(inner)
    with no_grad():
        for leaf, gradient, owned, backend in _sweep(tensors, _seeds(tensors, gradients, create_graph), retain_graph, wanted, inner):
            _accumulate(leaf, gradient, owned, backend)
    for t in () if inputs is None else _as_list(inputs):
        if t._record is not None and inner[_key(t)] is not None:
            _accumulate_into(t, inner[_key(t)], False, t.backend)


def grad(outputs, inputs, grad_outputs=None, retain_graph: bool = False, create_graph: bool = False,
         allow_unused: bool = False) -> tuple:
    """Gradients of the sum of `outputs` with respect to `inputs`, as a tuple of tensors; no `.grad` is touched.

    An input that the outputs do not depend on raises, or gives None with `allow_unused`.
    """
    outputs, inputs = _as_list(outputs), _as_list(inputs)
    for position, t in enumerate(inputs):
        if not t.requires_grad:
            raise AutogradError(f"grad: inputs[{position}] does not require a gradient; call requires_grad_() on it before use")
    found: dict = {_key(t): None for t in inputs}
    with no_grad():
        for leaf, gradient, _, backend in _sweep(outputs, _seeds(outputs, grad_outputs, create_graph), retain_graph, set(found), found):
            found[id(leaf)] = gradient if found[id(leaf)] is None else backend.add(found[id(leaf)], gradient)
    missing = [i for i, t in enumerate(inputs) if found[_key(t)] is None]
    if missing and not allow_unused:
        raise AutogradError(f"grad: the outputs do not depend on inputs {missing}; pass allow_unused=True to get None for them")
    return tuple(None if found[_key(t)] is None else Tensor._wrap(found[_key(t)], t.backend) for t in inputs)


def _as_list(value) -> list:
    return [value] if isinstance(value, Tensor) else list(value)


def _key(t: Tensor):
    """What stands for a tensor in a sweep: a leaf is itself, any other the output of its record."""
    return id(t) if t._record is None else (t._record, t._index)


def _seeds(tensors, gradients, create_graph) -> list:
    if create_graph:
        raise UnsupportedOperationError("backward: create_graph=True (derivatives of derivatives) is not supported; "
                                        "use finite differences of first derivatives")
    gradients = [None] * len(tensors) if gradients is None else _as_list(gradients) if not isinstance(gradients, tuple) else gradients
    seeds = []
    for t, g in zip(tensors, gradients, strict=True):
        if not t.requires_grad:
            raise AutogradError(f"backward: the tensor of shape {t.shape} does not require a gradient: nothing it was computed from "
                                "has requires_grad=True, or it was computed under no_grad")
        if g is None:
            if t.array.shape not in ((), (1,)) and t.numel() != 1:
                raise AutogradError(f"backward: a gradient can be implied for a scalar only, received shape {t.shape}; "
                                    "reduce it (.sum(), .mean()) or pass gradient=")
            seeds.append(t.backend.full(t.array.shape, 1.0, t.array.dtype))
        else:
            if tuple(g.shape) != t.shape:
                raise ShapeError(f"backward: gradient expects shape {t.shape}, received {tuple(g.shape)}")
            seeds.append(g.array)
    return seeds


def _sweep(roots, seeds, retain_graph, wanted, found):
    """Yield (leaf, gradient, owned, backend) for each gradient that reaches a leaf; fill `found` for wanted inner tensors.

    `owned` says that no one else holds the gradient's memory. `wanted`: None for all leaves, or the keys of the only
    tensors of interest.
    """
    pending: dict = {}          # record -> [gradient of each output]
    owned: set = set()          # (record, index) whose sum is in memory of its own
    for t, seed in zip(roots, seeds):
        if t._record is not None:
            _add_to(pending, owned, t._record, t._index, seed, t.backend)
        elif wanted is None or id(t) in wanted:
            yield t, seed, False, t.backend
    order = _reachable(pending)
    useful = None if wanted is None else _leading_to(order, wanted)
    leaves = _Leaves(order)
    for record in order:
        gradients = pending.pop(record, None)
        if gradients is None:               # nothing reached it: its users did not depend on its outputs
            yield from leaves.passed(record)
            continue
        _run_hooks(record, gradients)
        if found:
            _note(found, record, gradients)
        needs = [e is not None and (useful is None or _is_useful(e, wanted, useful)) for e in record.edges]
        if any(needs):
            _hand_on(record, gradients, needs, pending, owned, leaves)
        yield from leaves.passed(record)
        if not retain_graph:
            record.operation.release()


def _note(found, record, gradients) -> None:
    """Keep the gradients of inner tensors that were asked for."""
    for index, gradient in enumerate(gradients):
        if gradient is not None and (record, index) in found:
            found[record, index] = gradient


def _hand_on(record, gradients: list, needs, pending, owned, leaves) -> None:
    """Run the backward of one record and pass its results along the edges.

    A function of its own, so that none of its variables holds a gradient any longer than it must: one that nobody holds may
    be overwritten.
    """
    backend, operation = record.backend, record.operation
    for index, (shape, dtype) in enumerate(record.outputs):
        if gradients[index] is None and is_floating_point(dtype):
            gradients[index] = backend.full(shape, 0.0, dtype)
    results = _run(operation, backend, gradients, needs)
    if len(results) != len(record.edges):
        raise AutogradError(f"{record.name}: backward returned {len(results)} gradients, expected {len(record.edges)}, "
                            "one per tensor argument")
    for position, edge in enumerate(record.edges):
        if not needs[position] or results[position] is None:
            continue
        if type(edge) is tuple:
            _add_to(pending, owned, *edge, results[position], backend)
        elif backend.is_unshared(results, position):
            leaves.add(edge, results[position], True, backend)
        else:
            others = (*gradients, *results[:position], *results[position + 1:])
            alone = not _is_expanded(results[position]) and not any(
                o is not None and backend.may_share_memory(results[position], o) for o in others)
            leaves.add(edge, results[position], alone, backend)


def _run(operation, backend, gradients, needs) -> tuple:
    """One operation's backward, its results as a list; a tracing backend is told which."""
    if backend.is_tracing:
        backend.enter_backward(operation)
    operation.out = gradients[0] if operation.overwrites_gradient and backend.is_unshared(gradients, 0) else None
    results = operation.backward(backend, *gradients, needs=needs)
    operation.out = None
    if backend.is_tracing:
        backend.leave_backward()
    return list(results) if type(results) is tuple else [results]


class _Leaves:
    """Sums of the gradients that reach each leaf, handed out once, when the last record that reads the leaf has passed."""

    def __init__(self, order):
        self.remaining: dict[int, int] = {}
        self.sums: dict[int, tuple] = {}        # id -> (leaf, gradient, owned, backend)
        for record in order:
            for edge in record.edges:
                if edge is not None and type(edge) is not tuple:
                    self.remaining[id(edge)] = self.remaining.get(id(edge), 0) + 1

    def add(self, leaf, gradient, alone, backend) -> None:
        """`alone`: whether no one else holds the gradient's memory."""
        if id(leaf) not in self.sums:
            self.sums[id(leaf)] = (leaf, gradient, alone, backend)
            return
        _, total, alone, _ = self.sums[id(leaf)]
        total = backend.add(total, gradient, out=total) if alone else backend.add(total, gradient)
        self.sums[id(leaf)] = (leaf, total, True, backend)

    def passed(self, record):
        for edge in record.edges:
            if edge is not None and type(edge) is not tuple:
                self.remaining[id(edge)] -= 1
                if self.remaining[id(edge)] == 0 and id(edge) in self.sums:
                    yield self.sums.pop(id(edge))


def _is_expanded(array) -> bool:
    """Whether several elements lie at one address, so that the array cannot be added to in place."""
    return any(stride == 0 and n > 1 for stride, n in zip(array.strides, array.shape))


def _reachable(roots) -> list:
    """All records behind the roots, youngest first."""
    seen, stack = set(roots), list(roots)
    while stack:
        for edge in stack.pop().edges:
            if type(edge) is tuple and edge[0] not in seen:
                seen.add(edge[0])
                stack.append(edge[0])
    return sorted(seen, key=lambda r: r.serial, reverse=True)


def _leading_to(order, wanted) -> set:
    """The records through which a gradient flows to a wanted tensor."""
    useful = set()
    for record in reversed(order):          # oldest first: what leads to a useful record is decided after it
        if any(e is not None and _is_useful(e, wanted, useful) for e in record.edges):
            useful.add(record)
    return useful


def _is_useful(edge, wanted, useful) -> bool:
    return (edge in wanted or edge[0] in useful) if type(edge) is tuple else id(edge) in wanted


def _add_to(pending, owned, record, index, gradient, backend) -> None:
    gradients = pending.get(record)
    if gradients is None:
        gradients = pending[record] = [None] * len(record.outputs)
    if gradients[index] is None:
        gradients[index] = gradient
    elif (record, index) in owned:
        backend.add(gradients[index], gradient, out=gradients[index])
    else:                                   # the first summand may be someone else's memory
        gradients[index] = backend.add(gradients[index], gradient)
        owned.add((record, index))


def _run_hooks(record, gradients) -> None:
    if record.hooks:
        for index, hooks in record.hooks.items():
            if gradients[index] is not None:
                gradients[index] = call_hooks(hooks, gradients[index], record.backend)
    if record.retained:
        for index, reference in record.retained.items():
            tensor = reference()
            if tensor is not None and gradients[index] is not None:
                _accumulate_into(tensor, gradients[index], False, record.backend)


def call_hooks(hooks, gradient, backend):
    """Run tensor hooks in order; one that returns a tensor replaces the gradient."""
    for hook in list(hooks.values()):
        replaced = hook(Tensor._wrap(gradient, backend))
        if replaced is not None:
            gradient = replaced.array
    return gradient


def _accumulate(leaf: Tensor, gradient, owned: bool, backend) -> None:
    if leaf._hooks:
        gradient, owned = call_hooks(leaf._hooks, gradient, backend), False
    _accumulate_into(leaf, gradient, owned, backend)
    if leaf._post_hooks:
        for hook in list(leaf._post_hooks.values()):
            hook(leaf)


def _accumulate_into(tensor: Tensor, gradient, owned: bool, backend) -> None:
    if gradient.shape != tensor.array.shape:
        raise ShapeError(f"backward: a gradient of shape {gradient.shape} reached a tensor of shape {tensor.shape}; "
                         "the backward of the operation that used it returns the wrong shape")
    if tensor.grad is None:
        tensor.grad = Tensor._wrap(gradient if owned else backend.copy(gradient), backend)
    else:
        backend.add(tensor.grad.array, gradient, out=tensor.grad.array)
        tensor.grad.storage.version += 1
