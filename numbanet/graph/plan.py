"""Plans: a graph for one set of shapes, with its memory laid out and every decision made, ready to be replayed.

A replay is a loop over prepared calls. What a backend can do ahead (pack weights, choose kernels) it does in `Backend.prepare`; what
it cannot is the primitive itself, without its checks, which the trace has made. A plan names no backend.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from contextlib import nullcontext

import numpy as np

from numbanet._tensor import Tensor
from numbanet.backends import PRIMITIVES, get_backend
from numbanet.backends.contract.elementwise_chain import words_of
from numbanet.errors import MemoryLimitError, ShapeError, UsageError
from numbanet.graph import timing
from numbanet.graph.graph import Graph, Node, Value
from numbanet.graph.memory import Layout, plan_memory
from numbanet.graph.recoverable import Recoverable, fetch, held
from numbanet.graph.release import Lending, Release
from numbanet.random import next_key

MEGABYTES_AT_ONCE = 2       # of what was folded, and of released weights, that go back to the system together


class Plan:
    """A graph bound to memory of its device.

    Parameters
    ----------
    graph : Graph
    kept : values whose arrays outlive a replay: gradients. All others lie in the arena, and outputs are copied out of it.
    places : dict of name -> (dict, key)
        Where the live parameters and buffers stand. They are read and changed in place; one that is exchanged for another (``.to``,
        ``load_state_dict(assign=True)``) is noticed, and so are changed weights, which are prepared again.
    keys : list of (Generator or None, key)
        The random keys of the trace and who drew them; each replay draws new ones in the same order.
    choices : dict of signature -> algorithm
        What calls take in place of the backend's own choice; see `tuning.py`.
    frozen : bool
        Whether weights rarely change: they are then prepared (packed, transformed) once.
    release : bool
        Whether :meth:`bind` releases the weights that no replay reads. Otherwise those of a frozen plan are sent away where the backend
        can compute them back; see `release.py`.
    when_ready : dict from a kept value to a function of no arguments, called within the replay as soon as the value is known
    is_heard : function of no arguments -> whether these functions need be called in the coming replay

    Attributes
    ----------
    run_steps : function (steps, their nodes, backend) that runs the steps of a replay in place of a plain loop, or None
        Whoever watches a plan sets it; see `timing.timed`.
    """

    def __init__(self, graph: Graph, places: dict[str, tuple[dict, str]], kept=(), keys=(), frozen: bool = True,
                 when_ready: dict | None = None, choices: Mapping[str, str] | None = None, release: bool = False,
                 is_heard: Callable[[], bool] = lambda: True):
        self.release = release
        self.graph, self.kept, self.keys, self.frozen = graph, tuple(kept), list(keys), frozen
        self.when_ready, self.choices, self.is_heard = when_ready or {}, dict(choices or {}), is_heard
        self.backend = get_backend(graph.device)
        self.layout = layout_of(graph, self.kept)
        self._lock = threading.Lock()
        self.signatures = {}
        self._allocate()
        self._places = {graph.state[name]: place for name, place in places.items() if name in graph.state}
        self._fixed = {v for node in graph.preparation for v in node.operands() if v in self._places}
        changed = graph.changed()
        if frozen:
            self._fixed |= {v for node in graph.nodes for v in node.operands() if v in self._places and v not in changed}
        self._changed = [self._places[v] for v in changed if v in self._places]
        self._seen: list | None = None
        self._away: list[tuple] = []                    # weights that this plan has sent away
        self._asked: dict[Value, weakref.ref] = {}      # and that somebody wanted back, so that they stay
        self._expected = [(v.shape, v.dtype, v.strides) for v in graph.inputs]
        self._copy = self.backend.unchecked("copy")
        self.run_steps = timing.log_steps if timing.is_wanted() else None

    def _allocate(self) -> None:
        there = self.backend.memory_size()
        try:
            if there is not None and self.nbytes > there:
                raise MemoryError(f"there are {_megabytes(there)}")
            self._arena = self.backend.empty((max(self.layout.size, 1),), np.dtype(np.uint8))
            self.own = {v: self.backend.empty(v.shape, v.dtype, v.order) for v in self.kept}
        except MemoryError as error:
            shapes = ", ".join(str(list(v.shape)) for v in self.graph.inputs)
            raise MemoryLimitError(
                f"compile: the plan for inputs of shape {shapes} needs {_megabytes(self.nbytes)} on {self.backend.name!r}, of these "
                f"{_megabytes(self.layout.size)} for maps, which do not fit ({error}); take a smaller batch, or for training "
                "memory_limit=") from error

    @property
    def nbytes(self) -> int:
        """Bytes of the arena and of what is kept."""
        return self.layout.size + sum(v.nbytes for v in self.kept)

    def run(self, *inputs: Tensor, out: tuple[Tensor, ...] | None = None) -> tuple[Tensor, ...]:
        """Replay; the outputs are in memory of their own, or in `out`. Calls from several threads take turns."""
        graph, backend = self.graph, self.backend
        if len(inputs) != len(self._expected):
            raise ShapeError(f"plan: expected {len(self._expected)} inputs, received {len(inputs)}")
        arrays = [self._checked(i, t) for i, t in enumerate(inputs)]
        check_out(backend, graph.outputs, out)
        with self._lock:
            if self._seen is None or self._have_changed():
                self._bind()
            if self._heard is not self.is_heard():
                self._joined = self._join()
            for calls, array in zip(self._reads_of_inputs, arrays):
                for arguments, position in calls:
                    arguments[position] = array
            if self.keys:
                self._draw_keys()
            if self.run_steps is not None:
                self.run_steps(self._steps, self._nodes, backend)
            else:
                for function, arguments in self._joined:
                    function(*arguments)
            for registry, key in self._changed:
                registry[key].storage.version += 1
            results = []
            for i, v in enumerate(graph.outputs):
                array = self._arrays[v] if v not in graph.inputs else arrays[graph.inputs.index(v)]
                if v in self.own:
                    results.append(Tensor._wrap(array, backend))
                elif out is None:
                    copy = backend.empty(v.shape, v.dtype, v.order)
                    self._copy(array, copy)
                    results.append(Tensor._wrap(copy, backend))
                else:
                    backend.copy(array, out=out[i].array)
                    out[i].storage.version += 1
                    results.append(out[i])
            for calls in self._reads_of_inputs:         # the plan holds nothing of the caller's
                for arguments, position in calls:
                    arguments[position] = None
        return tuple(results)

    def _checked(self, i: int, tensor: Tensor):
        shape, dtype, strides = self._expected[i]
        array = tensor.array
        if tensor.backend is not self.backend or array.shape != shape or array.dtype != dtype:
            raise ShapeError(f"plan: {self.graph.inputs[i].name} expects {dtype}{list(shape)} on {self.backend.name!r}, received "
                             f"{tensor.dtype}{list(tensor.shape)} on {tensor.backend.name!r}")
        if array.strides == strides or not tensor.numel():
            return array
        copy = self.backend.empty(shape, dtype, self.graph.inputs[i].order)     # kernels were chosen for the example's memory order
        return self.backend.copy(array, out=copy)

    # Binding: from values to arrays and prepared calls
    def bind(self) -> None:
        """Prepare all calls now, which the first replay would do otherwise."""
        with self._lock:
            if self._seen is None or self._have_changed():
                self._bind()

    def _versions(self) -> list:
        return [(registry, key, array, registry[key].storage.version if v in self._fixed else None)
                for v, (registry, key) in self._places.items() if not isinstance(array := held(registry[key]), Recoverable)]

    def _have_changed(self) -> bool:
        for registry, key, array, version in self._seen:
            tensor = registry[key]
            if tensor is None or tensor.array is not array or (version is not None and tensor.storage.version != version):
                return True
        for v, tensor, storage, version, _ in self._away:       # they may have come back
            registry, key = self._places[v]
            if registry[key] is not tensor or tensor.storage is not storage or storage.version != version:
                return True
        return False

    def _takeover(self) -> Release | Lending | None:
        """What becomes of weights that no replay reads."""
        if self.release:
            return Release(self.graph, self._places, self.backend)
        if not self.frozen:
            return None
        self._asked |= {v: weakref.ref(tensor) for v, tensor, *_, found in self._away if found.was_asked}
        return Lending(self.graph, self._places, self.backend, {v for v, tensor in self._asked.items() if self._tensor(v) is tensor()})

    def _bind(self) -> None:
        graph = self.graph
        release = self._takeover()
        self._seen, self._joined, self._away = None, [], []         # what is not valid any more holds no memory
        self._arrays: dict[Value, object] = {v: array for v, array in graph.initial.items() if v not in self._places}
        for v in self._places:
            self._load(v, release)
        preparing = {v: node for node in graph.preparation for v in node.outputs}
        last_reads = {v: node for node in graph.nodes for v in node.operands() if v in preparing}
        self._steps: list[tuple] = []
        self._reads_of_inputs: list[list] = [[] for _ in graph.inputs]
        self._reads_of_keys: list[tuple[list, int, object]] = []
        inputs = {v: i for i, v in enumerate(graph.inputs)}
        constant = {*graph.initial, *graph.prepared()} - graph.changed()
        if not self.frozen:
            constant -= self._places.keys()
        self._nodes: list[Node | None] = []             # of each step
        self._last_writers = {v: node for node in graph.nodes for v in node.writes_into or node.outputs if v in self.when_ready}
        self.signatures: dict[int, str] = {}            # of nodes whose algorithm can be chosen, by identity
        self._offers: dict[str, tuple[str, ...]] = {}
        waiting = 0 if release is None else release.unread(self._arrays)        # bytes that can go back to the system
        for v in graph.outputs:
            waiting += self._compute(v, preparing, release)
        for node in graph.nodes:                        # what is prepared for one node need not outlive what the backend makes of it
            for v in node.operands():
                self._load(v, release, True)
                waiting += self._compute(v, preparing, release)
            self._bind_node(node, inputs, constant, [] if release is None else release.taken(node, self._arrays))
            for v in {v for v in node.operands() if last_reads.get(v) is node} - {*graph.outputs}:
                del self._arrays[v]
                waiting += v.nbytes
            if release is not None:
                waiting = self._trim(waiting)
                waiting += release.bound(node, self._prepared, self._unread, self._arrays)
            waiting = self._trim(waiting)
            self._nodes += [None if function in self.when_ready.values() else node
                            for function, _ in self._steps[len(self._nodes):]]
        self._joined, self._prepared = self._join(), None
        if isinstance(release, Lending):
            self._away = [(v, tensor := self._tensor(v), tensor.storage, version, found) for v, (found, version) in release.away.items()]
        for v in preparing.keys() - last_reads.keys() - {*graph.outputs}:      # steps on the way to what nodes read
            if self._arrays.pop(v, None) is not None:
                waiting += v.nbytes
        self._seen = self._versions()
        self._trim(waiting, 1)

    def _trim(self, waiting: int, least: int = MEGABYTES_AT_ONCE << 20) -> int:
        """Give so many bytes back to the system, if they are worth it; those that still wait."""
        if not self.frozen or waiting < least:
            return waiting
        self.backend.trim()
        return 0

    def _tensor(self, value: Value) -> Tensor | None:
        registry, key = self._places[value]
        return registry[key]

    def _load(self, value: Value, release: Release | Lending | None, is_needed: bool = False) -> None:
        """Take the array that stands for a parameter or buffer now; one that is away and will go again comes back when it is needed."""
        if value not in self._places or value in self._arrays:
            return
        tensor = self._tensor(value)
        found = held(self._live(value, tensor))
        if isinstance(found, Recoverable):
            if release is None or value in release.held:
                found = tensor.array
            elif not is_needed:
                return
            else:
                if isinstance(release, Lending):
                    release.fetched(value, found, tensor.storage.version)
                found = fetch(tensor)
        self._arrays[value] = found

    def _live(self, value: Value, tensor: Tensor | None) -> Tensor:
        """The parameter or buffer, if it is as it was when the graph was traced."""
        if tensor is not None and tensor.backend.is_released:
            raise UsageError(f"plan: {value.name} was released by compile(..., release_weights=True), and other weights have changed "
                             "since; load all of them with model.load_state_dict(..., assign=True)")
        if tensor is None or tensor.backend is not self.backend or (tensor.shape, tensor.dtype) != (value.shape, value.dtype):
            received = "none" if tensor is None else f"{tensor.dtype}{list(tensor.shape)} on {tensor.backend.name!r}"
            raise UsageError(f"plan: {value.name} was {value.dtype}{list(value.shape)} on {self.backend.name!r} when the model was "
                             f"compiled, and is {received} now; compile again")
        return tensor

    def _compute(self, value: Value, preparing: dict[Value, Node], release: Release | None) -> int:
        """Run the node of the preparation that gives a value, and those that it needs, unless its result is there; the bytes let go."""
        node = preparing.get(value)
        if node is None or value in self._arrays:
            return 0
        freed = 0
        for v in node.operands():
            self._load(v, release, True)
            freed += self._compute(v, preparing, release)
        arguments = self._arguments(node)
        results = getattr(self.backend, node.primitive)(*arguments)
        self._arrays.update(zip(node.outputs, results if isinstance(results, tuple) else (results,)))
        return freed + (0 if release is None else release.computed(node, arguments, self._arrays))

    def _join(self) -> list[tuple]:
        """The steps, of which the backend may have made fewer.

        Those whose random keys change from replay to replay stay as they are, unless it reads keys from its memory.
        """
        self._heard = self.is_heard()
        steps = self._steps if self._heard else [step for step in self._steps if step[0] not in self.when_ready.values()]
        calls, givens = {id(arguments) for _, arguments in steps}, []
        for v, reads in zip(self.graph.inputs, self._reads_of_inputs):
            if any(id(arguments) not in calls for arguments, _ in reads):       # in a list of operands
                return steps
            if reads:
                example = self.backend.empty(v.shape, v.dtype, v.order)
                givens += [(arguments, position, example) for arguments, position in reads]
        if self.backend.joins_draws:
            return self.backend.joined(steps, givens, [(call, position) for call, position, _ in self._reads_of_keys])
        drawing, done, run = {id(call) for call, _, _ in self._reads_of_keys}, [], []
        for step in [*steps, None]:
            if step is not None and id(step[1]) not in drawing:
                run.append(step)
            else:
                mine = {id(arguments) for _, arguments in run}
                done += self.backend.joined(run, [given for given in givens if id(given[0]) in mine]) if run else []
                run = []
                done += [step] if step is not None else []
        return done

    def _array_of(self, value: Value | None):
        if value is None:
            return None
        if value not in self._arrays:
            self._arrays[value] = self._place(value)
        return self._arrays[value]

    def _place(self, value: Value):
        layout, backend = self.layout, self.backend
        if value in self.own:
            return self.own[value]
        if value in layout.placed:
            whole, axis, start = layout.placed[value]
            index = tuple((start, start + value.shape[axis], 1) if a == axis else (0, n, 1) for a, n in enumerate(value.shape))
            return backend.slice_view(self._array_of(whole), index)
        if value in layout.overwrites:
            return self._array_of(layout.overwrites[value])
        if value in layout.room:
            N, C, H, W = value.shape
            wide = backend.carve(self._arena, layout.offsets[value], (N, layout.room[value], H, W), value.dtype, value.order)
            return backend.slice_view(wide, tuple((0, n, 1) for n in value.shape))
        return backend.carve(self._arena, layout.offsets[value], value.shape, value.dtype, value.order)

    def _arguments(self, node: Node) -> list:
        return [self._arrays.get(a) if isinstance(a, Value) else [self._arrays.get(v) for v in a] if isinstance(a, list) else a
                for a in node.arguments]

    def _bind_node(self, node: Node, inputs: dict, constant: set, taken: list) -> None:
        backend, declared = self.backend, PRIMITIVES[node.primitive]
        self._prepared, self._unread = None, ()         # positions of operands that no replay reads
        arguments = self._arguments(node)
        reads = [i for i, a in enumerate(node.arguments) if isinstance(a, Value) and a in inputs]
        if declared.view:
            self._bind_view(node, declared, arguments, bool(reads), inputs)
            return
        if node.primitive == "concatenate" and all(v in self.layout.placed and self.layout.placed[v][0] is node.outputs[0]
                                                   for v in node.arguments[0]):
            self._array_of(node.outputs[0])
            return                                      # its parts have been written where they belong
        if any(isinstance(a, list) and any(v in inputs for v in a) for a in node.arguments):
            arguments = self._with_inputs_in_lists(node, arguments, inputs)
        targets = node.writes_into or node.outputs
        out = tuple(self._array_of(v) for v in targets)
        known = {i for i, a in enumerate(node.arguments)
                 if isinstance(a, (Value, list)) and all(v in constant for v in (a if isinstance(a, list) else [a]))}
        examples = tuple([_Example(node.arguments[i]) if i in reads else a for i, a in enumerate(arguments)])
        with backend.consuming(taken) if taken else nullcontext():
            prepared = self._prepared = self._prepare(node, examples, known)
        function = prepared or backend.unchecked(node.primitive)
        call = list(arguments)
        self._unread = getattr(prepared, "unread", ())
        for i in self._unread:                          # the backend holds what it made of these
            call[i] = None
        if out:
            call.append(out[0] if len(out) == 1 else out)
        for i in reads:
            self._reads_of_inputs[inputs[node.arguments[i]]].append((call, i))
        if declared.random:
            key = declared.parameter_names.index("key")
            self._reads_of_keys.append((call, key, node.arguments[key]))
        self._steps.append((function, call))
        self._steps += [(self.when_ready[v], ()) for v in targets if self._last_writers.get(v) is node]

    def _prepare(self, node: Node, arguments: tuple, known: set):
        """What the backend makes of a call, by the algorithm that was chosen for such calls."""
        names = self.backend.candidates(node.primitive, arguments, known)
        if not names:
            return self.backend.prepare(node.primitive, arguments, known)
        signature = self.signatures[id(node)] = _signature(node.primitive, arguments, known)
        self._offers[signature] = names
        return self.backend.prepare(node.primitive, arguments, known, self.choices.get(signature))

    def offers(self) -> dict[str, tuple[str, ...]]:
        """The algorithms that calls could take besides the backend's own choice, by signature."""
        self.bind()
        return dict(self._offers)

    def choose(self, choices: Mapping[str, str]) -> None:
        """Take other algorithms from the next replay on."""
        with self._lock:
            self.choices, self._seen = dict(choices), None

    def _bind_view(self, node: Node, declared, arguments: list, of_input: bool, inputs: dict) -> None:
        """A view of fixed memory is made once; of an input, or where it must copy, in each replay."""
        backend, made = self.backend, node.outputs[0]
        if not of_input and not _must_copy(node):
            self._arrays[made] = getattr(backend, node.primitive)(*arguments)
            return
        target = self._array_of(made)
        if node.primitive == "reshape" and made.order is None:         # one copy, straight into the other order
            call = [arguments[0], backend.reshape(target, next(node.operands()).shape)]
            if of_input:
                self._reads_of_inputs[inputs[next(node.operands())]].append((call, 0))
            self._steps.append((self._copy, call))
            return
        function = getattr(backend, node.primitive)

        def copy_view(*operands):
            backend.copy(function(*operands[:-1]), out=operands[-1])
        call = [*arguments, target]
        for i, a in enumerate(node.arguments):
            if isinstance(a, Value) and a in inputs:
                self._reads_of_inputs[inputs[a]].append((call, i))
        self._steps.append((copy_view, call))

    def _with_inputs_in_lists(self, node: Node, arguments: list, inputs: dict) -> list:
        """Lists are filled in place at each replay."""
        for i, a in enumerate(node.arguments):
            if isinstance(a, list):
                arguments[i] = list(arguments[i])
                for position, v in enumerate(a):
                    if v in inputs:
                        self._reads_of_inputs[inputs[v]].append((arguments[i], position))
        return arguments

    def _draw_keys(self) -> None:
        fresh = {key: next_key(generator) for generator, key in self.keys}
        for call, position, key in self._reads_of_keys:
            call[position] = fresh.get(key, key)

    # Telling
    def describe(self) -> str:
        """The program: a line a node with its kernel, shape, memory and what is fused in it."""
        lines = []
        if self.choices:
            self.offers()                               # binds: signatures are known then
        for node in self.graph.nodes:
            made = [v for v in (node.writes_into or node.outputs) if v is not None]
            shapes = ", ".join(f"{v.dtype}{list(v.shape)}" for v in made) or "-"
            parts = " ".join(filter(None, (_fused_parts(node), self._chosen(node))))
            lines.append((node.path or "-", node.primitive, shapes, ", ".join(filter(None, map(self._where, made))), parts))
        widths = [max((len(line[i]) for line in lines), default=0) for i in range(5)]
        text = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths)).rstrip() for line in lines]
        total = sum(v.nbytes for node in self.graph.nodes for v in node.outputs if v is not None)
        text.append(f"{len(lines)} nodes; arena of {self.layout.size / 1e6:.1f} MB for {total / 1e6:.1f} MB of results; "
                    f"{len(self.graph.preparation)} nodes of preparation")
        return "\n".join(text)

    def _chosen(self, node: Node) -> str:
        choice = self.choices.get(self.signatures.get(id(node), ""))
        return f"[{choice}]" if choice else ""

    def _where(self, value: Value) -> str:
        layout = self.layout
        if value in self.own:
            return "kept"
        if value in layout.placed:
            return f"in {layout.placed[value][0].name} from channel {layout.placed[value][2]}"
        if value in layout.overwrites:
            return f"over {layout.overwrites[value].name}"
        return f"at {layout.offsets[value]}" if value in layout.offsets else ""


