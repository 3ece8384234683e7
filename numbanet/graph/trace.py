"""Tracing: the ordinary forward, tape sweep and optimiser run once on arrays that have a shape but no contents.

Operations reach arrays only through primitives, so a backend that writes down each call instead of computing it sees the
whole program. There is one tracer; summary, export and plans use its graph.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext

import numpy as np

from numbanet._tensor import Tensor
from numbanet.autograd.grad_mode import no_grad
from numbanet.backends import ArraySpec, Backend, Primitive, dense_strides, get_backend, order_of
from numbanet.errors import BackendError, UnsupportedOperationError, UsageError
from numbanet.graph.graph import Graph, Node, Value
from numbanet.graph.recoverable import Later, Recoverable, held, put
from numbanet.random import fork_rng


class SymbolicArray:
    """Stands for an array while tracing: shape, strides and dtype, and the value of the graph it is."""

    __slots__ = ("shape", "strides", "dtype", "value", "memory", "computes_16_bit")

    def __init__(self, shape, strides, dtype, value, memory, computes_16_bit=False):
        self.shape, self.strides, self.dtype, self.value, self.memory = shape, strides, dtype, value, memory
        self.computes_16_bit = computes_16_bit

    @property
    def nbytes(self) -> int:
        return self.value.nbytes

    def __repr__(self):
        return f"<symbolic {self.value!r}>"


class Tracer(Backend):
    """A backend that records primitives instead of running them."""

    is_tracing = True

    def __init__(self, device: str):
        self.name = device          # tensors made during the trace land on the real device, and are lifted as constants
        self.graph, self.computes_16_bit = Graph(device), get_backend(device).computes_16_bit
        self.path: list[str] = []
        self.phase = "forward"
        self._paths: dict[int, tuple] = {}      # operation -> (operation, its layer's path), for its backward
        self._lifted: dict[int, tuple] = {}     # id of a real array -> (array, its symbolic twin)
        self._count = 0

    # Values
    def _make(self, shape, strides, dtype, kind, name=None, memory=None) -> SymbolicArray:
        if name is None:
            name, self._count = str(self._count), self._count + 1
        made = SymbolicArray(shape, strides, dtype, None, memory if memory is not None else object(), self.computes_16_bit)
        made.value = Value(name, shape, dtype, order_of(made), kind)
        return made

    def symbol(self, array, kind: str, name: str | None = None) -> SymbolicArray:
        """The symbolic twin of a real array."""
        return self._make(tuple(array.shape), tuple(array.strides), array.dtype, kind, name)

    def lift(self, tensor: Tensor) -> Tensor:
        """A tensor from outside of the trace as a constant of the graph."""
        if tensor.backend.name != self.name:
            raise BackendError(f"trace: expected tensors on {self.name!r}, received one on {tensor.backend.name!r}; "
                               f"move it with .to({self.name!r})")
        return Tensor._wrap(self._constant(tensor.array), self, tensor.storage)

    def _constant(self, array) -> SymbolicArray:
        if id(array) not in self._lifted:
            twin = self.symbol(array, "constant")
            self._lifted[id(array)] = (array, twin)
            self.graph.initial[twin.value] = array
        return self._lifted[id(array)][1]

    # Recording
    def bind(self, declared: Primitive):
        name, nodes = declared.name, self.graph.nodes
        operand_positions = [i for i, p in enumerate(declared.parameters) if p.name in declared.operands]

        def call(*args, out=None, **kwargs):
            arguments = list(declared.bind(args, kwargs))
            for i in operand_positions:
                a = arguments[i]
                if isinstance(a, (list, tuple)):
                    arguments[i] = [self._operand(x) for x in a]
                elif hasattr(a, "strides"):
                    arguments[i] = self._operand(a)
            spec = declared.specification(*arguments)
            if declared.view:
                results = (self._view(declared, arguments, spec),)
            else:
                specs = () if spec is None else (spec,) if isinstance(spec, ArraySpec) else spec
                results = tuple(None if s is None else self._make(tuple(s.shape), dense_strides(*s), s.dtype, "result")
                                for s in specs)
            targets = None if out is None else out if isinstance(out, tuple) else (out,)
            nodes.append(Node(name, tuple([x.value for x in a] if isinstance(a, list) and a and isinstance(a[0], SymbolicArray)
                                          else a.value if isinstance(a, SymbolicArray) else a for a in arguments),
                              () if targets else tuple(None if r is None else r.value for r in results),
                              None if targets is None else tuple(t.value for t in targets), ".".join(self.path), self.phase))
            if out is not None:
                return out
            if spec is None:
                return None
            return results[0] if isinstance(spec, ArraySpec) else results
        return call

    def _operand(self, array) -> SymbolicArray:
        return array if isinstance(array, SymbolicArray) else self._constant(array)

    def _view(self, declared, arguments, spec) -> SymbolicArray:
        """The layout of a view, from a NumPy array of these strides over no memory of its own."""
        x = next(a for a in arguments if isinstance(a, SymbolicArray))
        shadow = np.lib.stride_tricks.as_strided(np.empty(0, x.dtype), x.shape, x.strides)
        memory = x.memory
        if declared.name == "reshape":
            try:
                strides = shadow.reshape(arguments[1], copy=False).strides
            except ValueError:              # no view of these strides: the backend will copy
                strides, memory = dense_strides(spec.shape, x.dtype), None
        else:
            strides = get_backend("reference").implementations[declared.name](
                *[shadow if a is x else a for a in arguments]).strides
        return self._make(tuple(spec.shape), strides, x.dtype, "result", memory=memory)

    def label(self, operation) -> None:
        """Remember which layer an operation belongs to."""
        self._paths[id(operation)] = (operation, tuple(self.path))

    def enter_backward(self, operation) -> None:
        """The sweep is about to run this operation's backward."""
        self.path = list(self._paths.get(id(operation), (None, ()))[1])
        self.phase = "backward"

    def leave_backward(self) -> None:
        self.path, self.phase = [], "update"

    # Memory: there is none.
    def empty(self, shape, dtype, order=None):
        return self._make(tuple(shape), dense_strides(shape, dtype, order), dtype, "result")

    def from_numpy(self, array):
        return self._constant(array)

    def to_numpy(self, array):
        raise UnsupportedOperationError(
            "trace: the program reads the values of a tensor (item(), numpy(), tolist(), bool(), print, or an operation whose result "
            "has a shape that depends on them: nonzero, masked_select, x[mask]), which a traced program cannot, for it has none; keep "
            "that out of the traced part, or use numbanet.where")

    def may_share_memory(self, first, second):
        return first.memory is second.memory


