"""A convolution normalises and limits what it reads as it brings it into its caches, where the backend gains by that.

In inference:
    channel_affine -> conv2d_fused                          ->   conv2d_preactivated
In training:
    batch_norm_given_forward                                ->   batch_norm_scale
      -> conv2d_with_statistics, or conv2d_fused            ->   conv2d_preactivated_with_statistics, or conv2d_preactivated
      -> conv2d_backward_weight                             ->   conv2d_preactivated_backward_weight

A batch norm that takes its statistics itself leaves `batch_norm_statistics` behind. What is normalised is neither written nor kept for
backward: what the batch norm reads is kept for its own gradient anyway.
"""

from __future__ import annotations

from numbanet.backends import get_backend
from numbanet.graph.graph import Graph, Node, Value

# name -> (its statistics, or None where they are its own; weight, bias and epsilon; residual; limits) of the arguments
NORMS = {
    "batch_norm_forward": lambda x, weight, bias, epsilon: (None, (weight, bias, epsilon), None, (None, None)),
    "batch_norm_fused_forward": lambda x, weight, bias, residual, epsilon, *limits: (None, (weight, bias, epsilon), residual, limits),
    "batch_norm_given_forward": lambda x, weight, bias, residual, mean, variance, epsilon, *limits: (
        (mean, variance), (weight, bias, epsilon), residual, limits)}
# name -> the primitive that it becomes, and the position of what it convolves
READERS = {"conv2d_fused": ("conv2d_preactivated", 0), "conv2d_with_statistics": ("conv2d_preactivated_with_statistics", 0),
           "conv2d_backward_weight": ("conv2d_preactivated_backward_weight", 1)}


def preactivate_convolutions(graph: Graph) -> None:
    """Where `Backend.preactivates` says so of each reader; runs after `fuse_epilogues` and `take_statistics`."""
    backend, users, changed = get_backend(graph.device), graph.users(), graph.changed()
    replaced: dict[int, list[Node]] = {}                # by identity
    for node in graph.nodes:
        if not (node.primitive in NORMS or node.primitive == "channel_affine") or node.writes_into:
            continue
        z, readers = node.outputs[0], users.get(node.outputs[0], [])
        if z in graph.outputs or any(v in changed for v in (z, *node.operands())):
            continue
        in_training = any(n.primitive == "conv2d_backward_weight" for n in readers)
        if not readers or not all(_reads_once(n, z) and _may_preactivate(backend, n, in_training) for n in readers):
            continue
        found = _terms(node)
        if found is None:
            continue
        replaced[id(node)], terms = found
        for reader in readers:
            name, position = READERS[reader.primitive]
            arguments = list(reader.arguments)
            arguments[position] = node.arguments[0]
            replaced[id(reader)] = [Node(name, (*arguments, *terms), reader.outputs, None, reader.path, reader.phase)]
    graph.nodes = [made for n in graph.nodes for made in replaced.get(id(n), [n])]


def _reads_once(node: Node, z: Value) -> bool:
    """Whether it is a convolution, or a weight gradient, of z."""
    found = READERS.get(node.primitive)
    return (found is not None and not node.writes_into and node.arguments[found[1]] is z
            and sum(v is z for v in node.operands()) == 1)


def _may_preactivate(backend, node: Node, in_training: bool) -> bool:
    geometry = node.arguments[2 if node.primitive == "conv2d_backward_weight" else 4]
    return backend.preactivates(geometry, node.arguments[READERS[node.primitive][1]].shape[0], in_training)


def _terms(node: Node) -> tuple[list[Node], tuple] | None:
    """What remains of a node that normalises, and (center, scale, shift, lowest, highest) of its result; None with a residual."""
    if node.primitive == "channel_affine":
        _, scale, shift, *limits = node.arguments
        return [], (None, scale, shift, *limits)
    statistics, (weight, bias, epsilon), residual, limits = NORMS[node.primitive](*node.arguments)
    if residual is not None:
        return None
    x, left = node.arguments[0], []
    if statistics is None:
        statistics = node.outputs[1:]
        left.append(Node("batch_norm_statistics", (x,), statistics, None, node.path, node.phase))
    mean, variance = statistics
    scale = Value(f"{node.outputs[0].name}.scale", variance.shape, variance.dtype, None, "result")
    left.append(Node("batch_norm_scale", (weight, variance, epsilon), (scale,), None, node.path, node.phase))
    return left, (mean, scale, bias, *limits)
