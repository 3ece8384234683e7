"""Activations of a view of a map become activations of the map, beside the layer that made it, where `fuse_epilogues` finds them.

    linear -> reshape -> activation    ->    linear -> activation -> reshape

So it is with linear layers of more than two axes, which work on rows (ConvNeXt's, and those of vision transformers).
"""

from __future__ import annotations

from numbanet.graph.graph import Graph, Node, Value
from numbanet.graph.passes.fuse_epilogues import activation_of, limits_of

VIEWS = ("reshape", "transpose")        # of all elements, each once


def activate_before_views(graph: Graph) -> None:
    """Move each activation in front of the views that nobody else reads."""
    made_by = {v: node for node in graph.nodes for v in node.outputs}
    uses, changed = graph.use_counts(), graph.changed()
    nodes: list[Node] = []
    for node in graph.nodes:
        views = views_before(node.arguments[0], made_by, uses, changed) if _is_activation(node, changed) else []
        if not views:
            nodes.append(node)
            continue
        source, given = views[0].arguments[0], node.outputs[0]
        x = Value(f"{given.name}.before", source.shape, source.dtype, source.order, "result")
        nodes = [n for n in nodes if all(n is not view for view in views)]
        nodes.append(Node(node.primitive, (source, *node.arguments[1:]), (x,), None, node.path, node.phase))
        made_by[x], uses[x] = nodes[-1], 1
        for view in views:
            after = given if view is views[-1] else view.outputs[0]
            nodes.append(Node(view.primitive, (x, *view.arguments[1:]), (after,), None, view.path, view.phase))
            made_by[after] = nodes[-1]
            x = after
    graph.nodes = nodes


def views_before(value, made_by: dict, uses: dict, changed: set) -> list[Node]:
    """The views, first to last, that lead to a value and are read by nothing else, of a value read by them alone."""
    found: list[Node] = []
    while (isinstance(value, Value) and (node := made_by.get(value)) is not None and node.primitive in VIEWS and uses[value] == 1
           and not changed & {value, node.arguments[0]} and uses[node.arguments[0]] == 1):
        found.insert(0, node)
        value = node.arguments[0]
    return found if found and found[0].arguments[0] in made_by else []


def _is_activation(node: Node, changed: set) -> bool:
    if activation_of(node) is None and limits_of(node) is None:        # also what has no outputs, as it writes into operands
        return False
    return not node.writes_into and node.outputs[0] not in changed
