"""What follows a convolution or linear layer element by element is computed while its results are still in the caches.

    conv -> [add another map] -> [ReLU, hardtanh or clamp]    ->   conv2d_fused(x, w, b, residual, geometry, minimum, maximum)
    linear -> [ReLU, hardtanh or clamp]                       ->   linear_fused(x, w, b, minimum, maximum)
    channel_affine -> [ReLU, hardtanh or clamp]               ->   channel_affine(x, scale, shift, minimum, maximum)

and, where the backend wants it (`Backend.activates`), with an activation of `contract/fused.py`, such as SiLU:

    conv -> [add another map] -> activation                   ->   conv2d_activated(x, w, b, residual, geometry, activation)
    linear -> activation                                      ->   linear_activated(x, w, b, activation)
"""

from __future__ import annotations

from numbanet.backends import get_backend
from numbanet.backends.contract.fused import ACTIVATIONS
from numbanet.graph.graph import Graph, Node, Value

HEADS = ("conv2d_forward", "linear_forward", "channel_affine")


def fuse_epilogues(graph: Graph) -> None:
    """Fuse each chain whose inner results nobody else reads; the fused node stands where the chain's last one stood."""
    users = graph.users()
    changed = graph.changed()
    position = {id(node): i for i, node in enumerate(graph.nodes)}
    returned = set(graph.outputs)
    activates = get_backend(graph.device).activates()

    def next_in_chain(value: Value) -> Node | None:
        """The one node that reads the value and nothing but it matters to."""
        readers = users.get(value, ())
        if len(readers) != 1 or value in returned or value in changed or readers[0].writes_into:
            return None
        return readers[0]

    gone: set[int] = set()
    for head in list(graph.nodes):
        if head.primitive not in HEADS or head.writes_into or any(v in changed for v in head.operands()):
            continue
        residual, limits, activation, last = None, (None, None), None, head
        follower = next_in_chain(last.outputs[0])
        if head.primitive == "conv2d_forward" and follower is not None and follower.primitive == "add":
            other = other_summand(follower, last.outputs[0])
            if other is not None and other not in changed:
                residual, last = other, follower
                follower = next_in_chain(last.outputs[0])
        if follower is not None and (found := limits_of(follower)) is not None:
            limits, last = found, follower
        elif follower is not None and activates and head.primitive != "channel_affine":
            activation = activation_of(follower)
            last = follower if activation is not None else last
        if last is head and head.primitive != "conv2d_forward":
            continue
        fused, chain = _fused(head, residual, limits, activation, last), _chain(head, last, users)
        gone.update(position[id(node)] for node in chain[:-1])
        graph.nodes[position[id(last)]] = fused
        for v in fused.operands():
            users[v] = [fused if node in chain else node for node in users[v]]
    graph.nodes = [n for i, n in enumerate(graph.nodes) if i not in gone]


def _chain(head: Node, last: Node, users: dict) -> list[Node]:
    chain = [head]
    while chain[-1] is not last:
        chain.append(users[chain[-1].outputs[0]][0])
    return chain


def other_summand(node: Node, value: Value) -> Value | None:
    """The other operand of an addition of two different maps of the same shape."""
    a, b = node.arguments
    other = b if a is value else a
    return other if isinstance(other, Value) and other is not value and (other.shape, other.dtype) == (value.shape, value.dtype) else None


def limits_of(node: Node) -> tuple | None:
    """(minimum, maximum) of a node that limits its operand."""
    if node.primitive == "relu_forward":
        return 0.0, None
    if node.primitive in ("hardtanh_forward", "clamp"):
        minimum, maximum = (None if n is None else float(n) for n in node.arguments[1:])
        same_dtype = node.outputs[0].dtype == node.arguments[0].dtype
        return (minimum, maximum) if same_dtype and (None in (minimum, maximum) or minimum <= maximum) else None
    return None


def activation_of(node: Node) -> str | None:
    """The name in `ACTIVATIONS` of what a node does to its operand."""
    wanted = node.primitive, tuple(node.arguments[1:])
    return next((name for name, found in ACTIVATIONS.items() if found == wanted), None)


def _fused(head: Node, residual: Value | None, limits: tuple, activation: str | None, last: Node) -> Node:
    kind, extra = ("fused", limits) if activation is None else ("activated", (activation,))
    if head.primitive == "conv2d_forward":
        x, weight, bias, geometry = head.arguments
        name, arguments = f"conv2d_{kind}", (x, weight, bias, residual, geometry, *extra)
    elif head.primitive == "linear_forward":
        name, arguments = f"linear_{kind}", (*head.arguments, *extra)
    else:
        name, arguments = "channel_affine", (*head.arguments[:3], *limits)
    return Node(name, arguments, last.outputs, None, head.path, head.phase)
