"""The gradient of a map that several layers read is added up where a convolution writes its share.

    add(conv2d_backward_input(g, w), other)    ->    conv2d_backward_input_added(g, w, other)
"""

from __future__ import annotations

from numbanet.graph.graph import Graph, Node
from numbanet.graph.passes.fuse_epilogues import other_summand


def add_gradients(graph: Graph) -> None:
    """Fuse each ``add`` of a share that nobody else reads; the later share where both are of convolutions."""
    users, kept = graph.users(), {*graph.outputs, *graph.changed()}
    shares = {n.outputs[0]: n for n in graph.nodes if n.primitive == "conv2d_backward_input" and not n.writes_into}
    gone = set()
    for position, node in enumerate(graph.nodes):
        if node.primitive != "add" or node.writes_into:
            continue
        mine = [v for v in node.operands() if v in shares and len(users[v]) == 1 and v not in kept]
        if not mine:
            continue
        share = max(mine, key=lambda v: graph.nodes.index(shares[v]))
        other = other_summand(node, share)
        if other is None or other in graph.changed():
            continue
        grad_y, weight, geometry = shares[share].arguments
        gone.add(id(shares[share]))
        graph.nodes[position] = Node("conv2d_backward_input_added", (grad_y, weight, other, geometry), node.outputs, None,
                                     shares[share].path, node.phase)
    graph.nodes = [n for n in graph.nodes if id(n) not in gone]
