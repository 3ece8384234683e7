"""Linear layers with many weights take them in bfloat16: half of the bytes have to come from memory.

    linear_forward, linear_fused(x, w, b, ...)    ->    linear_fused_bfloat16(x, w, b, ...)
    linear_activated(x, w, b, activation)         ->    linear_fused_bfloat16(x, w, b), activation

Weights are rounded to 8 significant bits; products and sums are those of float32. Not among the passes that plans run by themselves.
"""

from __future__ import annotations

from math import prod

from numbanet.backends.contract.fused import ACTIVATIONS
from numbanet.dtypes import float32
from numbanet.graph.graph import Graph, Node, Value
from numbanet.graph.passes.fold_batch_norm import is_fixed

MANY = 1 << 20              # weights: fewer are in a cache when they are read again


def round_linear_weights(graph: Graph) -> None:
    """Rewrite each linear layer of at least `MANY` weights that are the graph's state."""
    changed = graph.changed()
    graph.nodes = [made for node in graph.nodes
                   for made in (_rounded(node) if not node.writes_into and _has_many(node, graph, changed) else (node,))]


def _has_many(node: Node, graph: Graph, changed: set) -> bool:
    if node.primitive not in ("linear_forward", "linear_fused", "linear_activated"):
        return False
    weight = node.arguments[1]
    return prod(weight.shape) >= MANY and weight.dtype == float32 and is_fixed(weight, graph, changed)


def _rounded(node: Node) -> list[Node]:
    x, weight, bias, *rest = node.arguments
    y, limits = node.outputs[0], rest if node.primitive == "linear_fused" else (None, None)
    if node.primitive != "linear_activated":
        return [Node("linear_fused_bfloat16", (x, weight, bias, *limits), (y,), None, node.path, node.phase)]
    before = Value(f"{y.name}.before", y.shape, y.dtype, y.order, "result")
    name, arguments = ACTIVATIONS[rest[0]]
    return [Node("linear_fused_bfloat16", (x, weight, bias, *limits), (before,), None, node.path, node.phase),
            Node(name, (before, *arguments), (y,), None, node.path, node.phase)]
