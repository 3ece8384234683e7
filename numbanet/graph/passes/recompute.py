"""A training step in less memory: maps that backward reads are dropped after forward and computed again when backward needs them.

    y = relu(x); ...; g = conv2d_backward_weight(grad, y)    ->    y = relu(x); ...; y' = relu(x); g = conv2d_backward_weight(grad, y')

First go maps that are cheap to compute, of everything but convolutions and matrix products, the largest first and no more than needed:
about as much time as reading and writing them once more. Where that is not enough, forward is cut into segments, and only what lies on
the cuts is kept (Chen et al., 2016, arXiv:1604.06174): at most one more forward pass. What is computed again is the same primitive of the
same operands, with the same random keys and strides, so no bit changes; running statistics are updated once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from numbanet.backends import PRIMITIVES
from numbanet.graph.cost import multiply_adds
from numbanet.graph.graph import Graph, Node, Value
from numbanet.graph.memory import Layout

RECOMPUTED = "recompute"    # the phase of nodes that compute again
# what gives the first result alone, of the same arguments, bit by bit
PLAIN = {"conv2d_with_statistics": "conv2d_fused", "conv2d_preactivated_with_statistics": "conv2d_preactivated"}
SMALLEST = 1 << 12          # bytes: what is smaller is not worth a call
DEPTHS = (1, 2, 4)          # of chains of cheap maps: longer ones, as along residuals, would all be alive again at once
SEGMENTS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


def recompute(graph: Graph, limit: int, lay_out: Callable[[Graph], Layout]) -> int:
    """Rewrite a training graph until its layout takes at most `limit` bytes; returns what it then takes, the least found at worst.

    Parameters
    ----------
    lay_out : gives the layout that a plan of a graph would have
    """
    layout = lay_out(graph)
    if layout.size <= limit:
        return layout.size
    smallest, best = layout.size, graph
    rewriting = _Rewriting(graph, {part: whole for part, (whole, _, _) in layout.placed.items()})

    def measure(dropped: Iterable[Value]) -> int:
        return lay_out(rewriting.without(dropped)).size
    for dropped in _proposals(graph, limit, measure):
        made = rewriting.without(dropped)
        size = lay_out(made).size
        if size < smallest:
            smallest, best = size, made
        if size <= limit:
            break
    graph.nodes = best.nodes
    return smallest


def _proposals(graph: Graph, limit: int, measure: Callable):
    """Sets of values to drop, those that cost least time first."""
    candidates = _candidates(graph)
    for depth in DEPTHS:
        cheap = sorted(_cheap(candidates, depth), key=lambda v: -v.nbytes)
        yield from _fewest(cheap, limit, measure)
    yield from (_between_cuts(graph, candidates, count) for count in SEGMENTS)


def _fewest(ordered: list[Value], limit: int, measure: Callable):
    """The whole list where it does not suffice; otherwise a shortest beginning that does, found by halving."""
    if not ordered or measure(ordered) > limit:
        yield set(ordered)
        return
    low, high = 0, len(ordered)
    while high - low > 1:
        middle = (low + high) // 2
        if measure(ordered[:middle]) <= limit:
            high = middle
        else:
            low = middle
    yield set(ordered[:high])


def _candidates(graph: Graph) -> dict[Value, Node]:
    """Results of forward that backward reads or that lead to such, and can be computed again, with their nodes."""
    changed = graph.changed()
    views = {node.outputs[0] for node in graph.nodes if PRIMITIVES[node.primitive].view}
    found: dict[Value, Node] = {}
    for node in graph.nodes:
        declared = PRIMITIVES[node.primitive]
        if node.phase != "forward" or node.writes_into or declared.mutates or any(v in changed for v in node.operands()):
            continue
        for v in node.outputs:
            if v is not None and v not in changed and v not in graph.outputs and v not in views and v.nbytes >= SMALLEST:
                found[v] = node
    return found


def _cheap(candidates: dict[Value, Node], depth: int) -> list[Value]:
    """Candidates without multiply-adds that are computed again from kept values in at most `depth` steps."""
    depths: dict[Value, int] = {}
    for v, node in candidates.items():                  # in the order of forward
        steps = 1 + max((depths.get(o, 0) for o in node.operands()), default=0)
        if not multiply_adds(node) and steps <= depth:
            depths[v] = steps
    return list(depths)


def _between_cuts(graph: Graph, candidates: dict[Value, Node], count: int) -> set[Value]:
    """All candidates but those that are alive at the ends of `count` segments of equally many bytes."""
    last_forward: dict[Value, int] = {}
    for position, node in enumerate(graph.nodes):
        if node.phase == "forward":
            last_forward.update(dict.fromkeys(node.operands(), position))
    roots = _roots(graph)
    total, gathered, dropped, alive = sum(v.nbytes for v in candidates), 0, set(), []
    for position, node in enumerate(graph.nodes):
        if node.phase != "forward":
            break
        made = [v for v in node.outputs if candidates.get(v) is node]
        gathered += sum(v.nbytes for v in made)
        dropped.update(made)
        alive = [v for v in (*alive, *node.outputs) if v is not None and last_forward.get(v, -1) > position]
        if gathered * count >= total:
            gathered = 0
            dropped -= {roots.get(v, v) for v in alive}
    return dropped


def _roots(graph: Graph) -> dict[Value, Value]:
    """Of each view the value that it shows."""
    roots: dict[Value, Value] = {}
    for node in graph.nodes:
        if PRIMITIVES[node.primitive].view:
            source = next(node.operands())
            roots[node.outputs[0]] = roots.get(source, source)
    return roots


class _Rewriting:
    """Graphs in which backward reads dropped values as they are computed again, just before it first needs them.

    A concatenation and the parts that are written into it go together: parts alone would free nothing, and copies of them would lie
    otherwise, for which a backend may sum in another order.
    """

    def __init__(self, graph: Graph, placed: dict[Value, Value]):
        self.graph, self.placed, self.roots = graph, placed, _roots(graph)
        self.made_by = {v: node for node in graph.nodes for v in node.outputs if v is not None}
        self.parts: dict[Value, list[Value]] = {}
        for part, whole in placed.items():
            self.parts.setdefault(whole, []).append(part)

    def without(self, dropped: Iterable[Value]) -> Graph:
        """The graph that drops these values, but for those that something else keeps in memory."""
        self.dropped, self.copies, self.nodes = self._whole_groups(set(dropped)), {}, []
        for node in self.graph.nodes:
            if node.phase != "forward":
                for v in node.operands():
                    self._again(v)
                node = Node(node.primitive, self._arguments(node), node.outputs, node.writes_into, node.path, node.phase)
            self.nodes.append(node)
        made = self.graph.copy()
        made.nodes = self.nodes
        return made

    def _whole_groups(self, dropped: set[Value]) -> set[Value]:
        while True:
            torn = {v for v in dropped if self.placed.get(v, v) not in dropped or any(p not in dropped for p in self.parts.get(v, ()))}
            if not torn:
                return dropped
            dropped = dropped - torn

    def _is_gone(self, v: Value) -> bool:
        return v not in self.copies and self.roots.get(v, v) in self.dropped

    def _again(self, v: Value) -> None:
        """Add the nodes that compute a value again, unless it is there."""
        stack = [v]
        while stack:
            v = stack[-1]
            if not self._is_gone(v):
                stack.pop()
                continue
            node = self.made_by[v]
            missing = [o for o in node.operands() if self._is_gone(o)]
            if missing:
                stack.extend(missing)
                continue
            name, wanted = node.primitive, node.outputs
            if name in PLAIN and not any(map(self._is_gone, wanted[1:])):
                name, wanted = PLAIN[name], wanted[:1]
            outputs = tuple(None if o is None else Value(f"{o.name}.again", o.shape, o.dtype, o.order, "result") for o in wanted)
            self.nodes.append(Node(name, self._arguments(node), outputs, None, node.path, RECOMPUTED, node))
            self.copies.update({o: c for o, c in zip(wanted, outputs) if o is v or (o is not None and self._is_gone(o))})
            stack[-1] = self.placed.get(v, v)           # of a part the whole concatenation

    def _arguments(self, node: Node) -> tuple:
        copies = self.copies
        return tuple([copies.get(v, v) for v in a] if isinstance(a, list) else copies.get(a, a) if isinstance(a, Value) else a
                     for a in node.arguments)
