"""The gradients of a linear layer, and of what limited its result, become one primitive.

    [relu_backward_input or hardtanh_backward_input ->] linear_backward_input, linear_backward_weight, linear_backward_bias
        ->   linear_fused_backward(grad_y, y, x, weight, minimum, maximum)
"""

from __future__ import annotations

from numbanet.graph.graph import Graph, Node, Value
from numbanet.graph.passes.pool_convolutions import MASKS

PARTS = ("linear_backward_input", "linear_backward_weight", "linear_backward_bias")


def fuse_linear_gradients(graph: Graph) -> None:
    """Fuse where the weight's gradient is wanted and one of the others too; the fused node stands where the first of them stood."""
    users, kept = graph.users(), {*graph.outputs, *graph.changed()}
    made_by = {v: node for node in graph.nodes for v in node.outputs}
    replaced: dict[int, Node | None] = {}               # by identity; None: nothing stands in the node's place
    for node in graph.nodes:
        if node.primitive != "linear_backward_weight" or node.writes_into:
            continue
        grad_y, x = node.arguments
        found = {name: [n for n in users[grad_y] if n.primitive == name and n.arguments[0] is grad_y and not n.writes_into]
                 for name in PARTS}
        if any(len(nodes) > 1 for nodes in found.values()) or sum(map(len, found.values())) < 2:
            continue
        together = [n for n in users[grad_y] if n in (p for nodes in found.values() for p in nodes)]
        of_input, of_bias = (found[name][0] if found[name] else None for name in (PARTS[0], PARTS[2]))
        weight = of_input.arguments[1] if of_input else None
        if any(v in kept for v in (x, weight, grad_y)):
            continue
        given, y, limits = grad_y, None, (None, None)
        mask = made_by.get(grad_y)
        if mask is not None and mask.primitive in MASKS and not mask.writes_into and len(together) == len(users[grad_y]):
            given, y, *attributes = mask.arguments
            limits = MASKS[mask.primitive](*attributes)
            replaced[id(mask)] = None
        grad_bias = of_bias.outputs[0] if of_bias else Value(f"{node.outputs[0].name}.bias", (grad_y.shape[1],), grad_y.dtype, None,
                                                             "result")
        outputs = of_input.outputs[0] if of_input else None, node.outputs[0], grad_bias
        replaced |= {id(n): None for n in together}
        replaced[id(together[0])] = Node("linear_fused_backward", (given, y, x, weight, *limits), outputs, None, node.path, node.phase)
    graph.nodes = [n for n in (replaced.get(id(n), n) for n in graph.nodes) if n is not None]
