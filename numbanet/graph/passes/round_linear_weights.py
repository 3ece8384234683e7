"""Linear layers with many weights take them in bfloat16: half of the bytes have to come from memory.

    linear_forward, linear_fused(x, w, b, ...)    ->    linear_fused_bfloat16(x, w, b, ...)

Weights are rounded to 8 significant bits; products and sums are those of float32. Not among the passes that plans run by themselves.
"""

from __future__ import annotations

from numbanet.dtypes import float32
from numbanet.graph.graph import Graph, Node
from numbanet.graph.passes.fold_batch_norm import is_fixed

MANY = 1 << 20              # weights: fewer are in a cache when they are read again


def round_linear_weights(graph: Graph) -> None:
    """Rewrite each linear layer of at least `MANY` weights that are the graph's state."""
    changed = graph.changed()
    for position, node in enumerate(graph.nodes):
        if node.primitive not in ("linear_forward", "linear_fused") or node.writes_into:
            continue
        x, weight, bias, *limits = node.arguments
        rows, columns = weight.shape
        if rows * columns >= MANY and weight.dtype == float32 and is_fixed(weight, graph, changed):
            arguments = (x, weight, bias, *(limits or (None, None)))
            graph.nodes[position] = Node("linear_fused_bfloat16", arguments, node.outputs, None, node.path, node.phase)
