"""The kernels of a convolution as pictures."""

from __future__ import annotations

import numpy as np

from numbanet.errors import UsageError
from numbanet.nn import Module
from numbanet.nn.layers.convolution import Conv2d
from numbanet.vision.colours import colourise, limits
from numbanet.vision.composition import Cell, Scale, Section, compose, number
from numbanet.vision.layers import find_layer, is_convolution

MOST = 96                   # filters on a sheet
MOST_COLUMNS, MOST_ROWS = 16, 16     # of a matrix of filters and channels


def convolutions(model: Module) -> dict[str, np.ndarray]:
    """Path and kernels (K, C / groups, R, S) of every convolution over planes."""
    found = {name: module.weight.detach().numpy() for name, module in model.named_modules() if isinstance(module, Conv2d)}
    for name, module in model.named_modules():
        weights = getattr(module, "weights", ())        # of a node of an imported ONNX model
        if is_convolution(module) and weights and weights[0].ndim == 4:
            found[name] = weights[0].detach().numpy()
    return found


def kernels_of(model: Module, path: str | None = None) -> tuple[str, np.ndarray]:
    """The path and the kernels (K, C / groups, R, S) of a convolution, by default of the first.

    Raises
    ------
    UsageError
        The network has no convolution, the path does not exist, or it names another kind of layer.
    """
    known = convolutions(model)
    if not known:
        raise UsageError(f"filters: expects a network with convolutions, {type(model).__name__} has none")
    if path is None:
        path = next(iter(known))
    if path not in known:
        module = find_layer(model, path)
        inside = [name for name in known if name.startswith(f"{path}.")]
        where = inside or list(known)
        raise UsageError(f"filters: {path} is a {module._get_name()}, which has no kernels of its own; expected a convolution, such as "
                         f"{', '.join(where[:4])}")
    return path, known[path]


def filter_sheet(model: Module, path: str | None = None, name: str = "", blue_first: bool = False):
    """A contact sheet of a layer's filters, and the facts on it.

    Kernels over three channels are shown in colour, kernels over one in blue and red; of others every channel is a picture of its own, and
    1x1 kernels are one picture, the matrix that they are. `blue_first`: the network's first channel is blue.
    """
    path, kernels = kernels_of(model, path)
    K, C, R, S = kernels.shape
    norms = np.sqrt((kernels.astype(np.float64) ** 2).sum((1, 2, 3)))
    title = f"{name or type(model).__name__}: filters of {path}"
    lines = [f"{K} filters of {C} channel{'s' * (C > 1)}, {R} x {S}; {kernels.size:,} weights from {number(float(kernels.min()))} to "
             f"{number(float(kernels.max()))}"]
    signed = limits(kernels, "signed")
    scale = Scale("signed", *signed, "weight")
    if R == S == 1 and C > 1:
        sections = _matrix_of_points(kernels[:, :, 0, 0], signed, scale)
    elif C in (1, 3):
        sections = _one_cell_a_filter(kernels[:, ::-1] if blue_first else kernels, norms, signed, scale)
    else:
        sections = _filters_by_channels(kernels, norms, signed, scale)
    facts = {"layer": path, "shape": [K, C, R, S], "minimum": float(kernels.min()), "maximum": float(kernels.max()),
             "norms": [float(n) for n in norms]}
    return compose(title, lines, sections), facts


def _one_cell_a_filter(kernels, norms, signed, scale):
    K, C = kernels.shape[:2]
    shown = _strongest(norms, MOST)
    low, high = float(kernels.min()), float(kernels.max())
    cells = []
    for k in shown:
        if C == 3:
            share = (kernels[k].transpose(1, 2, 0) - low) / ((high - low) or 1)
            pixels = np.clip(np.round(255 * share), 0, 255).astype(np.uint8)
        else:
            pixels = colourise(kernels[k, 0], "signed", *signed)
        cells.append(Cell(pixels, (f"{k}", f"norm {number(norms[k])}") if len(shown) <= 32 else (f"{k}",),
                          numbers=kernels[k, 0] if C == 1 and len(shown) <= 16 else None))
    heading = _how_many(len(shown), K, "filter") + (" in colour; grey is 0" if C == 3 else "")
    if C == 3 and abs(low + high) > 0.2 * (high - low):
        heading = heading.replace("; grey is 0", f", black is {number(low)}, white {number(high)}")
    columns = next(n for most, n in ((8, 4), (18, 6), (40, 8), (MOST, 12)) if len(shown) <= most)
    return [Section(cells, heading, columns, scale if C == 1 else None)]


def _filters_by_channels(kernels, norms, signed, scale):
    """A column for each filter, a row for each channel."""
    K, C = kernels.shape[:2]
    shown = _strongest(norms, MOST_COLUMNS)
    by_channel = np.sqrt((kernels[shown].astype(np.float64) ** 2).sum((0, 2, 3)))
    channels = _strongest(by_channel, MOST_ROWS)
    cells = [Cell(colourise(kernels[k, c], "signed", *signed), (f"{k} / {c}",)) for c in channels for k in shown]
    heading = f"{_how_many(len(shown), K, 'filter')} in columns, {_how_many(len(channels), C, 'channel')} in rows"
    return [Section(cells, heading, len(shown), scale, longest=120, notes=("Below each kernel: filter / channel.",))]


def _matrix_of_points(matrix, signed, scale):
    K, C = matrix.shape
    text = f"1 x 1 kernels are a matrix: {K} filters downwards, {C} channels to the right"
    return [Section([Cell(colourise(matrix, "signed", *signed))], text, 1, scale, longest=1100)]


def _strongest(norms: np.ndarray, most: int) -> list[int]:
    """All in order, or the indices of the greatest, in order."""
    return sorted(int(i) for i in np.argsort(-norms, kind="stable")[:most])


def _how_many(shown: int, there: int, what: str) -> str:
    return f"all {there} {what}s" if shown == there else f"the {shown} strongest of {there} {what}s"