def trace(model, example, *more) -> Graph:
    """Record `model(example)` as a :class:`Graph`.

    Parameters
    ----------
    model : Module or callable of tensors
    example : Tensor or tuple of tensors; only shape, dtype and layout count
    """
    examples = (example, *more) if not isinstance(example, (tuple, list)) else (*example, *more)
    with no_grad():
        return trace_step(model, *examples, model=model if hasattr(model, "named_parameters") else None)


def trace_step(function, *examples, model=None, optimizer=None) -> Graph:
    """Record `function(*examples)`, which may run a backward pass and `optimizer.step()`.

    Parameters and buffers of `model` and the state of `optimizer` become named state of the graph: a replay reads and changes
    them. The optimiser's state must exist, that is, it must have made a step before. Nothing is changed by the trace itself.
    Numbers such as the learning rate, step counts and the keys of random draws are constants of the graph.

    Raises
    ------
    UsageError
        An optimiser without state.
    UnsupportedOperationError
        The function reads values of a tensor.
    """
    examples = tuple(e if isinstance(e, Tensor) else _as_tensor(e) for e in examples)
    tracer = Tracer(examples[0].backend.name if examples else "cpu")
    state = _state(model, optimizer)
    inputs = [Tensor._wrap(tracer.symbol(e.array, "input", f"input{i}"), tracer, requires_grad=e.requires_grad)
              for i, e in enumerate(examples)]
    tracer.graph.inputs = [t.array.value for t in inputs]
    with _swapped(tracer, state), _layer_paths(tracer, model) if model is not None else nullcontext(), _kept(optimizer), fork_rng():
        results = function(*inputs)
    graph = tracer.graph
    graph.single_output = not isinstance(results, (tuple, list, dict))
    results = (results,) if graph.single_output else tuple(results.values() if isinstance(results, dict) else results)
    graph.outputs = [(r if r.backend is tracer else tracer.lift(r)).array.value for r in results if isinstance(r, Tensor)]
    return graph


def _as_tensor(value):
    from numbanet._tensor import as_tensor
    return as_tensor(value)


def _state(model, optimizer) -> dict[str, Tensor]:
    state = {}
    if model is not None:
        state.update(model.named_parameters())
        state.update(model.named_buffers())
    if optimizer is not None:
        names = {id(t): n for n, t in state.items()}
        for group in optimizer.param_groups:
            for i, p in enumerate(group["params"]):
                name = names.get(id(p), f"parameter{i}")
                state.setdefault(name, p)
                for key, value in optimizer.state.get(p, {}).items():
                    if isinstance(value, Tensor):
                        state[f"{name}:{key}"] = value
    return {name: t for name, t in state.items() if t is not None}


@contextmanager
def _swapped(tracer: Tracer, state: dict[str, Tensor]):
    """The tensors of `state` are symbolic inside."""
    saved = []
    try:
        for name, t in state.items():
            found = held(t)
            saved.append((t, found, t.backend, t.grad, t.storage.version))
            twin = tracer.symbol(found, "state", name)
            tracer.graph.state[name] = twin.value
            tracer.graph.initial[twin.value] = Later(lambda t=t: t) if isinstance(found, Recoverable) else found
            tracer.graph.storages[twin.value] = t.storage
            t.array, t.backend, t.grad = twin, tracer, None
        yield
    finally:
        for t, array, backend, gradient, version in saved:
            put(t, array)
            t.backend, t.grad, t.storage.version = backend, gradient, version


@contextmanager
def _layer_paths(tracer: Tracer, model):
    """Each node knows the path of the layer that is running."""
    handles = []
    for name, module in model.named_modules():
        def enter(_module, _inputs, name=name):
            tracer.path = name.split(".") if name else []

        def leave(_module, _inputs, _outputs, name=name):
            tracer.path = name.split(".")[:-1] if name else []
        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _kept(optimizer):
    """The optimiser's own numbers (step counts) are restored; state that it would have to make first is an error."""
    if optimizer is None:
        yield
        return
    kept = {p: dict(s) for p, s in optimizer.state.items()}
    try:
        yield
        if any(len(s) > len(kept.get(p, ())) for p, s in optimizer.state.items()):
            raise UsageError(f"trace_step: {type(optimizer).__name__} has no state yet; expected an optimiser that has made a step, "
                             "so make one before tracing")
    finally:
        optimizer.state.clear()
        optimizer.state.update(kept)
