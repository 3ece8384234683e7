"""Small calls that many layers make, one each, become one of all, where the backend gains by that.

    running_average_update, ...         ->  running_averages_update, where the last of them stood
    add(counter, 1) into counter, ...   ->  counters_update, where the last of them stood
    cast(weight), ...                   ->  cast_all, where the first of them stood

What is joined is touched by its own call alone, or, of weights, not changed in the step.
"""

from __future__ import annotations

import numpy as np

from numbanet.backends import get_backend
from numbanet.dtypes import is_floating_point
from numbanet.graph.graph import Graph, Node, Value


def join_small_calls(graph: Graph) -> None:
    """Where `Backend.joins_small_calls` says so."""
    if not get_backend(graph.device).joins_small_calls:
        return
    users, changed, outputs = graph.users(), graph.changed(), {*graph.outputs}
    groups: dict[tuple, list[Node]] = {}
    for node in graph.nodes:
        x = node.arguments[0] if node.arguments else None
        if not isinstance(x, Value) or x.kind != "state":
            continue
        is_own = x not in outputs and all(n is node for n in users[x])
        if node.primitive == "running_average_update" and is_own and node.arguments[1] not in changed:
            groups.setdefault((_averages, x.dtype), []).append(node)
        elif node.primitive == "add" and node.writes_into == (x,) and is_own and type(node.arguments[1]) is int and x.dtype.kind in "iu":
            groups.setdefault((_counters, x.dtype, node.arguments[1]), []).append(node)
        elif node.primitive == "cast" and not node.writes_into and x not in changed and is_floating_point(x.dtype):
            groups.setdefault((_casts, x.dtype, np.dtype(node.outputs[0].dtype), node.phase), []).append(node)
    replaced: dict[int, Node | None] = {}               # by identity; None: nothing stands in the node's place
    for (join, *_), nodes in groups.items():
        if len(nodes) > 1:
            replaced |= {id(n): None for n in nodes}
            replaced[id(nodes[0 if join is _casts else -1])] = join(nodes)
    graph.nodes = [n for n in (replaced.get(id(n), n) for n in graph.nodes) if n is not None]


def _averages(nodes: list[Node]) -> Node:
    running, values, momenta, scales = zip(*[n.arguments for n in nodes])
    return Node("running_averages_update", (list(running), list(values), momenta, scales), (), None, "", nodes[0].phase)


def _counters(nodes: list[Node]) -> Node:
    return Node("counters_update", ([n.arguments[0] for n in nodes], nodes[0].arguments[1]), (), None, "", nodes[0].phase)


def _casts(nodes: list[Node]) -> Node:
    return Node("cast_all", ([n.arguments[0] for n in nodes], nodes[0].arguments[1]), tuple([n.outputs[0] for n in nodes]), None, "",
                nodes[0].phase)
