"""The gradient of a ReLU before max pooling is taken of the pooled map, which has fewer pixels.

    relu_backward_input(max_pool2d_backward_input(g, positions), x)    ->    max_pool2d_backward_input(relu_backward_input(g, y), positions)

where y, positions = max_pool2d_forward(x). A window's gradient goes to its maximum, x there is y, and so the ReLU stops the same gradients.
"""

from __future__ import annotations

from numbanet.graph.graph import Graph, Node, Value

MASKS = ("relu_backward_input", "hardtanh_backward_input")


def limit_before_pooling(graph: Graph) -> None:
    """Exchange the two where nobody else reads the gradient in between."""
    users, kept = graph.users(), {*graph.outputs, *graph.changed()}
    made_by = {v: n for n in graph.nodes for v in n.outputs}
    for position, node in enumerate(graph.nodes):
        if node.primitive not in MASKS or node.writes_into:
            continue
        gradient, x, *attributes = node.arguments
        spread = made_by.get(gradient)
        if spread is None or spread.primitive != "max_pool2d_backward_input" or spread.writes_into:
            continue
        if len(users[gradient]) > 1 or gradient in kept:
            continue
        grad_y, positions, *rest = spread.arguments
        pooling = made_by.get(positions)
        if pooling is None or pooling.primitive != "max_pool2d_forward" or pooling.writes_into or pooling.arguments[0] is not x:
            continue
        passed = Value(f"{gradient.name}.passed", grad_y.shape, grad_y.dtype, grad_y.order, "result")
        limit = Node(node.primitive, (grad_y, pooling.outputs[0], *attributes), (passed,), None, node.path, node.phase)
        pool = Node(spread.primitive, (passed, positions, *rest), node.outputs, None, spread.path, spread.phase)
        graph.nodes[graph.nodes.index(spread)], graph.nodes[position] = limit, pool
        made_by |= {passed: limit, node.outputs[0]: pool}
