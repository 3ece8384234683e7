"""A fixed factor for each channel becomes part of the convolution or linear layer before it, as ConvNeXt's layer scale.

    linear(x, w, b) -> [reshape, transpose ...] -> multiply by s    ->    linear(x, s * w, s * b) -> [reshape, transpose ...]

The new weights are computed by the graph's preparation, once, and again when the old ones change.
"""

from __future__ import annotations

from numbanet.graph.graph import Graph, Node, Value
from numbanet.graph.passes.activate_before_views import views_before
from numbanet.graph.passes.fold_batch_norm import PRODUCERS, is_fixed


def fold_scales(graph: Graph) -> None:
    """Fold each ``multiply`` by state or constants that vary along the layer's features alone."""
    made_by = {v: node for node in graph.nodes for v in node.outputs}
    uses, changed = graph.use_counts(), graph.changed()
    gone: set[int] = set()
    for node in list(graph.nodes):
        if node.primitive != "multiply" or node.writes_into:
            continue
        for value, scale in (node.arguments, node.arguments[::-1]):
            views = views_before(value, made_by, uses, changed)
            source = views[0].arguments[0] if views else value
            layer = made_by.get(source) if isinstance(source, Value) else None
            if (layer is None or layer.primitive not in PRODUCERS or layer.writes_into or uses[value] != 1 or source in changed
                    or not isinstance(scale, Value) or not is_fixed(scale, graph, changed) or scale.dtype != value.dtype
                    or value.shape != node.outputs[0].shape
                    or not all(is_fixed(v, graph, changed) for v in layer.arguments[1:3])
                    or not _is_of_features(scale, value, views)):
                continue
            last = views[-1] if views else layer
            made = Node(layer.primitive, (layer.arguments[0], *_scaled(graph, layer, scale), *layer.arguments[3:]),
                        node.outputs if last is layer else layer.outputs, None, layer.path, layer.phase)
            graph.nodes[graph.nodes.index(layer)] = made
            if last is not layer:
                graph.nodes[graph.nodes.index(last)] = Node(last.primitive, last.arguments, node.outputs, None, last.path, last.phase)
            gone.add(id(node))
            break
    graph.nodes = [n for n in graph.nodes if id(n) not in gone]


def _is_of_features(scale: Value, value: Value, views: list[Node]) -> bool:
    """Whether a factor has one number, or one for each feature, which stand along axis 1 before the views."""
    axis, features = 1, (views[0].arguments[0] if views else value).shape[1]
    for view in views:
        if view.primitive == "transpose":
            axis = view.arguments[1].index(axis)
        elif axis == len(view.arguments[0].shape) - 1 and view.outputs[0].shape[-1:] == (features,):
            axis = len(view.outputs[0].shape) - 1               # rows of features are split up or joined, the last axis stays
        else:
            return False
    sizes = (1,) * (len(value.shape) - len(scale.shape)) + scale.shape
    return all(n == 1 or i == axis and n == features for i, n in enumerate(sizes))


def _scaled(graph: Graph, layer: Node, scale: Value) -> tuple:
    """Weight and bias of the layer times the scale."""
    weight, bias = layer.arguments[1:3]
    count = max((*scale.shape, 1))
    column, = graph.prepare("reshape", (scale, (count,) + (1,) * (len(weight.shape) - 1)), layer.path)
    scaled, = graph.prepare("multiply", (weight, column), layer.path)
    if bias is None:
        return scaled, None
    row, = graph.prepare("reshape", (scale, (count,)), layer.path)
    return scaled, *graph.prepare("multiply", (bias, row), layer.path)
