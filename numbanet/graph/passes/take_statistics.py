"""A convolution takes the statistics of its result for the batch norm behind it, in training, where the backend gains by that.

    conv2d_fused -> batch_norm_fused_forward    ->    conv2d_with_statistics -> batch_norm_given_forward

So it is with `batch_norm_forward`. Others may read the map as well: it is made as before.
"""

from __future__ import annotations

from numbanet.backends import get_backend
from numbanet.graph.graph import Graph, Node

NORMS = {"batch_norm_forward": lambda x, weight, bias, epsilon: (None, epsilon, None, None),
         "batch_norm_fused_forward": lambda x, weight, bias, residual, *rest: (residual, *rest)}     # residual, epsilon and limits


def take_statistics(graph: Graph) -> None:
    """Where `Backend.takes_statistics` says so; runs after `fuse_batch_norm` and `fuse_epilogues`."""
    backend, changed = get_backend(graph.device), graph.changed()
    convolutions = {n.outputs[0]: n for n in graph.nodes if n.primitive == "conv2d_fused" and not n.writes_into}
    replaced: dict[int, Node] = {}                      # by identity
    for node in graph.nodes:
        convolution = convolutions.get(node.arguments[0]) if node.primitive in NORMS and not node.writes_into else None
        if (convolution is None or id(convolution) in replaced or any(v in changed for v in (*convolution.operands(), *node.operands()))
                or not backend.takes_statistics(convolution.arguments[4], convolution.outputs[0].shape[0])):
            continue
        x, weight, bias = node.arguments[:3]
        result, mean, variance = node.outputs
        residual, *rest = NORMS[node.primitive](*node.arguments)
        replaced[id(convolution)] = Node("conv2d_with_statistics", convolution.arguments, (x, mean, variance), None, convolution.path,
                                         convolution.phase)
        replaced[id(node)] = Node("batch_norm_given_forward", (x, weight, bias, residual, mean, variance, *rest), (result,), None,
                                  node.path, node.phase)
    graph.nodes = [replaced.get(id(n), n) for n in graph.nodes]
