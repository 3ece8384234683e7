"""`numbanet.compile`: a model as a plan that is replayed, for inference or for training."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import contextmanager

import numpy as np

from numbanet._tensor import Tensor, as_tensor, tensor
from numbanet.errors import ShapeError, UsageError
from numbanet.graph.graph import Graph
from numbanet.graph.passes import FOR_INFERENCE, FOR_TRAINING
from numbanet.graph.plan import Plan
from numbanet.graph.slices import Slices, slice_size
from numbanet.graph.trace import trace_step
from numbanet.random import recorded_keys

MAX_PLANS = 16              # of one compiled model: one a batch size, the longest unused goes


def compile(model, example, *, loss: Callable | None = None, optimizer=None):
    """Compile a model for inference, or with `loss` and `optimizer` for training.

    Parameters
    ----------
    model : Module
    example : Tensor or tuple of tensors
        Of the shapes and dtypes to come; other batch sizes are compiled when they appear. For training x, whose targets are then class
        indices, or (x, y).
    loss : callable (output, y) -> scalar tensor, or a tuple whose first is that and whose others are handed out with it
    optimizer : Optimizer of the model's parameters

    Returns
    -------
    CompiledModel, called like the model; or CompiledStep, called ``step(x, y) -> loss``

    Raises
    ------
    UsageError
        Only one of `loss` and `optimizer`.
    UnsupportedOperationError
        The model reads values of its tensors.
    """
    if (loss is None) != (optimizer is None):
        raise UsageError("compile: training needs both loss= and optimizer=, received only one; leave both out for inference")
    examples = tuple(map(as_tensor, example)) if isinstance(example, (tuple, list)) else (as_tensor(example),)
    if loss is None:
        return CompiledModel(model, examples)
    if len(examples) == 1:
        x = examples[0]
        examples = (x, tensor(np.zeros(x.shape[0], np.int64), device=x.device))
    if len(examples) != 2:
        raise UsageError(f"compile: example expects x or (x, y) for training, received {len(examples)} tensors")
    return CompiledStep(model, examples, loss, optimizer)


class _Plans:
    """Plans by the shapes of their inputs, which may differ from the example's in the batch alone."""

    def __init__(self, examples: tuple[Tensor, ...], make: Callable[[tuple[Tensor, ...]], object]):
        self.examples, self.make = examples, make
        self.known: OrderedDict = OrderedDict()
        self.lock = threading.Lock()

    def find(self, inputs: tuple[Tensor, ...]):
        if len(inputs) != len(self.examples):
            raise ShapeError(f"compiled model: expected {len(self.examples)} inputs, as in the example, received {len(inputs)}")
        key = tuple([(t.array.shape, t.array.dtype) for t in inputs])
        with self.lock:
            plan = self.known.get(key)
            if plan is None:
                self._check(inputs)
                plan = self.known[key] = self.make(inputs)
                if len(self.known) > MAX_PLANS:
                    self.known.popitem(last=False)
            else:
                self.known.move_to_end(key)
        return plan

    def _check(self, inputs) -> None:
        for i, (given, expected) in enumerate(zip(inputs, self.examples)):
            if given.device != expected.device:
                raise ShapeError(f"compiled model: input {i} expects a tensor on {expected.device!r}, received one on {given.device!r}")
            if given.dtype != expected.dtype or given.shape[1:] != expected.shape[1:] or given.ndim != expected.ndim:
                raise ShapeError(f"compiled model: input {i} expects {expected.dtype}{['N', *expected.shape[1:]]} as in the example, "
                                 f"received {given.dtype}{list(given.shape)}; compile again with such an example")


@contextmanager
def _mode(model, training: bool):
    """The model in one mode; each module's own is restored."""
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, mode in before:
            module.__dict__["training"] = mode


def _places(model) -> dict[str, tuple[dict, str]]:
    """Where each parameter and buffer stands: the dict of its module and its key there."""
    return {f"{path}.{name}" if path else name: (registry, name) for path, module in model.named_modules()
            for registry in (module._parameters, module._buffers) for name, t in registry.items() if t is not None}


class CompiledModel:
    """A model in evaluation mode as replayed plans, one a batch size, which share prepared weights.

    Batch norm is folded into weights, what follows a convolution element by element is part of it, and all maps lie in one arena;
    results have memory of their own unless `out` is given. Weights that change, in place or by ``load_state_dict``, are noticed and
    prepared again; layers that are exchanged are not: compile again. Hooks that the model has are run once, while compiling: what they
    compute is part of the plan. Threads take turns.
    """

    def __init__(self, model, examples: tuple[Tensor, ...]):
        self.model = model
        self._structure = None
        self._plans = _Plans(examples, self._compile)
        self._plans.find(examples)

    def __call__(self, *inputs, out=None):
        """What ``model(*inputs)`` gives in evaluation mode, without gradients.

        `out`: a tensor, or a tuple of them, to write the results to.
        """
        inputs = tuple([t if isinstance(t, Tensor) else as_tensor(t) for t in inputs])
        plan = self._plans.find(inputs)
        results = plan.run(*inputs, out=out if out is None or isinstance(out, tuple) else (out,))
        return self._structure(results)

    def plan(self, *inputs) -> Plan | Slices:
        """The plan for inputs of these shapes, by default the example's; where the batch is walked in slices, theirs."""
        return self._plans.find(tuple(map(as_tensor, inputs)) or self._plans.examples)

    def describe(self, *inputs) -> str:
        """The program for inputs of these shapes, by default the example's: node, shapes, memory, fused parts."""
        return self.plan(*inputs).describe()

    def _compile(self, inputs) -> Plan | Slices:
        graph, plan = self._compile_whole(inputs)
        batch, size = inputs[0].shape[0] if inputs and inputs[0].ndim else 1, slice_size(graph, plan)
        if size >= batch:
            return plan
        sizes = [min(size, batch - begin) for begin in range(0, batch, size)]
        plans = {n: self._compile_whole(tuple([t[:n] for t in inputs]))[1] for n in set(sizes)}
        return Slices(graph, [plans[n] for n in sizes])

    def _compile_whole(self, inputs) -> tuple[Graph, Plan]:
        from numbanet.autograd.grad_mode import no_grad

        def run(*tensors):
            results, self._structure = _flatten(self.model(*tensors))
            return results
        with _mode(self.model, False), no_grad():
            graph = trace_step(run, *inputs, model=self.model)
        for optimise in FOR_INFERENCE:
            optimise(graph)
        return graph, Plan(graph, _places(self.model))

    def __repr__(self):
        return f"<compiled {type(self.model).__name__} for {', '.join(str(list(t.shape)) for t in self._plans.examples)}>"


