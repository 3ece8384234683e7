"""Weights that a plan takes over: what it does not read itself goes as soon as it holds what it made of it.

By default it is computed back when somebody asks for it (`Lending`); on request it is gone (`Release`).
"""

from __future__ import annotations

from collections import Counter

from numbanet.backends import PRIMITIVES, Backend
from numbanet.errors import UsageError
from numbanet.graph.graph import Graph, Node, Value
from numbanet.graph.recoverable import Recoverable, held, send_away


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


class _Readers:
    """Who has yet to read the weights of a graph, while a plan is bound to it.

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

    def _read_by(self, node: Node) -> set[Value]:
        return {v for v in node.operands() if v in self.places}

    def _is_read(self, node: Node) -> list[Value]:
        """A node has been run or bound: the weights that nobody needs any more."""
        values = self._read_by(node)
        for v in values:
            self._readers[v].discard(id(node))
        return [v for v in values if self._is_done(v)]

    def _is_done(self, value: Value) -> bool:
        return not self._readers[value] and value not in self.held

    def _hold(self, node: Node, unread: tuple[int, ...]) -> None:
        """A node was bound, and reads its operands in each replay but for those at the positions `unread`."""
        for i, argument in enumerate(node.arguments):
            if i not in unread:
                self.held.update(v for v in (argument if isinstance(argument, list) else [argument])
                                 if isinstance(v, Value) and v in self.places)

    def _tensor(self, value: Value):
        registry, key = self.places[value]
        return registry[key]


class Release(_Readers):
    """Releases the weights of a graph one after the other: their numbers are gone."""

    def __init__(self, graph: Graph, places: dict[Value, tuple[dict, str]], backend: Backend):
        super().__init__(graph, places, backend)
        forget(graph, places)

    def unread(self, arrays: dict) -> int:
        """Let go of what no node reads, such as heads that are for training alone; the bytes of that."""
        others = {id(self._tensor(v)) for v in self.places if self._readers[v] or v in self.held}      # one may have two names
        return sum(self._let_go(v, arrays) for v in self.places if id(self._tensor(v)) not in others)

    def computed(self, node: Node, arguments: list, arrays: dict) -> int:
        """A node of the preparation has run; the bytes let go."""
        return sum(self._let_go(v, arrays) for v in self._is_read(node))

    def bound(self, node: Node, call, unread: tuple[int, ...], arrays: dict) -> int:
        """A node was bound, and reads its operands in each replay but for those at the positions `unread`; the bytes let go."""
        self._hold(node, unread)
        return sum(self._let_go(v, arrays) for v in self._is_read(node))

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

    def _let_go(self, value: Value, arrays: dict) -> int:
        arrays.pop(value, None)
        tensor = self._tensor(value)
        if tensor.backend is not self.backend:          # the same tensor under another name
            return 0
        tensor.array, tensor.backend = Nothing(held(tensor)), Released(self.backend.name)
        return value.nbytes


class Lending(_Readers):
    """Sends the weights of a graph away one after the other, where the backend can compute them back from what prepared calls hold.

    Parameters
    ----------
    graph, places, backend : as of :class:`Release`
    staying : values that are not sent away, because somebody has asked for them

    Attributes
    ----------
    away : dict of value -> (Recoverable, version of its storage)
    """

    def __init__(self, graph: Graph, places: dict[Value, tuple[dict, str]], backend: Backend, staying: set[Value]):
        super().__init__(graph, places, backend)
        self.held |= staying
        counts = Counter(id(self._tensor(v)) for v in places)
        self.held |= {v for v in places if counts[id(self._tensor(v))] > 1}     # under two names
        self._made: dict[Value, tuple[Value, list]] = {}    # what was made of a weight, and how
        self.away: dict[Value, tuple[Recoverable, int]] = {}
        self._known: dict[Value, tuple[Recoverable, int]] = {}

    def fetched(self, value: Value, found: Recoverable, version: int) -> None:
        """The plan has brought a weight back, whose Recoverable will do again unless the weight changes."""
        self._known[value] = found, version

    def unread(self, arrays: dict) -> int:
        """What no node reads cannot be computed back."""
        return 0

    def computed(self, node: Node, arguments: list, arrays: dict) -> int:
        """A node of the preparation has run."""
        source = node.arguments[0] if node.arguments else None
        if isinstance(source, Value) and (source in self.places or source in self._made):
            weight, steps = self._made.get(source, (source, []))
            self._made[node.outputs[0]] = weight, [*steps, (node.primitive, tuple(arguments[1:]))]
        self._is_read(node)
        return 0

    def bound(self, node: Node, call, unread: tuple[int, ...], arrays: dict) -> int:
        """A node was bound to a call; the bytes sent away."""
        self._hold(node, unread)
        self._is_read(node)
        freed = 0
        for i in unread:
            argument = node.arguments[i]
            for operand, v in [((i, j), v) for j, v in enumerate(argument)] if isinstance(argument, list) else [(i, argument)]:
                weight, steps = self._made.get(v, (v, []))
                if weight in self.places and self._is_done(weight):
                    freed += self._send(weight, steps, call, operand, arrays)
        return freed

    def taken(self, node: Node, arrays: dict) -> list:
        """None: what is computed back from packed weights is compared with the weights first."""
        return []

    def _send(self, value: Value, steps: list, call, operand, arrays: dict) -> int:
        tensor = self._tensor(value)
        if tensor.backend is not self.backend or arrays.pop(value, None) is None:
            return 0
        version = tensor.storage.version
        known, at = self._known.get(value, (None, None))
        if at != version:
            known = None

        def make(array):
            computes = known and known.compute
            made = self.backend.recovery(array, steps, call, operand, computes) or computes
            return known if known is not None and made is computes else made
        found = send_away(tensor, self.backend, make)
        if found is None:
            arrays[value] = tensor.array
            return 0
        self.away[value] = found, version
        return value.nbytes


def forget(graph: Graph, values) -> None:
    """Let the graph hold no array of these values; whoever runs it gives them."""
    for v in values:
        if v in graph.initial:
            graph.initial[v] = None
