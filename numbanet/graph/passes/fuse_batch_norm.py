"""Batch norm in training takes in what follows it, forward and backward.

    batch_norm -> [add another map] -> [ReLU, hardtanh or clamp]        ->   batch_norm_fused_forward
    relu_backward_input or hardtanh_backward_input -> batch_norm_backward   ->   batch_norm_fused_backward

The gradient that a ReLU lets pass is never written, unless a residual's branch reads it too. What lies between the nodes that are joined
and reads the batch's statistics moves behind the joined one.
"""

from __future__ import annotations

from numbanet.graph.graph import Graph, Node, Value
from numbanet.graph.passes.fuse_epilogues import limits_of, other_summand


def fuse_batch_norm(graph: Graph) -> None:
    """Fuse each ``batch_norm_forward`` with its chain, and the backward of both where the gradient belongs to no one else."""
    for head in [n for n in graph.nodes if n.primitive == "batch_norm_forward" and not n.writes_into]:
        _fuse(graph, head)


def _fuse(graph: Graph, head: Node) -> None:
    users, changed = graph.users(), graph.changed()
    kept = {*graph.outputs, *changed}

    def only_reader(value: Value) -> Node | None:
        readers = users.get(value, ())
        return readers[0] if len(readers) == 1 and value not in kept and not readers[0].writes_into else None

    x, weight, bias, epsilon = head.arguments
    y, mean, variance = head.outputs
    if any(v in changed for v in head.operands()):
        return
    residual, limits, last = None, (None, None), head
    follower = only_reader(y)
    if follower is not None and follower.primitive == "add":
        other = other_summand(follower, y)
        if other is not None and other not in changed:
            residual, last = other, follower
            follower = only_reader(last.outputs[0])
    backward_limits = None
    if follower is not None and (found := limits_of(follower)) is not None:
        limits, last, backward_limits = found, follower, _backward_of(follower)
    if last is head:
        return
    outputs = last.outputs[0], mean, variance
    fused = Node("batch_norm_fused_forward", (x, weight, bias, residual, epsilon, *limits), outputs, None, head.path, head.phase)
    _join(graph, head, last, fused)
    if backward_limits is not None:
        _fuse_backward(graph, fused, backward_limits)


def _join(graph: Graph, head: Node, last: Node, fused: Node) -> None:
    """The chain from `head` to `last` becomes `fused`, in the place of `last`; readers of its statistics in between follow it."""
    first, end = graph.nodes.index(head), graph.nodes.index(last)
    chain, at = [head], first
    while chain[-1] is not last:
        at = next(i for i in range(at + 1, end + 1) if chain[-1].outputs[0] in graph.nodes[i].operands())
        chain.append(graph.nodes[at])
    between = [n for n in graph.nodes[first:end + 1] if n not in chain]
    statistics = set(head.outputs[1:])
    moved = [n for n in between if statistics & set(n.operands())]
    graph.nodes[first:end + 1] = [*(n for n in between if n not in moved), fused, *moved]


def _backward_of(node: Node) -> tuple[str, tuple]:
    """The primitive that is the backward of a limiting node, and its attributes."""
    if node.primitive == "relu_forward":
        return "relu_backward_input", ()
    return ("hardtanh_backward_input", node.arguments[1:]) if node.primitive == "hardtanh_forward" else ("", ())


def _fuse_backward(graph: Graph, forward: Node, expected: tuple[str, tuple]) -> None:
    x, weight, bias, residual, epsilon, *limits = forward.arguments
    result, mean, variance = forward.outputs
    users, kept = graph.users(), {*graph.outputs, *graph.changed()}
    name, attributes = expected
    masks = [n for n in users.get(result, ()) if n.primitive == name and n.arguments[1:] == (result, *attributes) and not n.writes_into]
    if len(masks) != 1:
        return
    mask = masks[0]
    passed = mask.outputs[0]
    readers = users.get(passed, ())
    gradients = [n for n in readers if n.primitive == "batch_norm_backward" and n.arguments == (passed, x, weight, mean, variance, epsilon)]
    if len(gradients) != 1 or gradients[0].writes_into or passed in kept or (residual is None and len(readers) > 1):
        return
    gradient, position = gradients[0], graph.nodes.index(mask)
    y, grad_residual = (None, None) if residual is None else (result, passed)
    graph.nodes[position] = Node("batch_norm_fused_backward", (mask.arguments[0], y, x, weight, bias, mean, variance, epsilon, *limits),
                                 (*gradient.outputs, grad_residual), None, gradient.path, gradient.phase)
    graph.nodes.remove(gradient)
