"""A convolution and the max pooling behind it become one primitive, and so do their gradients, where the backend gains by that.

    conv2d_fused -> max_pool2d_forward                                ->   conv2d_max_pool_forward
    conv2d_fused -> max_pool2d_values                                 ->   conv2d_max_pool_values
    [mask ->] max_pool2d_backward_input -> conv2d_backward_input      ->   conv2d_max_pool_backward_input
                                        -> conv2d_backward_weight,
                                           conv2d_backward_bias       ->   conv2d_max_pool_backward_weight

The map between convolution and pooling exists no longer, neither in forward nor in backward: nobody else may read it or its gradient.
"""

from __future__ import annotations

from numbanet.backends import get_backend
from numbanet.graph.graph import Graph, Node, Value

POOLINGS = {"max_pool2d_forward": "conv2d_max_pool_forward", "max_pool2d_values": "conv2d_max_pool_values"}
MASKS = {"relu_backward_input": lambda: (0.0, None), "hardtanh_backward_input": lambda *limits: tuple(map(float, limits))}


def pool_convolutions(graph: Graph) -> None:
    """Join what nobody reads in between (`Backend.pools`); runs after `fuse_epilogues` and `limit_before_pooling`."""
    backend, users, kept = get_backend(graph.device), graph.users(), {*graph.outputs, *graph.changed()}
    made_by = {v: node for node in graph.nodes for v in node.outputs}
    replaced: dict[int, Node | None] = {}               # by identity; None: nothing stands in the node's place
    for node in graph.nodes:
        if node.primitive not in POOLINGS or node.writes_into:
            continue
        m, pooling = node.arguments
        convolution = made_by.get(m)
        if (convolution is None or convolution.primitive != "conv2d_fused" or convolution.writes_into
                or convolution.arguments[3] is not None or users[m] != [node] or m in kept
                or any(v in kept for v in convolution.operands())
                or not backend.pools(convolution.arguments[4], pooling, for_values=len(node.outputs) == 1)):
            continue
        gradients = _gradients(node, convolution, users, made_by, kept) if len(node.outputs) > 1 else {}
        if gradients is None:
            continue
        x, weight, bias, _, geometry, *limits = convolution.arguments
        replaced |= {id(convolution): None, **gradients,
                     id(node): Node(POOLINGS[node.primitive], (x, weight, bias, geometry, pooling, *limits), node.outputs, None,
                                    convolution.path, node.phase)}
    graph.nodes = [n for n in (replaced.get(id(n), n) for n in graph.nodes) if n is not None]


def _gradients(pool: Node, convolution: Node, users: dict, made_by: dict, kept: set) -> dict[int, Node | None] | None:
    """What stands in the place of the nodes of backward; None where the gradient of the map has to exist."""
    y, argmax = pool.outputs
    x, weight, _, _, geometry, *limits = convolution.arguments
    pooling, found = pool.arguments[1], {}
    for spread in users.get(argmax, ()):
        if spread.primitive != "max_pool2d_backward_input" or spread.writes_into or argmax in kept or found:
            return None
        passed, grad_m = spread.arguments[0], spread.outputs[0]
        grad_y = _before_mask(passed, y, tuple(limits), users, made_by, kept)
        if grad_y is None or grad_m in kept:
            return None
        found[id(spread)] = None
        if passed is not grad_y:
            found[id(made_by[passed])] = None
        given = (grad_y, y, argmax)
        readers = {reader.primitive: reader for reader in users.get(grad_m, ())}
        if len(readers) != len(users.get(grad_m, ())) or any(reader.writes_into for reader in readers.values()):
            return None
        of_input, of_weight, of_bias = (readers.pop(f"conv2d_backward_{name}", None) for name in ("input", "weight", "bias"))
        if readers or (of_bias is not None and of_weight is None):
            return None
        if of_input is not None:
            if of_input.arguments[1:] != (weight, geometry):
                return None
            found[id(of_input)] = Node("conv2d_max_pool_backward_input", (*given, weight, geometry, pooling, *limits), of_input.outputs,
                                       None, of_input.path, of_input.phase)
        if of_weight is not None:
            if of_weight.arguments[1:] != (x, geometry):
                return None
            grad_weight = of_weight.outputs[0]
            grad_bias = of_bias.outputs[0] if of_bias else Value(f"{grad_weight.name}.bias", (geometry.filters,), grad_weight.dtype, None,
                                                                 "result")
            first, *rest = sorted(filter(None, (of_weight, of_bias)), key=users[grad_m].index)
            found |= {id(other): None for other in rest}
            found[id(first)] = Node("conv2d_max_pool_backward_weight", (*given, x, geometry, pooling, *limits), (grad_weight, grad_bias),
                                    None, first.path, first.phase)
    return found


def _before_mask(passed: Value, y: Value, limits: tuple, users: dict, made_by: dict, kept: set) -> Value | None:
    """The gradient of y of which `passed` is what the limits did not stop; itself where there are none; None where it is another."""
    if limits == (None, None):
        return passed
    mask = made_by.get(passed)
    if mask is None or mask.primitive not in MASKS or mask.writes_into or len(users[passed]) > 1 or passed in kept:
        return None
    grad_y, read, *attributes = mask.arguments
    return grad_y if read is y and MASKS[mask.primitive](*attributes) == limits else None
