"""Weights that a plan takes over: what it does not read itself goes as soon as it holds what it made of it."""

from __future__ import annotations

from numbanet.backends import PRIMITIVES, Backend
from numbanet.errors import UsageError
from numbanet.graph.graph import Graph, Node, Value


class Nothing:
    """In place of an array whose numbers are gone: it still has a shape."""

    __slots__ = ("shape", "dtype", "strides", "nbytes")

    def __init__(self, array):
        self.shape, self.dtype, self.strides, self.nbytes = tuple(array.shape), array.dtype, tuple(array.strides), 0


class Released(Backend):
    """Where released weights are: whatever needs their numbers raises an error that says how to get them back."""

    implementations = {}
    is_released = True

    def __init__(self, device: str):
        self.name = device

    def _refuse(self, *_arguments, **_options):
        raise UsageError("these weights were released by compile(..., release_weights=True), and only the compiled model has them now; "
                         "load them anew with model.load_state_dict(..., assign=True), or leave release_weights out")

    empty = from_numpy = to_numpy = lift = _refuse

    def bind(self, declared):
        return self._refuse

    def may_share_memory(self, first, second):
        return False


class Release:
    """Releases the weights of a graph one after the other, while a plan is bound to it.

    Parameters
    ----------
    graph : Graph
    places : dict of value -> (dict, key), where its live tensor stands
    backend : the plan's
    """

    def __init__(self, graph: Graph, places: dict[Value, tuple[dict, str]], backend: Backend):
        self.places, self.backend = places, backend
        self.held = {v for v in (*graph.outputs, *graph.changed()) if v in places}
        preparing, needed = {v: node for node in graph.preparation for v in node.outputs}, {}
        waiting = [v for node in graph.nodes for v in node.operands()] + graph.outputs
        while waiting:
            if (node := preparing.get(waiting.pop())) is not None and id(node) not in needed:
                needed[id(node)] = node
                waiting += node.operands()
        self._readers: dict[Value, set[int]] = {v: set() for v in places}       # identities of the nodes that have yet to read each
        for node in (*needed.values(), *graph.nodes):
            for v in self._read_by(node):
                self._readers[v].add(id(node))
                if id(node) in needed and PRIMITIVES[node.primitive].view:
                    self.held.add(v)
        forget(graph, places)

    def _read_by(self, node: Node) -> set[Value]:
        return {v for v in node.operands() if v in self.places}

    def unread(self, arrays: dict) -> int:
        """Let go of what no node reads, such as heads that are for training alone; the bytes of that."""
        others = {id(self._tensor(v)) for v in self.places if self._readers[v] or v in self.held}      # one may have two names
        return sum(self._let_go(v, arrays) for v in self.places if id(self._tensor(v)) not in others)

    def computed(self, node: Node, arrays: dict) -> int:
        """A node of the preparation has run; the bytes let go."""
        return self._read(node, arrays)

    def bound(self, node: Node, unread: tuple[int, ...], arrays: dict) -> int:
        """A node was bound, and reads its operands in each replay but for those at the positions `unread`; the bytes let go."""
        for i, argument in enumerate(node.arguments):
            if i not in unread:
                self.held.update(v for v in (argument if isinstance(argument, list) else [argument])
                                 if isinstance(v, Value) and v in self.places)
        return self._read(node, arrays)

    def taken(self, node: Node, arrays: dict) -> list:
        """The arrays of weights that this node reads last, and that nobody else holds."""
        found = []
        for v in self._read_by(node):
            tensor = self._tensor(v)
            if self._readers[v] == {id(node)} and v not in self.held and tensor.backend is self.backend and arrays[v] is tensor.array:
                holder = [arrays.pop(v)]
                tensor.array = None
                if self.backend.is_unshared(holder, 0):
                    found.append(holder[0])
                tensor.array = arrays[v] = holder[0]
        return found

    def _read(self, node: Node, arrays: dict) -> int:
        values = self._read_by(node)
        for v in values:
            self._readers[v].discard(id(node))
        return sum(self._let_go(v, arrays) for v in values if not self._readers[v] and v not in self.held)

    def _tensor(self, value: Value):
        registry, key = self.places[value]
        return registry[key]

    def _let_go(self, value: Value, arrays: dict) -> int:
        arrays.pop(value, None)
        tensor = self._tensor(value)
        if tensor.backend is not self.backend:          # the same tensor under another name
            return 0
        tensor.array, tensor.backend = Nothing(tensor.array), Released(self.backend.name)
        return value.nbytes


def forget(graph: Graph, values) -> None:
    """Let the graph hold no array of these values; whoever runs it gives them."""
    for v in values:
        if v in graph.initial:
            graph.initial[v] = None
