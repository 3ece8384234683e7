"""The methods by name, and one call for all of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from numbanet._tensor import Tensor
from numbanet.autograd.grad_mode import no_grad
from numbanet.errors import UsageError
from numbanet.nn import Module
from numbanet.vision.cam import GradCAM, GradCAMPlusPlus
from numbanet.vision.colours import colourise
from numbanet.vision.gradients import GuidedBackprop, IntegratedGradients, Saliency, SmoothGrad
from numbanet.vision.layers import evaluating, find_layer, last_maps
from numbanet.vision.occlusion import Occlusion
from numbanet.vision.targets import ClassifierOutputSoftmaxTarget, ClassifierOutputTarget, first_classes

METHODS = ("gradcam", "gradcam++", "saliency", "smoothgrad", "integrated-gradients", "guided", "occlusion")


@dataclass
class Explanation:
    """`map` (H, W) between 0 and 1; `layer` of Grad-CAM; remarks for the reader."""

    method: str
    map: np.ndarray
    layer: str | None
    remarks: list[str]


def explain(model: Module, x: Tensor, method: str = "gradcam", category: int | None = None, layer: str | None = None,
            baseline: Tensor | float = 0.0) -> Explanation:
    """Where a classifier saw a class.

    Parameters
    ----------
    x : Tensor (1, C, H, W)
    method : one of METHODS
    category : int, optional
        Number of the class; by default the most probable.
    layer : str, optional
        Of Grad-CAM: its path; by default where the trunk ends.
    baseline : Tensor or float
        What the absence of a picture is: where integrated gradients start, and what covers in occlusion.

    Raises
    ------
    UsageError
        An unknown method, class or layer; Grad-CAM of a network without convolutions; guided without ReLU.
    """
    if method not in METHODS:
        raise UsageError(f"method: expected one of {', '.join(METHODS)}, received {method!r}")
    if layer is not None and not method.startswith("gradcam"):
        raise UsageError(f"layer: {method} explains by the pixels and has no layer; leave it out, or use gradcam")
    targets, remarks = None if category is None else [ClassifierOutputTarget(category)], []
    if method.startswith("gradcam"):
        layer = last_maps(model, x) if layer is None else layer
        kind = GradCAM if method == "gradcam" else GradCAMPlusPlus
        found = kind(model, [find_layer(model, layer)])(x, targets)
        remarks.append(f"maps of layer {layer}")
        if not found.any():
            remarks.append("nothing in this layer speaks for the class: the map is empty")
    elif method == "integrated-gradients":
        used = IntegratedGradients(model, baseline=baseline)
        attribution = used.attribute(x, targets)
        rise = float(attribution.numpy().sum(dtype=np.float64)) - used.delta[0]
        remarks.append(f"{used.n_steps} steps; the attributions sum to {rise + used.delta[0]:.4g}, the score rises by {rise:.4g}")
        found = used.scaled(attribution)
    elif method == "occlusion":
        used = Occlusion(model, fill=baseline)
        if category is None:
            with evaluating(model), no_grad():
                category, = first_classes(model(x))
        found = used(x, [ClassifierOutputSoftmaxTarget(category)])
        remarks.append("fall of the probability where a square is covered")
    else:
        if method == "guided":
            remarks.append("in part this is the picture itself, whatever the network is")
        found = {"saliency": Saliency, "smoothgrad": SmoothGrad, "guided": GuidedBackprop}[method](model)(x, targets)
    return Explanation(method, found[0], layer, remarks)


def explanation_sheet(found: Explanation, picture, label: str, title: str, lines):
    """The picture, the map over it, and the map alone; class and probability stand below."""
    from numbanet.vision.composition import Cell, Scale, Section, compose
    height, width = found.map.shape
    rgb = np.broadcast_to(picture.pixels.reshape(height, width, -1), (height, width, 3)) / 255
    over = overlay(rgb, found.map, found.method.startswith("gradcam") or found.method == "occlusion")
    cells = [Cell(picture.pixels, ("what the network sees", ""), picture.smooth),
             Cell(over, (label, found.method), picture.smooth),
             Cell(colourise(found.map, "heat", 0, 1), ("the map alone", found.layer or ""), found.layer is not None)]
    return compose(title, [*lines, *(remark[:1].upper() + remark[1:] + "." for remark in found.remarks)],
                   [Section(cells, "", 3, Scale("heat", 0, 1, "for the class"))])


def overlay(rgb: np.ndarray, heat: np.ndarray, areas: bool) -> np.ndarray:
    """A map over a picture (H, W, 3) of values between 0 and 1, as uint8: `areas` tint it, single pixels glow on its dark grey twin."""
    colours, share = colourise(heat, "heat", 0, 1) / 255, heat[..., None]
    if areas:
        share = 0.1 + 0.65 * share
    else:
        rgb = 0.35 * rgb.mean(2, keepdims=True)
    return np.uint8(np.round(255 * (rgb * (1 - share) + colours * share)))
