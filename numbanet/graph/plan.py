"""Plans: a graph for one set of shapes, with its memory laid out and every decision made, ready to be replayed.

A replay is a loop over prepared calls. What a backend can do ahead (pack weights, choose kernels) it does in `Backend.prepare`; what
it cannot is the primitive itself, without its checks, which the trace has made. A plan names no backend.
"""

from __future__ import annotations

import threading

import numpy as np

from numbanet._tensor import Tensor
from numbanet.backends import PRIMITIVES, get_backend
from numbanet.errors import ShapeError
from numbanet.graph import timing
from numbanet.graph.graph import Graph, Node, Value
from numbanet.graph.memory import plan_memory
from numbanet.random import next_key


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
    frozen : bool
        Whether weights rarely change: they are then prepared (packed, transformed) once.
    when_ready : dict from a kept value to a function of no arguments, called within the replay as soon as the value is known

    Attributes
    ----------
    run_steps : function (steps, their nodes, backend) that runs the steps of a replay in place of a plain loop, or None
        Whoever watches a plan sets it; see `timing.timed`.
    """

    def __init__(self, graph: Graph, places: dict[str, tuple[dict, str]], kept=(), keys=(), frozen: bool = True,
                 when_ready: dict | None = None):
        self.graph, self.kept, self.keys, self.frozen = graph, tuple(kept), list(keys), frozen
        self.when_ready = when_ready or {}
        self.backend = get_backend(graph.device)
        self.layout = plan_memory(graph, self._views(), self.kept)
        self._lock = threading.Lock()
        self._arena = self.backend.empty((max(self.layout.size, 1),), np.dtype(np.uint8))
        self.own = {v: self.backend.empty(v.shape, v.dtype, v.order) for v in self.kept}
        self._places = {graph.state[name]: place for name, place in places.items() if name in graph.state}
        self._fixed = {v for node in graph.preparation for v in node.operands() if v in self._places}
        changed = graph.changed()
        if frozen:
            self._fixed |= {v for node in graph.nodes for v in node.operands() if v in self._places and v not in changed}
        self._changed = [self._places[v] for v in changed if v in self._places]
        self._seen: list | None = None
        self._expected = [(v.shape, v.dtype, v.strides) for v in graph.inputs]
        self._copy = self.backend.unchecked("copy")
        self.run_steps = timing.log_steps if timing.is_wanted() else None

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
        with self._lock:
            if self._seen is None or self._have_changed():
                self._bind()
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
    def _versions(self) -> list:
        live = [(v, registry, key) for v, (registry, key) in self._places.items()]
        return [(registry, key, registry[key].array, registry[key].storage.version if v in self._fixed else None)
                for v, registry, key in live]

    def _have_changed(self) -> bool:
        for registry, key, array, version in self._seen:
            tensor = registry[key]
            if tensor.array is not array or (version is not None and tensor.storage.version != version):
                return True
        return False

    def _views(self) -> dict[Value, Value]:
        """Which results are views, and of what; a reshape that has to copy is none."""
        graph = self.graph
        return {node.outputs[0]: next(node.operands()) for node in graph.nodes
                if PRIMITIVES[node.primitive].view and next(node.operands()) not in graph.inputs and not _must_copy(node)}

    def _bind(self) -> None:
        graph, backend = self.graph, self.backend
        self._arrays: dict[Value, object] = dict(graph.initial)
        for v, (registry, key) in self._places.items():
            self._arrays[v] = registry[key].array
        for node in graph.preparation:
            results = getattr(backend, node.primitive)(*self._arguments(node))
            for v, array in zip(node.outputs, results if isinstance(results, tuple) else (results,)):
                self._arrays[v] = array
        self._steps: list[tuple] = []
        self._reads_of_inputs: list[list] = [[] for _ in graph.inputs]
        self._reads_of_keys: list[tuple[list, int, object]] = []
        inputs = {v: i for i, v in enumerate(graph.inputs)}
        constant = {*graph.initial, *graph.prepared()} - graph.changed()
        if not self.frozen:
            constant -= self._places.keys()
        self._nodes: list[Node | None] = []             # of each step
        for node in graph.nodes:
            self._bind_node(node, inputs, constant)
            self._nodes += [None if function in self.when_ready.values() else node
                            for function, _ in self._steps[len(self._nodes):]]
        self._joined = self._join()
        self._seen = self._versions()

    def _join(self) -> list[tuple]:
        """The steps, of which the backend may have made fewer; not where random keys change from replay to replay."""
        if self._reads_of_keys:
            return self._steps
        calls, givens = {id(arguments) for _, arguments in self._steps}, []
        for v, reads in zip(self.graph.inputs, self._reads_of_inputs):
            if any(id(arguments) not in calls for arguments, _ in reads):       # in a list of operands
                return self._steps
            if reads:
                example = self.backend.empty(v.shape, v.dtype, v.order)
                givens += [(arguments, position, example) for arguments, position in reads]
        return self.backend.joined(self._steps, givens)

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
        return backend.carve(self._arena, layout.offsets[value], value.shape, value.dtype, value.order)

    def _arguments(self, node: Node) -> list:
        return [self._arrays.get(a) if isinstance(a, Value) else [self._arrays.get(v) for v in a] if isinstance(a, list) else a
                for a in node.arguments]

    def _bind_node(self, node: Node, inputs: dict, constant: set) -> None:
        backend, declared = self.backend, PRIMITIVES[node.primitive]
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
        prepared = None if reads else backend.prepare(node.primitive, tuple(arguments), known)
        if reads:
            examples = [_Example(node.arguments[i]) if i in reads else a for i, a in enumerate(arguments)]
            prepared = backend.prepare(node.primitive, tuple(examples), known)
        function = prepared or backend.unchecked(node.primitive)
        call = list(arguments)
        if out:
            call.append(out[0] if len(out) == 1 else out)
        for i in reads:
            self._reads_of_inputs[inputs[node.arguments[i]]].append((call, i))
        if declared.random:
            key = declared.parameter_names.index("key")
            self._reads_of_keys.append((call, key, node.arguments[key]))
        self._steps.append((function, call))
        self._steps += [(self.when_ready[v], ()) for v in targets if v in self.when_ready]

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
        for node in self.graph.nodes:
            made = [v for v in (node.writes_into or node.outputs) if v is not None]
            shapes = ", ".join(f"{v.dtype}{list(v.shape)}" for v in made) or "-"
            lines.append((node.path or "-", node.primitive, shapes, ", ".join(filter(None, map(self._where, made))), _fused_parts(node)))
        widths = [max((len(line[i]) for line in lines), default=0) for i in range(5)]
        text = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths)).rstrip() for line in lines]
        total = sum(v.nbytes for node in self.graph.nodes for v in node.outputs if v is not None)
        text.append(f"{len(lines)} nodes; arena of {self.layout.size / 1e6:.1f} MB for {total / 1e6:.1f} MB of results; "
                    f"{len(self.graph.preparation)} nodes of preparation")
        return "\n".join(text)

    def _where(self, value: Value) -> str:
        layout = self.layout
        if value in self.own:
            return "kept"
        if value in layout.placed:
            return f"in {layout.placed[value][0].name} from channel {layout.placed[value][2]}"
        if value in layout.overwrites:
            return f"over {layout.overwrites[value].name}"
        return f"at {layout.offsets[value]}" if value in layout.offsets else ""


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
    if node.primitive not in ("conv2d_fused", "linear_fused", "channel_affine"):
        return ""
    named = dict(zip(PRIMITIVES[node.primitive].parameter_names, node.arguments))
    parts = ["residual"] if named.get("residual") is not None else []
    low, high = named["minimum"], named["maximum"]
    if (low, high) != (None, None):
        parts.append("relu" if (low, high) == (0.0, None) else f"clamp({low}, {high})")
    return "+ " + " + ".join(parts) if parts else ""


