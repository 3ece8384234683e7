"""Elementwise primitives that follow each other become one, which reads and writes memory once.

    multiply(x, mask) -> multiply(scale) -> add(residual)    ->    elementwise_chain(x, [mask, scale, residual], steps)

The chain stands where its last node stood, so it reads operands later than before: where other nodes run in between, joined is only what
lets no more memory be in use for that.
"""

from __future__ import annotations

from numbanet.backends import PRIMITIVES, get_backend
from numbanet.backends.contract.elementwise_chain import MOST_OPERANDS, STEPS, VALUE, Place
from numbanet.dtypes import is_floating_point
from numbanet.graph.graph import Graph, Node, Value

MORE = 1.125            # bytes that may be held in place of one: a map, and some numbers a channel


def chain_elementwise(graph: Graph) -> None:
    """Join each node of `STEPS` with the next one where that alone reads its result, forward with forward, all else with all else; as
    many as there are."""
    rules = _Rules(graph)
    joined: dict[int, Node | None] = {}                 # by identity: what stands in a node's place; None: nothing
    for node in graph.nodes:
        if id(node) in joined or (chain := rules.begun(node)) is None:
            continue
        while (reader := chain.next(rules)) is not None and id(reader) not in joined:
            chain.take(reader, chain.nodes[-1].outputs[0], rules)
        if len(chain.nodes) > 1:
            joined |= {id(n): None for n in chain.nodes}
            joined[id(chain.nodes[-1])] = chain.node()
    graph.nodes = [n for n in (joined.get(id(n), n) for n in graph.nodes) if n is not None]


class _Rules:
    """Which nodes of a graph may be joined."""

    def __init__(self, graph: Graph):
        self.users, self.last, self.inputs = graph.users(), graph.last_uses(), set(graph.inputs)
        self.position = {id(node): i for i, node in enumerate(graph.nodes)}
        self.whole: dict[Value, Value] = {}             # of each view what it shows
        for node in graph.nodes:
            if PRIMITIVES[node.primitive].view:
                source = next(node.operands())
                self.whole[node.outputs[0]] = self.whole.get(source, source)
        self.changed = graph.changed()
        self.kept = {*graph.outputs, *self.changed}
        self.computes_16_bit = get_backend(graph.device).computes_16_bit
        for v, whole in self.whole.items():             # who reads a view needs what it shows
            if whole in self.last:
                self.last[whole] = max(self.last[whole], self.last.get(v, len(graph.nodes)))

    def may_be_joined(self, node: Node) -> bool:
        """Whether a node is a step of floating-point arrays that keep their contents."""
        if node.primitive not in STEPS or node.writes_into:
            return False
        dtype = node.outputs[0].dtype
        return (is_floating_point(dtype) and (dtype.itemsize > 2 or self.computes_16_bit)
                and all(v.dtype == dtype and self.whole.get(v, v) not in self.changed for v in node.operands()))

    def begun(self, node: Node) -> _Chain | None:
        """A chain of one node, of an operand that has the result's shape; a graph's input, of which there is one at most."""
        if not self.may_be_joined(node):
            return None
        given = [v for v in node.operands() if v in self.inputs]
        fitting = [v for v in node.operands() if v.shape == node.outputs[0].shape and v in (given or (v,))]
        chain = _Chain(fitting[0]) if fitting else None
        return chain if chain is not None and chain.take(node, fitting[0], self) else None

    def only_reader(self, value: Value) -> Node | None:
        """The node that alone reads a value, where that need not be kept."""
        readers = self.users.get(value, ())
        return readers[0] if readers and value not in self.kept and all(n is readers[0] for n in readers) else None


class _Chain:
    """Nodes to be joined, as an `elementwise_chain` of x."""

    def __init__(self, x: Value):
        self.nodes, self.steps, self.arrays = [], [], [x]

    def _new(self, node: Node, value: Value, rules: _Rules) -> list[Value] | None:
        """What a node reads besides `value`, the running one, and the arrays that there are; None where those are too many.

        Inputs are only ever x: a plan gives them to single parameters.
        """
        new = [v for v in dict.fromkeys(node.operands()) if v is not value and v not in self.arrays]
        return None if len(self.arrays) + len(new) > MOST_OPERANDS + 1 or any(v in rules.inputs for v in new) else new

    def take(self, node: Node, value: Value, rules: _Rules) -> bool:
        """Make a node the next step, to which `value` is the running value; whether that may be."""
        new = self._new(node, value, rules)
        if new is None:
            return False
        self.nodes, self.arrays = [*self.nodes, node], [*self.arrays, *new]
        places = {v: Place(i) for i, v in enumerate(self.arrays)} | {value: VALUE}
        self.steps.append((node.primitive, *[places[a] if isinstance(a, Value) else a for a in node.arguments]))
        return True

    def next(self, rules: _Rules) -> Node | None:
        """The node that alone reads the result, if it may be taken."""
        last = self.nodes[-1]
        value = last.outputs[0]
        reader = rules.only_reader(value)
        if (reader is None or not rules.may_be_joined(reader) or not _go_together(last, reader)
                or reader.outputs[0].shape != value.shape or self._new(reader, value, rules) is None
                or self._bytes_held(rules, reader) > value.nbytes * MORE):
            return None
        return reader

    def _bytes_held(self, rules: _Rules, reader: Node) -> int:
        """Of operands that would otherwise be done with before the reader, while others run."""
        end = rules.position[id(reader)]
        if end == rules.position[id(self.nodes[-1])] + 1:
            return 0
        held = {rules.whole.get(v, v) for v in self.arrays}
        return sum(v.nbytes for v in held if rules.last.get(v, end) < end)

    def node(self) -> Node:
        named = next((n for n in reversed(self.nodes) if n.path), self.nodes[-1])       # sums of gradients belong to no layer
        return Node("elementwise_chain", (self.arrays[0], self.arrays[1:], tuple(self.steps)), self.nodes[-1].outputs, None, named.path,
                    named.phase)


def _go_together(node: Node, reader: Node) -> bool:
    """Both in forward, or neither."""
    return (node.phase == "forward") == (reader.phase == "forward")
