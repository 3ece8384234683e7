"""What layers make of a picture: their strongest feature maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from numbanet._tensor import Tensor
from numbanet.errors import UsageError
from numbanet.nn import Module
from numbanet.vision.colours import colourise
from numbanet.vision.composition import Cell, Scale, Section, compose, number
from numbanet.vision.layers import Activation, find_layer, is_convolution, record_activations

MOST_MAPS, MOST_OVERVIEW, MOST_LAYERS = 48, 12, 12
UNITS = 64          # of layers without positions, in a row


@dataclass
class Map:
    """A channel's map: its index, (H, W) values, and their range."""

    index: int
    values: np.ndarray

    @property
    def low(self) -> float:
        return float(self.values.min())

    @property
    def high(self) -> float:
        return float(self.values.max())

    @property
    def mean(self) -> float:
        return float(self.values.mean())


def strongest_maps(output: Tensor, most: int = MOST_MAPS) -> list[Map]:
    """The maps of one image (1, C, H, W) with the greatest activation, the strongest first; equal ones in order.

    A map's strength is how far its greatest value lies above its mean, so that maps which are bright everywhere do not win. NaN comes
    first, since that is what one looks for.
    """
    values = output.detach().numpy()[0]
    with np.errstate(invalid="ignore"):
        strength = values.max((1, 2)) - values.mean((1, 2), dtype=np.float64)
    order = np.argsort(np.where(np.isnan(strength), -np.inf, -strength), kind="stable")
    return [Map(int(k), values[k].astype(np.float64)) for k in order[:most]]


def feature_sheet(model: Module, x: Tensor, picture: Cell, path: str | None = None, name: str = "", lines=()):
    """A contact sheet of one layer's strongest maps, or without a path of the strongest maps of all layers, and the facts on it.

    Parameters
    ----------
    x : Tensor (1, C, H, W)
    picture : Cell
        What `x` looks like.
    lines : sequence of str
        Under the title.
    """
    title = f"{name or type(model).__name__}: feature maps" + (f" of {path}" if path else "")
    if path is not None:
        find_layer(model, path)
        activations, _ = record_activations(model, x, {path})
        if not activations:
            raise UsageError(f"features: the network did not run {path}, or it gives no tensor")
        return _one_layer(activations[-1], picture, title, lines)
    activations, _ = record_activations(model, x)
    maps = [a for a in activations if a.is_map]
    if not maps:
        raise UsageError(f"features: no layer of {type(model).__name__} gives maps with positions; name a layer with --layer")
    return _overview(_chosen(maps), len(maps), picture, title, lines)


def _one_layer(activation: Activation, picture, title, lines):
    output = activation.output
    shape = " x ".join(map(str, output.shape[1:]))
    lines = [*lines, f"{activation.kind}, output {shape}"]
    if not activation.is_map:
        return _vector(activation, picture, title, lines)
    found = strongest_maps(output)
    low, high = min(m.low for m in found), max(m.high for m in found)
    colours = "signed" if low < 0 else "maps"
    ends = (-max(-low, high), max(-low, high)) if low < 0 else (low, high)
    cells = [Cell(colourise(m.values, colours, *ends), (f"map {m.index}", f"{number(m.low)} to {number(m.high)}")) for m in found]
    columns = 8 if len(found) > 12 else 6
    text = _how_many(len(found), output.shape[1])
    sections = [Section([picture], "input", 4, longest=280), Section(cells, text, columns, Scale(colours, *ends, "activation"))]
    return compose(title, lines, sections), _facts(activation, found)


def _overview(chosen, there: int, picture, title, lines):
    sections, facts = [Section([picture], "input", 4, longest=240)], []
    for activation in chosen:
        found = strongest_maps(activation.output, MOST_OVERVIEW)
        low, high = min(m.low for m in found), max(m.high for m in found)
        colours = "signed" if low < 0 else "maps"
        ends = (-max(-low, high), max(-low, high)) if low < 0 else (low, high)
        cells = [Cell(colourise(m.values, colours, *ends), (f"map {m.index}", f"{number(m.low, 2)} to {number(m.high, 2)}")) for m in found]
        shape = " x ".join(map(str, activation.output.shape[1:]))
        sections.append(Section(cells, f"{activation.path}  {activation.kind}, {shape}", MOST_OVERVIEW, Scale(colours, *ends),
                                longest=120))
        facts.append(_facts(activation, found))
    more = f"; {len(chosen)} of {there} layers with maps" if len(chosen) < there else ""
    lines = [*lines, f"The strongest maps of each layer, the strongest at the left{more}. Below each: its index and range."]
    return compose(title, lines, sections), facts


def _vector(activation, picture, title, lines):
    """A layer without positions: its units as bars."""
    values = np.asarray(activation.output.detach().numpy(), np.float64)[0].reshape(-1)
    order = np.argsort(-values, kind="stable")[:UNITS]
    shown = np.sort(order)
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    bars = np.full((160, len(shown) * 16, 3), 255, np.uint8)
    span = (high - low) or 1.0
    zero = round(159 * high / span)
    for i, k in enumerate(shown):
        end = round(159 * (high - values[k]) / span)
        top, bottom = sorted((zero, end))
        bars[top:bottom + 1, i * 16 + 2:i * 16 + 14] = (31, 107, 182) if values[k] >= 0 else (214, 96, 30)
    bars[zero] = 90
    best = ", ".join(f"{k} ({number(values[k])})" for k in order[:8])
    text = f"units {shown[0]} to {shown[-1]}" if len(shown) == len(values) else f"the {len(shown)} strongest of {len(values)} units"
    sections = [Section([picture], "input", 4, longest=280),
                Section([Cell(bars)], f"{text}, from {number(low)} to {number(high)}", 1, longest=1152, notes=(f"Strongest: {best}",))]
    return compose(title, lines, sections), {"layer": activation.path, "kind": activation.kind, "shape": list(activation.output.shape[1:]),
                                             "units": [{"index": int(k), "value": float(values[k])} for k in order]}


def _chosen(maps: list[Activation]) -> list[Activation]:
    """At most MOST_LAYERS, the first and the last among them, evenly spread over those that end a step: activations, poolings, sums."""
    if len(maps) <= MOST_LAYERS:
        return maps
    ends = [a for a in maps if not is_convolution(a.module) and "Norm" not in a.kind]
    maps = ends if len(ends) >= MOST_LAYERS // 2 else maps
    return [maps[i] for i in np.unique(np.linspace(0, len(maps) - 1, min(len(maps), MOST_LAYERS)).round().astype(int))]


def _facts(activation, found) -> dict:
    return {"layer": activation.path, "kind": activation.kind, "shape": list(activation.output.shape[1:]),
            "maps": [{"index": m.index, "minimum": m.low, "maximum": m.high, "mean": m.mean} for m in found]}


def _how_many(shown: int, there: int) -> str:
    return f"all {there} maps, the strongest first" if shown == there else f"the {shown} strongest of {there} maps"
