"""`numbanet.compile`: a model as a plan that is replayed, for inference or for training."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial

import numpy as np

from numbanet._tensor import Tensor, as_tensor, tensor
from numbanet.amp import GradScaler, autocast, check_precision
from numbanet.autograd.grad_mode import no_grad
from numbanet.backends import PRIMITIVES
from numbanet.errors import MemoryLimitError, ShapeError, UnsupportedOperationError, UsageError
from numbanet.graph.graph import Graph
from numbanet.graph.passes import FOR_INFERENCE, FOR_TRAINING, recompute, round_linear_weights
from numbanet.graph.plan import Plan, layout_of
from numbanet.graph.recoverable import Later
from numbanet.graph.release import forget
from numbanet.graph.slices import Filled, Slices, keeps_samples_apart, slice_size
from numbanet.graph.trace import trace_step
from numbanet.graph.tuning import load_choices
from numbanet.random import recorded_keys

MAX_PLANS = 16              # of one compiled model: one a batch size, the longest unused goes


def compile(model, example, *, loss: Callable | None = None, optimizer=None, weights: str | None = None, memory_limit: int | None = None,
            choices: Mapping[str, str] | None = None, release_weights: bool = False, precision: str | None = None,
            scaler: GradScaler | None = None):
    """Compile a model for inference, or with `loss` and `optimizer` for training.

    Parameters
    ----------
    model : Module
    example : Tensor or tuple of tensors
        Of the shapes and dtypes to come; other batch sizes are compiled when they appear. For training x, whose targets are then class
        indices, or (x, y).
    loss : callable (output, y) -> scalar tensor, or a tuple whose first is that and whose others are handed out with it
    optimizer : Optimizer of the model's parameters
    weights : "bfloat16", for inference
        Linear layers of a million weights and more take them rounded to 8 significant bits, which halves what they read of memory.
    memory_limit : int, for training
        Bytes that a plan may take for maps and gradients. Where it would take more, maps are dropped after forward and computed again
        in backward, which takes time and changes no bit.
    choices : dict, by default what :func:`numbanet.autotune` has found on this machine
        Algorithms by the signatures of calls, such as the attribute `choices` of another compiled model; {} for the backend's own alone.
    release_weights : bool, for inference
        Prepare the weights now, and let go for good of those in the model that no replay reads. The model itself can compute nothing
        after that, until ``load_state_dict(..., assign=True)`` gives it weights anew. Other batch sizes run in slices of the example's
        size, the last of them filled up. By default such weights go at the first call where they can be computed back, to the bit,
        from the prepared ones; whoever asks the model for them finds them there.
    precision : "float32" (the default), "bf16" or "fp16", on GPUs
        Mixed precision, as within :class:`numbanet.amp.autocast`: products and convolutions of 16-bit operands, parameters in float32.
    scaler : GradScaler, for training in "fp16"
        Of the loss; by default one with PyTorch's numbers. Updates whose gradients are not finite are skipped.

    Returns
    -------
    CompiledModel, called like the model; or CompiledStep, called ``step(x, y) -> loss``

    Raises
    ------
    UsageError
        Only one of `loss` and `optimizer`; an option of the other kind of plan.
    MemoryLimitError
        The plan fits neither into `memory_limit` nor with all recomputation, or not into the machine; it says the least possible.
    UnsupportedOperationError
        The model reads values of its tensors.
    """
    if (loss is None) != (optimizer is None):
        raise UsageError("compile: training needs both loss= and optimizer=, received only one; leave both out for inference")
    if weights not in (None, "bfloat16") or (weights and loss is not None):
        raise UsageError(f"compile: weights expects None or, for inference, 'bfloat16', received {weights!r}")
    if memory_limit is not None and (loss is None or type(memory_limit) is not int or memory_limit < 1):
        raise UsageError("compile: memory_limit expects bytes, an integer of at least 1, and is for training (loss=, optimizer=), "
                         f"received {memory_limit!r}" + (" for inference" if loss is None else ""))
    if release_weights and loss is not None:
        raise UsageError("compile: release_weights is for inference; training needs the weights (leave out loss= and optimizer=)")
    examples = tuple(map(as_tensor, example)) if isinstance(example, (tuple, list)) else (as_tensor(example),)
    dtype = check_precision("compile", precision, examples[0].device if examples else "cpu")
    if scaler is not None and (loss is None or dtype != "float16"):
        raise UsageError("compile: scaler is for training with precision='fp16'; leave it out")
    if loss is None:
        return CompiledModel(model, examples, weights, choices, release_weights, dtype)
    if len(examples) == 1:
        x = examples[0]
        examples = (x, tensor(np.zeros(x.shape[0], np.int64), device=x.device))
    if len(examples) != 2:
        raise UsageError(f"compile: example expects x or (x, y) for training, received {len(examples)} tensors")
    return CompiledStep(model, examples, loss, optimizer, memory_limit, choices, dtype, scaler)


class _Plans:
    """Plans by the shapes of their inputs, which may differ from the example's in the batch alone."""

    def __init__(self, examples: tuple[Tensor, ...], make: Callable[[tuple[Tensor, ...]], object]):
        self.examples, self.make = examples, make
        self.known: OrderedDict = OrderedDict()
        self.lock = threading.Lock()

    def find(self, inputs: tuple[Tensor, ...], of_model: tuple = ()):
        """The plan for such inputs, and for a model in such a state."""
        if len(inputs) != len(self.examples):
            raise ShapeError(f"compiled model: expected {len(self.examples)} inputs, as in the example, received {len(inputs)}")
        key = of_model, *[(t.array.shape, t.array.dtype) for t in inputs]
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


