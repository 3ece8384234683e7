"""What one unit of a layer sees of the picture: in theory, by the windows on the way, and in effect, by its gradient.

In a chain of windows with F taps at dilation D and stride S, along one axis::

    field += (F - 1) * D * jump         the pixels that a unit sees; 1 at the picture
    jump *= S                           the pixels between the fields of neighbours

W. Luo and others, "Understanding the effective receptive field in deep convolutional networks", NeurIPS 2016.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from numbanet._tensor import Tensor
from numbanet.autograd.grad_mode import enable_grad
from numbanet.autograd.tape import grad
from numbanet.errors import UsageError
from numbanet.geometry import ConvGeometry
from numbanet.graph.cost import geometry_of, receptive_fields
from numbanet.graph.graph import Graph, Node, Value
from numbanet.graph.trace import trace
from numbanet.nn import Module
from numbanet.vision.layers import evaluating, find_layer, hooks, only

CHANNELS = 16       # whose gradients are taken, the strongest at the unit
MASS = 0.95         # share of the gradient's magnitude that the effective field holds


@dataclass
class ReceptiveField:
    """A unit's field in theory.

    Attributes
    ----------
    layer : str
    shape : (C, H, W) of the layer's output
    unit : (y, x)
    size, jump : pixels along both axes; `size` None: the whole picture
    box : (top, left, bottom, right) in pixels of the picture, bottom and right excluded; may reach over its border
    steps : (layer, what it is, taps, stride, dilation, field after it, jump after it) of each window along the longest way, of the
        rows' axis
    """

    layer: str
    shape: tuple[int, int, int]
    unit: tuple[int, int]
    size: tuple[int, int] | None
    jump: tuple[int, int]
    box: tuple[int, int, int, int]
    steps: list[tuple]

    def inside(self, height: int, width: int) -> tuple[int, int, int, int]:
        """The box without what lies outside of the picture."""
        top, left, bottom, right = self.box
        return max(top, 0), max(left, 0), min(bottom, height), min(right, width)


def receptive_field(model: Module, example: Tensor, layer: str, unit: tuple[int, int] | None = None) -> ReceptiveField:
    """The theoretical field of a unit, by default the middle one, of a layer whose output is maps.

    Raises
    ------
    UsageError
        The layer does not exist, does not give maps, or has no such unit.
    """
    find_layer(model, layer)
    with evaluating(model):
        graph = trace(model, example)
    value = _value_of(graph, layer)
    C, H, W = value.shape[1:]
    y, x = _checked_unit(layer, (H, W), unit)
    fields = receptive_fields(graph)
    intervals = _intervals(graph, value, (y, x), fields)
    if intervals is None or fields[value].size is None:
        return ReceptiveField(layer, (C, H, W), (y, x), None, (0, 0), (0, 0, *example.shape[2:]), [])
    (top, bottom), (left, right) = intervals
    size = bottom - top + 1, right - left + 1
    return ReceptiveField(layer, (C, H, W), (y, x), size, _jump(graph, value, (y, x), fields),
                          (top, left, bottom + 1, right + 1), _steps(graph, value, fields))


def effective_field(model: Module, x: Tensor, layer: str, unit: tuple[int, int] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """How much each pixel changes a unit: the mean magnitude of the gradients of its strongest channels.

    Returns
    -------
    float64 (H, W), and bool (H, W): the fewest pixels that hold 95% of it
    """
    module, kept = find_layer(model, layer), []
    with evaluating(model), enable_grad():
        leaf = x.detach().requires_grad_()
        with hooks(model, lambda _path, _module, _inputs, output: kept.append(only(output)), paths={layer}):
            model(leaf)
        if not kept or not isinstance(kept[-1], Tensor) or kept[-1].ndim != 4:
            raise UsageError(f"receptive field: {layer} is a {module._get_name()} whose output has no positions; choose a convolution, an "
                             "activation or a pooling")
        output = kept[-1]
        row, column = _checked_unit(layer, output.shape[2:], unit)
        values = output.detach().numpy()[0, :, row, column]
        found = np.zeros(x.shape[2:])
        strongest = np.argsort(-np.abs(values), kind="stable")[:CHANNELS]
        for position, channel in enumerate(strongest):
            gradient, = grad(output[0, int(channel), row, column], leaf, retain_graph=position + 1 < len(strongest))
            found += np.abs(gradient.numpy()[0]).sum(0) / len(strongest)
    order = np.sort(found.reshape(-1))[::-1]
    enough = np.searchsorted(np.cumsum(order), MASS * order.sum())
    return found, found >= max(order[min(enough, order.size - 1)], np.finfo(np.float64).tiny)


def _checked_unit(layer: str, size, unit) -> tuple[int, int]:
    H, W = size
    if unit is None:
        return H // 2, W // 2
    y, x = unit
    if not (0 <= y < H and 0 <= x < W):
        raise UsageError(f"unit: {layer} has {H} rows and {W} columns, expected Y,X from 0,0 to {H - 1},{W - 1}, received {y},{x}")
    return y, x


def _value_of(graph: Graph, layer: str) -> Value:
    made = [v for node in graph.nodes if node.path == layer or node.path.startswith(f"{layer}.") for v in _made(node)]
    maps = [v for v in made if len(v.shape) == 4]
    if not maps or len(made[-1].shape) != 4:
        raise UsageError(f"receptive field: the output of {layer} has no positions; choose a convolution, an activation or a pooling")
    return maps[-1]


def _made(node: Node) -> list[Value]:
    return [v for v in (*node.outputs, *(node.writes_into or ())) if v is not None and v.dtype.kind == "f"]


def _jump(graph: Graph, value: Value, unit, fields) -> tuple[int, int]:
    """Pixels from this unit's field to the next one's, or from the one before it; where there is one unit only, as counted on the way."""
    found = []
    for axis in (0, 1):
        n, at = value.shape[2 + axis], unit[axis]
        if n == 1:
            found.append((fields[value].jump or (1, 1))[axis])
            continue
        first, second = ([(u + (a == axis) * step) for a, u in enumerate(unit)] for step in ((0, 1) if at + 1 < n else (-1, 0)))
        found.append(_intervals(graph, value, second, fields)[axis][0] - _intervals(graph, value, first, fields)[axis][0])
    return tuple(found)


def _intervals(graph: Graph, value: Value, unit, dependent) -> list[tuple[int, int]] | None:
    """First and last element of the input that the unit sees, for both axes; None: all of them."""
    needed = {value: [(n, n) for n in unit]}
    for node in reversed(graph.nodes):
        wanted = [needed[v] for v in _made(node) if v in needed]
        if not wanted:
            continue
        joined = [(min(w[a][0] for w in wanted), max(w[a][1] for w in wanted)) for a in (0, 1)]
        for operand in node.operands():
            if operand not in dependent or operand.dtype.kind != "f":           # parameters, and what is made of them
                continue
            back = _through(node, operand, joined)
            if back is None:
                return None
            old = needed.get(operand, back)
            needed[operand] = [(min(o[0], b[0]), max(o[1], b[1])) for o, b in zip(old, back)]
    return needed.get(graph.inputs[0])


def _through(node: Node, operand: Value, wanted):
    """What of an operand is needed for these elements of a node's output; None where positions are mixed."""
    geometry, made = geometry_of(node), _made(node)[0]
    if geometry is not None:
        if node.primitive.startswith("adaptive"):
            return None
        transposed = isinstance(geometry, ConvGeometry) and node.primitive.endswith("backward_input")
        result = []
        for (low, high), f, s, d, (before, _) in zip(wanted, geometry.kernel_size, geometry.stride, geometry.dilation, geometry.padding):
            reach = d * (f - 1)
            result.append((-(-(low + before - reach) // s), (high + before) // s) if transposed
                          else (low * s - before, high * s - before + reach))
        return result
    if node.primitive == "pad_forward":
        return [(low - before, high - before) for (low, high), (before, _) in zip(wanted, node.arguments[1][-2:])]
    if len(operand.shape) < 2 or len(made.shape) < 2:
        return None
    if node.primitive.startswith("resize2d"):
        return [(int(np.floor((low + 0.5) * n / m - 1)), int(np.ceil((high + 0.5) * n / m)))
                for (low, high), n, m in zip(wanted, operand.shape[-2:], made.shape[-2:])]
    if operand.shape[-2:] != made.shape[-2:] or node.primitive in ("matmul", "linear_forward"):
        return None
    return wanted


def _steps(graph: Graph, value: Value, fields) -> list[tuple]:
    """The windows on the way with the largest field, by following it backwards."""
    maker = {v: node for node in graph.nodes for v in _made(node)}
    steps, at = [], value
    while at in maker:
        node = maker[at]
        geometry = geometry_of(node)
        if geometry is not None:
            steps.append((node.path, node.primitive.removesuffix("_forward"), geometry.kernel_size[0], geometry.stride[0],
                          geometry.dilation[0], fields[at].size[0], fields[at].jump[0]))
        before = [v for v in node.operands() if v in fields]
        if not before:
            break
        at = max(before, key=lambda v: fields[v].size or (0,))
    return steps[::-1]


def field_sheet(model: Module, x: Tensor, picture, layer: str, unit=None, name: str = ""):
    """The field in theory and in effect on the picture, and the facts on it.

    `picture` is a :class:`~numbanet.vision.composition.Cell` of the size of `x`.
    """
    from numbanet.vision.colours import colourise
    from numbanet.vision.composition import ACCENT, Cell, Section, compose
    field = receptive_field(model, x, layer, unit)
    effect, core = effective_field(model, x, layer, unit)
    height, width = effect.shape
    box = field.inside(height, width)
    area = (box[2] - box[0]) * (box[3] - box[1])
    share = int(core.sum()) / area if effect.any() else 0.0
    boxes = [(box, ACCENT)]
    most = np.percentile(effect[effect > 0], 99) if effect.any() else 1.0
    heat = colourise(effect, "heat", 0, most)
    rgb = np.broadcast_to(picture.pixels.reshape(height, width, -1), (height, width, 3))
    dimmed = np.where(core[..., None], rgb, (rgb * 0.25 + 160).astype(np.uint8)).astype(np.uint8)
    size = "the whole picture" if field.size is None else f"{field.size[0]} x {field.size[1]} pixels"
    cells = [Cell(picture.pixels, ("in theory", f"{size}"), picture.smooth, boxes),
             Cell(heat, ("in effect: the gradient's magnitude", "bright: changes the unit most"), False, boxes),
             Cell(dimmed, (f"the pixels that hold {100 * MASS:.0f}% of it", f"{100 * share:.0f}% of the theoretical field"),
                  picture.smooth, boxes)]
    y, x_ = field.unit
    lines = [f"Unit {y},{x_} of {field.shape[1]} x {field.shape[2]}; theoretical field {size}"
             + ("" if field.size is None else f", neighbours {field.jump[0]} pixels apart")]
    if not effect.any():
        lines.append("The gradient is 0 everywhere: every channel is switched off at this unit.")
    if box != field.box:
        lines.append(f"It reaches from row {field.box[0]} to {field.box[2] - 1} and from column {field.box[1]} to {field.box[3] - 1}: "
                     "beyond the picture is padding.")
    facts = {"layer": layer, "shape": list(field.shape), "unit": [y, x_], "field": None if field.size is None else list(field.size),
             "jump": list(field.jump), "box": list(field.box), "effective_pixels": int(core.sum()), "effective_share": share,
             "steps": [dict(zip(("layer", "operation", "taps", "stride", "dilation", "field", "jump"), step)) for step in field.steps]}
    return compose(f"{name or type(model).__name__}: receptive field of {layer}", lines, [Section(cells, "", 3)]), facts
