"""A recorded run: a flat, ordered list of primitives that names no backend."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from numbanet.backends import PRIMITIVES, ArraySpec, Backend, dense_strides, get_backend
from numbanet.errors import ShapeError
from numbanet.graph.recoverable import Later


@dataclass(eq=False, slots=True)
class Value:
    """An array of a graph: known by shape, dtype and memory order, not by contents.

    `kind`: "input", "state" (parameters, buffers, optimiser state: read and possibly changed by the run), "constant"
    (made while tracing, never changed), "prepared" (computed of these before the run) or "result".
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    order: tuple[int, ...] | None
    kind: str

    @property
    def strides(self) -> tuple[int, ...]:
        """In bytes, of a dense array in the value's memory order."""
        return dense_strides(self.shape, self.dtype, self.order)

    @property
    def nbytes(self) -> int:
        count = self.dtype.itemsize
        for n in self.shape:
            count *= n
        return count

    def __repr__(self):
        return f"%{self.name}: {self.dtype}{list(self.shape)}"


@dataclass(eq=False, slots=True)
class Node:
    """One call of a primitive."""

    primitive: str
    arguments: tuple                    # Values for operands (lists of them for several), anything hashable for attributes
    outputs: tuple[Value | None, ...]
    writes_into: tuple[Value, ...] | None   # given as `out=`: results go into existing values
    path: str                           # of the layer whose operation this is; "" outside of layers
    phase: str                          # "forward", "backward", "update"; "recompute": a forward node again, for backward
    again_of: Node | None = None        # which node is computed again

    def operands(self):
        """The values read, in order."""
        for a in self.arguments:
            if isinstance(a, Value):
                yield a
            elif isinstance(a, list):
                yield from a

    def __str__(self):
        def show(a):
            return f"%{a.name}" if isinstance(a, Value) else f"[{', '.join(map(show, a))}]" if isinstance(a, list) else repr(a)
        targets = ", ".join("_" if v is None else repr(v) for v in self.outputs)
        line = f"{self.primitive}({', '.join(map(show, self.arguments))})"
        line = f"{targets} = {line}" if targets else line
        if self.writes_into:
            line += f" into {', '.join(f'%{v.name}' for v in self.writes_into)}"
        return f"{line}    # {self.path}" if self.path else line


