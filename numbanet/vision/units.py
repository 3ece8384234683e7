"""One unit taken apart: its patch of the input, the kernel, the products, and their sum beside what the engine computed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from numbanet._tensor import Tensor
from numbanet.errors import NumbanetError, UsageError
from numbanet.geometry import ConvGeometry
from numbanet.graph.cost import geometry_of
from numbanet.graph.trace import trace
from numbanet.nn.layers.linear import Linear
from numbanet.vision.layers import Activation

SHOWN = 6           # input channels, or units, that are shown in full: those that add most


@dataclass
class Part:
    """One channel of the input: patch, kernel and products (R, S), NaN where the patch lies beyond the border; and the products' sum."""

    channel: int
    patch: np.ndarray
    kernel: np.ndarray | None
    products: np.ndarray | None
    total: float


@dataclass
class Dissection:
    """How a unit came about.

    Attributes
    ----------
    kind : "convolution", "maximum", "mean", "linear", "pointwise" or "other"
    value : what the engine computed
    parts : the input channels that add most
    rest : the sum of all others, and how many they are
    bias : float
    total : the sum of everything, in double precision; None where nothing is summed
    window : (top, left, rows, columns, dilation) of the patch in the input, or None
    """

    kind: str
    value: float
    parts: list[Part] = field(default_factory=list)
    rest: tuple[float, int] = (0.0, 0)
    bias: float = 0.0
    total: float | None = None
    window: tuple[int, int, int, int, int] | None = None


def dissect(activation: Activation, unit: tuple[int, ...]) -> Dissection:
    """Take a unit apart: (channel, y, x) of maps, (index,) of a vector, for the first image of the batch.

    Raises
    ------
    UsageError
        There is no such unit.
    """
    output = np.asarray(activation.output.detach().numpy())[0]
    if len(unit) != output.ndim or not all(0 <= u < n for u, n in zip(unit, output.shape)):
        raise UsageError(f"unit: {activation.path} has the shape {output.shape}, received {unit}")
    value = float(output[unit])
    source = next((i for i in activation.inputs if isinstance(i, Tensor)), None)
    if source is None or not source.ndim or source.shape[0] != activation.output.shape[0]:
        return Dissection("other", value)
    x = np.asarray(source.detach().numpy())[0].astype(np.float64)
    if x.ndim == 1 and output.ndim == 1 and (linear := _linear(activation.module, x, unit[0], value)) is not None:
        return linear
    found = _window_of(activation)
    if found is not None:
        geometry, weights = found
        if isinstance(geometry, ConvGeometry):
            return _convolution(geometry, weights, x, unit, value)
        return _pooling(geometry, activation.kind, x, unit, value)
    if x.shape == output.shape:
        return Dissection("pointwise", value, [Part(unit[0], x[unit].reshape(1, 1), None, None, float(x[unit]))])
    return Dissection("other", value)


def _window_of(activation: Activation):
    """(geometry, (weight, bias) or None) of a layer that is one window over its input, however it is padded."""
    tensors = [i for i in activation.inputs if isinstance(i, Tensor)]
    if tensors[0].ndim != 4:
        return None
    try:
        nodes = trace(activation.module, tensors).nodes
    except NumbanetError:
        return None
    windows = [node for node in nodes if geometry_of(node) is not None]
    if len(windows) != 1 or any(node.primitive in ("pad_forward", "concatenate") for node in nodes):
        return None
    node, geometry = windows[0], geometry_of(windows[0])
    if not isinstance(geometry, ConvGeometry):
        return geometry, None
    if node.primitive != "conv2d_forward":
        return None
    state = dict(activation.module.named_parameters())
    weight, bias = state.get("weight"), state.get("bias")
    if weight is None:                                      # a node of an imported model takes them as operands
        more = [t for t in tensors[1:]] or getattr(activation.module, "weights", [])
        weight, bias = (*more, None, None)[:2]
    if weight is None or tuple(weight.shape) != geometry.weight_shape:
        return None
    return geometry, tuple(None if t is None else np.asarray(t.detach().numpy(), np.float64) for t in (weight, bias))


def _places(geometry, unit):
    """Row and column of every tap, and which of them lie in the input."""
    places = [u * s - before + d * np.arange(f) for u, s, d, f, (before, _) in zip(
        unit[1:], geometry.stride, geometry.dilation, geometry.kernel_size, geometry.padding)]
    inside = np.logical_and.outer(*[(p >= 0) & (p < n) for p, n in zip(places, geometry.input_size)])
    rows, columns = (np.clip(p, 0, n - 1) for p, n in zip(places, geometry.input_size))
    window = (int(places[0][0]), int(places[1][0]), len(rows), len(columns), geometry.dilation[0])
    return np.ix_(rows, columns), inside, window


def _convolution(geometry, weights, x, unit, value) -> Dissection:
    (weight, bias), (where, inside, window) = weights, _places(geometry, unit)
    per_group = geometry.channels_per_group
    first = unit[0] // geometry.filters_per_group * per_group
    patches = np.where(inside, x[first:first + per_group][(slice(None), *where)], 0)
    products = patches * weight[unit[0]]
    totals = products.sum((1, 2))
    order = np.argsort(-np.abs(totals), kind="stable")
    parts = [Part(int(first + c), np.where(inside, patches[c], np.nan), weight[unit[0], c], products[c], float(totals[c]))
             for c in order[:SHOWN]]
    added = 0.0 if bias is None else float(bias[unit[0]])
    return Dissection("convolution", value, parts, (float(totals[order[SHOWN:]].sum()), len(order[SHOWN:])), added,
                      float(totals.sum()) + added, window)


def _pooling(geometry, kind, x, unit, value) -> Dissection:
    where, inside, window = _places(geometry, unit)
    patch = np.where(inside, x[unit[0]][where], np.nan)
    return Dissection("maximum" if "Max" in kind else "mean", value, [Part(unit[0], patch, None, None, value)], window=window)


def _linear(module, x, unit: int, value) -> Dissection | None:
    """A linear layer of ours, or a Gemm of an imported model; None where the products do not add up to what was computed."""
    if isinstance(module, Linear):
        weight, bias = module.weight, module.bias
    else:
        weight, bias = (*getattr(module, "weights", ()), None, None)[:2]
    if weight is None or weight.ndim != 2 or bias is not None and not bias.numel():
        return None
    matrix = np.asarray(weight.detach().numpy(), np.float64)
    shifts = np.zeros(1) if bias is None else np.asarray(bias.detach().numpy(), np.float64).reshape(-1)
    added = float(shifts[unit % len(shifts)])               # of one element for all units, or one for each
    for candidate in (matrix, matrix.T):                    # a Gemm may hold its weights either way
        if candidate.shape[1] != len(x) or unit >= candidate.shape[0]:
            continue
        row = candidate[unit]
        products = row * x
        total = float(products.sum()) + added
        if not abs(total - value) <= 1e-3 * (1 + float(np.abs(products).sum())):
            continue
        order = np.argsort(-np.abs(products), kind="stable")
        parts = [Part(int(i), x[i].reshape(1, 1), row[i].reshape(1, 1), products[i].reshape(1, 1), float(products[i]))
                 for i in order[:2 * SHOWN]]
        return Dissection("linear", value, parts, (float(products[order[2 * SHOWN:]].sum()), len(order[2 * SHOWN:])), added, total)
    return None
