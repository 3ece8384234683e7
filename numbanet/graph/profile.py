"""Where the time of a replay goes: each call of a plan timed, with the layer that it belongs to."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from numbanet._tensor import Tensor
from numbanet.graph.compile import CompiledModel, CompiledStep
from numbanet.graph.plan import Plan
from numbanet.graph.timing import TimedStep, timed


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
    parameters, state = list(model.parameters()), {name: t.detach().clone() for name, t in model.state_dict().items()}
    kept_gradients = [p.grad for p in parameters]

    def clear() -> None:
        for p in parameters:
            p.grad = None
    try:
        clear()
        if loss is None:
            compiled = CompiledModel(model, (x,))
            plan = compiled.plan()
            return _measured(getattr(plan, "plans", [plan]), lambda: compiled(x), repetitions, plan.nbytes, state)
        step = CompiledStep(model, (x, y), loss, None)

        def replay() -> None:
            clear()                         # or gradients would be added up
            step.forward_backward(x, y)
        return _measured([step.plan()], replay, repetitions, step.plan().nbytes, state)
    finally:
        for p, gradient in zip(parameters, kept_gradients):
            p.grad = gradient
        model.load_state_dict(state)        # training changes running statistics


def _measured(plans: list[Plan], replay: Callable[[], object], repetitions: int, arena: int, state: dict) -> Profile:
    """`plans`: what a replay runs, a plan for each slice of the batch."""
    replay()
    steps: list[TimedStep] = []
    for plan in plans:
        plan.run_steps = lambda *arguments: steps.extend(timed(*arguments))
    whole, runs = [], []
    for _ in range(repetitions):
        steps.clear()
        begin = time.perf_counter()
        replay()
        whole.append(time.perf_counter() - begin)
        runs.append([step for step in steps if step.node is not None])
    layers: dict[tuple, dict] = {}
    for i, run in enumerate(runs):
        for node, _, begin, end in run:
            entry = layers.setdefault((node.path, node.phase), {"names": {}, "times": [0.0] * repetitions, "nodes": {}})
            entry["names"][node.primitive] = None
            entry["times"][i] += end - begin
            entry["nodes"][id(node)] = sum(v.nbytes for v in node.outputs if v is not None)
    times = [LayerTime(path, phase, tuple(e["names"]), median(e["times"]), sum(e["nodes"].values())) for (path, phase), e in layers.items()]
    first = runs[-1][0].begin if runs[-1] else 0
    events = [(node.path, node.primitive, node.phase, (begin - first) * 1e6, (end - first) * 1e6) for node, _, begin, end in runs[-1]]
    return Profile(times, median(whole), arena, sum(t.numel() * t.dtype.itemsize for t in state.values()), events)
