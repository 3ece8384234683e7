"""Batch norm in inference becomes part of the convolution or linear layer before it.

    conv(x, w, b), then batch_norm(gamma, beta, mean, var)   ->   conv(x, w', b')
    w' = w * gamma / sqrt(var + eps),   b' = (b - mean) * gamma / sqrt(var + eps) + beta

Where something else comes before it (DenseNet's comes first in its layer), it becomes one multiplication and addition a channel.
The new weights are computed by the graph's preparation, once, and again when the old ones change.
"""

from __future__ import annotations

from numbanet.graph.graph import Graph, Node, Value

PRODUCERS = ("conv2d_forward", "linear_forward")


def fold_batch_norm(graph: Graph) -> None:
    """Fold each ``batch_norm_inference_forward`` whose statistics are the graph's state."""
    made_by = {v: node for node in graph.nodes for v in node.outputs}
    uses, changed = graph.use_counts(), graph.changed()
    for position, node in enumerate(list(graph.nodes)):
        if node.primitive != "batch_norm_inference_forward" or node.writes_into:
            continue
        x, *per_channel, epsilon = node.arguments
        if any(not is_fixed(v, graph, changed) for v in per_channel):
            continue
        before = made_by.get(x)
        if (before is not None and before.primitive in PRODUCERS and not before.writes_into and uses[x] == 1 and x not in changed
                and all(is_fixed(v, graph, changed) for v in before.arguments[1:3])):
            weight, bias = before.arguments[1:3]
            folded = graph.prepare("fold_batch_norm", (weight, bias, *per_channel, epsilon), node.path)
            made = Node(before.primitive, (before.arguments[0], *folded, *before.arguments[3:]), node.outputs, None, before.path,
                        before.phase)
            graph.nodes[graph.nodes.index(before)], graph.nodes[position] = made, None
        else:
            scale, shift = graph.prepare("batch_norm_scale_shift", (*per_channel, epsilon), node.path)
            made = Node("channel_affine", (x, scale, shift, None, None), node.outputs, None, node.path, node.phase)
            graph.nodes[position] = made
        made_by[node.outputs[0]] = made
    graph.nodes = [n for n in graph.nodes if n is not None]


def is_fixed(value, graph: Graph, changed: set) -> bool:
    """Whether an operand is None, or state and constants that the graph does not change itself."""
    return not isinstance(value, Value) or (value in graph.initial or value in graph.prepared()) and value not in changed

