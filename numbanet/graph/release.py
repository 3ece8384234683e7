"""Weights that a plan takes over: what it does not read itself goes as soon as it holds what it made of it."""

from __future__ import annotations

from numbanet.backends import PRIMITIVES, Backend
from numbanet.errors import UsageError
from numbanet.graph.graph import Graph, Node, Value

MEGABYTES_AT_ONCE = 8       # that are given back to the system together


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
        self.graph, self.places, self.backend = graph, places, backend
        self.held = {v for v in (*graph.outputs, *graph.changed()) if v in places}
        self._sources: dict[Value, set[Value]] = {v: {v} for v in places}
        for node in graph.preparation:
            sources = {s for v in node.operands() for s in self._sources.get(v, ())}
            self._sources.update((v, sources) for v in node.outputs)
            if PRIMITIVES[node.primitive].view:
                self.held |= sources
        self._last = {s: node for node in graph.nodes for s in self._read_by(node)}
        self._waiting = 0
        forget(graph, places)

    def _read_by(self, node: Node) -> set[Value]:
        return {s for v in node.operands() for s in self._sources.get(v, ())}

    def bound(self, node: Node, unread: tuple[int, ...], arrays: dict) -> None:
        """A node was bound, and reads its operands in each replay but for those at the positions `unread`."""
        for i, argument in enumerate(node.arguments):
            if i not in unread:
                self.held.update(v for v in (argument if isinstance(argument, list) else [argument])
                                 if isinstance(v, Value) and v in self.places)
        for v in self._read_by(node):
            if self._last[v] is node and v not in self.held:
                arrays.pop(v, None)
                self._let_go(v)

    def _let_go(self, value: Value) -> None:
        registry, key = self.places[value]
        tensor = registry[key]
        if tensor.backend is not self.backend:          # the same tensor under another name
            return
        self._waiting += value.nbytes
        tensor.array, tensor.backend = Nothing(tensor.array), Released(self.backend.name)
        if self._waiting >= MEGABYTES_AT_ONCE << 20:
            self.backend.trim()
            self._waiting = 0


def forget(graph: Graph, values) -> None:
    """Let the graph hold no array of these values; whoever runs it gives them."""
    for v in values:
        if v in graph.initial:
            graph.initial[v] = None
