"""Where the values of a plan lie: one arena, in which values that are never needed together share bytes.

A value's *root* is the value whose memory it uses: a view's root is that of what it shows, a result that overwrites an operand has
the operand's, and a map that is written straight into a concatenation has the concatenation's. Only roots take room. The rooms are
found greedily, the largest first, each at the lowest offset that is free during its life (Pisarchyk and Lee, 2020, arXiv:2001.03288).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from numbanet.backends import PRIMITIVES
from numbanet.graph.graph import Graph, Node, Value

ALIGNMENT = 64


@dataclass
class Layout:
    """Offsets of roots in bytes, the arena's size, and the places of parts in concatenations."""

    root: dict[Value, Value]                            # of every value that lies in another's memory
    offsets: dict[Value, int] = field(default_factory=dict)
    size: int = 0
    placed: dict[Value, tuple[Value, int, int]] = field(default_factory=dict)   # part -> (concatenation, axis, first index)
    overwrites: dict[Value, Value] = field(default_factory=dict)                # result -> the operand whose memory it takes
    room: dict[Value, int] = field(default_factory=dict)                        # root -> channels that there is room for, more than it has

    def root_of(self, value: Value) -> Value:
        while value in self.root:
            value = self.root[value]
        return value


def plan_memory(graph: Graph, views: dict[Value, Value], kept: Iterable[Value] = (), room: Callable[[Value], int] | None = None) -> Layout:
    """The :class:`Layout` of a graph's results.

    Parameters
    ----------
    views : value -> the value that it is a view of
    kept : values that take memory of their own, outside of the arena (gradients)
    room : (a map) -> channels that it should have room for, see `Backend.room_for_channels`
    """
    layout = Layout(dict(views))
    kept = set(kept)
    results = {v for node in graph.nodes for v in node.outputs if v is not None}
    _place_parts(graph, layout, results - kept)
    _overwrite_operands(graph, layout, results - kept)
    if room is not None:
        _spread_pixels(graph, layout, results - kept, room)
    lives: dict[Value, list[int]] = {}
    for position, node in enumerate(graph.nodes):
        for v in (*node.operands(), *node.outputs, *(node.writes_into or ())):
            if v is not None and (root := layout.root_of(v)) in results and root not in kept:
                lives.setdefault(root, [position, position])[1] = position
    for v in graph.outputs:                             # copied out after the last node
        if (root := layout.root_of(v)) in lives:
            lives[root][1] = len(graph.nodes)
    taken: list[tuple[int, int, int, int]] = []         # (first, last, offset, end)
    sizes = {v: v.nbytes if v not in layout.room else v.nbytes // v.shape[1] * layout.room[v] for v in lives}
    for v in sorted(lives, key=lambda v: (-sizes[v], lives[v])):
        first, last = lives[v]
        size = -(-max(sizes[v], 1) // ALIGNMENT) * ALIGNMENT
        offset = 0
        for _, _, begin, end in sorted((t for t in taken if t[0] <= last and first <= t[1]), key=lambda t: t[2]):
            if offset + size <= begin:
                break
            offset = max(offset, end)
        layout.offsets[v] = offset
        taken.append((first, last, offset, offset + size))
        layout.size = max(layout.size, offset + size)
    return layout


def _place_parts(graph: Graph, layout: Layout, results: set[Value]) -> None:
    """Let parts of concatenations be written in place where each is a fresh result that no other concatenation has taken.

    A part is read by others as a slice of channels, which every kernel takes.
    """
    made_by = {v: node for node in graph.nodes for v in node.outputs}
    reshaped = {next(node.operands()) for node in graph.nodes if node.primitive == "reshape"}      # may need memory without gaps
    excluded = {*graph.outputs, *graph.changed(), *reshaped}
    # outer ones first: inner ones then lie inside of them; what is computed again lies as it did before
    position = {id(node): i for i, node in enumerate(graph.nodes)}
    for node in sorted(graph.nodes, key=lambda node: (node.again_of is not None, -position[id(node.again_of or node)])):
        if node.primitive != "concatenate" or node.writes_into:
            continue
        parts, axis = node.arguments
        if len(set(parts)) != len(parts) or not all(_can_be_placed(v, made_by, results - excluded, layout) for v in parts):
            continue
        if any(v.order != parts[0].order for v in parts):
            continue
        start = 0
        for v in parts:
            layout.placed[v] = node.outputs[0], axis, start
            layout.root[v] = node.outputs[0]
            start += v.shape[axis]


def _can_be_placed(value: Value, made_by: dict, results: set, layout: Layout) -> bool:
    return value in results and value not in layout.root and not PRIMITIVES[made_by[value].primitive].view


def _overwrite_operands(graph: Graph, layout: Layout, results: set[Value]) -> None:
    """Let a first result take the memory of an operand that dies with the node, where the primitive allows it."""
    last_reads: dict[Value, int] = {}
    for position, node in enumerate(graph.nodes):
        for v in (*node.operands(), *node.outputs, *(node.writes_into or ())):
            if v is not None:
                last_reads[layout.root_of(v)] = position
    for v in graph.outputs:
        last_reads[layout.root_of(v)] = len(graph.nodes)
    for position, node in enumerate(graph.nodes):
        made = node.outputs[0] if node.outputs and not node.writes_into else None
        if made is None or made not in results or made in layout.root:
            continue
        allowed = list(_overwritable(node))
        for operand in allowed:
            root = layout.root_of(operand)
            whole = operand is root or operand in layout.overwrites
            # others that lie there too may be read after an element of the result is written
            alone = all(v is operand for v in node.operands() if layout.root_of(v) is root) and \
                sum(v is operand for v in node.operands()) == sum(v is operand for v in allowed)
            if whole and alone and root in results and last_reads[root] == position and _lie_alike(operand, made):
                layout.root[made] = layout.overwrites[made] = operand
                last_reads[root] = max(position, last_reads[made])
                break


# Primitives that read and write slices of channels as fast as maps without gaps.
OF_PIXELS = {"conv2d_forward", "conv2d_fused", "conv2d_activated", "conv2d_preactivated", "conv2d_max_pool_values", "max_pool2d_values",
             "avg_pool2d_forward", "adaptive_avg_pool2d_forward"}


def _spread_pixels(graph: Graph, layout: Layout, results: set[Value], room: Callable[[Value], int]) -> None:
    """Give maps room for more channels where `room` says so and only layers that compute pixel by pixel make and read them."""
    roots = {v for v in results if v not in layout.root and len(v.shape) == 4 and v.order == (0, 2, 3, 1)}
    roots -= {layout.root_of(v) for v in (*graph.outputs, *graph.changed(), *layout.placed)}
    for node in graph.nodes:
        if node.primitive not in OF_PIXELS or node.writes_into:
            roots -= {layout.root_of(v) for v in (*node.operands(), *node.outputs, *(node.writes_into or ())) if v is not None}
    layout.room = {v: channels for v in roots if (channels := room(v)) > v.shape[1]}


def _overwritable(node: Node):
    declared = PRIMITIVES[node.primitive]
    for parameter, argument in zip(declared.parameters, node.arguments):
        if parameter.name in declared.may_overwrite:
            yield from argument if isinstance(argument, list) else [argument] if isinstance(argument, Value) else []


def _lie_alike(a: Value, b: Value) -> bool:
    return (a.shape, a.dtype, a.order) == (b.shape, b.dtype, b.order)
