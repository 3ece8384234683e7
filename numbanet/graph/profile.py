"""Where the time of a replay goes: each call of a plan timed, with the layer that it belongs to."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from numbanet._tensor import Tensor
from numbanet.autograd.grad_mode import no_grad
from numbanet.graph.compile import _mode, _places
from numbanet.graph.graph import Node
from numbanet.graph.passes import FOR_INFERENCE, FOR_TRAINING
from numbanet.graph.plan import Plan
from numbanet.graph.trace import trace_step
from numbanet.random import recorded_keys


class _TimedPlan(Plan):
    """A plan that notes begin and end of each call, in nanoseconds."""

    def _bind(self) -> None:
        self.events: list[tuple[Node, int, int]] = []
        super()._bind()

    def _bind_node(self, node: Node, inputs: dict, constant: set) -> None:
        before = len(self._steps)
        super()._bind_node(node, inputs, constant)
        self._steps[before:] = [(self._timed(node, function), arguments) for function, arguments in self._steps[before:]]

    def _timed(self, node: Node, function: Callable) -> Callable:
        def call(*arguments):
            begin = time.perf_counter_ns()
            function(*arguments)
            self.events.append((node, begin, time.perf_counter_ns()))
        return call


@dataclass(frozen=True)
class LayerTime:
    """One layer in one phase ("forward" or "backward")."""

    path: str
    phase: str
    primitives: tuple[str, ...]
    seconds: float              # median over the repetitions
    nbytes: int                 # of what it computes


@dataclass(frozen=True)
class Profile:
    """What :func:`profile` measured.

    Attributes
    ----------
    layers : list of LayerTime, in the order of their first call
    seconds : median of a whole replay, with what lies between the calls
    arena : bytes of the plan's memory
    parameters : bytes of parameters and buffers
    events : (layer, primitive, phase, begin, end) of one replay, in microseconds from its begin
    """

    layers: list[LayerTime]
    seconds: float
    arena: int
    parameters: int
    events: list[tuple[str, str, str, float, float]]

    def chrome_trace(self) -> dict:
        """The events in the Trace Event Format, for chrome://tracing and https://ui.perfetto.dev."""
        return {"displayTimeUnit": "ms", "traceEvents": [
            {"name": f"{layer or '(no layer)'}: {primitive}", "cat": phase, "ph": "X", "ts": begin, "dur": end - begin, "pid": 0, "tid": 0,
             "args": {"layer": layer, "primitive": primitive, "phase": phase}} for layer, primitive, phase, begin, end in self.events]}


def profile(model, x: Tensor, loss: Callable | None = None, y: Tensor | None = None, repetitions: int = 10) -> Profile:
    """Time each layer of a compiled model: inference, or with `loss` and `y` the forward and backward pass of training.

    Parameters
    ----------
    model : Module
    x : Tensor
    loss : callable (outputs, y) -> scalar tensor
    y : Tensor
    repetitions : int
        Replays that are measured, after one that compiles kernels.
    """
    training = loss is not None
    inputs = (x, y) if training else (x,)
    parameters = [p for p in model.parameters() if p.requires_grad]
    kept_gradients = [p.grad for p in parameters]
    reached: list[Tensor] = []

    def infer(x):
        result = model(x)
        return (result,) if isinstance(result, Tensor) else tuple(result.values() if isinstance(result, dict) else result)

    def train(x, y):
        value = loss(model(x), y)
        value.backward()
        reached.extend(p for p in parameters if p.grad is not None)
        return value, *[p.grad for p in reached]
    try:
        for p in parameters:
            p.grad = None
        with _mode(model, training), recorded_keys() as keys:
            if training:
                graph = trace_step(train, *inputs, model=model)
            else:
                with no_grad():
                    graph = trace_step(infer, *inputs, model=model)
    finally:
        for p, gradient in zip(parameters, kept_gradients):
            p.grad = gradient
    for optimise in FOR_TRAINING if training else FOR_INFERENCE:
        optimise(graph)
    made = {v for node in graph.nodes for v in node.outputs if v is not None}
    kept = [v for v in graph.outputs[1:] if v in made] if training else []
    state = {name: t.detach().clone() for name, t in model.state_dict().items()}         # training changes running statistics
    plan = _TimedPlan(graph, _places(model), kept, keys, frozen=not training)
    try:
        return _measured(plan, inputs, repetitions, state)
    finally:
        model.load_state_dict(state)


def _measured(plan: _TimedPlan, inputs: tuple, repetitions: int, state: dict) -> Profile:
    plan.run(*inputs)
    whole, runs = [], []
    for _ in range(repetitions):
        plan.events.clear()
        begin = time.perf_counter_ns()
        plan.run(*inputs)
        whole.append((time.perf_counter_ns() - begin) / 1e9)
        runs.append(list(plan.events))
    layers: dict[tuple, dict] = {}
    for i, events in enumerate(runs):
        for node, begin, end in events:
            entry = layers.setdefault((node.path, node.phase), {"names": {}, "times": [0.0] * repetitions, "nodes": {}})
            entry["names"][node.primitive] = None
            entry["times"][i] += (end - begin) / 1e9
            entry["nodes"][id(node)] = sum(v.nbytes for v in node.outputs if v is not None)
    times = [LayerTime(path, phase, tuple(e["names"]), median(e["times"]), sum(e["nodes"].values())) for (path, phase), e in layers.items()]
    last = runs[-1]
    first = last[0][1] if last else 0
    events = [(node.path, node.primitive, node.phase, (b - first) / 1e3, (e - first) / 1e3) for node, b, e in last]
    return Profile(times, median(whole), plan.nbytes, sum(t.numel() * t.dtype.itemsize for t in state.values()), events)
