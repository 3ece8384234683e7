"""A channel shuffle, written as two reshapes around a transposition, interleaves maps instead, which stay channels-last.

    reshape (N, g, C / g, H, W) -> transpose (N, C / g, g, H, W) -> reshape (N, C, H, W)    ->    interleave_channels of g slices

or, of many groups of a few channels, as in the gradient of another shuffle, separates them: separate_channels(x, C / g). Where what is
shuffled is a concatenation of just these maps that nobody else reads, it is never made (ShuffleNet: Zhang et al., 2018, arXiv:1707.01083,
and Ma et al., 2018, arXiv:1807.11164).
"""

from __future__ import annotations

from numbanet.backends.interface import channels_last
from numbanet.graph.graph import Graph, Node, Value


def interleave_channels(graph: Graph) -> None:
    """Rewrite each shuffle whose steps nobody else reads."""
    made_by = {v: node for node in graph.nodes for v in node.outputs if v is not None}
    uses, changed = graph.use_counts(), graph.changed()
    position = {id(node): i for i, node in enumerate(graph.nodes)}
    made: dict[int, list[Node]] = {}                    # in place of the node at a position
    renamed: dict[Value, Value] = {}                    # the result is another value: it lies otherwise in memory
    for node in graph.nodes:
        steps = _shuffle(node, made_by, uses, changed)
        if steps is None or node.outputs[0] in graph.outputs:
            continue
        x, (_, groups, count, *_), given = steps[0].arguments[0], steps[0].outputs[0].shape, node.outputs[0]
        before, slices = made_by.get(x), []
        if count < groups:
            parts = None
        elif _concatenates(before, groups) and uses[x] == 1 and not changed & {x, *before.arguments[0]}:
            parts, steps = list(before.arguments[0]), [before, *steps]
        else:
            shape = x.shape[0], x.shape[1] // groups, *x.shape[2:]
            parts = [Value(f"{given.name}.{i}", shape, x.dtype, None, "result") for i in range(groups)]
            slices = [Node("slice_view", (x, _channels(x, i, groups)), (part,), None, node.path, node.phase)
                      for i, part in enumerate(parts)]
        y = renamed[given] = Value(f"{given.name}.interleaved", given.shape, given.dtype, channels_last(len(given.shape)), "result")
        made.update({position[id(step)]: [] for step in steps})
        name, arguments = ("interleave_channels", (parts,)) if parts else ("separate_channels", (x, count))
        made[position[id(node)]] = [*slices, Node(name, arguments, (y,), None, node.path, node.phase)]
    graph.nodes = [n for i, node in enumerate(graph.nodes) for n in made.get(i, [node])]
    if renamed:
        _concatenate_in_order(graph, changed, renamed)
        graph.nodes = [Node(n.primitive, _with(n.arguments, renamed), tuple([renamed.get(v, v) for v in n.outputs]), n.writes_into, n.path,
                            n.phase, n.again_of) for n in graph.nodes]


def _concatenate_in_order(graph: Graph, changed: set, renamed: dict[Value, Value]) -> None:
    """Concatenations of parts of what was a shuffle lie as that now does."""
    order, lie_so = channels_last(4), set(renamed)
    for node in graph.nodes:
        operands = list(node.operands())
        if node.primitive == "slice_view" and operands[0] in lie_so:
            lie_so.add(node.outputs[0])
        elif node.primitive in ("interleave_channels", "separate_channels"):
            lie_so.add(node.outputs[0])
        elif (node.primitive == "concatenate" and not node.writes_into and node.arguments[1] == 1 and operands[0] in lie_so
              and node.outputs[0] not in changed and node.outputs[0] not in graph.outputs):
            y, = node.outputs
            renamed[y] = Value(f"{y.name}.ordered", y.shape, y.dtype, order if len(y.shape) == 4 else y.order, "result")
            lie_so.add(y)


def _shuffle(node: Node, made_by: dict, uses: dict, changed: set) -> list[Node] | None:
    """The three steps that end with this node."""
    steps = [node]
    for name in ("transpose", "reshape"):
        value = steps[0].arguments[0] if steps[0].arguments else None
        before = made_by.get(value) if isinstance(value, Value) else None
        if before is None or before.primitive != name or uses[value] != 1:
            return None
        steps.insert(0, before)
    split, swap, join = steps
    x, parts = split.arguments[0], split.outputs[0].shape
    is_swap = len(parts) >= 4 and tuple(swap.arguments[1]) == (0, 2, 1, *range(3, len(parts)))
    fits = is_swap and parts[0] == x.shape[0] and parts[1] * parts[2] == x.shape[1] and parts[3:] == x.shape[2:]
    if join.primitive != "reshape" or not fits or join.outputs[0].shape != x.shape or {x, join.outputs[0]} & changed:
        return None
    return steps


def _concatenates(node: Node | None, groups: int) -> bool:
    """Whether a node makes one map of `groups` equal ones, along the channels."""
    if node is None or node.primitive != "concatenate" or node.writes_into or node.arguments[1] != 1:
        return False
    parts = node.arguments[0]
    return len(parts) == groups and len({part.shape for part in parts}) == 1


def _channels(x: Value, i: int, groups: int) -> tuple:
    count = x.shape[1] // groups
    return ((0, x.shape[0], 1), (i * count, (i + 1) * count, 1), *[(0, n, 1) for n in x.shape[2:]])


def _with(arguments: tuple, renamed: dict[Value, Value]) -> tuple:
    return tuple([renamed.get(v, v) for v in a] if isinstance(a, list) else renamed.get(a, a) if isinstance(a, Value) else a
                 for a in arguments)
