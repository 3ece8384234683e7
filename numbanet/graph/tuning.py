"""`numbanet.autotune`: which of a backend's algorithms is fastest for each call of a plan, measured on this machine and remembered.

A call is known by its signature: primitive, attributes, and shapes, dtypes and strides of its operands. What is measured better than the
backend's own choice is kept in a file of the cache folder, one for each backend, processor and set of versions, and every plan that is
compiled later takes it. A choice may change roundings, so it is part of a plan (``compiled.choices``), is written into checkpoints, and
goes on with a run that is resumed, wherever that is. Choices do not depend on the number of threads.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from numbanet._tensor import Tensor
from numbanet.backends import Backend
from numbanet.errors import CheckpointError
from numbanet.files import cache_root, write_text
from numbanet.graph.plan import Plan
from numbanet.graph.slices import Slices
from numbanet.graph.timing import timed

log = logging.getLogger("numbanet.tuning")
ROUNDS, REPLAYS = 3, 3      # each candidate is bound anew in each round, so that a machine whose speed drifts disturbs them alike
GAIN = 0.97                 # of the backend's own choice: what differs less is noise


@dataclass(frozen=True)
class Tuned:
    """One call, milliseconds by algorithm (None: the backend's own choice), and what was chosen."""

    signature: str
    path: str
    ms: dict[str | None, float]
    choice: str | None


@dataclass(frozen=True)
class Tuning:
    """What :func:`autotune` found; `choices` are all that the machine's file now holds."""

    calls: list[Tuned]
    choices: dict[str, str] = field(repr=False)

    def __str__(self):
        lines = [f"{len(self.calls)} calls with alternatives, {sum(c.choice is not None for c in self.calls)} of them faster otherwise"]
        for call in self.calls:
            times = ", ".join(f"{name or 'default'} {ms:.3f} ms" for name, ms in call.ms.items())
            lines.append(f"{call.path or '-'}: {call.choice or 'default'} ({times})")
        return "\n".join(lines)


def load_choices(backend: Backend) -> dict[str, str]:
    """Choices by signature that were measured for this machine; none where the file is absent or damaged."""
    try:
        found = json.loads(_file(backend).read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
            raise ValueError("not a table of names")
        return found
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        log.warning("choices of algorithms: %s cannot be read (%s); numbanet.autotune writes it anew", _file(backend), error)
        return {}


def _file(backend: Backend):
    return cache_root() / "choices" / f"{backend.fingerprint()}.json"


def tune(plans: list[Plan], replay) -> list[Tuned]:
    """Measure the candidates of all calls of the plans within replays; the plans are left with their own choices."""
    offers = {signature: names for plan in plans for signature, names in plan.offers().items()}
    times: dict[str, dict[str | None, float]] = {signature: {} for signature in offers}
    paths: dict[str, str] = {}
    kept = [plan.choices for plan in plans]
    try:
        for _ in range(ROUNDS):
            for position in range(-1, max(map(len, offers.values()), default=-1)):
                chosen = {s: names[position] for s, names in offers.items() if 0 <= position < len(names)}
                for plan in plans:
                    plan.choose(chosen)
                for signature, (path, seconds) in _measured(plans, replay).items():
                    if signature in offers and (position < 0 or signature in chosen):
                        name = chosen.get(signature)
                        times[signature][name] = min(1e3 * seconds, times[signature].get(name, float("inf")))
                        paths[signature] = path
    finally:
        for plan, choices in zip(plans, kept):
            plan.choose(choices)
    return [Tuned(s, paths[s], ms, _best(ms)) for s, ms in times.items() if None in ms]


def _best(ms: dict[str | None, float]) -> str | None:
    name = min(ms, key=ms.get)
    return name if name is not None and ms[name] < GAIN * ms[None] else None


def _measured(plans: list[Plan], replay) -> dict[str, tuple[str, float]]:
    """Path and least seconds by signature, summed over the calls that have it, of `REPLAYS` replays after one."""
    best: dict[str, tuple[str, float]] = {}
    replay()
    for _ in range(REPLAYS):
        with _watching(plans) as steps:
            replay()
        sums: dict[str, tuple[str, float]] = {}
        for signature, step in steps:
            path, seconds = sums.get(signature, (step.node.path, 0.0))
            sums[signature] = path, seconds + step.end - step.begin
        for signature, (path, seconds) in sums.items():
            best[signature] = path, min(seconds, best.get(signature, (path, float("inf")))[1])
    return best


@contextmanager
def _watching(plans: list[Plan]) -> Iterator[list]:
    found, before = [], [plan.run_steps for plan in plans]
    for plan in plans:
        plan.run_steps = lambda *steps, plan=plan: found.extend((plan.signatures[id(s.node)], s) for s in timed(*steps)
                                                                if s.node is not None and id(s.node) in plan.signatures)
    try:
        yield found
    finally:
        for plan, run_steps in zip(plans, before):
            plan.run_steps = run_steps


def autotune(model, example, *, loss=None, optimizer=None) -> Tuning:
    """Measure the algorithms that the backend offers for each call of a model's plan, and remember those that are faster.

    Plans that are compiled afterwards, in this process and in others, take them. Without `loss` and `optimizer` it is inference that is
    tuned, otherwise the training step, for shapes as the example's. Parameters, running statistics, gradients and random state are left
    as they were.

    Parameters
    ----------
    model, example, loss, optimizer
        As of :func:`numbanet.compile`; values of the example are used.

    Returns
    -------
    Tuning
        What was measured; `print` it.

    Raises
    ------
    CheckpointError
        The file of choices cannot be written.
    """
    from numbanet.graph.compile import compile
    from numbanet.random import fork_rng
    parameters = list(model.parameters())
    state, gradients = {name: t.detach().clone() for name, t in model.state_dict().items()}, [p.grad for p in parameters]
    compiled = compile(model, example, loss=loss, optimizer=optimizer, choices={})
    inputs = compiled.examples

    def replay():
        if loss is None:
            compiled(*inputs)
            return
        for p in parameters:
            p.grad = None                       # or gradients would be added up
        compiled.forward_backward(*inputs)
    try:
        with fork_rng():
            plan = compiled.plan()
            plans = list({id(p): p for p in plan.plans}.values()) if isinstance(plan, Slices) else [plan]
            generators = [(g, g.get_state()) for p in plans for g, _ in p.keys if g is not None]
            calls = tune(plans, replay)
            for generator, kept in generators:
                generator.set_state(kept)
    finally:
        for p, gradient in zip(parameters, gradients):
            p.grad = gradient
        if loss is not None:
            _restore(model, state)              # training changes running statistics
    return Tuning(calls, _remember(plan.backend, calls))


def _restore(model, state: dict[str, Tensor]) -> None:
    buffers = dict(model.named_buffers())
    for name, kept in state.items():
        if name in buffers:
            buffers[name].backend.copy(kept.array, out=buffers[name].array)
            buffers[name].storage.version += 1


def _remember(backend: Backend, calls: list[Tuned]) -> dict[str, str]:
    choices = load_choices(backend)
    for call in calls:
        choices.pop(call.signature, None)
        if call.choice is not None:
            choices[call.signature] = call.choice
    path = _file(backend)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(choices, indent=1, sort_keys=True) + "\n")
    except OSError as error:
        raise CheckpointError(f"autotune: {path} cannot be written ({error.strerror or error}); NUMBANET_CACHE_DIR moves the "
                              "folder") from error
    return choices