@dataclass(eq=False)
class Graph:
    """A program of primitives. :meth:`run` replays it on any backend; `print(graph)` lists it."""

    device: str
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    preparation: list[Node] = field(default_factory=list)          # run before `nodes`, over state and constants alone
    state: dict[str, Value] = field(default_factory=dict)
    initial: dict[Value, object] = field(default_factory=dict)     # arrays of state and constants, as they were traced, or Later
    storages: dict[Value, object] = field(default_factory=dict)    # of state: their version tells of changes
    single_output: bool = True

    def __str__(self):
        lines = [f"graph({', '.join(map(repr, self.inputs))})"]
        lines += [f"  prepare {n}" for n in self.preparation]
        lines += [f"  {n}" for n in self.nodes]
        lines.append(f"  return {', '.join(f'%{v.name}' for v in self.outputs)}")
        return "\n".join(lines)

    def __len__(self):
        return len(self.nodes)

    def primitives(self) -> list[str]:
        """The names of the primitives, in order."""
        return [n.primitive for n in self.nodes]

    def copy(self) -> Graph:
        """Another graph over the same values and nodes, for a pass to change."""
        return Graph(self.device, list(self.inputs), list(self.outputs), list(self.nodes), list(self.preparation), dict(self.state),
                     dict(self.initial), dict(self.storages), self.single_output)

    def prepare(self, primitive: str, arguments: tuple, path: str = "") -> tuple[Value, ...]:
        """Add a node to the preparation; its results are known before the first node runs."""
        specs = PRIMITIVES[primitive].specification(*arguments)
        specs = (specs,) if isinstance(specs, ArraySpec) else specs
        values = tuple(Value(f"{path or primitive}:{len(self.preparation)}.{i}", tuple(s.shape), s.dtype, s.order, "prepared")
                       for i, s in enumerate(specs))
        self.preparation.append(Node(primitive, arguments, values, None, path, "preparation"))
        return values

    def prepared(self) -> set[Value]:
        """The results of the preparation."""
        return {v for node in self.preparation for v in node.outputs}

    def users(self) -> dict[Value, list[Node]]:
        """The nodes that read each value, in order, once for each time."""
        found: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for v in (*node.operands(), *(node.writes_into or ())):
                found.setdefault(v, []).append(node)
        return found

    def use_counts(self) -> Counter:
        """How often each value is read by nodes or returned."""
        counts = Counter(self.outputs)
        for v, nodes in self.users().items():
            counts[v] += len(nodes)
        return counts

    def last_uses(self) -> dict[Value, int]:
        """The position of the last node that touches each value; outputs, inputs and state live on."""
        last = {}
        for position, node in enumerate(self.nodes):
            for v in (*node.operands(), *node.outputs, *(node.writes_into or ())):
                if v is not None:
                    last[v] = position
        for v in (*self.outputs, *self.inputs, *self.initial, *self.prepared()):
            last.pop(v, None)
        return last

    def changed(self) -> set[Value]:
        """The values that are overwritten after they came into being, also through a view."""
        whole: dict[Value, Value] = {}          # view -> the value that it shows a part of
        found = set()
        for node in self.nodes:
            declared = PRIMITIVES[node.primitive]
            written = [v for p, a in zip(declared.parameters, node.arguments) if p.name in declared.mutates
                       for v in (a if isinstance(a, list) else [a] if isinstance(a, Value) else [])]
            found.update(whole.get(v, v) for v in (*written, *(node.writes_into or ())))
            if declared.view:
                source = next(node.operands())
                whole[node.outputs[0]] = whole.get(source, source)
        return found

    def run(self, *inputs, device: str | None = None, state: dict | None = None):
        """Replay on the arrays of `inputs`.

        Parameters
        ----------
        inputs : Tensor or array, one per graph input, of the traced shapes
        device : where to run; by default where it was traced
        state : dict of name -> Tensor
            Replaces the traced parameters, buffers and optimiser state, which are otherwise used, and changed, themselves
            where `device` is the traced one, and copied to another device.

        Returns
        -------
        Tensor, tuple of tensors, or None: as the traced function
        """
        from numbanet._tensor import Tensor
        backend = get_backend(device or self.device)
        if len(inputs) != len(self.inputs):
            raise ShapeError(f"graph: expected {len(self.inputs)} inputs, received {len(inputs)}")
        values = {v: self._resident(self.array_of(v), backend) for v in self.initial}
        storages = dict(self.storages) if backend.name == self.device else {}
        for name in state or ():
            if name not in self.state:
                raise ShapeError(f"graph: no state {name!r}; it has {', '.join(self.state) or 'none'}")
        given = {**{self.state[name]: tensor for name, tensor in (state or {}).items()}, **dict(zip(self.inputs, inputs))}
        for v, tensor in given.items():
            values[v] = _checked(v, tensor, backend)
            if getattr(tensor, "backend", None) is backend:
                storages[v] = tensor.storage
        self._execute(backend, values)
        for v in self.changed() & storages.keys():
            storages[v].version += 1
        results = tuple(Tensor._wrap(values[v], backend) for v in self.outputs)
        return results if not self.single_output else results[0] if results else None

    def array_of(self, value: Value):
        """The array of a state or constant."""
        array = self.initial[value]
        return array.array if isinstance(array, Later) else array

    def _resident(self, array, backend: Backend):
        if backend.name == self.device:
            return array
        return backend.from_numpy(np.array(get_backend(self.device).to_numpy(array), order="K"))

    def _execute(self, backend: Backend, values: dict) -> None:
        expiring: dict[int, list[Value]] = {}
        for v, position in self.last_uses().items():
            expiring.setdefault(position, []).append(v)
        for position, node in enumerate((*self.preparation, *self.nodes), -len(self.preparation)):
            arguments = [values[a] if isinstance(a, Value) else [values[v] for v in a] if isinstance(a, list) else a
                         for a in node.arguments]
            call = getattr(backend, node.primitive)
            if node.writes_into:
                out = tuple(values[v] for v in node.writes_into)
                result = call(*arguments, out=out[0] if len(out) == 1 else out)
            else:
                result = call(*arguments)
            for v, array in zip(node.outputs, result if isinstance(result, tuple) else (result,)):
                if v is not None:
                    values[v] = array
            for v in expiring.get(position, ()):
                values.pop(v, None)


def _checked(value: Value, given, backend: Backend):
    array = given.array if hasattr(given, "array") and hasattr(given, "backend") else backend.from_numpy(np.asarray(given))
    if getattr(given, "backend", backend) is not backend:
        array = backend.from_numpy(np.array(given.backend.to_numpy(array), order="K"))
    if tuple(array.shape) != value.shape or array.dtype != value.dtype:
        raise ShapeError(f"graph: {value.name} expects shape {value.shape} of {value.dtype}, received {tuple(array.shape)} of "
                         f"{array.dtype}; trace again with such an example")
    return array