def _signature(primitive: str, arguments: tuple, known: set) -> str:
    """What names a call: everything but contents and addresses."""
    def show(i, a):
        if isinstance(a, (list, tuple)):
            return f"[{', '.join(show(i, x) for x in a)}]"
        if not hasattr(a, "strides"):
            return repr(a)
        steps = "x".join(str(s // a.dtype.itemsize) for s in a.strides)
        return f"{a.dtype}[{'x'.join(map(str, a.shape))}]/{steps}{'!' if i in known else ''}"
    return f"{primitive}({', '.join(show(i, a) for i, a in enumerate(arguments))})"


def check_out(backend, expected, out: tuple | None) -> None:
    """Raise unless `out` can take results of the expected shapes and dtypes."""
    if out is None:
        return
    if len(out) != len(expected):
        raise ShapeError(f"plan: out expects {len(expected)} tensors, received {len(out)}")
    for v, t in zip(expected, out):
        if not isinstance(t, Tensor):
            raise UsageError(f"plan: out expects tensors, received {type(t).__name__}")
        if t.backend is not backend or (t.shape, t.dtype) != (v.shape, v.dtype):
            raise ShapeError(f"plan: out expects {v.dtype}{list(v.shape)} on {backend.name!r}, received {t.dtype}{list(t.shape)} on "
                             f"{t.backend.name!r}")


def layout_of(graph: Graph, kept=()) -> Layout:
    """Where a plan of this graph keeps its maps."""
    backend = get_backend(graph.device)
    return plan_memory(graph, views_of(graph), kept, lambda v: backend.room_for_channels(v.shape, v.dtype))


def views_of(graph: Graph) -> dict[Value, Value]:
    """Which results are views, and of what; a reshape that has to copy is none, nor is a view of an input."""
    return {node.outputs[0]: next(node.operands()) for node in graph.nodes
            if PRIMITIVES[node.primitive].view and next(node.operands()) not in graph.inputs and not _must_copy(node)}


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


class _Example:
    """What `Backend.prepare` may see of an input: everything but its contents."""

    __slots__ = ("shape", "dtype", "strides", "nbytes")

    def __init__(self, value: Value):
        self.shape, self.dtype, self.strides, self.nbytes = value.shape, value.dtype, value.strides, value.nbytes


def _must_copy(node: Node) -> bool:
    """Whether a reshape cannot be a view of its operand's memory order."""
    if node.primitive != "reshape":
        return False
    x = next(node.operands())
    shadow = np.lib.stride_tricks.as_strided(np.empty(0, x.dtype), x.shape, x.strides)
    try:
        shadow.reshape(node.outputs[0].shape, copy=False)
    except ValueError:
        return True
    return False


def _fused_parts(node: Node) -> str:
    if node.primitive == "elementwise_chain":
        return words_of(node.arguments[2])
    if node.primitive not in ("conv2d_fused", "conv2d_activated", "conv2d_with_statistics", "conv2d_preactivated",
                              "conv2d_preactivated_with_statistics", "conv2d_max_pool_forward", "conv2d_max_pool_values", "linear_fused",
                              "linear_activated", "channel_affine", "batch_norm_fused_forward", "batch_norm_given_forward"):
        return ""
    named = dict(zip(PRIMITIVES[node.primitive].parameter_names, node.arguments))
    parts = ["residual"] if named.get("residual") is not None else []
    if "activation" in named:
        return "+ " + " + ".join([*parts, named["activation"]])
    low, high = named["minimum"], named["maximum"]
    if (low, high) != (None, None):
        parts.append("relu" if (low, high) == (0.0, None) else f"clamp({low}, {high})")
    return "+ " + " + ".join(parts) if parts else ""