def _flatten(results):
    """(tuple of tensors, how to put other tensors in their places)."""
    if isinstance(results, Tensor):
        return (results,), lambda values: values[0]
    if isinstance(results, dict):
        names, kind = tuple(results), type(results)
        return tuple(results.values()), lambda values: kind(zip(names, values))
    kind = type(results)
    return tuple(results), lambda values: kind(*values) if hasattr(kind, "_fields") else kind(values)


class CompiledStep:
    """Forward pass, loss, backward pass and update as one call: ``step(x, y)`` returns what the loss function does.

    The plan is traced in training mode; running statistics, random masks and the optimiser's numbers advance with each call.
    """

    def __init__(self, model, examples: tuple[Tensor, ...], loss: Callable, optimizer):
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self._callbacks: list[Callable] = []
        self._plans = _Plans(examples, self._compile)
        self._plans.find(examples)

    def __call__(self, x, y):
        """One training step: gradients anew, then the update. Returns the loss before it."""
        self.optimizer.zero_grad()
        results = self.forward_backward(x, y)
        self.update()
        return results

    def forward_backward(self, x, y):
        """What the loss function returns; gradients are added to the parameters' ``.grad``."""
        inputs = tuple([t if isinstance(t, Tensor) else as_tensor(t) for t in (x, y)])
        return self._plans.find(inputs).run(*inputs)

    def update(self) -> None:
        """One step of the optimiser."""
        self.optimizer.step()

    def on_gradient(self, callback: Callable) -> Callable[[], None]:
        """Call ``callback(parameter)`` in each later backward pass as soon as the parameter's gradient is whole.

        Returns a function that ends it.
        """
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback) if callback in self._callbacks else None

    def plan(self) -> Plan:
        """The plan of the example's shapes."""
        return self._plans.find(self._plans.examples).plan

    def describe(self) -> str:
        """The program of the example's shapes."""
        return self.plan().describe()

    def _compile(self, inputs) -> _Gradients:
        parameters = [p for p in self.model.parameters() if p.requires_grad]

        reached: list[Tensor] = []
        structure = []

        def run(x, y):
            results, restore = _flatten(self.loss(self.model(x), y))
            results[0].backward()
            reached.extend(p for p in parameters if p.grad is not None)
            structure.append(restore)
            return *results, *[p.grad for p in reached]
        with _mode(self.model, True), recorded_keys() as keys:
            graph = trace_step(run, *inputs, model=self.model)
        for optimise in FOR_TRAINING:
            optimise(graph)
        return _Gradients(graph, _places(self.model), reached, keys, self._callbacks, structure[0])

    def __repr__(self):
        return f"<compiled training step of {type(self.model).__name__} for {list(self._plans.examples[0].shape)}>"


class _Gradients:
    """A plan of loss and gradients, and the parameters that these belong to."""

    def __init__(self, graph, places, parameters: list[Tensor], keys, callbacks: list[Callable], structure: Callable):
        self.parameters, self.callbacks, self.structure = parameters, callbacks, structure
        self.results = len(graph.outputs) - len(parameters)         # of the loss function; gradients follow them
        values = graph.outputs[self.results:]
        made = [v for node in graph.nodes for v in node.outputs if v is not None]
        kept = {v: p for v, p in zip(values, parameters) if values.count(v) == 1 and v in made}
        self.plan = Plan(graph, places, kept, keys, frozen=False,
                         when_ready={v: lambda p=p: self._announce(p) for v, p in kept.items()})
        self.early = {id(p) for p in kept.values()}
        self.accumulating = False
        self._lock = threading.RLock()

    def run(self, x, y):
        with self._lock:
            before = [p.grad for p in self.parameters]
            self.accumulating = any(g is not None for g in before)
            if self.accumulating:           # the plan's own arrays are about to be overwritten
                before = [None if g is None else g.clone() for g in before]
            else:
                for p, v in zip(self.parameters, self.plan.graph.outputs[self.results:]):
                    if v in self.plan.own:
                        p.grad = Tensor._wrap(self.plan.own[v], self.plan.backend)
            results = self.plan.run(x, y)
            results, gradients = results[:self.results], results[self.results:]
            for p, gradient, old in zip(self.parameters, gradients, before):
                p.grad = gradient if old is None else old.add_(gradient)
                if self.accumulating or id(p) not in self.early:
                    self._call(p)
            return self.structure(results)

    def _announce(self, parameter: Tensor) -> None:
        if not self.accumulating:
            self._call(parameter)

    def _call(self, parameter: Tensor) -> None:
        for callback in list(self.callbacks):
            callback(parameter)
