"""Concatenations that begin with all parts of an earlier one take that one's result instead.

    cat(a, b), then cat(a, b, c)    ->    cat(cat(a, b), c)

DenseNet concatenates all maps so far before each layer. Nested like this, all of them can lie in one array, each map written once.
"""

from __future__ import annotations

from numbanet.graph.graph import Graph, Node


def nest_concatenations(graph: Graph) -> None:
    """Rewrite ``concatenate`` nodes; the longest earlier one that fits is taken."""
    earlier: list[tuple[tuple, int, object]] = []          # (parts, axis, result)
    for position, node in enumerate(graph.nodes):
        if node.primitive != "concatenate" or node.writes_into:
            continue
        parts, axis = list(node.arguments[0]), node.arguments[1]
        fitting = [(len(known), result) for known, known_axis, result in earlier
                   if known_axis == axis and len(known) < len(parts) and tuple(parts[:len(known)]) == known]
        earlier.append((tuple(parts), axis, node.outputs[0]))
        if fitting:
            count, result = max(fitting, key=lambda f: f[0])
            graph.nodes[position] = Node("concatenate", ([result, *parts[count:]], axis), node.outputs, None, node.path, node.phase)
