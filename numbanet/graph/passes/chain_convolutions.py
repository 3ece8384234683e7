"""Convolutions of which each reads only the one before become one primitive where the backend can keep the maps in between near.

    conv2d_fused -> conv2d_fused -> conv2d_fused [+ residual]    ->    conv2d_chain(x, weights, biases, residual, geometries, endings)

So it is with `conv2d_activated`.
"""

from __future__ import annotations

from numbanet.backends import get_backend
from numbanet.graph.graph import Graph, Node


def chain_convolutions(graph: Graph) -> None:
    """Chain as many as the backend wants (`Backend.chains`); all have a bias, and only the last adds a residual."""
    backend, users, kept = get_backend(graph.device), graph.users(), {*graph.outputs, *graph.changed()}

    def following(node: Node) -> Node | None:
        """The convolution that alone reads the node's result, as its map."""
        readers = users.get(node.outputs[0], ())
        if node.arguments[3] is not None or len(readers) != 1 or node.outputs[0] in kept:
            return None
        reader, read = readers[0], list(readers[0].operands())
        return reader if _may_be_chained(reader, kept) and read[0] is node.outputs[0] and read.count(read[0]) == 1 else None

    chained: dict[int, Node | None] = {}                # what stands in a node's place; None: nothing
    for node in graph.nodes:
        if id(node) in chained or not _may_be_chained(node, kept):
            continue
        run, best = [node], 1
        while (reader := following(run[-1])) is not None:
            run.append(reader)
            if backend.chains(tuple([n.arguments[4] for n in run]), node.outputs[0].shape[0]):
                best = len(run)             # longer ones may pay too
        if best > 1:
            run = run[:best]
            chained.update({id(n): None for n in run[:-1]})
            chained[id(run[-1])] = _chain(run)
    graph.nodes = [n for n in (chained.get(id(n), n) for n in graph.nodes) if n is not None]


def _may_be_chained(node: Node, kept: set) -> bool:
    return (node.primitive in ("conv2d_fused", "conv2d_activated") and node.arguments[2] is not None and not node.writes_into
            and not any(v in kept for v in node.operands()))


def _chain(run: list[Node]) -> Node:
    x, last = run[0].arguments[0], run[-1]
    weights, biases = [n.arguments[1] for n in run], [n.arguments[2] for n in run]
    geometries = tuple([n.arguments[4] for n in run])
    endings = tuple([n.arguments[5:] if n.primitive == "conv2d_fused" else n.arguments[5] for n in run])
    return Node("conv2d_chain", (x, weights, biases, last.arguments[3], geometries, endings), last.outputs, None,
                _joined_path(run), last.phase)


def _joined_path(run: list[Node]) -> str:
    """The path of the innermost layer that holds them all, otherwise from the first to the last."""
    parts = [n.path.split(".") for n in run]
    shared = []
    for names in zip(*parts):
        if len(set(names)) > 1:
            break
        shared.append(names[0])
    return ".".join(shared) or f"{run[0].path} to {run[-1].path}"
