"""The program of a model for batches of any size: two traces, of different batches, laid over each other.

What differs between the traces follows the batch N, and must do so linearly: a :class:`Size` `per_sample * N + constant`. Sizes
such as N * N or N // 2 would give other coefficients for other batches; they are told by coefficients that are no whole
numbers, or negative where they are not as those of N - 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from inspect import Parameter

import numpy as np

from numbanet.backends import PRIMITIVES, get_backend
from numbanet.errors import UnsupportedOperationError
from numbanet.graph import Graph, Node, Value

BATCHES = 2, 5          # not 1, which would broadcast
REMEDY = "write the model without conditions on the batch, or pass dynamic_batch=False"


@dataclass(frozen=True)
class Size:
    """per_sample * N + constant, N the size of the batch."""

    per_sample: int
    constant: int

    def __str__(self):
        return ("" if self.per_sample == 1 else f"{self.per_sample}") + "N" + (f"{self.constant:+}" if self.constant else "")

    def _refuse(self, *other):
        raise UnsupportedOperationError(f"a size follows the batch ({self}) where ONNX takes a number; {REMEDY}")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __mod__ = __floordiv__ = __truediv__ = __index__ = _refuse


Shape = tuple[int | Size, ...]


@dataclass(eq=False)
class Call:
    """A node of both traces: the values are those of the first."""

    primitive: str
    arguments: tuple
    outputs: tuple[Value | None, ...]
    writes_into: tuple[Value, ...] | None
    path: str

    @property
    def results(self) -> tuple[Value | None, ...]:
        return self.writes_into or self.outputs

    def operands(self) -> Iterator[Value]:
        for argument in self.arguments:
            if isinstance(argument, Value):
                yield argument
            elif isinstance(argument, list):
                yield from argument


@dataclass(eq=False)
class Program:
    """Calls in order, and the shape of every value; `arrays` holds state and constants.

    A constant that is repeated along the batch is held once: its array has size 1 where its shape follows the batch.
    """

    graph: Graph
    calls: list[Call] = field(default_factory=list)
    shapes: dict[Value, Shape] = field(default_factory=dict)
    arrays: dict[Value, np.ndarray] = field(default_factory=dict)


class _Overlay:
    """Lays a second trace over a first one."""

    def __init__(self, first: Graph, second: Graph, batches: tuple[int, int]):
        self.first, self.second, self.batches = first, second, batches
        self.program = Program(first)
        self.twins: dict[Value, Value] = {}

    def run(self) -> Program:
        first, second = self.first, self.second
        for a, b in zip(first.inputs, second.inputs):
            self._pair(a, b, "the input")
        for name, a in first.state.items():
            self._pair(a, second.state[name], name)
        for a, b in zip(first.nodes, second.nodes):
            where = f"{a.path or 'model'}: {a.primitive}"
            if a.primitive != b.primitive or a.path != b.path:
                raise _varies(where, f"the program goes on with {b.primitive} for another batch")
            arguments = tuple(self._argument(p, x, y, where)
                              for p, x, y in zip(PRIMITIVES[a.primitive].parameters, a.arguments, b.arguments))
            for x, y in zip((*a.outputs, *(a.writes_into or ())), (*b.outputs, *(b.writes_into or ()))):
                if x is not None:
                    self._pair(x, y, where)
            self.program.calls.append(Call(a.primitive, arguments, a.outputs, a.writes_into, a.path))
        if len(first.nodes) != len(second.nodes):
            raise _varies("model", f"{len(first.nodes)} primitives for a batch of {self.batches[0]}, {len(second.nodes)} for one of "
                          f"{self.batches[1]}")
        for a, b in zip(first.outputs, second.outputs):
            self._pair(a, b, "the output")
        return self.program

    def _pair(self, a: Value, b: Value, where: str) -> None:
        if self.twins.setdefault(a, b) is not b:
            raise _varies(where, "another value is used")
        if a in self.program.shapes:
            return
        if len(a.shape) != len(b.shape):
            raise _varies(where, f"shapes {a.shape} and {b.shape} differ in rank")
        self.program.shapes[a] = tuple(self._number(n, m, where) for n, m in zip(a.shape, b.shape))
        if a in self.first.initial:
            self.program.arrays[a] = self._array(a, b, where)

    def _array(self, a: Value, b: Value, where: str) -> np.ndarray:
        values, others = (get_backend(g.device).to_numpy(g.array_of(v)) for g, v in ((self.first, a), (self.second, b)))
        if values is others or a.kind == "state":
            return values
        for axis, (n, m) in enumerate(zip(values.shape, others.shape)):
            if n != m:
                once = values.take([0], axis) if n else values
                if n == 0 or (values != once).any():
                    raise _varies(where, f"a constant of shape {a.shape} is made for each batch; make it once, outside of forward")
                values, others = once, others.take([0], axis)
        if not np.array_equal(values, others, equal_nan=values.dtype.kind == "f"):
            raise _varies(where, f"a constant of shape {a.shape} has other values for another batch")
        return values

    def _argument(self, parameter: Parameter, x, y, where: str):
        if isinstance(x, Value):
            self._pair(x, y, where)
            return x
        if isinstance(x, list):
            for v, w in zip(x, y, strict=True):
                self._pair(v, w, where)
            return x
        if type(x) is tuple and type(y) is tuple and len(x) == len(y):
            return tuple(map(partial(self._argument, parameter, where=where), x, y))
        if type(x) is int and type(y) is int and not parameter.annotation.endswith(("Scalar", "Scalar | None")):
            return self._number(x, y, where)
        if x is y or x == y or (x != x and y != y):
            return x
        raise _varies(where, f"{parameter.name} is {x} for a batch of {self.batches[0]} and {y} for one of {self.batches[1]}")

    def _number(self, n: int, m: int, where: str) -> int | Size:
        if n == m:
            return n
        slope, rest = divmod(m - n, self.batches[1] - self.batches[0])
        constant = n - slope * self.batches[0]
        if rest or slope < 0 or constant < 0 and slope != 1:
            raise _varies(where, f"a size is {n} for a batch of {self.batches[0]} and {m} for one of {self.batches[1]}, which is no whole "
                          "multiple of the batch")
        return Size(slope, constant)


def _varies(where: str, what: str) -> UnsupportedOperationError:
    return UnsupportedOperationError(f"onnx.save: {where}: {what}; an exported graph serves every batch: {REMEDY}")


def overlay(trace: Callable[[int], Graph]) -> Program:
    """The program of a model of which `trace(batch)` is the graph."""
    return _Overlay(trace(BATCHES[0]), trace(BATCHES[1]), BATCHES).run()


def of_one_shape(graph: Graph) -> Program:
    """The program for the traced shapes only."""
    return _Overlay(graph, graph, BATCHES).run()


def composed_nodes(graph: Graph, known) -> None:
    """Replace, in place, every primitive that is not in `known` by the primitives that it is declared to be composed of."""
    nodes: list[Node] = []
    for node in graph.nodes:
        composition = PRIMITIVES[node.primitive].composition
        nodes.extend([node] if node.primitive in known or composition is None else _parts(graph, node, composition, known))
    graph.nodes[:] = nodes


def _parts(graph: Graph, node: Node, composition: Callable, known) -> list[Node]:
    from numbanet._tensor import Tensor
    from numbanet.graph import trace_step
    operands = list(node.operands())
    backend = get_backend(graph.device)

    def run(*tensors):
        given = iter([t.array for t in tensors])
        arguments = [next(given) if isinstance(a, Value) else [next(given) for _ in a] if isinstance(a, list) else a
                     for a in node.arguments]
        inside = tensors[0].backend
        made = composition(inside, *arguments)
        made = made if isinstance(made, tuple) else (made,)
        return tuple(Tensor._wrap(inside.copy(x), inside) for x in made)       # copied, so that no output is an operand

    part = trace_step(run, *[Tensor._wrap(backend.empty(v.shape, v.dtype, v.order), backend) for v in operands])
    composed_nodes(part, known)
    graph.initial.update(part.initial)
    named = {**dict(zip(part.inputs, operands)), **dict(zip(part.outputs, node.outputs))}

    def rename(a):
        return named.get(a, a) if isinstance(a, Value) else [named.get(v, v) for v in a] if isinstance(a, list) else a

    nodes = [Node(n.primitive, tuple(map(rename, n.arguments)), tuple(map(rename, n.outputs)),
                  None if n.writes_into is None else tuple(map(rename, n.writes_into)), node.path, node.phase) for n in part.nodes]
    if node.writes_into:        # the results are the outputs of the copies, which stand last
        for copy, target in zip(nodes[-len(node.writes_into):], node.writes_into):
            copy.outputs, copy.writes_into = (), (target,)
    return nodes