def _known_choices(choices: Mapping[str, str] | None, examples: tuple[Tensor, ...]) -> dict[str, str]:
    """What was given, by default what was measured on this machine."""
    if choices is None:
        return load_choices(examples[0].backend) if examples else {}
    if not isinstance(choices, Mapping) or not all(isinstance(name, str) for item in choices.items() for name in item):
        raise UsageError(f"compile: choices expects a dict of signature -> algorithm, received {choices!r}"[:200])
    return dict(choices)


@contextmanager
def _mode(model, training: bool | None):
    """The model in one mode, None: each module in its own, which is restored."""
    before = [(module, module.training) for module in model.modules()]
    if training is not None:
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


def _autocast(dtype: str | None):
    return nullcontext() if dtype is None else autocast(dtype=dtype)


class CompiledModel:
    """A model in evaluation mode as replayed plans, one a batch size, which share prepared weights.

    Batch norm is folded into weights, what follows a convolution element by element is part of it, and all maps lie in one arena;
    results have memory of their own unless `out` is given. Weights that change, in place or by ``load_state_dict``, are noticed and
    prepared again; layers that are exchanged are not: compile again. Hooks that the model has are run once, while compiling: what they
    compute is part of the plan. Threads take turns.
    """

    def __init__(self, model, examples: tuple[Tensor, ...], weights: str | None = None, choices: Mapping[str, str] | None = None,
                 release_weights: bool = False, precision: str | None = None):
        self.release_weights, self._holder = release_weights, None      # the holder: the plan that has the weights
        self.model, self.weights, self.choices, self.precision = model, weights, _known_choices(choices, examples), precision
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

    @property
    def examples(self) -> tuple[Tensor, ...]:
        """What it was compiled with."""
        return self._plans.examples

    def plan(self, *inputs) -> Plan | Slices | Filled:
        """The plan for inputs of these shapes, by default the example's; where the batch is walked in slices, theirs."""
        return self._plans.find(tuple(map(as_tensor, inputs)) or self._plans.examples)

    def describe(self, *inputs) -> str:
        """The program for inputs of these shapes, by default the example's: node, shapes, memory, fused parts."""
        return self.plan(*inputs).describe()

    def _compile(self, inputs) -> Plan | Slices | Filled:
        if self._holder is not None:
            return self._filled(inputs)
        graph = self._graph(inputs)
        plan = self._plan(graph)
        batch, size = inputs[0].shape[0] if inputs and inputs[0].ndim else 1, slice_size(graph, plan)
        if size >= batch:
            plan = plan if not self.weights else self._plan(self._rounded(graph))
            if self.release_weights:
                self._release(plan, plan)
            return plan
        del plan
        sizes = [min(size, batch - begin) for begin in range(0, batch, size)]
        plans = {n: self._plan(self._rounded(self._graph(tuple([t[:n] for t in inputs]))))
                 for n in sorted({size} if self.release_weights else set(sizes))}
        if not self.release_weights:
            return Slices(graph, [plans[n] for n in sizes])
        made = Slices(graph, [plans[size]] * len(sizes)) if batch % size == 0 else None
        self._release(plans[size], made or plans[size])     # only one plan can let weights go: a last slice of another size is filled up
        return made or self._filled(inputs)

    def _release(self, plan: Plan, holder: Plan | Slices) -> None:
        """Bind the plan, which lets the weights go."""
        forget(holder.graph, holder.graph.state.values())
        plan.release = True
        plan.bind()
        self._holder = holder

    def _filled(self, inputs) -> Filled:
        holder = self._holder
        if not inputs or not inputs[0].ndim or not keeps_samples_apart(holder.graph, holder.graph.inputs[0].shape[0]):
            raise UsageError("compiled model: its weights were released, and its samples depend on each other, so it takes the batch size "
                             "of its example alone; compile a model with new weights and an example of this size")
        return Filled(holder, inputs[0].shape[0])

    def _plan(self, graph: Graph) -> Plan:
        return Plan(graph, _places(self.model), choices=self.choices)

    def _rounded(self, graph: Graph) -> Graph:
        """The graph with weights in bfloat16 where that is asked for."""
        if self.weights:
            round_linear_weights(graph)
        return graph

    def _graph(self, inputs) -> Graph:
        def run(*tensors):
            results, self._structure = _flatten(self.model(*tensors))
            return results
        with _mode(self.model, False), no_grad(), _autocast(self.precision), recorded_keys() as keys:
            graph = trace_step(run, *inputs, model=self.model)
        if keys:
            raise UnsupportedOperationError(f"compile: {type(self.model).__name__} draws random numbers in evaluation mode, which a plan "
                                            "would repeat; draw them outside and give them to it as an input")
        for optimise in FOR_INFERENCE:
            optimise(graph)
        for name, (registry, key) in _places(self.model).items():       # held here, their arrays could not be sent away
            if name in graph.state:
                graph.initial[graph.state[name]] = Later(partial(registry.get, key))
        return graph

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

    Running statistics, random masks and the optimiser's numbers advance with each call. Each module is trained in its own mode, so that
    a batch norm in evaluation mode keeps its statistics; where the whole model is in evaluation mode, all of it is trained. Layers that
    are frozen or set free (``requires_grad_``), and modes that change, are noticed. Threads take turns.

    Hooks that the model and its parameters have are run once, while compiling: what they compute is part of the plan. Those of
    ``register_post_accumulate_grad_hook`` raise: use :meth:`on_gradient`.
    """

    def __init__(self, model, examples: tuple[Tensor, ...], loss: Callable, optimizer, memory_limit: int | None = None,
                 choices: Mapping[str, str] | None = None, precision: str | None = None, scaler: GradScaler | None = None):
        self.choices, self.precision = _known_choices(choices, examples), precision
        self.scaler = GradScaler() if scaler is None and precision == "float16" else scaler
        self.model, self.loss, self.optimizer, self.memory_limit = model, loss, optimizer, memory_limit
        self._callbacks: list[Callable] = []
        self._parameters, self._modules = list(model.parameters()), list(model.modules())
        if optimizer is not None and not {id(p) for g in optimizer.param_groups for p in g["params"]} & set(map(id, self._parameters)):
            raise UsageError(f"compile: optimizer expects parameters of the model, received a {type(optimizer).__name__} that has none of "
                             f"them; make it with {type(optimizer).__name__}(model.parameters(), ...)")
        self._turn, self._is_running = threading.RLock(), False
        self._plans = _Plans(examples, self._compile)
        self._plans.find(examples, self._state())

    def __call__(self, x, y):
        """One training step: gradients anew, then the update. Returns the loss before it."""
        with self._turn:
            self._refuse_callbacks()
            self.optimizer.zero_grad()
            results = self.forward_backward(x, y)
            self.update()
            return results

    def forward_backward(self, x, y):
        """What the loss function returns; gradients are added to the parameters' ``.grad``.

        A gradient lies in memory of the plan until the next call. A tensor that is still held then takes its numbers along.
        """
        inputs = tuple([t if isinstance(t, Tensor) else as_tensor(t) for t in (x, y)])
        with self._turn:
            self._refuse_callbacks()
            plan = self._plans.find(inputs, self._state())
            self._is_running = True
            try:
                return plan.run(*inputs) if self.scaler is None else self._unscaled(plan, inputs)
            finally:
                self._is_running = False

    def _unscaled(self, plan, inputs: tuple):
        """As `plan.run`, whose gradients are multiplied by the scale; those that were there are not."""
        scale, before = self.scaler.get_scale(), [p.grad for p in self._parameters]
        for p in self._parameters:
            p.grad = None
        results = plan.run(*inputs, tensor(np.float32(scale), device=inputs[0].device))
        with no_grad():
            for p, old in zip(self._parameters, before):
                if p.grad is not None:
                    p.grad.mul_(1.0 / scale)
                if old is not None:
                    p.grad = old if p.grad is None else old.add_(p.grad)
        return results

    def _refuse_callbacks(self) -> None:
        if self._is_running:
            raise UsageError("compiled step: called by a callback of on_gradient while it runs; call it after the step")

    def _state(self) -> tuple:
        """What of the model decides about the plan: which parameters have gradients, and which modules are in evaluation mode."""
        return (tuple([p.requires_grad for p in self._parameters]),
                tuple([m.training for m in self._modules]) if self.model.training else None)

    def update(self) -> None:
        """One step of the optimiser; in "fp16" unless a gradient is not finite."""
        if self.scaler is None:
            self.optimizer.step()
            return
        self.scaler.are_unscaled(self.optimizer)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def on_gradient(self, callback: Callable) -> Callable[[], None]:
        """Call ``callback(parameter)`` in each later backward pass as soon as the parameter's gradient is whole.

        Returns a function that ends it.
        """
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback) if callback in self._callbacks else None

    @property
    def examples(self) -> tuple[Tensor, ...]:
        """What it was compiled with: x and y."""
        return self._plans.examples

    def plan(self) -> Plan:
        """The plan of the example's shapes."""
        return self._plans.find(self._plans.examples, self._state()).plan

    def describe(self) -> str:
        """The program of the example's shapes."""
        return self.plan().describe()

    def _compile(self, inputs) -> _Gradients:
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        if hooked := [name for name, p in self.model.named_parameters() if p._post_hooks]:
            raise UnsupportedOperationError(f"compile: {hooked[0]} has a hook of register_post_accumulate_grad_hook, which a plan does not "
                                            "call; remove it, and give its function to on_gradient of the compiled step")
        reached: list[Tensor] = []
        structure = []

        def run(x, y, scale=None):
            with _autocast(self.precision):
                results, restore = _flatten(self.loss(self.model(x), y))
            results[0].backward(scale)
            reached.extend(p for p in parameters if p.grad is not None)
            structure.append(restore)
            return *results, *[p.grad for p in reached]
        with _mode(self.model, None if self.model.training else True), recorded_keys() as keys:
            scale = () if self.scaler is None else (tensor(np.float32(1.0), device=inputs[0].device),)
            graph = trace_step(run, *inputs, *scale, model=self.model)
        _refuse_constant_draws(graph, keys)
        for optimise in FOR_TRAINING:
            optimise(graph)
        return _Gradients(graph, _places(self.model), reached, keys, self._callbacks, structure[0], self.memory_limit,
                          self.choices)

    def __repr__(self):
        return f"<compiled training step of {type(self.model).__name__} for {list(self._plans.examples[0].shape)}>"


