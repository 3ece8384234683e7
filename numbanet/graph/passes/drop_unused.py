"""Nodes whose results nobody reads go; positions of maxima that nobody reads are not computed."""

from __future__ import annotations

from numbanet.backends import PRIMITIVES
from numbanet.graph.graph import Graph, Node


def drop_unused(graph: Graph) -> None:
    """Remove every node that changes nothing and whose outputs are neither read nor returned.

    ``max_pool2d_forward`` whose positions nobody reads becomes ``max_pool2d_values``.
    """
    graph.nodes, needed = _used(graph.nodes, set(graph.outputs))
    graph.preparation, _ = _used(graph.preparation, needed)
    for position, node in enumerate(graph.nodes):
        if node.primitive == "max_pool2d_forward" and not node.writes_into and node.outputs[1] not in needed:
            graph.nodes[position] = Node("max_pool2d_values", node.arguments, node.outputs[:1], None, node.path, node.phase)


def _used(nodes: list[Node], needed: set) -> tuple[list[Node], set]:
    """The nodes that `needed` values depend on, or that change something, and all values these read."""
    kept = []
    for node in reversed(nodes):
        if node.writes_into or PRIMITIVES[node.primitive].mutates or any(v in needed for v in node.outputs):
            kept.append(node)
            needed.update(node.operands())
    return kept[::-1], needed