def _refuse_constant_draws(graph: Graph, keys) -> None:
    """Draws that are no nodes (dropout is one) would give the same numbers in each replay."""
    positions = {name: d.parameter_names.index("key") for name, d in PRIMITIVES.items() if d.random}
    read = {node.arguments[positions[node.primitive]] for node in graph.nodes if node.primitive in positions}
    if any(key not in read for _, key in keys):
        raise UnsupportedOperationError("compile: the step draws numbers by rand, randn, randint or randperm, which a plan would repeat; "
                                        "draw them outside and give them to the model as an input, or use dropout and its like")


def _limit(graph: Graph, kept, limit: int) -> None:
    """Recompute what does not fit into `limit` bytes together with the gradients."""
    gradients = sum(v.nbytes for v in kept)
    least = gradients + recompute(graph, limit - gradients, lambda changed: layout_of(changed, kept))
    if least > limit:
        shapes = ", ".join(str(list(v.shape)) for v in graph.inputs)
        raise MemoryLimitError(f"compile: memory_limit is {limit:,} bytes, but a step on inputs of shape {shapes} takes {least:,} at "
                               f"least, {gradients:,} of them for gradients; raise the limit to that, or take a smaller batch")


class _Gradients:
    """A plan of loss and gradients, and the parameters that these belong to."""

    def __init__(self, graph, places, parameters: list[Tensor], keys, callbacks: list[Callable], structure: Callable,
                 memory_limit: int | None, choices: Mapping[str, str]):
        self.parameters, self.callbacks, self.structure = parameters, callbacks, structure
        self.results = len(graph.outputs) - len(parameters)         # of the loss function; gradients follow them
        values = graph.outputs[self.results:]
        made = {v for node in graph.nodes if not PRIMITIVES[node.primitive].view for v in node.outputs}     # views lie in the arena
        kept = {v: p for v, p in zip(values, parameters) if values.count(v) == 1 and v in made}
        if memory_limit is not None:
            _limit(graph, kept, memory_limit)
        self.plan = Plan(graph, places, kept, keys, frozen=False, choices=choices,
                         when_ready={v: lambda p=p: self._announce(p) for v, p in kept.items()}, is_heard=lambda: bool(callbacks))
        self.early = {id(p) for p in kept.values()}
        self.accumulating = False
        self._given: list[weakref.ref[Tensor]] = []         # gradients that lie in the plan's memory

    def run(self, *inputs):
        plan = self.plan
        for reference in self._given:
            if (tensor := reference()) is not None:         # somebody holds it, perhaps as a .grad
                tensor.array = plan.backend.copy(tensor.array)
        self._given.clear()
        before = [p.grad for p in self.parameters]
        self.accumulating = any(g is not None for g in before)
        if not self.accumulating:
            for p, v in zip(self.parameters, plan.graph.outputs[self.results:]):
                if v in plan.own:
                    p.grad = Tensor._wrap(plan.own[v], plan.backend)                # for callbacks within the replay
        results = plan.run(*inputs)
        results, gradients = results[:self.results], results[self.results:]
        for p, v, gradient, old in zip(self.parameters, plan.graph.outputs[self.results:], gradients, before):
            if old is None:
                if p.grad is None or v not in plan.own:
                    p.grad = gradient
                if v in plan.own and p.grad.array is plan.own[v]:
                    self._given.append(weakref.ref(p.grad))
            else:
                with no_grad():
                    old.add_(gradient)
            if self.accumulating or id(p) not in self.early:
                self._call(p)
        return self.structure(results)

    def _announce(self, parameter: Tensor) -> None:
        if not self.accumulating:
            self._call(parameter)

    def _call(self, parameter: Tensor) -> None:
        for callback in list(self.callbacks):
            callback(parameter)
